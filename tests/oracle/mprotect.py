# SPDX-License-Identifier: GPL-2.0-or-later
"""mm/mprotect.c: change_protection()."""

from __future__ import annotations

from dataclasses import replace

from replay.stream import VMF_ANON, VMF_EXEC, VMF_PROT_NONE, VMF_SHARED, VMF_WRITE
from tests.oracle.contpte import get_and_clear_ptes, pte_clear, ptep_get, set_pte_at, set_ptes
from tests.oracle.entries import (
    HWPOISON,
    MARKER_UFFD,
    MIGRATION_READ,
    MIGRATION_READ_EXCL,
    MIGRATION_WRITE,
    NonPresent,
    Pte,
)
from tests.oracle.folio import exclusive_runs
from tests.oracle.internal import folio_pte_batch
from tests.oracle.machine import Gather, Machine, Ptep
from tests.oracle.mmu_gather import tlb_end_vma, tlb_gather_mmu, tlb_remove_tlb_entries
from tests.oracle.rmap import flush_tlb_batched_pending

TRY_CHANGE_WRITABLE, PROT_NUMA, UFFD_WP, UFFD_WP_RESOLVE = 1, 2, 4, 8


def pte_modify(pte: Pte, vm_flags: int, cp_flags: int) -> Pte:
    """The entry under the VMA's new protection; dirty is kept."""
    none = bool(vm_flags & VMF_PROT_NONE or cp_flags & PROT_NUMA)
    pte = replace(
        pte,
        sw_dirty=pte.dirty,
        write=bool(not none and vm_flags & VMF_SHARED and vm_flags & VMF_WRITE),
        rdonly=True,
        valid=not none,
        executable=bool(not none and vm_flags & VMF_EXEC),
    )
    if pte.sw_dirty:
        pte = pte.mkdirty()
    if cp_flags & UFFD_WP:
        pte = pte.mkuffd_wp()
    elif cp_flags & UFFD_WP_RESOLVE:
        pte = replace(pte, uffd=False)
    return pte


def _hardware(pte: Pte) -> tuple[bool, ...]:
    return (pte.valid, pte.executable, pte.write, pte.rdonly, pte.young)


class Change:
    """change_pte_range() of one VMA."""

    def __init__(self, m: Machine, gather: Gather, vm_flags: int, cp_flags: int) -> None:
        self.m, self.gather = m, gather
        self.vm_flags, self.cp_flags = vm_flags, cp_flags
        self.markers = bool(cp_flags & UFFD_WP and not vm_flags & VMF_ANON)

    def entry(self, ptep: Ptep, va: int, room: int) -> int:
        entry = ptep_get(self.m, ptep)
        if isinstance(entry, Pte):
            return self.present(ptep, va, entry, room)
        if entry is not None:
            self.nonpresent(ptep, va, entry)
        elif self.markers:
            set_pte_at(self.m, ptep, va, NonPresent(MARKER_UFFD))
        return 1

    def present(self, ptep: Ptep, va: int, pte: Pte, room: int) -> int:
        m, nr = self.m, 1
        folio = m.folio(pte.pfn)
        if m.f.mprotect_batch and folio.large and room > 1 and not pte.special:
            nr = folio_pte_batch(m, ptep, pte, room, write=True)
        old = get_and_clear_ptes(m, ptep, va, nr)
        new = pte_modify(old, self.vm_flags, self.cp_flags)
        upgrade = self.cp_flags & TRY_CHANGE_WRITABLE and not new.write and self.may_write(new)
        if upgrade and not self.vm_flags & VMF_SHARED:
            for first, run, exclusive in exclusive_runs(m, pte.pfn, nr):
                at = first - pte.pfn
                part = new.advance(at)
                self.commit(ptep, va, at, run, old, part.mkwrite() if exclusive else part)
        else:
            self.commit(ptep, va, 0, nr, old, new.mkwrite() if upgrade else new)
        return nr

    def may_write(self, pte: Pte) -> bool:
        """can_change_pte_writable(), but for the pages having to be exclusive."""
        if not self.vm_flags & VMF_WRITE or pte.uffd or pte.special or not pte.valid:
            return False
        if self.vm_flags & VMF_SHARED:
            return pte.dirty
        return self.m.folio(pte.pfn).anon

    def commit(self, ptep: Ptep, va: int, at: int, nr: int, old: Pte, new: Pte) -> None:
        m, va = self.m, va + at * self.m.page
        set_ptes(m, ptep.plus(at), va, new, nr)
        changed = old.valid and _hardware(old) != _hardware(new)
        if changed or not m.f.pte_needs_flush:
            tlb_remove_tlb_entries(m, self.gather, va, nr)

    def nonpresent(self, ptep: Ptep, va: int, entry: NonPresent) -> None:
        if entry.kind == MARKER_UFFD:
            if self.cp_flags & UFFD_WP_RESOLVE:
                pte_clear(self.m, ptep, va)
            return
        new = entry
        if entry.kind == MIGRATION_WRITE:
            anon = self.m.folio(entry.pfn).anon
            new = replace(new, kind=MIGRATION_READ_EXCL if anon else MIGRATION_READ)
        if self.cp_flags & UFFD_WP:
            new = replace(new, uffd=True)
        elif self.cp_flags & UFFD_WP_RESOLVE:
            new = replace(new, uffd=False)
        if new != entry and entry.kind != HWPOISON:
            set_pte_at(self.m, ptep, va, new)


def change_protection(
    m: Machine, ctx: int, mm: int, va: int, end: int, vm_flags: int, cp_flags: int
) -> None:
    gather = tlb_gather_mmu(m, ctx, mm)
    change = Change(m, gather, vm_flags, cp_flags)
    for start, stop, found in m.tables_of(mm, va, end):
        table = m.pte_alloc(mm, start) if change.markers else found
        if table is None:
            continue
        m.count("ptl")
        flush_tlb_batched_pending(m, mm)
        at = start
        while at < stop:
            at += change.entry(m.ptep(table, at), at, m.pages(at, stop)) * m.page
    tlb_end_vma(m, gather)
