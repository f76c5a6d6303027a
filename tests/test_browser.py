# SPDX-License-Identifier: GPL-2.0-or-later
"""The report in Chromium: it draws, asks for nothing, and can be used by everyone.

``tests/vendor/axe.min.js.gz`` is axe-core 4.14.1 from npm, MPL-2.0, for these
tests only.
"""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.html import write_report
from tests.test_reports_data import PROVENANCE, pair, prices, replay
from tests.test_reports_html import COMMAND, DIAGNOSTICS, LOSS
from tests.test_reports_replay import checked

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
playwright = pytest.importorskip("playwright.sync_api")

AXE = Path(__file__).parent / "vendor" / "axe.min.js.gz"
READY = "html[data-figures=ready]"
FIGURES = (
    *("counters", "origin", "orders", "cost", "space", "timeline"),
    *(f"{by}-{kind}" for by in ("op", "syscall", "task") for kind in ("shares", "cost")),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the file."""
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """:return: URL of a report with everything in it"""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        [*pair(), replay("linux-7.3+anon-batch")],
        prices=[replace(p, times=(*p.times, p.times[1]), faster=p.faster * 2) for p in prices()],
        verification=checked("exact", "explained: another place", "exact"),
        loss=LOSS,
        diagnostics=DIAGNOSTICS,
        provenance=PROVENANCE,
        command=COMMAND,
    )
    return path.as_uri()


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:
    """The report, drawn; fails the test for any request or message of the console."""
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    heard: list[str] = []
    page.on("console", lambda m: heard.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: heard.append(f"error: {e}"))
    page.on("request", lambda r: r.url in (report,) or heard.append(f"request: {r.url[:80]}"))
    page.goto(report)
    page.wait_for_selector(READY)
    yield page
    page.close()
    assert [h for h in heard if not h.startswith("request: blob:")] == []


def wait(page: Any, script: str, arg: Any = None) -> None:
    """Wait until a function is true; playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(script, arg):
        assert time.monotonic() < end, script
        page.wait_for_timeout(50)


def marks(page: Any, figure: str) -> int:
    """:return: drawn points and bars that have an extent"""
    script = """id => [...document.querySelectorAll(
        `#plot-${id} .point, #plot-${id} .points path, #plot-${id} .hm image`)].filter(e => {
            const box = e.getBoundingClientRect(); return box.width > 0 && box.height > 0;
        }).length"""
    found: int = page.evaluate(script, figure)
    return found


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_have_marks_and_a_table(page: Any, figure: str) -> None:
    assert marks(page, figure) > 0
    assert page.locator(f"#table-{figure} tbody tr").count() > 0
    assert len(page.locator(f"#fig-{figure} figcaption p").inner_text()) > 60


def test_no_figure_is_forgotten(page: Any) -> None:
    ids = page.evaluate("[...document.querySelectorAll('.plot')].map(e => e.id)")
    assert sorted(ids) == sorted(f"plot-{f}" for f in FIGURES)


def test_it_opens_quickly(browser: Any, report: str) -> None:
    page = browser.new_page()
    start = time.monotonic()
    page.goto(report)
    page.wait_for_selector("#table-counts")
    shown = time.monotonic() - start
    page.wait_for_selector(READY)
    # Generous against a busy machine; an idle one shows text in 0.3 s and all charts in 1.5 s.
    assert shown < 4
    page.close()


def test_no_cloud_button(page: Any) -> None:
    page.hover("#plot-timeline")
    titles = page.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title || b.title)"
    )
    assert titles
    assert not [t for t in titles if "loud" in t or "hare" in t or "Produced" in t]


def test_theme_toggle_recolours_the_figures(page: Any) -> None:
    colour = """() => getComputedStyle(
        document.querySelector('#plot-counters .points path')).stroke"""
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour), page.evaluate(ground)
    page.click("#theme")
    wait(page, f"() => ({colour})() !== '{light[0]}'")
    assert page.evaluate(ground) == "rgb(20, 24, 29)"
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    assert page.inner_text("#theme") == "Light theme"
    page.reload()
    page.wait_for_selector(READY)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#theme")
    wait(page, f"() => ({colour})() === '{light[0]}'")


def test_the_system_theme_is_set_before_paint(browser: Any, report: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => "
        "{ window.early = document.documentElement.dataset.theme; })"
    )
    page.goto(report)
    assert page.evaluate("window.early") == "dark"
    page.close()


def test_a_counter_can_be_chosen_with_the_keyboard(page: Any) -> None:
    title = "() => document.querySelector('#plot-op-cost .xtitle').textContent"
    before = page.evaluate(title)
    page.focus("#choose-op-cost")
    page.keyboard.press("ArrowDown")
    wait(page, f"() => ({title})() !== '{before}'")
    assert (before, page.evaluate(title)) == ("tlbi", "dsb")


def test_everything_can_be_reached_with_tab(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    wanted = page.locator("button:visible, select:visible, summary:visible").count()
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "e => [...document.querySelectorAll('button, select, summary')]"
                ".indexOf(document.activeElement)"
            )
        )
    assert len(seen - {-1}) >= wanted


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440, 2200])
def test_nothing_sticks_out(browser: Any, report: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report)
    page.wait_for_selector(READY)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plots = page.evaluate(
        "[...document.querySelectorAll('.plot .main-svg')].map("
        "e => e.getBoundingClientRect().right)"
    )
    assert max(plots) <= width
    page.close()


def test_print_to_pdf(page: Any, tmp_path: Path) -> None:
    page.click("#theme")
    content = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert content.startswith(b"%PDF-")
    assert len(content) > 100_000
    # The reader's theme is back after printing in the light one.
    wait(page, "() => document.documentElement.dataset.theme === 'dark'")


def test_readable_without_scripts(browser: Any, report: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("#table-counts").is_visible()
    assert not page.locator(".plot").first.is_visible()
    assert not page.locator("button:visible").count()
    page.click("#fig-counters summary")
    assert page.locator("#table-counters").is_visible()
    context.close()


def test_copy_and_csv(page: Any) -> None:
    page.click("button[data-copy=mail]")
    copied = "() => document.querySelector('button[data-copy=mail]').textContent === 'Copied'"
    wait(page, copied)
    with page.expect_download() as caught:
        page.click("button[data-csv=table-counts]")
    text = Path(caught.value.path()).read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("tlbi,")]
    assert line.startswith("tlbi,1123,99,")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: str, theme: str) -> None:
    page = browser.new_page(viewport={"width": 1024, "height": 768}, color_scheme=theme)
    page.goto(report)
    page.wait_for_selector(READY)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    page.evaluate(gzip.decompress(AXE.read_bytes()).decode())
    found = page.evaluate("axe.run().then(r => r.violations)")
    page.close()
    told = [
        (v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert told == []
