# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a stream under a policy on a CPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl

from replay import counters, state
from replay.arm64.geometry import Granule
from replay.cpu import FEATURES as CPU_FEATURES
from replay.cpu import Cpu
from replay.lower import Stream
from replay.mm.run import run
from replay.policies import Policy
from replay.result import Replay
from tracer.errors import MmtraceError

# Page tables a replay may grow to: 4 GiB of entries.
MAX_TABLES = 1 << 20


def machine(stream: Stream, policy: Policy, cpu: Cpu, granule: Granule) -> state.State:
    """An empty machine for the stream, with its parameters set."""
    st = state.allocate(
        pages=stream.pages,
        mms=stream.mms,
        contexts=stream.contexts,
        tables=stream.tables,
        ptrs_per_pte=granule.ptrs_per_pte,
    )
    s = st.s
    s[state.PAGE_SHIFT] = granule.page_shift
    s[state.PAGE_SIZE] = granule.page_size
    s[state.PTRS_PER_PTE] = granule.ptrs_per_pte
    s[state.PMD_SHIFT] = granule.pmd_shift
    s[state.PMD_SIZE] = 1 << granule.pmd_shift
    s[state.PUD_SIZE] = 1 << granule.pud_shift
    s[state.CONT_PTES] = granule.cont_ptes
    for offset, name in enumerate(CPU_FEATURES):
        s[state.CPU_TLBI_RANGE + offset] = getattr(cpu, name)
    vector = policy.vector()
    s[state.POLICY : state.POLICY + len(vector)] = vector
    return st


def execute(stream: Stream, st: state.State) -> tuple[state.Int64, state.State]:
    """Run the whole stream, growing the machine when it asks for room.

    :return: int64[groups, counters], and the machine as it ended
    :raises MmtraceError: when the stream needs more page tables than MAX_TABLES
    """
    out = np.zeros((stream.groups.height, len(counters.NAMES)), np.int64)
    at = 0
    while at < stream.ops.shape[0]:
        at = int(run(st, stream.ops, at, out))
        if at < stream.ops.shape[0]:
            st = _grow(st, stream.ops[at])
    return out, st


def _grow(st: state.State, op: state.Int64) -> state.State:
    """Twice the room, or as much as one huge range needs."""
    tables = st.table.shape[0]
    if tables >= MAX_TABLES:
        raise MmtraceError(
            f"The replay needs more than {MAX_TABLES} page tables.",
            "Replay fewer address spaces at a time.",
        )
    return state.grow(
        st,
        tables=min(MAX_TABLES, 2 * tables + 64),
        large=2 * st.large.shape[0],
    )


def _rows(groups: pl.DataFrame, out: state.Int64) -> pl.DataFrame:
    """Result rows with one column per counter and per sum."""
    values = pl.DataFrame(
        {name: out[:, i].astype(np.uint64) for i, name in enumerate(counters.NAMES)}
    )
    sums = [pl.sum_horizontal(parts).alias(name) for name, parts in counters.SUMS.items()]
    return pl.concat([groups, values.with_columns(sums)], how="horizontal")


def replay_stream(
    stream: Stream,
    policy: Policy,
    cpu: Cpu,
    granule: Granule,
    *,
    provenance: dict[str, Any] | None = None,
    store: str | None = None,
) -> Replay:
    """Replay a stream and gather what it counted."""
    st = machine(stream, policy, cpu, granule)
    begin = time.perf_counter()
    out, st = execute(stream, st)
    seconds = time.perf_counter() - begin
    return Replay(
        policy=policy.name,
        policy_title=policy.title,
        cpu={"name": cpu.name, **cpu.features(), "granule": granule.name},
        rows=_rows(stream.groups, out),
        unmodelled=stream.unmodelled,
        inferred={
            "pages": int(st.s[state.INFERRED_PAGES]),
            "operations": int(st.s[state.INFERRED_OPS]),
        },
        nr_ops=stream.ops.shape[0],
        seconds=seconds,
        store=store,
        provenance=provenance or {},
    )
