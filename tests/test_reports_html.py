# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTML report as bytes: self-contained, deterministic, redacted, complete."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from plotly.offline import get_plotlyjs_version

from replay import counters
from reports import html, palette, timeline
from reports.breakdown import shares
from reports.compare import compare
from reports.figures import Figure, Twin
from reports.html import figures_json, write_report
from reports.redact import Redactor
from tests.test_reports_data import ARGS, MAIN, PROVENANCE, frame, pair, replay, row, rows
from tests.test_reports_replay import checked
from tracer import schema
from tracer.errors import MmtraceError

ASSETS = Path(html.__file__).parent / "assets"
COMMAND = "mmtrace report /home/alice/secret-product/pageout.mmtrace -o report.html"

LOSS = pl.DataFrame(
    [(5, 0, None, 12, False, "PERF_RECORD_LOST"), (9, 1, None, 0, True, "ring buffer")],
    schema=schema.polars_schema(schema.LOSS_COLUMNS),
    orient="row",
)
DIAGNOSTICS = pl.DataFrame(
    [
        ("truncated-data", "warning", 10, 5, "The file /home/alice/x ends early."),
        ("odd", "note", 0, 0, "Nothing to worry about."),
    ],
    schema=schema.polars_schema(schema.DIAGNOSTIC_COLUMNS),
    orient="row",
)


def written(path: Path, **kw: Any) -> str:
    """:return: the text of a report of the shared workload"""
    replays = kw.pop("replays", pair())
    fields = {"provenance": PROVENANCE, "command": COMMAND, "tool": "0.1.0"} | kw
    return write_report(path / "report.html", replays, **fields).read_text()


class Page(HTMLParser):
    """What tests ask of the markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.urls: list[str] = []
        self.ids: list[str] = []
        self._script = False
        self.csp = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.urls += [v for k, v in attrs if k in ("src", "href", "action", "data") and v]
        if have.get("http-equiv") == "Content-Security-Policy":
            self.csp = have["content"] or ""
        if tag == "script":
            self._script = True
            self.scripts.append((have, ""))

    def handle_endtag(self, tag: str) -> None:
        self._script = self._script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._script:
            have, text = self.scripts[-1]
            self.scripts[-1] = (have, text + data)


def own(text: str) -> str:
    """:return: the page without the vendored bundle"""
    return text.replace((ASSETS / html.PLOTLY).read_text(), "")


def test_the_bundle_is_the_one_plotly_expects() -> None:
    digest, name = (ASSETS / f"{html.PLOTLY}.sha256").read_text().split()
    assert name == html.PLOTLY
    assert hashlib.sha256((ASSETS / html.PLOTLY).read_bytes()).hexdigest() == digest
    head = (ASSETS / html.PLOTLY).read_text()[:200]
    assert f"v{html.PLOTLY_VERSION}" in head
    assert get_plotlyjs_version() == html.PLOTLY_VERSION
    assert "MIT License" in (ASSETS / f"{html.PLOTLY}.LICENSE").read_text()


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path)
    assert written(tmp_path, force=True) == first


def test_a_date_only_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", own(written(tmp_path)))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert ", 2023-11-14</dd>" in written(tmp_path, force=True)


def test_weight(tmp_path: Path) -> None:
    assert len(written(tmp_path).encode()) < 2_500_000


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    assert page.urls
    assert all(u.startswith("#") for u in page.urls)
    assert not re.search(r"@import|url\(", (ASSETS / "report.css").read_text())


def test_links_inside_the_page_lead_somewhere(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    assert len(page.ids) == len(set(page.ids))
    assert {u[1:] for u in page.urls} <= set(page.ids)


def test_policy_allows_these_scripts_and_nothing_else(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    assert page.csp.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in page.csp
    assert "http" not in page.csp
    running = [text for have, text in page.scripts if "type" not in have]
    assert len(running) == 3
    for text in running:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.csp
    assert not re.search(r"\son\w+=", own(written(tmp_path, force=True)).split("<script")[1])


def test_no_cloud_button() -> None:
    script = (ASSETS / "report.js").read_text()
    assert "showSendToCloud: false" in script
    assert "displaylogo: false" in script


def test_figures_are_one_json_block(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    (block,) = [text for have, text in page.scripts if have.get("type") == "application/json"]
    data = json.loads(block)
    assert set(data) == {"dark", "figures"}
    for figure, variants in data["figures"].items():
        assert f"plot-{figure}" in page.ids
        assert f"table-{figure}" in page.ids
        for spec in variants.values():
            assert spec["data"]
            assert "template" not in spec["layout"]


def test_every_colour_of_a_figure_has_a_dark_twin(tmp_path: Path) -> None:
    page = Page(written(tmp_path, replays=[replay(p) for p in "abcdefgh"]))
    (block,) = [text for have, text in page.scripts if have.get("type") == "application/json"]
    figures = json.dumps(json.loads(block)["figures"])
    assert set(re.findall(r"#[0-9a-f]{6}", figures)) <= set(palette.DARK)


def test_json_cannot_leave_its_script() -> None:
    evil = "x</script><script>alert(1)</script>"
    figure = Figure(evil, "", "", {}, Twin((), []))
    text = figures_json([figure])
    assert "<" not in text
    assert json.loads(text)["figures"] == {evil: {}}


def test_markup_in_names_is_escaped(tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    made = frame([r | {"comm": bad, "op": bad} for r in rows(False)])
    text = own(written(tmp_path, replays=[replay(rows=made), replay("b", rows=made)], raw=True))
    assert "<img" not in text
    assert "&lt;img" in text


def test_names_are_not_markup_for_plotly_either(tmp_path: Path) -> None:
    made = frame([r | {"comm": '<a href="http://x">&', "op": "<b>"} for r in rows(False)])
    page = Page(written(tmp_path, replays=[replay(rows=made), replay("b", rows=made)], raw=True))
    (block,) = [text for have, text in page.scripts if have.get("type") == "application/json"]
    strings = json.dumps(json.loads(block)["figures"])
    assert "<a" not in strings
    assert "<b>" not in strings
    assert "&lt;b>" in strings
    assert "&lt;a href" in strings


def test_redaction_is_the_default(tmp_path: Path) -> None:
    text = own(written(tmp_path, verification=checked("exact"), diagnostics=DIAGNOSTICS))
    for secret in ("alice", "secret-product", "mmwork", "lorem", "ffff9d000000"):
        assert secret not in text, secret
    assert "task-1" in text
    assert "try_to_unmap" in text
    assert "The file (path) ends early." in text
    assert "mmtrace report STORE -o FILE.html" in text


def test_raw_keeps_names_but_never_kernel_addresses(tmp_path: Path) -> None:
    leaky = PROVENANCE | {"cmdline": ["perf", "record", "ffff800080123456"]}
    text = own(written(tmp_path, raw=True, provenance=leaky))
    assert "alice-laptop" in text
    assert "mmwork" in text
    assert "ffff800080123456" not in text
    assert "perf record (kernel address)" in text


def test_pseudonyms_are_numbered_by_first_appearance() -> None:
    redactor = Redactor.of(pair())
    assert [redactor.comm(c) for c in ("lorem", "mmwork", "new")] == ["task-2", "task-1", "task-3"]
    assert redactor.text("mmwork and mmworker in /tmp/x at 0xffff800080123456") == (
        "task-1 and mmworker in (path) at (kernel address)"
    )
    assert redactor.text("mmwork-123 mmwork-x") == "task-1-123 mmwork-x"
    assert redactor.args(ARGS) == "start=(address), len_in=(address), behavior=21"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("mmtrace report", "mmtrace ingest CAPTURE\nmmtrace report"),
        ("mmtrace report x.data -p mine.toml", "mmtrace report CAPTURE -p FILE.toml"),
        ("mmtrace report a.mmtrace", "mmtrace ingest CAPTURE -o STORE\nmmtrace report STORE"),
        ("mmtrace compare old=/x/a.data new=b.dat", "mmtrace compare old=CAPTURE new=CAPTURE"),
        (
            "mmtrace compare a.dat --fail-if 'a > +5%'",
            "mmtrace compare CAPTURE --fail-if 'a > +5%'",
        ),
        ("mmtrace 'oops", "(command line withheld)"),
    ],
)
def test_commands_keep_their_options_and_lose_their_files(command: str, shown: str) -> None:
    assert Redactor().command(command) == shown


def test_losses_and_gaps_are_on_the_page(tmp_path: Path) -> None:
    text = written(tmp_path, loss=LOSS, diagnostics=DIAGNOSTICS)
    assert "4 things limit these numbers" in text
    assert "lost 12 events and an unknown number of events on 2 CPUs" in text
    assert "Operations in the capture that are not modelled and count nothing: collapse (3)" in text
    assert "State the capture does not show was inferred: accessed (5)" in text
    assert "Nothing to worry about" not in text


def test_a_clean_capture_says_so(tmp_path: Path) -> None:
    none = pl.DataFrame({"op": [], "count": []}, schema={"op": pl.String, "count": pl.UInt64})
    clean = [replay(p, unmodelled=none, inferred={}) for p in ("unbatched", "batched")]
    text = written(tmp_path, replays=clean, loss=LOSS.clear(), diagnostics=DIAGNOSTICS.clear())
    assert "no lost events" in text
    assert "limit these numbers" not in text


def test_fidelity_panel(tmp_path: Path) -> None:
    assert "not compared in this report" in written(tmp_path)
    passed = written(tmp_path, force=True, verification=checked("exact", "explained: placement"))
    assert '<span class="stamp">passed</span> 1 of 2 counts equal' in passed
    failed = written(tmp_path, force=True, verification=checked("exact", "differs"))
    assert '<span class="stamp">FAILED</span>' in failed
    assert "<details open><summary>Every comparison" in failed


def test_every_counter_is_in_the_glossary(tmp_path: Path) -> None:
    ids = Page(written(tmp_path)).ids
    assert {f"g-{name}" for name in (*counters.NAMES, *counters.SUMS)} <= set(ids)


def test_the_mail_is_inside(tmp_path: Path) -> None:
    assert "tlbi                                 1,123     99  -1,024   -91.18%" in written(
        tmp_path
    )


def test_no_overwrite_without_force(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(MmtraceError, match="exists") as caught:
        written(tmp_path)
    assert caught.value.hint == "Use --force to overwrite it."
    assert (tmp_path / "report.html").read_text() == "mine"
    written(tmp_path, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_directory_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MmtraceError, match=r"Cannot write .*No such file"):
        written(tmp_path / "nowhere")


def test_one_replay_and_many(tmp_path: Path) -> None:
    assert "Replay of a capture under unbatched" in written(tmp_path, replays=[replay()])
    assert written(tmp_path, replays=[replay(p) for p in "abcdef"], force=True)


def test_no_rows_at_all(tmp_path: Path) -> None:
    none = frame([])
    assert "no operations" in written(tmp_path, replays=[replay(rows=none), replay("b", rows=none)])


def test_a_large_capture_is_aggregated(tmp_path: Path) -> None:
    many = [
        row(i, {"pid": 1, "tid": 1, "comm": f"t{i % 500}"}, f"op{i % 30}", i % 10, 1, tlbi_va=1)
        | {"syscall": f"call{i % 40}", "syscall_seq": i, "window": i}
        for i in range(5000)
    ]
    made = [replay(p, rows=frame(many), nr_ops=5000) for p in ("unbatched", "batched")]
    text = own(written(tmp_path, replays=made))
    assert len(text) < 1_000_000
    assert "smaller rows are left out here" in text
    found, length = timeline.moments(made, ["tlbi"], Redactor.of(made))
    assert len(found) <= timeline.SLICES
    assert length > 0
    assert sum(m.counts["tlbi"][0] for m in found) == 5000


def test_moments_of_few_windows_are_the_windows() -> None:
    found, length = timeline.moments(pair(), ["tlbi"], Redactor.of(pair()))
    assert length == 0
    assert [(m.label, m.task, m.counts["tlbi"]) for m in found] == [
        ("(no system call)", "task-1", (0, 0)),
        ("madvise MADV_PAGEOUT", "task-1", (1121, 97)),
        ("munmap", "task-1", (0, 0)),
        ("munmap", "task-2", (2, 2)),
    ]


def test_shares_add_up_to_all_pages() -> None:
    for by in ("op", "syscall", "task"):
        found = shares(replay(), by, Redactor.of([replay()]))
        assert sum(p for orders in found.values() for p, _ in orders.values()) == 2114


def test_a_range_operation_does_not_count_as_pages() -> None:
    whole = row(400, MAIN, "exit_mmap", 255, 1) | {"nr_pages": 1 << 51}
    made = replay(rows=frame([*rows(False), whole]))
    assert compare([made]).total("nr_pages") == (2114,)


def test_colours_can_be_seen() -> None:
    dark = palette.DARK
    assert len(dark) == len(set(dark)), "a light colour may have one twin only"
    for ink in (palette.INK, palette.MUTED):
        assert palette.contrast(ink, palette.PAPER) >= 4.5
        assert palette.contrast(dark[ink], dark[palette.PAPER]) >= 4.5
    for mark in (*palette.SERIES, *palette.PARTS, palette.AXIS):
        assert palette.contrast(mark, palette.PAPER) >= 3, mark
        assert palette.contrast(dark[mark], dark[palette.PAPER]) >= 3, mark
    colours = dict(html._colours()["light"]), dict(html._colours()["dark"])
    for have in colours:
        for ink in ("ink", "muted", "link"):
            for ground in ("paper", "wash"):
                assert palette.contrast(have[ink], have[ground]) >= 4.5, (ink, ground)


def test_all_pairs_of_orders_differ() -> None:
    assert len({palette.order(o) for o in range(10)}) == 10
    assert palette.order(13) == palette.order(9)
    assert compare(pair()).labels == ("unbatched", "batched")
