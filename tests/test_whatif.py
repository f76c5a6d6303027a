# SPDX-License-Identifier: GPL-2.0-or-later
"""One capture answers for every folio size: against booted kernels run at those sizes."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from replay import counters
from replay.api import open_source, replay
from replay.whatif import parse_order
from tracer.errors import UsageError

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
# The sweep ran 16 MiB, the capture 4 MiB, both in whole page tables.
SCALE = 4
COUNTERS = ("tlbi_va", "tlbi_range")


def truth(kernel: str, folio_kb: int) -> dict[str, int]:
    for row in json.loads((FIXTURES / "sweep" / f"{kernel}.json").read_text()):
        if (row["workload"], row["phase"], row["folio_kb"]) == ("pageout", "pageout", folio_kb):
            functions = row["functions"]
            return {
                **{c: row["ops"][c] for c in COUNTERS},
                "convert": functions.get("contpte_convert", 0),
                "folio_remove_rmap_ptes": functions["folio_remove_rmap_ptes"],
            }
    raise LookupError(folio_kb)


@pytest.mark.parametrize("folio_kb", [4, 16, 32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize(
    ("kernel", "capture", "policy"),
    [
        ("6.12", "linux-6.12", "linux-6.12"),
        ("7.3", "linux-7.3", "linux-7.3"),
        ("7.3-anon-batched", "linux-7.3", "linux-7.3+anon-batch"),
    ],
)
@pytest.mark.parametrize("recorded", ["pageout-4k", "pageout-64k"])
def test_pageout_at_every_folio_size(
    kernel: str, capture: str, policy: str, folio_kb: int, recorded: str
) -> None:
    source = open_source(FIXTURES / capture / f"{recorded}.perf.data.zst")
    (done,) = replay(source, [policy], folio_size=f"{folio_kb}K", checked=True)
    real = truth(kernel, folio_kb)
    call = done.rows.filter(pl.col("syscall") == "madvise")
    assert {name: int(call[name].sum()) * SCALE for name in real} == real


def test_the_recorded_size_gives_the_recorded_counts() -> None:
    """In the workload's call; a relaid heap would get large folios too."""
    source = open_source(FIXTURES / "linux-7.3" / "pageout-64k.perf.data.zst")
    plain, relaid = (
        replay(source, ["linux-7.3"], folio_size=size)[0]
        .rows.filter(pl.col("syscall") == "madvise")
        .select(counters.NAMES)
        .sum()
        for size in ("as-recorded", "64K")
    )
    assert plain["tlbi_va"][0] == 1024
    assert plain.equals(relaid)


@pytest.mark.parametrize(
    ("text", "order"), [("4K", 0), ("64K", 4), ("2M", 9), ("as-recorded", None)]
)
def test_sizes(text: str, order: int | None) -> None:
    assert parse_order(text, 4096) == order


@pytest.mark.parametrize("text", ["8K", "3K", "65K", "K", "64", "-4K", "1G", ""])
def test_not_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="folio size"):
        parse_order(text, 4096)
