# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The client against the emulated API: every fault is told apart, lists are whole, secrets stay hidden."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator

from ansible_collections.confidential.gpu.plugins.module_utils._bmm import errors
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Call, Client, segment
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.credentials import token_source
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.existence import look
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.settings import Settings
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest

Connect = Callable[..., Client]
FOREVER = "forever"


def paths(emulator: Emulator) -> list[object]:
    return [request["path"] for request in emulator.requests]


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_list_is_whole_and_costs_one_request_per_hundred(emulator: Emulator, connect: Connect) -> None:
    found = connect().instances()
    assert [one["name"] for one in found] == ["gone", *("gpu-%03d" % number for number in range(250))]
    assert paths(emulator) == ["instance"] * 3


def test_a_filter_of_several_values_means_any_of_them(emulator: Emulator, connect: Connect) -> None:
    emulator.alter("instance", "gpu-007", {"status": "Repairing"})
    found = connect().instances([("status", "Repairing"), ("status", "Terminated")])
    assert [one["name"] for one in found] == ["gone", "gpu-007"]


def test_pages_in_any_order_give_the_same_list(emulator: Emulator, connect: Connect) -> None:
    whole = connect().instances()
    emulator.add_faults([{"action": "shuffle", "times": FOREVER}])
    assert connect().instances() == whole


def test_a_short_page_ends_nothing(emulator: Emulator, connect: Connect) -> None:
    class Short(Client):
        """Asks for pages of 20, as if the server gave no more whatever is asked for."""

        def _call(self, method: str, path: str, query: Any = (), **more: Any) -> Any:  # type: ignore[override]
            short = [(key, "20" if key == "pageSize" else value) for key, value in query]
            return super()._call(method, path, short, **more)

    client = connect(kind=Short)
    assert len(client.instances()) == 251
    assert len(paths(emulator)) == 13


def test_a_list_without_a_total_ends_at_a_short_page(emulator: Emulator, connect: Connect) -> None:
    emulator.add_faults([{"action": "no_pagination", "times": FOREVER}])
    assert len(connect().instances()) == 251


def test_the_first_page_again_and_again_is_no_list(emulator: Emulator, connect: Connect) -> None:
    emulator.add_faults([{"action": "one_page", "times": FOREVER}])
    with pytest.raises(errors.ListIncomplete, match="of 251 records the pages held 100"):
        connect().instances()
    emulator.add_faults([{"action": "no_pagination", "times": FOREVER}])
    with pytest.raises(errors.BrokenAnswer, match="nothing new"):
        connect().instances()


def test_a_page_that_fails_fails_the_list(emulator: Emulator, connect: Connect) -> None:
    emulator.add_faults([{"action": "status", "status": 403, "nth": 3, "times": FOREVER}])
    with pytest.raises(errors.NotAllowed):
        connect().instances()


def test_a_proxy_that_takes_no_queries_gives_one_page(connect: Connect) -> None:
    with launch({"api": "forge", "instances": [{"name": "n-{n}", "count": 20}]}) as small:
        client = connect(endpoint=small.url, api="forge")
        assert len(client.instances([("status", "Ready")])) == 20
        small.add_instance({"name": "one-more"})
        with pytest.raises(errors.ListIncomplete, match="of 21 records the pages held 20"):
            client.instances()


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"action": "status", "status": 400}, errors.Refused, "the emulator was told to fail"),
        ({"action": "status", "status": 401}, errors.NotAuthenticated, "token"),
        ({"action": "status", "status": 403}, errors.NotAllowed, "TENANT_ADMIN"),
        ({"action": "status", "status": 404}, errors.NotFound, "no such thing"),
        ({"action": "status", "status": 404, "envelope": False}, errors.NoSuchRoute, "API name"),
        ({"action": "no_route"}, errors.NoSuchRoute, "API name"),
        ({"action": "rate_limit"}, errors.RateLimited, "ask less often"),
        ({"action": "status", "status": 500}, errors.ServerFailed, "500"),
        ({"action": "status", "status": 503, "envelope": False}, errors.ServerFailed, "503"),
        ({"action": "html"}, errors.NotTheApi, "a web page"),
        ({"action": "html", "status": 404}, errors.NoSuchRoute, "no such path"),
        ({"action": "html", "status": 502}, errors.ServerFailed, "502"),
        ({"action": "status", "status": 302}, errors.NotTheApi, "a redirection"),
        ({"action": "broken"}, errors.BrokenAnswer, "no JSON"),
        ({"action": "reset"}, errors.Unreachable, "broke"),
        ({"action": "cut"}, errors.Unreachable, "broke"),
        ({"action": "hang", "seconds": 5}, errors.TimedOut, "in time"),
    ],
)
def test_each_fault_is_told_apart(
    emulator: Emulator, connect: Connect, fault: dict[str, Any], kind: type[errors.ApiError], words: str
) -> None:
    its_id = connect().instances()[0]["id"]
    emulator.add_faults([{**fault, "times": FOREVER}])
    timeout_s = 0.1 if fault["action"] == "hang" else 5.0
    client = connect(deadline_s=timeout_s, timeout_s=timeout_s)
    with pytest.raises(errors.ApiError) as caught:
        client.instance(its_id)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.remedy
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 500},
        {"action": "status", "status": 503},
        {"action": "rate_limit"},
        {"action": "broken"},
        {"action": "reset"},
        {"action": "cut"},
    ],
    ids=lambda fault: str(fault.get("status", fault["action"])),
)
def test_what_passes_is_retried(emulator: Emulator, connect: Connect, clock: Any, fault: dict[str, Any]) -> None:
    emulator.add_faults([{**fault, "times": 3}])
    calls: list[Call] = []
    assert connect(calls.append).tenant()["org"] == "acme"
    assert len(calls) == 4
    assert len(set(clock.sleeps)) == 3, "pauses have jitter"
    assert all(0 < pause <= 20 for pause in clock.sleeps)


def test_what_does_not_pass_is_not_retried(emulator: Emulator, connect: Connect, clock: Any) -> None:
    emulator.add_faults([{"action": "status", "status": 403, "times": FOREVER}])
    with pytest.raises(errors.NotAllowed):
        connect().tenant()
    assert clock.sleeps == []
    assert len(emulator.requests) == 1


def test_retries_end_at_the_deadline(emulator: Emulator, connect: Connect, clock: Any) -> None:
    emulator.add_faults([{"action": "status", "status": 500, "times": FOREVER}])
    with pytest.raises(errors.ServerFailed, match=r"\(\d+ tries\)"):
        connect(deadline_s=60.0).instances()
    assert 30 < clock.now() <= 60


def test_the_server_says_how_long_to_wait(emulator: Emulator, connect: Connect, clock: Any) -> None:
    emulator.add_faults([{"action": "rate_limit", "seconds": 33}])
    connect().tenant()
    assert clock.sleeps == [33.0]


def test_a_slow_drip_ends_at_the_deadline(emulator: Emulator, connect: Connect) -> None:
    emulator.add_faults([{"action": "delay", "seconds": 2, "times": FOREVER}])
    with pytest.raises(errors.TimedOut):
        connect(timeout_s=0.1, deadline_s=0.1).tenant()


def test_nobody_listens(connect: Connect) -> None:
    with pytest.raises(errors.Unreachable, match="cannot be reached"):
        connect(endpoint="http://127.0.0.1:1", deadline_s=0.1).tenant()


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_and_a_dead_one_is_replaced(emulator: Emulator, connect: Connect) -> None:
    client = connect()
    client.instances()
    emulator.add_faults([{"action": "reset"}])
    calls: list[Call] = []
    client._observe = calls.append
    client.tenant()
    assert len(calls) == 1, "the new connection is no retry that anybody waits for"


def test_threads_share_a_client(emulator: Emulator, connect: Connect) -> None:
    client = connect(token_url=emulator.url + "/oidc/token", client_id="ci", client_secret="s3cr3t")
    failed: list[Exception] = []

    def work() -> None:
        try:
            assert len(client.instances()) == 251
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert emulator.tokens_given == 1, "one fetches the token, the others wait"


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_renewed_before_it_expires(emulator: Emulator, connect: Connect, clock: Any) -> None:
    client = connect(token_url=emulator.url + "/oidc/token", client_id="ci", client_secret="s3cr3t")
    client.tenant()
    clock.sleep(230)
    client.tenant()
    assert emulator.tokens_given == 1
    clock.sleep(20)
    client.tenant()
    assert emulator.tokens_given == 2
    assert {request["status"] for request in emulator.requests} == {200}


def test_the_old_token_does_while_the_token_server_is_away(emulator: Emulator, connect: Connect, clock: Any) -> None:
    client = connect(token_url=emulator.url + "/oidc/token", client_id="ci", client_secret="s3cr3t")
    client.tenant()
    emulator.add_faults([{"action": "status", "status": 503, "path": "oidc/token", "times": FOREVER}])
    clock.sleep(250)
    client.tenant()
    clock.sleep(60)
    with pytest.raises(errors.TokenServerFailed, match="answered 503"):
        client.tenant()


def test_a_token_that_expired_early_is_renewed_once(emulator: Emulator, connect: Connect) -> None:
    client = connect(token_url=emulator.url + "/oidc/token", client_id="ci", client_secret="s3cr3t")
    client.tenant()
    emulator.add_faults([{"action": "expire_tokens"}])
    client.tenant()
    assert emulator.tokens_given == 2
    emulator.add_faults([{"action": "status", "status": 401, "times": FOREVER}])
    with pytest.raises(errors.NotAuthenticated):
        client.tenant()
    assert emulator.tokens_given == 3


def test_a_key_is_exchanged_and_one_of_the_new_kind_is_not(emulator: Emulator, connect: Connect, clock: Any) -> None:
    assert connect(ngc_key="key-1", token_url=emulator.url + "/ngc/token").tenant()["org"] == "acme"
    assert token_source({"ngc_key": "nvapi-abc"}, clock=clock).token().reveal() == "nvapi-abc"
    with pytest.raises(errors.NoToken, match="refuses the credentials"):
        connect(ngc_key="key-2", token_url=emulator.url + "/ngc/token").tenant()


def test_a_token_file_is_read_anew(emulator: Emulator, connect: Connect, tmp_path: Path) -> None:
    file = tmp_path / "token"
    client = connect(token_file=str(file))
    with pytest.raises(errors.NoToken, match="ENOENT"):
        client.tenant()
    file.write_text("old")
    with pytest.raises(errors.NotAuthenticated):
        client.tenant()
    file.write_text("emulated\n")
    assert client.tenant()["org"] == "acme"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "No way to a token"),
        ({"token": "a", "token_file": "b"}, "Several ways"),
        ({"client_secret": "a"}, "token_url"),
        ({"client_secret": "a", "token_url": "https://x"}, "client_id"),
        ({"ngc_key": "a"}, "token_url"),
        ({"client_secret": "a", "token_url": "https://x", "client_id": "c", "username": "u"}, "password"),
        ({"client_secret": "a", "token_url": "http://x.example", "client_id": "c"}, "clear text"),
        ({"token": "two words"}, "no token"),
    ],
)
def test_credentials_that_cannot_be_used(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        token_source(given)


def test_no_secret_is_ever_shown(emulator: Emulator, connect: Connect) -> None:
    secret, token = "pa55word", "t0ken-of-mine"
    client = connect(token_url=emulator.url + "/oidc/token", client_id="ci", client_secret=secret)
    with pytest.raises(errors.NoToken) as refused:
        client.tenant()
    other = connect(token=token)
    emulator.add_faults([{"action": "status", "status": 400, "message": "what is %s?" % token}])
    with pytest.raises(errors.Refused) as echoed:
        other.tenant()
    assert "what is ********?" in str(echoed.value)
    for error in (refused.value, echoed.value):
        shown = "%r %s %s %s" % (error, error, error.as_dict(), error.__cause__)
        assert secret not in shown
        assert token not in shown
    assert token not in "%r %s" % (other._tokens.token(), vars(other))


# --- settings and ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"endpoint": ""}, "no address"),
        ({"endpoint": "ftp://x"}, "no address"),
        ({"endpoint": "https://x:port"}, "no address"),
        ({"endpoint": "https://user:pass@x"}, "credentials have settings"),
        ({"endpoint": "http://bmm.example.com"}, "clear text"),
        ({"org": "a/b"}, "organisation"),
        ({"api": "other"}, "carbide"),
        ({"ca_file": "/nowhere"}, "not there"),
        ({"timeout_s": 0.0}, "seconds"),
    ],
)
def test_settings_that_cannot_be_used(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Settings("https://x", "acme")._replace(**change).checked()


@pytest.mark.parametrize("its_id", ["", ".", "..", "a\nb"])
def test_an_id_is_no_path(connect: Connect, its_id: str) -> None:
    with pytest.raises(InvalidRequest):
        connect().instance(its_id)
    assert segment("../site") == "..%2Fsite"


def test_an_endpoint_may_have_a_path_and_the_api_an_older_name(connect: Connect) -> None:
    assert Settings("https://x/proxy/", "acme", "carbide").base == "/proxy/v2/org/acme/carbide"
    with launch({"api": "carbide"}) as old:
        assert connect(endpoint=old.url, api="carbide").metadata()["version"] == "2.0.0"
        with pytest.raises(errors.NoSuchRoute):
            connect(endpoint=old.url).metadata()


# --- writes ----------------------------------------------------------------------------------------------------------


def test_labels_are_replaced_and_a_retry_does_no_harm(emulator: Emulator, connect: Connect) -> None:
    client = connect()
    its_id = emulator.instance("gpu-000")["id"]
    emulator.add_faults([{"action": "status", "status": 500, "method": "PATCH"}])
    assert client.set_labels(its_id, {"a": "b"})["labels"] == {"a": "b"}
    assert emulator.instance("gpu-000")["labels"] == {"a": "b"}
    with pytest.raises(errors.Refused, match="labels"):
        client.set_labels(its_id, {str(number): "" for number in range(11)})


@pytest.mark.parametrize("action", ["reset", "cut", "hang"])
def test_a_reboot_that_may_have_begun_is_not_asked_for_again(emulator: Emulator, connect: Connect, action: str) -> None:
    client = connect(timeout_s=0.5)
    its_id = emulator.instance("gpu-000")["id"]
    client.instance(its_id)
    emulator.forget_requests()
    emulator.add_faults([{"action": action, "method": "PATCH", "times": FOREVER}])
    with pytest.raises((errors.Unreachable, errors.TimedOut)):
        client.reboot(its_id)
    assert len(emulator.requests) == 1


def test_a_reboot_that_was_refused_for_its_rate_is_asked_for_again(emulator: Emulator, connect: Connect) -> None:
    emulator.add_faults([{"action": "rate_limit", "method": "PATCH"}])
    its_id = emulator.instance("gpu-000")["id"]
    assert connect().reboot(its_id)["status"] == "Rebooting"


# --- proof of absence ------------------------------------------------------------------------------------------------


def test_gone_is_only_what_is_proven(emulator: Emulator, connect: Connect) -> None:
    client = connect()
    tenant = client.tenant()["id"]
    there, gone = emulator.instance("gpu-000"), emulator.instance("gone")
    assert not look(client, there["id"], tenant).gone
    assert look(client, gone["id"], tenant).gone
    emulator.remove_instance("gpu-000")
    assert look(client, there["id"], tenant, there["siteId"]).gone
    with pytest.raises(errors.ApiError, match="belongs to tenant"):
        look(client, there["id"], "another tenant")
    with pytest.raises(errors.ApiError):
        look(client, there["id"], "")
    with pytest.raises(errors.NotFound):
        look(client, there["id"], tenant, "no site")
    with pytest.raises(errors.NotAllowed):
        look(client, emulator.instance("alien")["id"], tenant)


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 401},
        {"action": "status", "status": 403},
        {"action": "status", "status": 404},
        {"action": "status", "status": 404, "envelope": False},
        {"action": "status", "status": 500},
        {"action": "no_route"},
        {"action": "html"},
        {"action": "html", "status": 404},
        {"action": "broken"},
        {"action": "reset"},
        {"action": "rate_limit"},
    ],
)
@pytest.mark.parametrize("path", ["instance/*", "tenant/current", "*"])
def test_no_fault_proves_anything(emulator: Emulator, connect: Connect, fault: dict[str, Any], path: str) -> None:
    client = connect(deadline_s=2.0)
    tenant = client.tenant()["id"]
    its_id = emulator.instance("gpu-000")["id"]
    emulator.remove_instance("gpu-000")
    emulator.add_faults([{**fault, "path": path, "times": FOREVER}])
    with pytest.raises(errors.ApiError):
        look(client, its_id, tenant)


def test_random_pauses_need_no_seed(emulator: Emulator) -> None:
    client = Client(Settings(emulator.url, "acme"), token_source({"token": "emulated"}), rng=random.Random())
    assert client.site(emulator.instance("gpu-000")["siteId"])["name"] == "sjc4"
    client.close()
