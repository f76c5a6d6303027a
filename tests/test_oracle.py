# SPDX-License-Identifier: GPL-2.0-or-later
"""Engine and oracle count the same, op by op, and end with the same page tables.

``MMTRACE_EXAMPLES`` sets how many streams are drawn; a full run takes 10,000.
"""

from __future__ import annotations

import os

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings

from replay import counters, state
from replay.arm64 import pte as bits
from replay.engine import execute, machine
from replay.lower import Stream
from replay.stream import NR_FIELDS
from tests.oracle import entries
from tests.oracle.interpreter import Oracle
from tests.streams import Case, cases

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
EXAMPLES = int(os.environ.get("MMTRACE_EXAMPLES", "400" if JIT else "40"))

KINDS = {
    bits.SWAP: entries.SWAP,
    bits.MIGRATION_READ: entries.MIGRATION_READ,
    bits.MIGRATION_READ_EXCL: entries.MIGRATION_READ_EXCL,
    bits.MIGRATION_WRITE: entries.MIGRATION_WRITE,
    bits.MARKER_UFFD: entries.MARKER_UFFD,
    bits.HWPOISON: entries.HWPOISON,
}


def run_engine(case: Case) -> tuple[state.Int64, state.State]:
    """:return: int64[ops, counters], and the machine at the end"""
    rows = len(case.ops)
    records = np.array(case.ops, np.int64).reshape(rows, NR_FIELDS)
    groups = pl.DataFrame({"group": range(rows)})
    stream = Stream(records, groups, pl.DataFrame(), case.pages, 16, 4, 16)
    return execute(stream, machine(stream, case.policy, case.cpu, case.granule))


def decoded(value: int) -> tuple[object, ...]:
    """What an entry of the engine means, in the terms of :func:`described`."""
    frame = (value & bits.PFN_MASK) >> bits.PFN_SHIFT
    if value & (bits.VALID | bits.PRESENT_INVALID):
        hardware_dirty = value & (bits.WRITE | bits.RDONLY) == bits.WRITE
        return (
            "present" if value & bits.VALID else "protnone", frame,
            bool(value & bits.WRITE), bool(value & bits.DIRTY) or hardware_dirty,
            bool(value & bits.AF),
            not value & bits.UXN, bool(value & bits.UFFD), bool(value & bits.CONT),
            bool(value & bits.SPECIAL),
        )  # fmt: skip
    return (
        KINDS[value & bits.KIND_MASK], frame, bool(value & bits.NP_EXCLUSIVE),
        bool(value & bits.NP_UFFD), bool(value & bits.NP_YOUNG), bool(value & bits.NP_DIRTY),
    )  # fmt: skip


def described(entry: entries.Entry) -> tuple[object, ...]:
    if isinstance(entry, entries.Pte):
        kind = "present" if entry.valid else "protnone"
        return (
            kind, entry.pfn, entry.write, entry.dirty, entry.young, entry.executable,
            entry.uffd, entry.cont, entry.special,
        )  # fmt: skip
    assert isinstance(entry, entries.NonPresent)
    return (entry.kind, entry.pfn, entry.exclusive, entry.uffd, entry.young, entry.dirty)


def engine_entries(st: state.State) -> dict[tuple[int, int, int], tuple[object, ...]]:
    """Every entry that is not none, by (mm, PMD, index)."""
    per = int(st.s[state.PTRS_PER_PTE])
    found = {}
    for table in range(int(st.s[state.NR_TABLES])):
        mm, pmd = (int(v) for v in st.table[table, [state.TABLE_MM, state.TABLE_PMD]])
        if mm < 0:
            continue
        own = st.pte[table * per : (table + 1) * per]
        for index in np.flatnonzero(own):
            found[mm, pmd, int(index)] = decoded(int(own[index]))
    return found


def oracle_entries(oracle: Oracle) -> dict[tuple[int, int, int], tuple[object, ...]]:
    return {
        (number, pmd, index): described(entry)
        for number, mm in oracle.mms.items()
        for pmd, table in mm.tables.items()
        for index, entry in table.entries.items()
    }


def oracle_tables(oracle: Oracle) -> set[tuple[int, int]]:
    return {(number, pmd) for number, mm in oracle.mms.items() for pmd in mm.tables}


def engine_tables(st: state.State) -> set[tuple[int, int]]:
    rows = st.table[: int(st.s[state.NR_TABLES])]
    return {(int(row[0]), int(row[1])) for row in rows if row[state.TABLE_MM] >= 0}


def differences(case: Case, out: state.Int64) -> list[str]:
    """Counters that differ, named by op."""
    return [
        f"op {i}: {name}: engine {int(out[i, k])}, oracle {wanted[k]}"
        for i, wanted in enumerate(case.expected)
        for k, name in enumerate(counters.NAMES)
        if out[i, k] != wanted[k]
    ]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
def test_engine_counts_what_the_oracle_counts(case: Case) -> None:
    out, st = run_engine(case)
    assert differences(case, out) == []
    assert case.oracle is not None
    assert engine_entries(st) == oracle_entries(case.oracle)
    assert engine_tables(st) == oracle_tables(case.oracle)
    assert int(st.s[state.INFERRED_PAGES]) == case.oracle.inferred_pages
