# SPDX-License-Identifier: GPL-2.0-or-later
"""mm/mmu_gather.c, include/asm-generic/tlb.h and arm64's tlb_flush()."""

from __future__ import annotations

from tests.oracle.machine import Gather, Machine
from tests.oracle.tlbflush import flush_tlb_mm, flush_tlb_range

BUNDLE = 8
MAX_ENTRIES = 10000
HEADER = 16


def tlb_gather_mmu(m: Machine, ctx: int, mm: int, *, fullmm: bool = False) -> Gather:
    """The context's gather on this mm; a new one unless it is under way."""
    context = m.context(ctx)
    if context.gather is None or context.gather.mm != mm:
        context.gather = Gather(mm, fullmm)
    return context.gather


def gather_pending(m: Machine, mm: int) -> bool:
    """mm_tlb_flush_pending(): some task gathers on this mm."""
    return any(c.gather is not None and c.gather.mm == mm for c in m.contexts.values())


def _adjust(gather: Gather, start: int, end: int) -> None:
    gather.start = start if gather.start is None else min(gather.start, start)
    gather.end = max(gather.end, end)


def tlb_remove_tlb_entries(m: Machine, gather: Gather, va: int, nr: int) -> None:
    _adjust(gather, va, va + nr * m.page)
    gather.cleared_ptes = True


def pte_free_tlb(m: Machine, gather: Gather, va: int) -> None:
    _adjust(gather, va, va + m.page)
    gather.freed_tables = gather.cleared_pmds = True


def tlb_flush_mmu_tlbonly(m: Machine, gather: Gather) -> None:
    levels = gather.cleared_ptes, gather.cleared_pmds, gather.cleared_puds
    if not any(levels) and not gather.freed_tables:
        return
    if gather.fullmm:
        if gather.freed_tables:
            flush_tlb_mm(m)
    else:
        strides = 1, m.ptrs, m.ptrs**2
        stride = next((s for s, level in zip(strides, levels, strict=True) if level), strides[2])
        flush_tlb_range(m, gather.start or 0, gather.end, stride=stride)
    gather.start, gather.end = None, 0
    gather.freed_tables = False
    gather.cleared_ptes = gather.cleared_pmds = gather.cleared_puds = False


def tlb_flush_mmu(m: Machine, gather: Gather) -> None:
    """Flush and free: one reference dropped for each run; the batches are kept."""
    tlb_flush_mmu_tlbonly(m, gather)
    m.count("rmw_ref", gather.runs)
    gather.runs = gather.used = gather.batch = 0
    gather.delayed_rmap = False


def tlb_end_vma(m: Machine, gather: Gather) -> None:
    if not gather.fullmm:
        tlb_flush_mmu_tlbonly(m, gather)


def capacity(m: Machine) -> int:
    return (m.page - HEADER) // 8


def _tlb_next_batch(m: Machine, gather: Gather) -> bool:
    m.count("tlb_next_batch")
    if gather.delayed_rmap and gather.batch:
        return False
    if gather.batch == gather.page_batches:
        if gather.page_batches == MAX_ENTRIES // capacity(m):
            return False
        gather.page_batches += 1
        m.count("gpage")
    gather.batch += 1
    gather.used = 0
    return True


def tlb_remove_folio_pages(m: Machine, gather: Gather, nr: int, *, delay_rmap: bool) -> bool:
    """True when the caller has to flush: no batch is left."""
    m.count("__tlb_remove_folio_pages")
    gather.delayed_rmap |= delay_rmap
    slots = 1 if nr == 1 else 2
    m.count("gslot", slots)
    gather.used += slots
    gather.runs += 1
    kept = 1 if m.f.gather_runs else 0  # for the second word of a run
    full = (capacity(m) if gather.batch else BUNDLE) - kept
    if gather.used < full or _tlb_next_batch(m, gather):
        return False
    m.count("gforce")
    return True


def tlb_finish(m: Machine, ctx: int) -> None:
    context = m.context(ctx)
    if context.gather is not None:
        tlb_flush_mmu(m, context.gather)
    context.gather = None
