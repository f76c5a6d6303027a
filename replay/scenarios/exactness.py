# SPDX-License-Identifier: GPL-2.0-or-later
"""Generated workloads against booted kernels: which counts are equal, by operation and policy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from replay import cpu, policies, truth
from replay.engine import replay_stream
from replay.scenarios import build
from replay.scenarios.tolerance import DIFFERS, EXACT, PLACED, PLACEMENT, UNMEASURED, verdict
from replay.truth import TruthRow

SWEEP: Final = Path(__file__).parents[2] / "fixtures" / "sweep"
# Truth file of a booted kernel, and the policy that has to reproduce it.
KERNELS: Final[tuple[tuple[str, str], ...]] = (
    ("6.12", "linux-6.12"),
    ("7.3", "linux-7.3"),
    ("7.3-unbatched", "linux-7.3"),
    ("7.3-anon-batched", "linux-7.3+anon-batch"),
)
# Measured workload to the scenario that generates it.
WORKLOADS: Final[dict[str, str]] = {
    "pageout": "pageout",
    "zap": "zap",
    "partial": "partial",
    "fork": "fork-all",
    "mprotect": "mprotect-all",
    "mremap": "mremap-all",
    "lazyfree": "lazyfree",
    "uffdwp": "uffdwp",
    "filefault": "filefault",
    "swapin": "swapin",
}
# Operations that scenarios generate and nobody has measured.
UNMEASURED_OPERATIONS: Final = (
    "exit", "child_exit", "dontneed_page", "mremap by PUD", "file_unmap of large folios", "aging",
    "page_fault3",
)  # fmt: skip
EXPLAINED: Final = f"{EXACT}*"
LISTED: Final = ("linux-6.1", "linux-6.12", "linux-7.2", "linux-7.3", "linux-7.3+anon-batch")
SIZE: Final = 16 << 20
COUNTERS: Final = (*truth.INSTRUCTIONS, "dsb", *truth.FUNCTIONS)

SCHEMA: Final[dict[str, pl.DataType]] = {
    "kernel": pl.String(),
    "policy": pl.String(),
    "workload": pl.String(),
    "folio_kb": pl.Int64(),
    "phase": pl.String(),
    "counter": pl.String(),
    "simulated": pl.Int64(),
    "real": pl.Int64(),
    "verdict": pl.String(),
}


@cache
def generated(workload: str, folio_kb: int, policy: str, alignment: int) -> dict[str, Any]:
    """Replay a measured workload from its description.

    :param folio_kb: 0 for base pages
    :return: counts by phase and counter
    """
    scenario = build(
        WORKLOADS[workload], size=SIZE, folio_size=folio_kb << 10 or 4096, alignment=alignment
    )
    done = replay_stream(scenario.stream, policies.get(policy), cpu.get(), scenario.geometry)
    sums = done.rows.group_by("phase").agg(pl.col(COUNTERS).sum())
    return {row["phase"]: row for row in sums.iter_rows(named=True)}


def compare_row(kernel: str, policy: str, row: TruthRow) -> list[tuple[Any, ...]]:
    """Every counter of one measured phase.

    :return: rows of :data:`SCHEMA`
    """
    key = (row.workload, row.folio_kb)
    placed = PLACED.get((kernel, *key), 0)
    counts = generated(*key, policy, placed).get(row.phase, {})
    anywhere = generated(*key, policy, 0).get(row.phase, {})
    out: list[tuple[Any, ...]] = []
    for counter in COUNTERS:
        real, simulated = row.counter(counter), int(counts.get(counter, 0))
        if real is None or not (real or simulated):
            continue
        said = verdict(counter, simulated, row)
        if said == EXACT and simulated != anywhere.get(counter, 0):
            said = PLACEMENT
        out.append((kernel, policy, *key, row.phase, counter, simulated, real, said))
    return out


def measured() -> list[tuple[str, str, TruthRow]]:
    """Every row of the sweep with its kernel and the policy to hold against it."""
    return [(k, p, row) for k, p in KERNELS for row in truth.load(SWEEP / f"{k}.json")]


@cache
def details() -> pl.DataFrame:
    """:data:`SCHEMA` for the whole sweep."""
    found = [
        line for kernel, policy, row in measured() for line in compare_row(kernel, policy, row)
    ]
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def exactness_table() -> pl.DataFrame:
    """One row per operation, one column per listed policy.

    :return: ``operation`` and a column per policy: ``exact`` when every folio size and counter
        is, ``dsb`` up to interrupts; ``exact*`` when some count is equal only up to another
        reason of :mod:`replay.scenarios.tolerance`; ``not (n)`` with the number of differing
        rows; ``unmeasured``
    """
    unequal = (pl.col("verdict") != EXACT) & (pl.col("counter") != "dsb")
    rows = (
        details()
        .group_by("phase", "policy", "kernel", "folio_kb", maintain_order=True)
        .agg((pl.col("verdict") == DIFFERS).any().alias("wrong"), unequal.any().alias("starred"))
    )
    cells = rows.group_by("phase", "policy", maintain_order=True).agg(
        pl.col("wrong").sum(), pl.col("starred").any()
    )
    said = {
        (phase, policy): f"{DIFFERS} ({wrong})" if wrong else EXPLAINED if starred else EXACT
        for phase, policy, wrong, starred in cells.iter_rows()
    }
    operations = [*dict.fromkeys(rows["phase"]), *UNMEASURED_OPERATIONS]
    return pl.DataFrame(
        {
            "operation": operations,
            **{p: [said.get((o, p), UNMEASURED) for o in operations] for p in LISTED},
        }
    )


def share(table: pl.DataFrame) -> tuple[int, int, int]:
    """Exact cells, measured cells, all cells of :func:`exactness_table`."""
    cells = [c for p in LISTED for c in table[p].to_list()]
    exact = cells.count(EXACT) + cells.count(EXPLAINED)
    return exact, sum(c != UNMEASURED for c in cells), len(cells)
