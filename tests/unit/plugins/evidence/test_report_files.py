# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The report's files: the page, CSV, signatures, the folder of each report and the link to the last."""

from __future__ import annotations

import csv
import hashlib
import html.parser
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_answers import NOW, device, held, many, reading, trail

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._report import out, page, report, sign

NASTY = "</script><img src=x onerror=alert(1)><!--\u2028&amp;'\""


def made(hosts: dict[str, Any], **more: Any) -> dict[str, Any]:
    sources = report.Sources(list(hosts), hosts, **more)
    return report.build(sources, NOW, "tester " + NASTY, 86400)


@pytest.fixture
def fleet() -> dict[str, Any]:
    gone = {"unreachable": True, "msg": "no route"}
    return made({"a": reading(device(), device("0000:3b:00.0", "off")), "b": reading(held()), "c": gone})


class Elements(html.parser.HTMLParser):
    """The elements of a page, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def test_nothing_that_a_host_says_becomes_markup() -> None:
    hosts = {NASTY: reading(device(name=NASTY, driver=NASTY)), "b": {"unreachable": True, "msg": NASTY}}
    changes = trail(
        {"event": NASTY, "number": 1, "time": NASTY, "asked": {"by": NASTY}, "reason": NASTY, "devices": []}
    )
    text = page.page(made(hosts, trails={"b": changes}, cluster=NASTY, cluster_problem=NASTY))
    found, plain = Elements(text), Elements(page.page(made({"a": reading(device()), "b": {}})))
    assert len(found.scripts) == 2
    assert [tag for tag, _attributes in found.starts if tag in ("img", "script")] == ["script", "script"]
    assert {tag for tag, _attributes in found.starts} == {tag for tag, _attributes in plain.starts}
    tables = json.loads(found.scripts[0])["tables"]
    assert tables["devices"]["rows"][0][0] == NASTY
    assert NASTY not in text


def test_the_page_needs_nothing_else_and_lets_nothing_else_run(fleet: dict[str, Any]) -> None:
    text = page.page(fleet)
    elements = Elements(text)
    assert not [tag for tag, attributes in elements.starts if {"src", "srcset"} & attributes.keys() or tag == "link"]
    assert not [each for _tag, each in elements.starts if any(name.startswith("on") for name in each)]
    assert "http://" not in text
    assert "https://" not in text
    (policy,) = [
        each["content"] for tag, each in elements.starts if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert page._hash(elements.scripts[1]) in policy


def test_the_csv_has_a_line_for_each_device_and_no_formula(fleet: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(out.table(fleet["devices"]))))
    assert [(one["host"], one["address"], one["verdict"], one["mode"]) for one in rows] == [
        ("a", "0000:17:00.0", "protected", "on"),
        ("a", "0000:3b:00.0", "unprotected", "off"),
        ("b", "0000:17:00.0", "unknown", ""),
        ("c", "", "unknown", ""),
    ]
    assert rows[2]["holders"] == "qemu-system-x86 (4711, /dev/vfio/27)"
    for text in ("=1+1", "+1", "-1", "@x", "\t=1"):
        (one,) = csv.DictReader(io.StringIO(out.table([{"host": text}])))
        assert one["host"] == "'" + text


def test_each_report_has_a_folder_and_latest_leads_to_the_last(tmp_path: Path, fleet: dict[str, Any]) -> None:
    first, second = (out.write(fleet, str(tmp_path), "") for _report in range(2))
    assert [Path(one).name for one in (first, second)] == ["20261127T060000Z", "20261127T060000Z-2"]
    assert (tmp_path / "latest").resolve() == Path(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == [Path(first).name, Path(second).name, "latest"]
    for line in (tmp_path / "latest/SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "latest" / name).read_bytes()).hexdigest() == digest
    previous, about = out.previous(str(tmp_path / "latest/report.json"))
    assert previous == json.loads(json.dumps(fleet))
    assert about["sha256"] == hashlib.sha256((tmp_path / "latest/report.json").read_bytes()).hexdigest()


def test_a_previous_report_that_is_none_is_refused(tmp_path: Path) -> None:
    assert out.previous(str(tmp_path / "none.json")) == (None, {})
    for content in ("", "[]", '{"format": "another"}', "{"):
        (tmp_path / "odd.json").write_text(content)
        with pytest.raises(out.BadPrevious):
            out.previous(str(tmp_path / "odd.json"))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, fleet: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExplainedError, match="cannot be written"):
        out.write(fleet, str(tmp_path / "file"), "")
    with pytest.raises(InvalidRequest, match="no key"):
        out.write(fleet, str(tmp_path / "reports"), str(tmp_path / "no-key"))
    assert not (tmp_path / "reports").exists()


# --- signatures -------------------------------------------------------------------------------------------------------


def new_key(path: Path, passphrase: str = "") -> str:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "auditor", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return str(path)


def verified(folder: Path, allowed: Path) -> bool:
    """As docs/evidence.md says it."""
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "auditor", "-n", sign.NAMESPACE]
    command += ["-s", str(folder / "SHA256SUMS.sig")]
    with (folder / "SHA256SUMS").open("rb") as content:
        signed = subprocess.run(command, stdin=content, capture_output=True, check=False)
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    sums = subprocess.run(check, cwd=folder, capture_output=True, check=False)
    return signed.returncode == sums.returncode == 0


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen: apt install openssh-client")
def test_a_signed_report_verifies_until_a_byte_of_it_changes(tmp_path: Path, fleet: dict[str, Any]) -> None:
    key = new_key(tmp_path / "key")
    allowed = tmp_path / "allowed_signers"
    allowed.write_text("auditor " + Path(key + ".pub").read_text())
    folder = Path(out.write(fleet, str(tmp_path / "reports"), key))
    assert verified(folder, allowed)
    for name in ("report.html", "report.json", "report.csv", "anchors.json", "SHA256SUMS"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert not verified(folder, allowed), name
        (folder / name).write_bytes(content)
    allowed.write_text("auditor " + Path(new_key(tmp_path / "other") + ".pub").read_text())
    assert not verified(folder, allowed)


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen: apt install openssh-client")
def test_a_key_that_cannot_sign_leaves_no_report(tmp_path: Path, fleet: dict[str, Any]) -> None:
    for key in (new_key(tmp_path / "locked", "secret"), str(tmp_path / "odd")):
        (tmp_path / "odd").write_text("no key")
        with pytest.raises(sign.NotSigned, match="ssh-keygen -Y sign failed"):
            out.write(fleet, str(tmp_path / "reports"), key)
    assert list((tmp_path / "reports").iterdir()) == []


def test_a_large_fleet_is_small_enough_to_open() -> None:
    text = page.page(made(many(1250)))
    assert len(text.encode()) < 4_000_000
