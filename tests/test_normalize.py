# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of both kernels' probe sets to operations."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from replay.api import open_source, replay
from tracer import schema
from tracer.normalize import missing_fields, probe_of

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


@pytest.mark.parametrize("kernel", ["linux-6.12", "linux-7.3"])
def test_every_probe_of_the_set_is_understood(kernel: str) -> None:
    """By name and fields: the definitions that were loaded on the booted kernel."""
    for line in (FIXTURES / kernel / "kprobe_events.txt").read_text().splitlines():
        match = re.match(r"[pr]\d*:(\S+)/(\S+) \S+(.*)", line)
        if not match:
            continue
        probe = probe_of(f"{match[1]}:{match[2]}")
        assert probe is not None, line
        fields = set(re.findall(r"(\w+)=", match[3]))
        if probe.role == "op":
            assert missing_fields(probe, fields) == [], line


@pytest.mark.parametrize("kernel", ["linux-6.12", "linux-7.3"])
def test_pageout_is_what_the_workload_did(kernel: str) -> None:
    ops = open_source(FIXTURES / kernel / "pageout-64k.perf.data.zst").ops
    schema.check(ops, schema.OP_COLUMNS, "ops")
    assert ops["seq"].is_sorted()
    mm = ops.filter((pl.col("op") == "try_to_unmap_one") & pl.col("whole_life"))
    assert mm.height == 64
    assert set(mm["order"]) == {4}
    assert set(mm["nr_pages"]) == {16}
    assert set(mm["syscall"]) == {"madvise"}
    assert (mm["pfn"] % 16).sum() == 0
    assert mm["va"].is_sorted()


def test_faults_find_their_outcome() -> None:
    """7.3 reuses a page whose child is gone, 6.12 copies it: one write per 64K block."""
    reuse = open_source(FIXTURES / "linux-7.3" / "fork-64k.perf.data.zst").ops
    copy = open_source(FIXTURES / "linux-6.12" / "fork-64k.perf.data.zst").ops
    in_region = (pl.col("vm_end") - pl.col("vm_start")) >= 4 << 20
    counts = {
        name: ops.filter(
            in_region & (pl.col("comm") == "mmwork") & pl.col("op").str.starts_with("wp_page")
        )["op"].value_counts()
        for name, ops in (("7.3", reuse), ("6.12", copy))
    }
    assert counts["7.3"].rows() == [("wp_page_reuse", 64)]
    assert counts["6.12"].rows() == [("wp_page_copy", 64)]


def test_fork_ends_with_one_flush_of_the_parent() -> None:
    ops = open_source(FIXTURES / "linux-7.3" / "fork-64k.perf.data.zst").ops
    ends = ops.filter(pl.col("op") == "dup_mmap_end")
    assert ends.height == ops.filter(pl.col("op") == "copy_page_range")["arg"].n_unique()


def test_whole_life_is_the_workload_not_what_ran_before() -> None:
    ops = open_source(FIXTURES / "linux-7.3" / "pageout-64k.perf.data.zst").ops
    by = ops.filter(pl.col("mm").is_not_null()).group_by("comm", "whole_life").len()
    whole = set(by.filter(pl.col("whole_life"))["comm"])
    assert "mmwork" in whole
    assert "perf" not in whole


def test_older_mappings_are_inferred_from_their_end() -> None:
    """perf-exec's memory was mapped before recording; its exec tears it down inside."""
    source = open_source(FIXTURES / "linux-7.3" / "pageout-64k.perf.data.zst")
    inferred = source.ops.filter(pl.col("op") == "infer_map")
    assert inferred.height > 1000
    assert not inferred["whole_life"].any()
    assert ((inferred["end"] - inferred["va"]) == inferred["nr_pages"] * 4096).all()
    (done,) = replay(source, ["own"], checked=True)
    recorded = source.events()["mmtrace:folio_remove_rmap_ptes"].height
    simulated = done.by()["folio_remove_rmap_ptes"][0]
    # The rest are pages whose mapping and unmap the capture ties to other addresses.
    assert 0.98 * recorded <= simulated <= recorded
    assert done.inferred["pages"] >= inferred["nr_pages"].sum() * 0.9
