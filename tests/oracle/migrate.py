# SPDX-License-Identifier: GPL-2.0-or-later
"""try_to_migrate_one() of mm/rmap.c and remove_migration_pte() of mm/migrate.c."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.contpte import get_and_clear, ptep_clear_flush, ptep_get, set_pte_at
from tests.oracle.entries import (
    MIGRATION_READ,
    MIGRATION_READ_EXCL,
    MIGRATION_WRITE,
    NonPresent,
    is_migration,
)
from tests.oracle.fault import mk_pte
from tests.oracle.folio import (
    folio_add_anon_rmap_ptes,
    folio_add_file_rmap_ptes,
    folio_remove_rmap_ptes,
    folio_try_share_anon_rmap,
)
from tests.oracle.machine import Machine
from tests.oracle.mmu_gather import gather_pending
from tests.oracle.page_vma_mapped import Walk
from tests.oracle.rmap import (
    TTU_BATCH_FLUSH,
    TTU_SYNC,
    folio_range,
    set_tlb_ubc_flush_pending,
)


def try_to_migrate_one(
    m: Machine, ctx: int, mm: int, pfn: int, va: int, vm_end: int, flags: int
) -> None:
    """One entry at a time in every release."""
    folio, end = folio_range(m, pfn, va, vm_end)
    walk = Walk(m, mm, va, end, folio.head, folio.nr_pages, sync=bool(flags & TTU_SYNC))
    for ptep, at in walk:
        ptep_get(m, ptep)
        if flags & TTU_BATCH_FLUSH and m.f.deferred_flush:
            pte = get_and_clear(m, ptep, at)
            set_tlb_ubc_flush_pending(m, ctx, mm, pte, at, 1)
        else:
            pte = ptep_clear_flush(m, ptep, at, pending=gather_pending(m, mm))
        exclusive = pte.pfn in folio.exclusive
        if folio.anon and exclusive:
            folio_try_share_anon_rmap(m, pte.pfn, 1)
        kind = MIGRATION_READ_EXCL if exclusive else MIGRATION_READ
        entry = NonPresent(
            MIGRATION_WRITE if pte.write else kind,
            pte.pfn, young=pte.young, dirty=pte.dirty, uffd=pte.uffd,
        )  # fmt: skip
        set_pte_at(m, ptep, at, entry)
        folio_remove_rmap_ptes(m, pte.pfn, 1)
        m.count("rmw_ref")


def _adopt(m: Machine, pfn: int, order: int, flags: dict[str, bool]) -> None:
    """What comes back: the folio, another one, or after a split a piece of it."""
    head = pfn >> order << order
    if m.is_folio(head, order):
        return
    old = m.folios.get(pfn)
    if old is None:
        m.new_folio(head, order, **flags)
    else:
        m.new_folio(
            head, order, anon=old.anon, swapbacked=old.swapbacked,
            swapcache=old.swapcache, shmem=old.shmem,
        )  # fmt: skip


def remove_migration_pte(
    m: Machine, mm: int, pfn: int, order: int, va: int, vm_end: int, vm_flags: int,
    *, flags: dict[str, bool], zero: bool,
) -> None:  # fmt: skip
    """:param zero: a page of zeros, which a split replaces by the shared zero page"""
    nr = 1 << order
    found = [
        entry.pfn - k for k in range(nr) if is_migration(entry := m.lookup(mm, va + k * m.page))
    ]
    _adopt(m, pfn, order, flags)
    end = min(va + nr * m.page, vm_end)
    for ptep, at in Walk(m, mm, va, end, (found or [pfn])[0], nr, sync=True, migration=True):
        entry = ptep_get(m, ptep)
        page = pfn + m.pages(va, at)
        if zero:
            m.count("mmc")
            set_pte_at(m, ptep, at, replace(mk_pte(0, vm_flags), special=True))
            continue
        m.count("rmw_ref")
        pte = mk_pte(page, vm_flags, young=False)
        if entry.dirty:
            pte = pte.mkdirty()
        if entry.kind == MIGRATION_WRITE:
            pte = pte.mkwrite()
        elif entry.uffd:
            pte = pte.mkuffd_wp()
        if m.folio(page).anon:
            folio_add_anon_rmap_ptes(m, page, 1, exclusive=entry.kind != MIGRATION_READ)
        else:
            folio_add_file_rmap_ptes(m, page, 1)
        set_pte_at(m, ptep, at, replace(pte))
