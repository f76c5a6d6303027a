# SPDX-License-Identifier: GPL-2.0-or-later
"""Invariants: silent on real captures, loud on contradictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from replay import cpu
from replay.api import Source, open_source, replay
from replay.arm64.geometry import GRANULES
from replay.arm64.pte import CONT
from replay.counters import NAMES
from replay.engine import VIOLATIONS, machine
from replay.lower import lower
from replay.mm.run import run
from replay.policies import POLICIES
from replay.state import VIOLATION
from replay.stream import CODES, F_CODE, F_ORDER, F_PFN
from tracer.errors import EXIT_QUALITY, MmtraceError

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CAPTURES = sorted(
    f"{kernel}/{path.name}"
    for kernel in ("linux-6.12", "linux-7.3")
    for path in (FIXTURES / kernel).glob("*.zst")
)


def test_there_are_captures() -> None:
    assert len(CAPTURES) == 24


@pytest.mark.parametrize("capture", CAPTURES)
def test_every_capture_keeps_the_invariants_under_every_policy(capture: str) -> None:
    replay(open_source(FIXTURES / capture), list(POLICIES), checked=True)


def with_ops(source: Source, ops: pl.DataFrame) -> Source:
    source.ops = ops
    return source


def test_two_mappings_of_one_new_folio_are_noticed() -> None:
    """The same frame handed out twice while mapped: a capture that contradicts itself."""
    source = open_source(FIXTURES / "linux-7.3" / "zap-64k.perf.data.zst")
    faults = source.ops.filter((pl.col("op") == "do_anonymous_page") & (pl.col("order") == 4))
    first = faults["pfn"][0]
    stuck = source.ops.with_columns(
        pl.when((pl.col("op") == "do_anonymous_page") & (pl.col("order") == 4))
        .then(pl.lit(first, pl.UInt64))
        .otherwise(pl.col("pfn"))
        .alias("pfn")
    )
    with pytest.raises(MmtraceError, match="Invariant broken") as caught:
        replay(with_ops(source, stuck), ["linux-7.3"], checked=True)
    assert caught.value.exit_code == EXIT_QUALITY


@pytest.mark.parametrize("field", ["mapcount", "pte"])
def test_a_corrupted_machine_is_noticed_by_the_next_operation(field: str) -> None:
    source = open_source(FIXTURES / "linux-7.3" / "zap-64k.perf.data.zst")
    stream = lower(source.ops, source.enums)
    st = machine(stream, POLICIES["linux-7.3"], cpu.get(), GRANULES["4K"], checked=True)
    out = np.zeros((stream.groups.height, len(NAMES)), np.int64)
    large = np.flatnonzero((stream.ops[:, F_CODE] == 0) & (stream.ops[:, F_ORDER] == 4))
    half = int(large[5])
    assert run(st, stream.ops[:half], 0, out) == half
    if field == "mapcount":
        st.mapcount[stream.ops[int(large[4]), F_PFN]] = 0
    else:
        st.pte[np.flatnonzero(st.pte & CONT)[-1]] &= ~CONT
    again = stream.ops[int(large[4]) : int(large[4]) + 1].copy()
    again[0, F_CODE] = CODES["access"]
    assert run(st, again, 0, out) == 0
    assert VIOLATIONS[int(st.s[VIOLATION])]


def test_an_entry_counted_twice_is_noticed_at_the_end() -> None:
    """One address mapped twice without an unmap between: a lost event."""
    source = open_source(FIXTURES / "linux-7.3" / "zap-4k.perf.data.zst")
    region = source.ops.filter(pl.col("op") == "do_anonymous_page")
    last = region.tail(2).row(0, named=True)["va"]
    ops = source.ops.filter(~pl.col("op").is_in(["exit_mmap", "zap_page_range", "tlb_finish_mmu"]))
    twice = ops.with_columns(
        pl.when(pl.col("op") == "do_anonymous_page")
        .then(pl.lit(last, pl.UInt64))
        .otherwise(pl.col("va"))
        .alias("va")
    )
    with pytest.raises(MmtraceError, match="Invariant broken"):
        replay(with_ops(source, twice), ["linux-7.3"], checked=True)
