# SPDX-License-Identifier: GPL-2.0-or-later
"""The heatmap of the address space and the state audit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from replay import snapshot
from reports import audit, palette
from reports.compare import compare
from reports.heatmap import MOST_ROWS, WORDS, grid, space_figure, step_labels
from reports.redact import Redactor
from reports.styles import render
from tests.test_reports_data import PROVENANCE, history, pair, replay
from tests.test_reports_html import written

REDACTOR = Redactor()


def test_steps_are_numbered_and_named() -> None:
    assert step_labels(history()) == ["1 faults", "2 MADV_PAGEOUT \u00d73"]


def test_rows_are_the_blocks_that_are_ever_mapped() -> None:
    found = grid([history(), history("batched")], raw=False)
    assert found is not None
    assert (found.unit, len(found.rows), len(found.cells)) == (1, 64, 2)
    assert found.rows[1] == "region 1 +64 KiB"
    assert found.regions == [(0, 64, "region 1")]
    assert found.cells[0][:, 0].tolist() == [snapshot.FOLDED] * 62 + [snapshot.PARTIAL] * 2


def test_addresses_are_shown_only_raw() -> None:
    found = grid([history()], raw=True)
    assert found is not None
    assert found.rows[0] == hex(0x7FF << 21)


def test_many_blocks_are_joined() -> None:
    made = history()
    tables = np.arange(64, dtype=np.int64) * 3
    classes = np.full((64, 32), snapshot.FOLDED, np.uint8)
    classes[:, 0] = snapshot.PARTIAL
    made.states[1] = replace(made.states[1], tables=tables, classes=classes)
    found = grid([made], raw=False)
    assert found is not None
    assert found.unit > 1
    assert len(found.rows) <= MOST_ROWS
    # The most frequent class of the joined blocks is drawn.
    assert set(found.cells[0][:, 0].tolist()) == {snapshot.FOLDED, 0} or (
        set(found.cells[0][:, 0].tolist()) == {snapshot.FOLDED}
    )


def test_figure_says_where_the_policies_part() -> None:
    histories = [history(), history("batched")]
    figure = space_figure(histories, ["unbatched", "batched"], REDACTOR)
    assert figure is not None
    assert "different states behind after: 2 MADV_PAGEOUT" in figure.caption
    assert [row[:2] for row in figure.twin.rows[:2]] == [
        ("1 faults", "unbatched"),
        ("1 faults", "batched"),
    ]
    last = dict(zip(figure.twin.head, figure.twin.rows[2], strict=True))
    assert (last["unfolds"], last["swapped out"], last["full, not folded"]) == ("62", "63", "1")
    same = space_figure([history(), history()], ["a", "b"], REDACTOR)
    assert same is not None
    assert "all policies leave the same state" in same.caption


def test_nothing_mapped_is_no_figure() -> None:
    made = history()
    made.states = [made.states[0]] * 3
    assert space_figure([made], ["x"], REDACTOR) is None


def test_colours_of_classes_can_be_told_apart() -> None:
    assert len(palette.BLOCKS) == len(WORDS) == len(snapshot.CLASSES)
    light = [palette.luminance(c) for c in palette.BLOCKS]
    # Folded against not folded, and against nothing, must not depend on hue.
    folded, unfolded, none = (light[k] for k in (snapshot.FOLDED, snapshot.UNFOLDED, 0))
    assert none > unfolded > folded
    assert (unfolded + 0.05) / (folded + 0.05) > 1.8


def test_one_capture_under_two_policies_needs_no_audit() -> None:
    assert audit.warnings(pair(), ["unbatched", "batched"]) == []


def test_captures_in_other_states_are_told_apart() -> None:
    other = replay("unbatched", provenance=PROVENANCE | {"sha256": "00" * 32})
    assert audit.warnings([replay(), other], ["a", "b"]) == []
    other.history = history()
    other.history.states[1] = replace(other.history.states[1], orders={0: 994}, cont=0)
    (said,) = audit.warnings([replay(), other], ["a", "b"])
    assert "1 system call of 1 did not begin in the same page state" in said
    assert "Before madvise MADV_PAGEOUT, a: 2 of order 0, 992 of order 4 pages, 992 cont" in said
    assert "b: 994 of order 0 pages, 0 cont" in said
    text = render(compare([replay(), other], labels=["a", "b"]))
    assert "same page state" in " ".join(text.split())


def test_captures_without_a_common_call_cannot_be_audited() -> None:
    other = replay("unbatched", provenance=PROVENANCE | {"sha256": "00" * 32})
    made = history()
    made.labels[1] = made.labels[1] | {"syscall": "munmap"}
    other.history = made
    (said,) = audit.warnings([replay(), other], ["a", "b"])
    assert "cannot be compared" in said


def test_report_has_the_audit_table(tmp_path: Path) -> None:
    text = written(tmp_path)
    (table,) = re.findall(r'<table id="table-audit">.*?</table>', text, re.S)
    assert "madvise MADV_PAGEOUT" in table
    assert "992 of order 4 (64K)" in table
    assert table.count("<td>same</td>") == 2


def test_report_without_histories_has_no_address_space(tmp_path: Path) -> None:
    text = written(tmp_path, replays=[replay(p, history=None) for p in ("unbatched", "batched")])
    assert 'id="table-audit"' not in text
    assert "plot-space" not in text
