# SPDX-License-Identifier: GPL-2.0-or-later
"""The fork half of mm/memory.c: copy_page_range()."""

from __future__ import annotations

from dataclasses import replace

from replay.stream import VMF_PFNMAP, VMF_SHARED, VMF_UFFD_WP
from tests.oracle.contpte import ptep_get, set_pte_at, set_ptes, wrprotect_ptes
from tests.oracle.entries import (
    MARKER_UFFD,
    MIGRATION_READ,
    NonPresent,
    Pte,
    is_migration,
    is_swap,
)
from tests.oracle.folio import folio_dup_rmap_ptes
from tests.oracle.internal import folio_pte_batch
from tests.oracle.machine import Machine, Ptep
from tests.oracle.zap import needs_copy, rss_member


def vma_needs_copy(m: Machine, mm: int, va: int, end: int, vm_flags: int) -> bool:
    if vm_flags & (VMF_UFFD_WP | VMF_PFNMAP):
        return True
    if vm_flags & VMF_SHARED:
        return False
    return any(
        needs_copy(m, table.entries.get(index))
        for start, stop, table in m.tables_of(mm, va, end)
        if table is not None
        for index in range(m.ptep(table, start).index, m.ptep(table, stop - m.page).index + 1)
    )


def copy_nonpresent_pte(
    m: Machine, src: Ptep, dst: Ptep, va: int, entry: NonPresent, *, cow: bool
) -> str | None:
    """:return: the rss member"""
    member = None
    if entry.kind == MARKER_UFFD:
        return None  # the child is not registered
    copy = replace(entry, uffd=False)
    if is_swap(entry):
        member = "swap"
        m.count("swp_op")
        m.count("swp_lock")
        if not m.f.swap_table:
            m.count("folio_dup_swap")
        if entry.exclusive:
            set_pte_at(m, src, va, replace(entry, exclusive=False))
            copy = replace(copy, exclusive=False)
    elif is_migration(entry):
        member = rss_member(m.folio(entry.pfn))
        if cow and entry.kind != MIGRATION_READ:
            set_pte_at(m, src, va, replace(entry, kind=MIGRATION_READ))
            copy = replace(copy, kind=MIGRATION_READ)
    set_pte_at(m, dst, va, copy)
    return member


def copy_present_ptes(
    m: Machine, src: Ptep, dst: Ptep, va: int, pte: Pte, room: int, *, cow: bool
) -> int:
    if pte.special:
        copy_entries(m, src, dst, va, pte, 1, cow=cow)
        return 1
    folio, nr = m.folio(pte.pfn), 1
    if folio.large and room > 1 and m.f.fork_batch:
        nr = folio_pte_batch(m, src, pte, room, dirty=cow)
        if any(src.plus(k).load().write for k in range(nr)):
            pte = pte.mkwrite()
    m.count("rmw_ref")
    folio_dup_rmap_ptes(m, pte.pfn, nr)
    copy_entries(m, src, dst, va, pte, nr, cow=cow)
    return nr


def copy_entries(
    m: Machine, src: Ptep, dst: Ptep, va: int, pte: Pte, nr: int, *, cow: bool
) -> None:
    """The entries themselves: protected on both sides, old and unarmed in the child."""
    if cow and pte.write:
        wrprotect_ptes(m, src, va, nr)
        pte = pte.wrprotect()
    if not cow:
        pte = pte.mkclean()
    set_ptes(m, dst, va, replace(pte, young=False, uffd=False, cont=False), nr)


def copy_page_range(m: Machine, parent: int, child: int, va: int, end: int, vm_flags: int) -> None:
    if not vma_needs_copy(m, parent, va, end, vm_flags):
        return
    cow = not vm_flags & VMF_SHARED
    for start, stop, table in m.tables_of(parent, va, end):
        if table is None:
            continue
        target = m.pte_alloc(child, start)
        m.count("ptl", 2)
        members: set[str | None] = set()
        at = start
        while at < stop:
            src, dst = m.ptep(table, at), m.ptep(target, at)
            entry, nr = ptep_get(m, src), 1
            if isinstance(entry, Pte):
                members.add(None if entry.special else rss_member(m.folio(entry.pfn)))
                nr = copy_present_ptes(m, src, dst, at, entry, m.pages(at, stop), cow=cow)
            elif entry is not None:
                members.add(copy_nonpresent_pte(m, src, dst, at, entry, cow=cow))
            at += nr * m.page
        m.count("mmc", len(members - {None}))
