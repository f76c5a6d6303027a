# SPDX-License-Identifier: GPL-2.0-or-later
"""Generated workloads against booted kernels: which counts are equal, by operation and policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from replay import cpu, policies, truth
from replay.engine import replay_stream
from replay.result import Replay
from replay.scenarios import build
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
SIZE: Final = 16 << 20
COUNTERS: Final = (*truth.INSTRUCTIONS, "dsb", *truth.FUNCTIONS)

EXACT: Final = "exact"
DIFFERS: Final = "not"
UNMEASURED: Final = "unmeasured"

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


def verdict(counter: str, simulated: int, row: TruthRow) -> str:
    """``exact``, ``not``, or the physical reason why the counts may differ."""
    real = row.counter(counter)
    if real is None:
        return UNMEASURED
    if real == simulated:
        return EXACT
    if counter in truth.TOLERANCES and 0 <= real - simulated <= row.dsb_noise():
        return truth.TOLERANCES[counter]
    return DIFFERS


def generated(workload: str, folio_kb: int, policy: str) -> Replay:
    """Replay a measured workload from its description."""
    folio = folio_kb << 10 or 4096
    scenario = build(WORKLOADS[workload], size=SIZE, folio_size=folio)
    return replay_stream(scenario.stream, policies.get(policy), cpu.get(), scenario.geometry)


def compare(kernel: str, policy: str) -> pl.DataFrame:
    """Every counter of every row of one truth file.

    :return: :data:`SCHEMA`
    """
    rows = truth.load(SWEEP / f"{kernel}.json")
    replays: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    out: list[tuple[Any, ...]] = []
    for row in rows:
        key = (row.workload, row.folio_kb)
        if key not in replays:
            done = generated(*key, policy).rows
            sums = done.group_by("phase").agg(pl.col(COUNTERS).sum())
            replays[key] = {r["phase"]: r for r in sums.iter_rows(named=True)}
        counts = replays[key].get(row.phase, {})
        for counter in COUNTERS:
            real = row.counter(counter)
            simulated = int(counts.get(counter, 0))
            if real is not None and (real or simulated):
                said = verdict(counter, simulated, row)
                out.append((kernel, policy, *key, row.phase, counter, simulated, real, said))
    return pl.DataFrame(out, schema=SCHEMA, orient="row")


def details() -> pl.DataFrame:
    """:func:`compare` of all kernels."""
    return pl.concat([compare(kernel, policy) for kernel, policy in KERNELS])
