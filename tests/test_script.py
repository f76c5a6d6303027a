# SPDX-License-Identifier: GPL-2.0-or-later
"""mmtrace script: order, selection, safety, speed to the first line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES, ROOT
from tests.test_cli import mm
from tests.tiny import HIGH, event_format, event_frame, tiny
from tracer.capture import Capture
from tracer.errors import UsageError
from tracer.ingest import read_capture
from tracer.output import printable
from tracer.script import Selection, lines, parse_time, select_events
from tracer.store import Store

CAPTURE = FIXTURES / "linux-7.3/zap-64k.perf.data.zst"
LINE = re.compile(
    r" *(?P<comm>.+?) +(?P<tid>\d+) \[(?P<cpu>\d{3})\] (?P<ts>\d+\.\d{9}): (?P<key>\S+:\w+): "
)


def tiny_capture(frame: pl.DataFrame, key: str = "mmtrace:x") -> Capture:
    return Capture({key: frame}, {key: event_format(key)}, tiny().provenance)


def test_a_line() -> None:
    first = next(lines(tiny_capture(event_frame(1))))
    assert first == (
        f"  mm\\x1b[31mwork       7 [000] 1000000000.000000000: mmtrace:x: "
        f"folio=0x{HIGH:x} nr_pages=16"
    )


def test_every_event_once_in_seq_order(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/zap-64k")
    printed = list(lines(store))
    assert len(printed) == sum(store.counts.values())
    matched = [LINE.match(line) for line in printed]
    assert all(matched)
    every = pl.concat([store.event(k).select("seq", "ts", key=pl.lit(k)) for k in store.counts])
    every = every.sort("seq")
    assert [m["key"] for m in matched if m] == every["key"].to_list()
    assert [int(m["ts"].replace(".", "")) for m in matched if m] == every["ts"].to_list()


def test_flags_print_as_names(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/zap-64k")
    line = next(lines(store, Selection(["set_pte_range"])))
    assert "vm_flags=VM_READ|" in line
    assert "vm_flags_name" not in line


def test_selection(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/zap-64k")
    frame = store.event("mmtrace:__zap_vma_range")
    tid, middle = int(frame["tid"][0]), int(frame["ts"][100])
    chosen = Selection(["__zap*"], tid, middle, None)
    want = frame.filter(pl.col("tid") == tid, pl.col("ts") >= middle).height
    assert len(list(lines(store, chosen))) == want > 0
    assert not list(lines(store, Selection(stop=0)))


def test_patterns_name_the_closest() -> None:
    have = ["kmem:mm_page_alloc", "kmem:mm_page_free", "sched:sched_switch"]
    assert select_events(have, ["mm_*"]) == have[:2]
    assert select_events(have, ["sched:*", "kmem:mm_page_free"]) == have[1:]
    assert select_events(have, []) == have
    with pytest.raises(UsageError, match=r"Did you mean .*mm_page_alloc"):
        select_events(have, ["mm_page_aloc"])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1.5,2", (1_500_000_000, 2_000_000_000)),
        ("1.5,", (1_500_000_000, None)),
        (",0.000000001", (None, 1)),
        ("12,13.25", (12_000_000_000, 13_250_000_000)),
    ],
)
def test_times(text: str, want: tuple[int | None, int | None]) -> None:
    assert parse_time(text) == want


@pytest.mark.parametrize("text", ["", "1", "a,b", "-1,2", "1,2,3", "1e3,", "1.0000000001,"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


@given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=8))
def test_names_from_captures_never_reach_the_terminal(comm: str, text: str, name: str) -> None:
    frame = event_frame(2).with_columns(comm=pl.lit(comm))
    if name not in frame.columns:
        frame = frame.with_columns(pl.lit(text).alias(name))
    key = "sys%d:" + name
    printed = list(lines(Capture({key: frame}, {}, tiny().provenance)))
    assert len(printed) == 2
    assert all(printable(line) == line for line in printed)


def test_nulls_lists_and_bytes() -> None:
    frame = event_frame(1).with_columns(
        pl.lit(None, pl.UInt32).alias("cpu"),
        pl.lit(None, pl.UInt64).alias("vma"),
        pl.Series("raw", [b"\x01\xff"]),
        pl.Series("list", [[1, None]], dtype=pl.List(pl.UInt64)),
        pl.Series("flags", [-1], dtype=pl.Int32),
    )
    (line,) = lines(tiny_capture(frame))
    assert line.endswith("vma=- raw=01ff list=[0x1 None] flags=-1")
    assert "[  -]" in line


def test_code_addresses_print_as_functions() -> None:
    capture = read_capture(FIXTURES / "formats/pageout.function.dat")
    raw = next(lines(capture, Selection(["function"])))
    assert re.search(r"ip=0xffff80[0-9a-f]+ parent_ip=0xffff80", raw)
    run = mm("script", FIXTURES / "formats/pageout.function.dat", "--limit", 1)
    assert "ip=folio_add_file_rmap_ptes+0x4 parent_ip=set_pte_range+0xf8" in run.stdout


def test_command_line() -> None:
    run = mm("script", CAPTURE, "-e", "exit_mmap", "--limit", 1)
    assert run.returncode == 0
    assert run.stdout.count("\n") == 1
    assert mm("script", CAPTURE, "-e", "exit_map").returncode == 2
    assert mm("script", CAPTURE, "--time", "x").returncode == 2


def test_head_ends_it_quietly() -> None:
    command = f"{sys.executable} -m mmtrace script {CAPTURE} | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env, cwd=ROOT)
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""
