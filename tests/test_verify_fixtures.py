# SPDX-License-Identifier: GPL-2.0-or-later
"""The promise: simulated counts equal the counts of really booted arm64 kernels."""

from __future__ import annotations

import functools
from pathlib import Path

import polars as pl
import pytest

from replay.api import Source, open_source, replay, verify
from replay.verify import DIFFERS

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
KERNELS = ("linux-6.12", "linux-7.3")
WORKLOADS = (
    "pageout-64k", "pageout-4k", "zap-64k", "zap-4k", "partial-64k", "fork-64k", "mprotect-64k",
    "mremap-64k", "lazyfree-64k", "uffdwp-64k", "filefault-64k", "swapin-64k",
)  # fmt: skip
# The source-built kernels have no uffd write protection, so no truth for uffdwp.
ANON_BATCH = tuple(w for w in WORKLOADS if not w.startswith("uffdwp"))

# The counters that issue after issue is argued with; all of them have to be compared.
HEADLINE = {
    "pageout-64k": {"tlbi_va", "tlbi_range", "tlbi_asid", "convert", "cp_get",
                    "folio_remove_rmap_ptes", "folio_dup_swap", "walk", "check_pte", "dsplit"},
    "zap-64k": {"tlbi_range", "cp_get", "folio_remove_rmap_ptes", "contpte_clear_full_ptes"},
}  # fmt: skip


@functools.cache
def source(kernel: str, workload: str) -> Source:
    return open_source(FIXTURES / kernel / f"{workload}.perf.data.zst")


def differences(table: pl.DataFrame) -> list[tuple[object, ...]]:
    return table.filter(pl.col("verdict").str.starts_with(DIFFERS)).rows()


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_own_kernel_equals_booted_kernel(kernel: str, workload: str) -> None:
    found = verify(source(kernel, workload), truth_path=FIXTURES / kernel / "truth.json")
    assert differences(found.table) == []
    assert found.passed
    assert HEADLINE.get(workload, set()) <= set(found.table["counter"])


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_own_kernel_equals_recorded_events(kernel: str, workload: str) -> None:
    found = verify(source(kernel, workload))
    assert differences(found.table) == []
    assert found.passed


@pytest.mark.parametrize("workload", ANON_BATCH)
def test_counterfactual_equals_patched_kernel(workload: str) -> None:
    found = verify(
        source("linux-7.3", workload),
        "linux-7.3+anon-batch",
        truth_path=FIXTURES / "lab-7.3-anon-batched" / "truth.json",
    )
    left = [row for row in differences(found.table) if not placed_elsewhere(row)]
    assert left == []


def placed_elsewhere(row: tuple[object, ...]) -> bool:
    """The patched kernel's run put the file mapping and its pages at other addresses.

    The table flush of munmap covers as many tables as the mapping's place
    touches, and a fold is tried where a page happens to be the last of 16.
    """
    return (row[1], row[2]) in {
        ("munmap_file", "tlbi_va"),
        ("filefault", "fold_try"),
        ("fileread", "fold_try"),
    }


@pytest.mark.parametrize("workload", ["pageout-64k", "lazyfree-64k", "mprotect-64k", "fork-64k"])
def test_a_wrong_policy_is_noticed(workload: str) -> None:
    found = verify(
        source("linux-7.3", workload), "unbatched", truth_path=FIXTURES / "linux-7.3" / "truth.json"
    )
    assert not found.passed


def test_batching_takes_nothing_from_base_pages() -> None:
    unbatched, batched = replay(source("linux-7.3", "pageout-4k"))
    columns = ["tlbi_va", "tlbi_range", "xchg", "st", "rmw_map", "swp_op", "walk"]
    small = [
        r.rows.filter(pl.col("order") == 0).select(columns).sum() for r in (unbatched, batched)
    ]
    assert small[0].equals(small[1])


def test_same_input_same_counts() -> None:
    first, second = (replay(source("linux-7.3", "fork-64k"), ["batched"])[0] for _ in range(2))
    assert first.rows.equals(second.rows)
