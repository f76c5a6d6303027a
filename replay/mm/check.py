# SPDX-License-Identifier: GPL-2.0-or-later
"""Invariants of the simulated machine, checked after every operation on request.

The kernel's own VM_BUG_ON() culture: a violation is a bug of the model or a
capture that contradicts itself, and names the operation that caused it.
"""

from __future__ import annotations

from replay.arm64.pte import (
    AF,
    CONT,
    VALID,
    pte_advance_pfn,
    pte_mkclean,
    pte_pfn,
    pte_valid_cont,
)
from replay.mm.pgtable import index_of, pmd_addr_end, table_of
from replay.state import (
    CONT_PTES,
    GA_ACTIVE,
    GA_CLEARED_PMDS,
    GA_CLEARED_PTES,
    GA_FREED_TABLES,
    INFO_LIVE,
    INFO_ORDER,
    LARGE_ENTIRE,
    LARGE_MAPCOUNT,
    LARGE_NR_MAPPED,
    PAGE_SHIFT,
    State,
)
from tracer.jit import inner

# Violation codes; the texts are in replay.engine.VIOLATIONS.
CONT_NOT_UNIFORM = 1
CONT_MISALIGNED = 2
CONT_FOLIO_SMALL = 3
MAPCOUNT_NEGATIVE = 4
LARGE_MAPCOUNT_WRONG = 5
NR_MAPPED_WRONG = 6
UNMAPPED_PRESENT = 7
GATHER_NOT_FLUSHED = 8


@inner
def _check_block(st: State, first: int) -> int:
    """A block with one contpte entry is contpte throughout."""
    cont = st.s[CONT_PTES]
    expected = pte_mkclean(st.pte[first]) & ~AF
    for k in range(cont):
        pte = st.pte[first + k]
        if not pte_valid_cont(pte):
            return CONT_NOT_UNIFORM
        if (pte_mkclean(pte) & ~AF) != pte_advance_pfn(expected, k):
            return CONT_NOT_UNIFORM
    pfn = pte_pfn(st.pte[first])
    if pfn % cont:
        return CONT_MISALIGNED
    if (1 << (st.info[pfn] & INFO_ORDER)) < cont:
        return CONT_FOLIO_SMALL
    return 0


@inner
def _check_page(st: State, pfn: int) -> int:
    """Counters of the page's folio agree with each other."""
    if st.mapcount[pfn] <= 0:
        return UNMAPPED_PRESENT
    order = st.info[pfn] & INFO_ORDER
    if order == 0:
        return 0
    head = pfn - pfn % (1 << order)
    total = 0
    mapped = 0
    for page in range(head, head + (1 << order)):
        if st.mapcount[page] < 0:
            return MAPCOUNT_NEGATIVE
        total += st.mapcount[page]
        mapped += 1 if st.mapcount[page] > 0 else 0
    row = st.largeix[head >> 1]
    if st.large[row, LARGE_MAPCOUNT] != total + st.large[row, LARGE_ENTIRE]:
        return LARGE_MAPCOUNT_WRONG
    if st.large[row, LARGE_NR_MAPPED] != mapped:
        return NR_MAPPED_WRONG
    return 0


@inner
def check_range(st: State, mm: int, va: int, end: int) -> int:
    """Every entry of the blocks that [va, end) touches; 0 or a violation code."""
    cont = st.s[CONT_PTES]
    size = cont << st.s[PAGE_SHIFT]
    va -= va % size
    end += -end % size
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, mm, va)
        if table >= 0:
            first = index_of(st, table, va)
            last_folio = -1
            for i in range(first, first + ((stop - va) >> st.s[PAGE_SHIFT])):
                pte = st.pte[i]
                if not pte & VALID:
                    continue
                if pte & CONT and i % cont == 0:
                    bad = _check_block(st, i)
                    if bad:
                        return bad
                elif pte & CONT and not pte_valid_cont(st.pte[i - i % cont]):
                    return CONT_NOT_UNIFORM
                pfn = pte_pfn(pte)
                if not st.info[pfn - pfn % (1 << (st.info[pfn] & INFO_ORDER))] & INFO_LIVE:
                    continue
                head = pfn >> (st.info[pfn] & INFO_ORDER)
                if st.mapcount[pfn] <= 0:
                    return UNMAPPED_PRESENT
                if head != last_folio:
                    last_folio = head
                    bad = _check_page(st, pfn)
                    if bad:
                        return bad
        va = stop
    return 0


@inner
def check_gather(st: State, ctx: int) -> int:
    """A finished gather has nothing left to flush: no stale translation outlives it."""
    if st.ga[ctx, GA_ACTIVE]:
        return 0
    if st.ga[ctx, GA_CLEARED_PTES] or st.ga[ctx, GA_CLEARED_PMDS] or st.ga[ctx, GA_FREED_TABLES]:
        return GATHER_NOT_FLUSHED
    return 0
