# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports: what other tools read has the replay's counts and nobody's names."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from replay import api
from replay.result import Replay
from reports.export import TRACKS, folded, parquet, perfetto
from tests.test_reports_data import pair, replay
from tracer.errors import MmtraceError, UsageError
from tracer.store import Store


@pytest.fixture(scope="module")
def timeline(store: Store) -> tuple[dict[str, Any], list[Replay]]:
    """The demo capture as a trace, and the replays it is of."""
    source = api.open_source(store)
    done = api.replay(source, detailed=True)
    return json.loads(perfetto(source.ops, done)), done


def of_kind(trace: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """:return: events of a phase letter"""
    return [e for e in trace["traceEvents"] if e["ph"] == kind]


def test_trace_has_tasks_calls_and_operations(
    timeline: tuple[dict[str, Any], list[Replay]],
) -> None:
    trace, _ = timeline
    assert {e["name"] for e in of_kind(trace, "M")} == {"process_name", "thread_name"}
    slices = of_kind(trace, "X")
    assert {"madvise MADV_PAGEOUT", "munmap", "try_to_unmap_one"} <= {e["name"] for e in slices}
    assert all(e["dur"] > 0 and e["ts"] >= 0 for e in slices)
    assert "mmwork" not in json.dumps(trace)


def test_slices_nest_in_their_system_call(timeline: tuple[dict[str, Any], list[Replay]]) -> None:
    trace, _ = timeline
    slices = of_kind(trace, "X")
    (call,) = [e for e in slices if e["name"] == "madvise MADV_PAGEOUT"]
    inside = [e for e in slices if e["name"] == "try_to_unmap_one"]
    assert inside
    for event in inside:
        assert event["tid"] == call["tid"]
        assert call["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= call["ts"] + call["dur"]
    assert call["args"]["tlbi"] == {"unbatched": 1088 + 1, "batched": 64 + 1}


def test_tracks_sum_to_the_replay(timeline: tuple[dict[str, Any], list[Replay]]) -> None:
    trace, done = timeline
    for counter in TRACKS:
        tracks = [e["args"] for e in of_kind(trace, "C") if e["name"] == counter]
        for one in done:
            assert sum(t[one.policy] for t in tracks) == one.by()[counter][0]


def test_folded_stacks_sum_to_the_counter() -> None:
    text = folded(replay(), "tlbi")
    lines = [line.rpartition(" ") for line in text.splitlines()]
    assert sum(int(n) for _, _, n in lines) == replay().by()["tlbi"][0]
    assert "task-1;madvise MADV_PAGEOUT;try_to_unmap;order 4 (64K)" in {s for s, _, _ in lines}
    assert "mmwork;" in folded(replay(), "tlbi", raw=True)
    with pytest.raises(UsageError):
        folded(replay(), "tlbis")


def test_names_cannot_add_frames() -> None:
    made = replay()
    made.rows = made.rows.with_columns(pl.lit("a;b").alias("comm"))
    assert {line.split(";")[0] for line in folded(made, raw=True).splitlines()} == {"a:b"}


def test_parquet_of_every_table(tmp_path: Path) -> None:
    files = parquet(tmp_path / "out", pair(), raw=False, force=False)
    assert [f.stem for f in files] == ["total", "op", "syscall", "task", "all"]
    total = pl.read_parquet(files[0])
    assert total["policy"].to_list() == ["unbatched", "batched"]
    rows = pl.read_parquet(files[-1])
    assert "mmwork" not in rows["comm"].to_list()
    assert "ffff" not in "".join(rows["args"].drop_nulls())
    with pytest.raises(MmtraceError):
        parquet(tmp_path / "out", pair(), raw=False, force=False)
    parquet(tmp_path / "out", pair(), raw=True, force=True)
    assert "mmwork" in pl.read_parquet(files[-1])["comm"].to_list()


def test_equal_inputs_give_equal_bytes(make_store: Callable[[str], Store]) -> None:
    source = api.open_source(make_store("linux-7.3/zap-4k"))
    made = cache(lambda _: perfetto(source.ops, api.replay(source)))
    assert made(1) == made(2)
