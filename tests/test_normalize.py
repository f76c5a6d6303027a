# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of both kernels' probe sets to operations."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from replay.api import open_source
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
