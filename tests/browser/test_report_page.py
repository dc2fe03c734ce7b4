# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The report's page in a real browser: what is shown, sorted, filtered, printed and read out, and how long that takes.

Pictures for looking at are left in tests/output/report.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import RegisteredInfo
from ansible_collections.confidential.gpu.plugins.module_utils._report import page, report

from .chromium import FRAME, Page, opened

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/unit/plugins/evidence"))
from report_answers import NOW, change, device, held, many, node, published, readiness, reading, trail  # noqa: E402

PICTURES = ROOT / "tests/output/report"
NASTY = "rack</script><img src=x onerror=alert(1)>"
BOX = "document.querySelector('#devices input')"
# Of a processor, from a click to the frame that shows its effect.
LIMIT_MS = 250


def typed(words: str) -> str:
    return f"{BOX}.value = {words!r}; {BOX}.dispatchEvent(new Event('input'));"


def click(column: str) -> str:
    return (
        "[...document.querySelectorAll('#devices thead button')]"
        f".find((one) => one.textContent.startsWith({column!r})).click();"
    )


def column(number: int) -> str:
    return f"[...document.querySelectorAll('#devices tbody tr')].map((row) => row.children[{number}].textContent)"


def small() -> dict[str, Any]:
    """Each kind of row."""
    broken = {"cause": "0000:6e:00.0: the firmware did not boot within 30 s.", "remedy": "Reset the host."}
    hosts: dict[str, RegisteredInfo] = {
        "gpu-1": reading(
            device(),
            held("0000:3b:00.0"),
            device("0000:4c:00.0", pending_mode="off"),
            device("0000:5d:00.0", "devtools"),
            device("0000:6e:00.0", None, problem=broken),
        ),
        "gpu-2": reading(device(mode="off")),
        NASTY: {"unreachable": True, "msg": f"No route to {NASTY}"},
    }
    before = report.build(report.Sources(list(hosts), {**hosts, "gpu-2": reading(device())}), NOW, "auditor", 86400)
    finding = {"file": "operand.jsonl", "line": 3, "number": 3, "what": "modified", "text": "It was changed."}
    sources = report.Sources(
        list(hosts),
        hosts,
        {"gpu-1": readiness(), "gpu-2": readiness("iommu", "command_line")},
        {"gpu-1": trail(change("0000:3b:00.0", "on")), "gpu-2": trail(state="broken", findings=[finding])},
        nodes=(node("worker-1", {"0000:17:00.0": published()}),),
        cluster="prod",
    )
    return report.build(sources, NOW, "auditor", 86400, before, {"made_at": NOW, "sha256": "5f" * 32})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hosts = many(1250)
    large = report.build(report.Sources(list(hosts), hosts), NOW, "auditor", 86400)
    assert large["summary"]["devices"] == 10_000
    paths = {"small": folder / "small.html", "large": folder / "large.html"}
    for name, data in (("small", small()), ("large", large)):
        paths[name].write_text(page.page(data))
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with opened() as page:
        yield page


@pytest.fixture
def shown(browser: Page, files: dict[str, Path]) -> Page:
    browser.media("light")
    browser.open(files["small"])
    return browser


def test_what_a_host_says_is_text_and_nothing_is_loaded(shown: Page) -> None:
    assert shown.run(column(0))[-2:] == [NASTY, "worker-1"]
    assert shown.run("document.querySelectorAll('img').length") == 0
    asked = [
        one["params"]["request"]["url"] for one in shown.events if one.get("method") == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in asked} == {"file"}
    assert [one for one in shown.events if one.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")] == []


def test_each_verdict_is_a_word(shown: Page) -> None:
    words = set(shown.run(column(3)))
    assert words == {
        "\u2713 protected",
        "\u2717 not protected",
        "\u2026 change pending",
        "\u25f7 old reading",
        "? unknown",
    }


def test_a_screen_reader_finds_tables_headers_and_order(shown: Page) -> None:
    shown.run(click("Mode"))
    nodes = [one for one in shown.ask("Accessibility.getFullAXTree")["nodes"] if not one.get("ignored")]

    def named(role: str) -> list[str]:
        return [one.get("name", {}).get("value", "") for one in nodes if one["role"]["value"] == role]

    tables = named("table")
    assert len(tables) == 5
    assert tables[0].startswith("Each GPU and NVSwitch")
    assert all(tables), "each has its caption for a name"
    headers = named("columnheader")
    assert {"Host", "Device", "Verdict", "Mode", "Why", "Pending", "Firmware", "Driver", "In use by"} <= set(headers)
    assert "0000:17:00.0" in named("rowheader")
    assert "Filter devices" in named("searchbox")
    assert {"Devices", "Hosts", "Differences", "Audit trails", "Changes"} <= {*named("heading"), *named("link")}
    assert any(
        "rows shown" in one
        for one in shown.run("[...document.querySelectorAll('[role=status]')].map((one) => one.textContent)")
    )
    sorts = "[...document.querySelectorAll('#devices th[scope=col]')].map((one) => one.getAttribute('aria-sort'))"
    assert shown.run(sorts).count("ascending") == 1
    shown.run(click("Mode"))
    assert shown.run(sorts).count("descending") == 1
    assert all(
        shown.run("[...document.querySelectorAll('tbody tr')].map((row) => row.querySelector('th')?.scope === 'row')")
    )


CONTRASTS = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((one) => one / (text.startsWith('color') ? 1 : 255));
    const [r, g, b] = parts.map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('.verdict, .faint, caption, h1, nav a, td')].map((one) => {
    const front = light(getComputedStyle(one).color);
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_and_pictures_are_left(shown: Page, scheme: str) -> None:
    shown.media(scheme)
    contrasts = shown.run(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5
    backs = shown.run("getComputedStyle(document.body).backgroundColor")
    assert (backs == "rgb(255, 255, 255)") == (scheme == "light")
    shown.picture(PICTURES / f"{scheme}.png", height=2600)
    shown.picture(PICTURES / f"{scheme}-narrow.png", width=420, height=900)
    assert shown.run("document.documentElement.scrollWidth") <= 420, "tables scroll, the page does not"


def test_all_rows_are_printed(browser: Page, files: dict[str, Path], tmp_path: Path) -> None:
    browser.media("light")
    browser.open(files["large"])
    browser.run(typed("gpu-12"))
    rows = "document.querySelectorAll('#devices tbody tr').length"
    assert browser.run(rows) == 50
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(rows) == int(
        browser.run("document.querySelector('#devices [role=status]').textContent").split()[0]
    )
    browser.media("light", "print")
    browser.picture(PICTURES / "paper.png", width=1120, height=800)
    browser.media("light")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(rows) == 50
    browser.paper(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") > 5


def milliseconds(page: Page, script: str) -> float:
    """Of a processor, from the script's start to the frame that shows what it did."""
    before = page.busy_ms()
    page.run(f"(async () => {{ {script} await {FRAME}; }})()")
    return page.busy_ms() - before


def test_ten_thousand_devices_are_sorted_and_filtered_smoothly(browser: Page, files: dict[str, Path]) -> None:
    browser.media("light")
    browser.open(files["large"])
    took: dict[str, list[float]] = {"sort": [], "filter": [], "page": []}
    for name in ("Host", "Device", "Verdict", "Mode", "Why", "Host"):
        took["sort"].append(milliseconds(browser, click(name)))
    assert browser.run(column(0))[0] == "gpu-0"
    browser.run(click("Host"))
    assert browser.run(column(0))[0] == "gpu-1249"
    for words in ("g", "gp", "gpu-12", "gpu-1249 ppcie", "nothing at all", ""):
        took["filter"].append(milliseconds(browser, typed(words)))
        if words == "gpu-1249 ppcie":
            assert browser.run(column(0)) == ["gpu-1249"] * 2
    for _page in range(5):
        took["page"].append(
            milliseconds(browser, "document.querySelector('#devices nav button:last-of-type').click();")
        )
    for what, times in took.items():
        figures = f"median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms of a processor"
        print(f"{what} of 10,000 devices: {figures}")
        assert statistics.median(times) < LIMIT_MS
