# SPDX-License-Identifier: GPL-2.0-or-later
"""The tear-down half of mm/memory.c: zap_pte_range()."""

from __future__ import annotations

from replay.stream import VMF_UFFD_WP
from tests.oracle.contpte import (
    get_and_clear,
    get_and_clear_ptes,
    pte_clear,
    ptep_get,
    raw_get,
    set_pte_at,
)
from tests.oracle.entries import (
    MARKER_UFFD,
    Entry,
    NonPresent,
    Pte,
    is_migration,
    is_swap,
)
from tests.oracle.folio import folio_remove_rmap_ptes
from tests.oracle.internal import folio_pte_batch, free_swap_run, swap_pte_batch
from tests.oracle.machine import Folio, Gather, Machine, Ptep, Table
from tests.oracle.mmu_gather import (
    pte_free_tlb,
    tlb_end_vma,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_gather_mmu,
    tlb_remove_folio_pages,
    tlb_remove_tlb_entries,
)
from tests.oracle.rmap import flush_tlb_batched_pending

DROP_MARKER, RECLAIM_PT = 1, 2


def rss_member(folio: Folio) -> str:
    if folio.anon:
        return "anon"
    return "shmem" if folio.shmem else "file"


def clear_not_present(m: Machine, ptep: Ptep, va: int, nr: int) -> None:
    for k in range(nr):
        pte_clear(m, ptep.plus(k), va + k * m.page)


class ZapTable:
    """zap_pte_range() of one table; ``force`` and ``leave`` are its force_flush and force_break."""

    def __init__(self, m: Machine, gather: Gather, table: Table, vm_flags: int, flags: int) -> None:
        self.m, self.gather, self.table = m, gather, table
        self.vm_flags, self.flags = vm_flags, flags
        self.force = self.leave = False
        self.members: set[str] = set()

    def run(self, va: int, end: int) -> None:
        m = self.m
        while va < end:
            m.count("ptl")
            flush_tlb_batched_pending(m, self.gather.mm)
            self.force = self.leave = False
            self.members = set()
            while va < end and not self.leave:
                va += self.entry(va, end) * m.page
            m.count("mmc", len(self.members))
            if self.force:
                tlb_flush_mmu_tlbonly(m, self.gather)
                tlb_flush_mmu(m, self.gather)

    def entry(self, va: int, end: int) -> int:
        """One entry or run; how many entries that was."""
        ptep = self.m.ptep(self.table, va)
        entry = ptep_get(self.m, ptep)
        room = self.m.pages(va, end)
        if entry is None:
            return 1
        if isinstance(entry, Pte):
            return self.present(ptep, va, entry, room)
        return self.nonpresent(ptep, va, entry, room)

    def present(self, ptep: Ptep, va: int, pte: Pte, room: int) -> int:
        m = self.m
        if pte.special:
            get_and_clear(m, ptep, va)
            tlb_remove_tlb_entries(m, self.gather, va, 1)
            return 1
        folio, nr = m.folio(pte.pfn), 1
        if folio.large and room > 1 and m.f.zap_batch:
            nr = folio_pte_batch(m, ptep, pte, room)
        self.members.add(rss_member(folio))
        delay = False
        if folio.anon:
            get_and_clear_ptes(m, ptep, va, nr, name="contpte_clear_full_ptes")
        elif get_and_clear_ptes(m, ptep, va, nr).dirty:
            folio.dirty = True
            self.force, delay = True, bool(m.f.delayed_rmap)
        tlb_remove_tlb_entries(m, self.gather, va, nr)
        if not folio.anon:
            self.markers(ptep, va, pte, nr)
        folio_remove_rmap_ptes(m, pte.pfn, nr)
        if tlb_remove_folio_pages(m, self.gather, nr, delay_rmap=delay):
            self.force = self.leave = True
        return nr

    def markers(self, ptep: Ptep, va: int, pte: Pte, nr: int) -> None:
        if self.flags & DROP_MARKER or not self.vm_flags & VMF_UFFD_WP or not pte.uffd:
            return
        for k in range(nr):
            if k == 0 or not self.m.f.marker_batch:
                raw_get(self.m, ptep.plus(k))
            set_pte_at(self.m, ptep.plus(k), va + k * self.m.page, NonPresent(MARKER_UFFD))

    def nonpresent(self, ptep: Ptep, va: int, entry: NonPresent, room: int) -> int:
        m, nr = self.m, 1
        if is_swap(entry):
            if m.f.swap_free_batch:
                nr = swap_pte_batch(m, ptep, entry, room)
            free_swap_run(m, entry.pfn, nr)
            self.members.add("swap")
        elif is_migration(entry):
            # Holds neither a mapping nor a reference, only its place in the counter.
            self.members.add(rss_member(m.folio(entry.pfn)))
        elif entry.kind == MARKER_UFFD and not self.flags & DROP_MARKER:
            return 1
        clear_not_present(m, ptep, va, nr)
        return nr


def zap_vma_range(
    m: Machine, ctx: int, mm: int, va: int, end: int, vm_flags: int, flags: int
) -> None:
    gather = tlb_gather_mmu(m, ctx, mm)
    for start, stop, table in m.tables_of(mm, va, end):
        if table is None:
            continue
        ZapTable(m, gather, table, vm_flags, flags).run(start, stop)
        whole = stop - start == m.pmd
        if whole and flags & RECLAIM_PT and m.f.pt_reclaim and not table.entries:
            m.count("ptl")
            del m.mm(mm).tables[start // m.pmd]
            pte_free_tlb(m, gather, start)
    tlb_end_vma(m, gather)


def needs_copy(m: Machine, entry: Entry) -> bool:
    """The entry shows that its VMA has an anon_vma."""
    if isinstance(entry, Pte):
        return not entry.special and m.folio(entry.pfn).anon
    return entry is not None
