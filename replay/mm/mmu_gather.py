# SPDX-License-Identifier: GPL-2.0-or-later
"""mmu_gather: what a tear-down collects and when it flushes.

Mirrors include/asm-generic/tlb.h, mm/mmu_gather.c and tlb_flush() of
arch/arm64/include/asm/tlb.h. ``ctx`` is the row of ``State.ga`` of the task.
"""

from __future__ import annotations

from replay.arm64.tlbflush import flush_tlb_mm, flush_tlb_range
from replay.counters import INDEX
from replay.policies import FEATURE_INDEX
from replay.state import (
    GA_ACTIVE,
    GA_BATCH,
    GA_BATCHES,
    GA_CLEARED_PMDS,
    GA_CLEARED_PTES,
    GA_CLEARED_PUDS,
    GA_DELAYED_RMAP,
    GA_END,
    GA_FREED_TABLES,
    GA_FULLMM,
    GA_MAX,
    GA_MM,
    GA_NR,
    GA_RUNS,
    GA_START,
    PAGE_SIZE,
    POLICY,
    PTRS_PER_PTE,
    State,
)
from tracer.jit import inner

GSLOT = INDEX["gslot"]
GPAGE = INDEX["gpage"]
GFORCE = INDEX["gforce"]
RMW_REF = INDEX["rmw_ref"]
REMOVE_PAGES = INDEX["__tlb_remove_folio_pages"]
NEXT_BATCH = INDEX["tlb_next_batch"]
F_RUNS = POLICY + FEATURE_INDEX["gather_runs"]


NO_START = (1 << 62) - 1
EMBEDDED = 8  # MMU_GATHER_BUNDLE
BATCH_HEADER = 16  # bytes of struct mmu_gather_batch before its array
MAX_ENTRIES = 10000  # MAX_GATHER_BATCH_COUNT counts pages of this many entries


@inner
def _reset_range(st: State, ctx: int) -> None:
    st.ga[ctx, GA_START] = NO_START
    st.ga[ctx, GA_END] = 0
    st.ga[ctx, GA_FREED_TABLES] = 0
    st.ga[ctx, GA_CLEARED_PTES] = 0
    st.ga[ctx, GA_CLEARED_PMDS] = 0
    st.ga[ctx, GA_CLEARED_PUDS] = 0


@inner
def tlb_gather_mmu(st: State, ctx: int, mm: int, fullmm: int) -> None:
    """Start a gather, unless this one is already running."""
    if st.ga[ctx, GA_ACTIVE] and st.ga[ctx, GA_MM] == mm:
        return
    st.ga[ctx, GA_ACTIVE] = 1
    st.ga[ctx, GA_MM] = mm
    st.ga[ctx, GA_FULLMM] = fullmm
    st.ga[ctx, GA_DELAYED_RMAP] = 0
    st.ga[ctx, GA_NR] = 0
    st.ga[ctx, GA_MAX] = EMBEDDED
    st.ga[ctx, GA_BATCH] = 0
    st.ga[ctx, GA_BATCHES] = 0
    st.ga[ctx, GA_RUNS] = 0
    _reset_range(st, ctx)


@inner
def _adjust_range(st: State, ctx: int, va: int, size: int) -> None:
    st.ga[ctx, GA_START] = min(st.ga[ctx, GA_START], va)
    st.ga[ctx, GA_END] = max(st.ga[ctx, GA_END], va + size)


@inner
def tlb_remove_tlb_entries(st: State, ctx: int, va: int, nr: int) -> None:
    """tlb_flush_pte_range()"""
    _adjust_range(st, ctx, va, nr * st.s[PAGE_SIZE])
    st.ga[ctx, GA_CLEARED_PTES] = 1


@inner
def tlb_flush_pmd_range(st: State, ctx: int, va: int, size: int) -> None:
    _adjust_range(st, ctx, va, size)
    st.ga[ctx, GA_CLEARED_PMDS] = 1


@inner
def pte_free_tlb(st: State, ctx: int, va: int) -> None:
    """A PTE table goes: the walk cache above it must go too."""
    _adjust_range(st, ctx, va, st.s[PAGE_SIZE])
    st.ga[ctx, GA_FREED_TABLES] = 1
    st.ga[ctx, GA_CLEARED_PMDS] = 1


@inner
def tlb_flush_mmu_tlbonly(st: State, ctx: int) -> None:
    """Emit the gathered invalidation, if there is any, and forget it."""
    ga = st.ga
    if not (
        ga[ctx, GA_FREED_TABLES]
        or ga[ctx, GA_CLEARED_PTES]
        or ga[ctx, GA_CLEARED_PMDS]
        or ga[ctx, GA_CLEARED_PUDS]
    ):
        return
    if ga[ctx, GA_FULLMM]:
        if ga[ctx, GA_FREED_TABLES]:
            flush_tlb_mm(st)
    else:
        stride = 1
        if not ga[ctx, GA_CLEARED_PTES]:
            stride = st.s[PTRS_PER_PTE]
            if not ga[ctx, GA_CLEARED_PMDS]:
                stride *= st.s[PTRS_PER_PTE]
        flush_tlb_range(st, ga[ctx, GA_START], ga[ctx, GA_END], stride, 1, 0)
    _reset_range(st, ctx)


@inner
def _batch_free(st: State, ctx: int) -> None:
    """tlb_batch_pages_flush(): one refcount operation a run; the batch list is kept."""
    st.c[RMW_REF] += st.ga[ctx, GA_RUNS]
    st.ga[ctx, GA_RUNS] = 0
    st.ga[ctx, GA_NR] = 0
    st.ga[ctx, GA_BATCH] = 0
    st.ga[ctx, GA_MAX] = EMBEDDED
    st.ga[ctx, GA_DELAYED_RMAP] = 0


@inner
def tlb_flush_mmu(st: State, ctx: int) -> None:
    tlb_flush_mmu_tlbonly(st, ctx)
    _batch_free(st, ctx)


@inner
def tlb_end_vma(st: State, ctx: int) -> None:
    """arm64 does not merge VMAs in one flush."""
    if not st.ga[ctx, GA_FULLMM]:
        tlb_flush_mmu_tlbonly(st, ctx)


@inner
def tlb_finish_mmu(st: State, ctx: int) -> None:
    tlb_flush_mmu(st, ctx)
    st.ga[ctx, GA_ACTIVE] = 0


@inner
def _next_batch(st: State, ctx: int) -> bool:
    """tlb_next_batch(): False when the caller has to flush first."""
    st.c[NEXT_BATCH] += 1
    if st.ga[ctx, GA_DELAYED_RMAP] and st.ga[ctx, GA_BATCH] > 0:
        return False
    capacity = (st.s[PAGE_SIZE] - BATCH_HEADER) // 8
    if st.ga[ctx, GA_BATCH] >= st.ga[ctx, GA_BATCHES]:
        if st.ga[ctx, GA_BATCHES] >= MAX_ENTRIES // capacity:
            return False
        st.ga[ctx, GA_BATCHES] += 1
        st.c[GPAGE] += 1
    st.ga[ctx, GA_BATCH] += 1
    st.ga[ctx, GA_NR] = 0
    st.ga[ctx, GA_MAX] = capacity
    return True


@inner
def tlb_remove_folio_pages(st: State, ctx: int, nr: int, delay_rmap: int) -> bool:
    """__tlb_remove_folio_pages(): True when a flush is forced.

    A run takes two slots, a page one; where runs exist, the last slot stays free.
    """
    st.c[REMOVE_PAGES] += 1
    if delay_rmap:
        st.ga[ctx, GA_DELAYED_RMAP] = 1
    return _gather(st, ctx, 2 if nr > 1 else 1)


@inner
def tlb_remove_page_size(st: State, ctx: int) -> bool:
    """__tlb_remove_page_size(): one page of any size; True when a flush is forced."""
    return _gather(st, ctx, 1)


@inner
def _gather(st: State, ctx: int, slots: int) -> bool:
    """Take slots of the active batch; True when the caller has to flush."""
    st.ga[ctx, GA_NR] += slots
    st.ga[ctx, GA_RUNS] += 1
    st.c[GSLOT] += slots
    kept = 1 if st.s[F_RUNS] else 0
    if st.ga[ctx, GA_NR] >= st.ga[ctx, GA_MAX] - kept and not _next_batch(st, ctx):
        st.c[GFORCE] += 1
        return True
    return False
