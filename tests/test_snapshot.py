# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays in slices: they count the same, and see what the page tables hold in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from replay import counters, cpu, policies, snapshot
from replay.api import Source, open_source
from replay.coverage import attribute
from replay.engine import replay_stream
from replay.lower import Stream, lower
from replay.result import MIXED, NO_ORDER, SWAP_ENTRIES
from tracer.store import Store

CPU = cpu.get("qemu-max", None)


def prepared(make_store: Callable[[str], Store], name: str) -> tuple[Source, Stream]:
    """:return: a fixture of 7.3 and its stream"""
    source = open_source(make_store(f"linux-7.3/{name}"))
    return source, lower(source.ops, source.enums)


@pytest.mark.parametrize("name", ["pageout-64k", "fork-64k", "mprotect-64k"])
def test_slices_count_what_the_whole_counts(make_store: Callable[[str], Store], name: str) -> None:
    source, stream = prepared(make_store, name)
    policy, grain = policies.get("unbatched"), source.granule()
    walker = snapshot.Walker(stream, policy, CPU, grain)
    parts = sum(walker.to(stop) for stop in (0, 7, 100, 101, 400, stream.ops.shape[0]))
    whole = replay_stream(stream, policy, CPU, grain).by().row(0, named=True)
    assert dict(zip(counters.NAMES, np.asarray(parts).tolist(), strict=True)) == {
        n: whole[n] for n in counters.NAMES
    }


def test_blocks_before_and_after_reclaim(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "pageout-64k")
    found = snapshot.history(stream, policies.get("unbatched"), CPU, source.granule())
    at = next(i for i, row in enumerate(found.labels) if row["syscall"] == "madvise")
    before, after = found.states[at], found.states[at + 1]
    assert (before.count(snapshot.FOLDED), after.count(snapshot.FOLDED)) == (64, 0)
    assert after.count(snapshot.SWAPPED) == 64
    assert before.orders[4] == before.cont == 1024
    assert found.repaints[at] == (0, 64)
    assert found.states[-1].pages == 0


def test_fork_leaves_blocks_unfolded_unless_batched(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "fork-64k")
    for policy, kind in (("unbatched", snapshot.UNFOLDED), ("batched", snapshot.FOLDED)):
        found = snapshot.history(stream, policies.get(policy), CPU, source.granule())
        at = next(i for i, row in enumerate(found.labels) if row["syscall"] == "clone")
        assert found.states[at + 1].count(kind) == 64


def test_many_windows_are_joined_around_the_large(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "mprotect-64k")
    found = snapshot.history(stream, policies.get("unbatched"), CPU, source.granule())
    assert len(found.steps) <= snapshot.MOST_STEPS + 1
    assert max(step.windows for step in found.steps) > 200
    assert (64, 64) in found.repaints
    stops = [step.stop for step in found.steps]
    assert stops == sorted(stops)
    assert stops[-1] == stream.ops.shape[0]


def test_range_operations_know_the_orders_they_meet(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "fork-64k")
    policy, grain = policies.get("batched"), source.granule()
    split = attribute(stream, policy, CPU, grain)
    whole, parts = (replay_stream(s, policy, CPU, grain) for s in (stream, split))
    # Splitting rows changes no count.
    assert whole.by("op").drop("seq", "nr_pages").equals(parts.by("op").drop("seq", "nr_pages"))
    sums = parts.rows.group_by("op", "order").agg(pl.col("nr_pages").sum())
    met = {(op, order): pages for op, order, pages in sums.iter_rows()}
    assert met["copy_page_range", 4] == 1024
    assert met["zap_page_range", 4] == 2048  # the child's, then the parent's
    assert ("dup_mmap_end", MIXED) in met


def test_zaps_of_swapped_pages_are_told_apart(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "pageout-64k")
    split = attribute(stream, policies.get("batched"), CPU, source.granule())
    zaps = split.groups.filter(split.groups["op"] == "zap_page_range")
    assert {0, SWAP_ENTRIES, NO_ORDER} <= set(zaps["order"])


def test_lookups_are_bounded(make_store: Callable[[str], Store]) -> None:
    source, stream = prepared(make_store, "fork-64k")
    policy = policies.get("batched")
    assert attribute(stream, policy, CPU, source.granule(), most=0) is stream
    few = attribute(stream, policy, CPU, source.granule(), most=5)
    copies = few.groups.filter(few.groups["op"] == "copy_page_range")
    assert set(copies["order"]) == {NO_ORDER}
