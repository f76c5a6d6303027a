# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a stream under a policy on a CPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl

from replay import counters, state
from replay.arm64 import pte
from replay.arm64.geometry import Granule
from replay.cpu import FEATURES as CPU_FEATURES
from replay.cpu import Cpu
from replay.lower import Stream
from replay.mm import check
from replay.mm.run import run
from replay.policies import Policy
from replay.result import Replay
from replay.stream import F_END, F_GROUP, F_MM, F_NR, F_ORDER, F_PFN, F_VA
from tracer import infer
from tracer.errors import EXIT_QUALITY, MmtraceError

# Page tables a replay may grow to: 4 GiB of entries.
MAX_TABLES = 1 << 20
_SPARE = 16


# What a violation code of replay.mm.check means.
VIOLATIONS = {
    check.CONT_NOT_UNIFORM: "a contpte block's entries differ",
    check.CONT_MISALIGNED: "a contpte block maps frames that are not aligned to it",
    check.CONT_FOLIO_SMALL: "a contpte block is larger than its folio",
    check.MAPCOUNT_NEGATIVE: "a page was unmapped more often than mapped",
    check.LARGE_MAPCOUNT_WRONG: "a folio's _large_mapcount is not the sum of its pages'",
    check.NR_MAPPED_WRONG: "a folio's _nr_pages_mapped is not the number of its mapped pages",
    check.UNMAPPED_PRESENT: "an entry maps a page whose _mapcount says unmapped",
    check.GATHER_NOT_FLUSHED: "an mmu_gather ended with translations it did not flush",
}


def _tables(stream: Stream, granule: Granule) -> int:
    """Page tables that the stream's mapping operations touch, and some to spare."""
    ops = stream.ops[stream.ops[:, F_NR] > 0]
    tables = [
        (ops[:, F_MM] << 34) | (address >> granule.pmd_shift)
        for address in (ops[:, F_VA], np.maximum(ops[:, F_END] - 1, ops[:, F_VA]))
    ]
    return len(np.unique(np.concatenate(tables))) + _SPARE


def _large_folios(stream: Stream) -> int:
    large = stream.ops[stream.ops[:, F_ORDER] > 0]
    return len(np.unique(large[:, F_PFN] >> 1)) + _SPARE


def machine(
    stream: Stream, policy: Policy, cpu: Cpu, granule: Granule, checked: bool = False
) -> state.State:
    """An empty machine for the stream, with its parameters set.

    :param checked: invariants are checked after every operation
    """
    st = state.allocate(
        pages=stream.pages,
        mms=stream.mms,
        contexts=stream.contexts,
        tables=_tables(stream, granule),
        ptrs_per_pte=granule.ptrs_per_pte,
        large=_large_folios(stream),
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
    s[state.CHECK] = int(checked)
    return st


def execute(stream: Stream, st: state.State) -> tuple[state.Int64, state.State]:
    """Run the whole stream, growing the machine when it asks for room.

    :return: int64[groups, counters], and the machine as it ended
    :raises MmtraceError: when the stream needs more page tables than MAX_TABLES, or a
        checked machine breaks an invariant
    """
    out = np.zeros((stream.groups.height, len(counters.NAMES)), np.int64)
    at = 0
    while at < stream.ops.shape[0]:
        at = int(run(st, stream.ops, at, out))
        if st.s[state.VIOLATION]:
            raise _violation(stream, at, int(st.s[state.VIOLATION]))
        if at < stream.ops.shape[0]:
            st = _grow(st)
    return out, st


def _violation(stream: Stream, at: int, code: int) -> MmtraceError:
    """Names the operation that broke an invariant."""
    op = stream.ops[at]
    row = stream.groups.row(int(op[F_GROUP]), named=True)
    place = f"address {int(op[F_VA]):#x}" if op[F_VA] else "no address"
    return MmtraceError(
        f"Invariant broken by operation {at} ({row['op']}, {place}, "
        f"{row['syscall'] or 'no system call'} at seq {row['seq']}): {VIOLATIONS[code]}.",
        "Please report it with the capture.",
        EXIT_QUALITY,
    )


def check_conservation(st: state.State) -> None:
    """Every mapping of every page is counted once: entries that map it against _mapcount.

    :raises MmtraceError: naming the first page that differs
    """
    used = int(st.s[state.NR_TABLES]) * int(st.s[state.PTRS_PER_PTE])
    entries = st.pte[:used]
    valid = entries[(entries & (pte.VALID | pte.PRESENT_INVALID)) != 0]
    frames = (valid[(valid & pte.SPECIAL) == 0] & pte.PFN_MASK) >> pte.PFN_SHIFT
    counted = np.bincount(frames, minlength=st.mapcount.size)[: st.mapcount.size]
    wrong = np.flatnonzero(counted != st.mapcount)
    if wrong.size:
        pfn = int(wrong[0])
        raise MmtraceError(
            f"Invariant broken at the end: {wrong.size} pages are mapped more or less often "
            f"than counted; frame {pfn} by {counted[pfn]} entries, _mapcount {st.mapcount[pfn]}.",
            "Please report it with the capture.",
            EXIT_QUALITY,
        )


def _grow(st: state.State) -> state.State:
    """Half as much room again; called until the operation fits."""
    tables = st.table.shape[0]
    if tables >= MAX_TABLES:
        raise MmtraceError(
            f"The replay needs more than {MAX_TABLES} page tables.",
            "Replay fewer address spaces at a time.",
        )
    return state.grow(
        st,
        tables=min(MAX_TABLES, tables + tables // 2 + 64),
        large=st.large.shape[0] + st.large.shape[0] // 2 + 64,
    )


def _rows(groups: pl.DataFrame, out: state.Int64) -> pl.DataFrame:
    """Result rows with one column per counter and per sum."""
    values = pl.DataFrame(
        {name: out[:, i].astype(np.uint64) for i, name in enumerate(counters.NAMES)}
    )
    sums = [pl.sum_horizontal(parts).alias(name) for name, parts in counters.SUMS.items()]
    rows = pl.concat([groups, values.with_columns(sums)], how="horizontal")
    # Pages mapped before the capture are state, not work: they count nothing.
    return rows.filter(pl.col("op") != infer.OP)


def replay_stream(
    stream: Stream,
    policy: Policy,
    cpu: Cpu,
    granule: Granule,
    *,
    provenance: dict[str, Any] | None = None,
    store: str | None = None,
    checked: bool = False,
) -> Replay:
    """Replay a stream and gather what it counted.

    :param checked: check invariants after every operation, and conservation at the end
    """
    st = machine(stream, policy, cpu, granule, checked)
    begin = time.perf_counter()
    out, st = execute(stream, st)
    seconds = time.perf_counter() - begin
    rows = _rows(stream.groups, out)
    if checked:
        check_conservation(st)
    return Replay(
        policy=policy.name,
        policy_title=policy.title,
        cpu={"name": cpu.name, **cpu.features(), "granule": granule.name},
        rows=rows,
        unmodelled=stream.unmodelled,
        inferred={
            "pages": int(st.s[state.INFERRED_PAGES]),
            "operations": int(st.s[state.INFERRED_OPS]),
        },
        nr_ops=int(rows["nr_ops"].sum()),
        seconds=seconds,
        store=store,
        provenance=provenance or {},
    )
