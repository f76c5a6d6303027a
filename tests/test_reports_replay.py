# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``mmtrace replay`` and ``mmtrace verify`` print."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import polars as pl
import pytest

from replay import counters
from reports import replayout
from reports.verifytext import summary, verify_text
from tests.test_reports_data import pair, replay
from tracer.errors import UsageError

COLUMNS = {
    "scope": pl.String,
    "phase": pl.String,
    "counter": pl.String,
    "simulated": pl.UInt64,
    "real": pl.UInt64,
    "verdict": pl.String,
}


@dataclass
class Checked:
    """A verification by hand."""

    table: pl.DataFrame
    passed: bool
    truth: str
    notes: list[str] = field(default_factory=list)


def checked(*verdicts: str, scope: str = "mmwork") -> Checked:
    """:return: one row per verdict"""
    rows = [
        (scope, "pageout", f"c{i}", 1024, 1024 if v == "exact" else 1030, v)
        for i, v in enumerate(verdicts)
    ]
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    return Checked(table, "differs" not in verdicts, "linux-7.3/truth.json")


@pytest.mark.parametrize("by", ["total", "op", "syscall", "task", "all"])
def test_text_fits_a_mail(by: str) -> None:
    text = replayout.render(pair(), by=by).decode()
    assert max(map(len, text.splitlines())) <= 75
    assert "cas" not in text.split()  # 0 everywhere
    assert "not modelled, counts nothing: collapse (3)" in text


def test_totals_stand_side_by_side() -> None:
    text = replayout.render(pair()).decode()
    assert "\ntlbi                                 1,123       99\n" in text


def test_json_has_the_documented_shape() -> None:
    data = json.loads(replayout.render(pair(), by="all", fmt="json"))
    assert data["schema"] == "mmtrace.replay/1"
    assert data["store"].endswith("pageout.mmtrace")
    first = data["replays"][0]
    assert (first["policy"], first["unmodelled"], first["inferred"]) == (
        "unbatched",
        {"collapse": 3},
        {"accessed": 5},
    )
    assert first["cpu"]["tlbi_range"] is True
    row = first["rows"][2]
    assert row["task"] == {"pid": 100, "tid": 100, "comm": "mmwork"}
    assert (row["seq"], row["syscall"], row["op"]) == (101, "madvise", "try_to_unmap")
    assert set(row["counters"]) == {*counters.NAMES, *counters.SUMS}
    assert row["counters"]["tlbi"] == 1088


@pytest.mark.parametrize(
    ("by", "null"),
    [
        ("total", {"seq", "task", "syscall", "args", "op"}),
        ("op", {"task", "syscall", "args"}),
        ("task", {"syscall", "args", "op"}),
        ("syscall", {"op"}),
    ],
)
def test_json_keys_that_are_summed_over_are_null(by: str, null: set[str]) -> None:
    rows = replayout.to_dict(pair(), by)["replays"][0]["rows"]
    assert {k for k in ("seq", "task", "syscall", "args", "op") if rows[-1][k] is None} == null


def test_several_stores_are_named_per_replay() -> None:
    data = replayout.to_dict([replay(), replay("batched", store="other.mmtrace")])
    assert data["store"] is None
    assert data["replays"][1]["store"] == "other.mmtrace"


def test_csv_and_parquet_hold_the_same_rows() -> None:
    text = replayout.render(pair(), by="task", fmt="csv")
    binary = io.BytesIO(replayout.render(pair(), by="task", fmt="parquet"))
    columns = ["policy", "comm", "nr_ops", "tlbi"]
    rows = pl.read_parquet(binary).select(columns).rows()
    assert pl.read_csv(text).select(columns).rows() == rows
    assert rows[0] == ("unbatched", "mmwork", 194, 1121)
    facts = pl.read_parquet_metadata(binary)
    assert facts["schema"] == "mmtrace.replay/1"
    assert facts["sha256"].startswith("5f1c0de5")


def test_unknown_words_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="Cannot sum by 'cpu'"):
        replayout.render(pair(), by="cpu")
    with pytest.raises(UsageError, match="no format 'xml'"):
        replayout.render(pair(), fmt="xml")


def test_verify_table_is_golden() -> None:
    reason = "explained: the kernel placed the mapping elsewhere"
    assert verify_text(checked("exact", reason, "differs")) == (
        "phase    counter  simulated   real  verdict\n"
        "pageout  c0           1,024  1,024  exact\n"
        "pageout  c1           1,024  1,030  explained[1]\n"
        "pageout  c2           1,024  1,030  differs\n"
        "[1] the kernel placed the mapping elsewhere\n"
        "\n"
        "FAIL: 1 of 3 counts equal, 1 differs for a stated reason and 1 differs;\n"
        "against linux-7.3/truth.json.\n"
    )


def test_verify_of_equals_passes() -> None:
    text = verify_text(checked("exact", "exact"))
    assert text.endswith("PASS: 2 of 2 counts equal; against linux-7.3/truth.json.\n")
    assert summary(checked("exact")) == "1 of 1 count equal"
    noted = checked("exact")
    noted.notes.append("not recorded here: contpte_convert")
    assert "\nnote: not recorded here: contpte_convert\n" in verify_text(noted)
    assert "c0" not in verify_text(checked("exact", "differs"), failures_only=True)


def test_verify_names_the_scope_when_there_are_several() -> None:
    both = checked("exact")
    both.table = pl.concat([both.table, checked("exact", scope="other").table])
    assert verify_text(both).startswith("scope   phase")
