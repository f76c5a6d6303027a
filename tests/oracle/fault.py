# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault half of mm/memory.c."""

from __future__ import annotations

from dataclasses import replace

from replay.stream import VMF_EXEC, VMF_SHARED, VMF_WRITE
from tests.oracle.access import ptep_set_access_flags
from tests.oracle.contpte import ptep_clear_flush, ptep_get, set_pte_at, set_ptes
from tests.oracle.entries import Pte, is_swap
from tests.oracle.folio import (
    folio_add_anon_rmap_ptes,
    folio_add_file_rmap_ptes,
    folio_add_new_anon_rmap,
    folio_remove_rmap_ptes,
)
from tests.oracle.internal import free_swap_run, swap_pte_batch
from tests.oracle.machine import Machine, Ptep

WRITE_FAULT = 1


def mk_pte(pfn: int, vm_flags: int, *, young: bool = True) -> Pte:
    """vm_page_prot of the VMA: only shared mappings get the write bit from it."""
    shared = vm_flags & VMF_SHARED and vm_flags & VMF_WRITE
    return Pte(pfn, write=bool(shared), young=young, executable=bool(vm_flags & VMF_EXEC))


def anon_folio(m: Machine, head: int, order: int) -> None:
    m.new_folio(head, order, anon=True, swapbacked=True)


def _orig_pte(m: Machine, mm: int, va: int) -> None:
    """handle_pte_fault() looks at the entry if there is a table."""
    table = m.table(mm, va)
    if table is not None:
        ptep_get(m, m.ptep(table, va), lockless=True)


def do_anonymous_page(
    m: Machine, mm: int, va: int, pfn: int, order: int, vm_flags: int, *, exclusive: bool
) -> None:
    anon_folio(m, pfn, order)
    nr = 1 << order
    _orig_pte(m, mm, va)
    ptep = m.ptep(m.pte_alloc(mm, va), va)
    if nr == 1:
        ptep_get(m, ptep)
    else:
        for k in list(range(nr)) * 2:  # to choose the order, and again under the lock
            ptep_get(m, ptep.plus(k), lockless=True)
        m.count("rmw_ref")
    m.count("ptl")
    m.count("mmc")
    folio_add_new_anon_rmap(m, pfn, nr, exclusive=exclusive)
    pte = mk_pte(pfn, vm_flags)
    if vm_flags & VMF_WRITE:
        pte = pte.mkdirty().mkwrite()
    set_ptes(m, ptep, va, pte, nr)


def add_new_anon_rmap_of(m: Machine, mm: int, va: int, pfn: int) -> bool:
    """The rmap half of a private file fault whose entry set_pte_range() wrote."""
    entry = m.lookup(mm, va)
    if not isinstance(entry, Pte) or not entry.valid or entry.pfn != pfn:
        return False
    folio = m.folio(pfn)
    if folio.mapcount[pfn]:
        return False
    m.count("mmc")
    folio_add_new_anon_rmap(m, pfn, folio.nr_pages, exclusive=True)
    return True


def set_pte_range(
    m: Machine, mm: int, va: int, pfn: int, nr: int, order: int, flags: int, vm_flags: int,
    *, shmem: bool, swapbacked: bool,
) -> None:  # fmt: skip
    """A file fault; ``nr`` pages as recorded, one fault each where the kernel maps one."""
    write = bool(flags & WRITE_FAULT)
    cow = write and not vm_flags & VMF_SHARED
    head = pfn >> order << order
    if cow:
        anon_folio(m, head, order)
    elif not m.is_folio(head, order):
        m.new_folio(head, order, shmem=shmem, swapbacked=swapbacked)
    whole = not write or m.f.finish_fault_folio == 2 or (m.f.finish_fault_folio == 1 and shmem)
    step = nr if whole else 1
    for done in range(0, nr, step):
        at = va + done * m.page
        _orig_pte(m, mm, at)
        ptep = m.ptep(m.pte_alloc(mm, at), at)
        m.count("ptl")
        m.count("rmw_ref")
        for k in range(step):
            ptep_get(m, ptep.plus(k))
        pte = mk_pte(pfn + done, vm_flags, young=write or nr > 1)
        if write:
            pte = pte.mkdirty().mkwrite()
            m.folio(pfn).dirty = m.folio(pfn).dirty or not cow
        elif pte.write and m.folio(pfn).dirty and m.f.pte_dirty_folio:
            pte = pte.mkdirty()
        if not cow:
            m.count("mmc")
            folio_add_file_rmap_ptes(m, pfn + done, step)
        set_ptes(m, ptep, at, pte, step)


def _wp_fault(m: Machine, ptep: Ptep) -> Pte:
    """Prefix, the check under the lock, and do_wp_page()'s look for uffd-wp."""
    ptep_get(m, ptep, lockless=True)
    m.count("ptl")
    ptep_get(m, ptep)
    return ptep_get(m, ptep)


def wp_page_copy(m: Machine, mm: int, va: int, pfn: int, order: int, vm_flags: int) -> None:
    ptep = m.ptep(m.pte_alloc(mm, va), va)
    old = _wp_fault(m, ptep)
    anon_folio(m, pfn, order)
    m.count("ptl")
    ptep_get(m, ptep)
    ptep_clear_flush(m, ptep, va, pending=False)
    folio_add_new_anon_rmap(m, pfn, 1, exclusive=True)
    set_pte_at(m, ptep, va, mk_pte(pfn, vm_flags).mkdirty().mkwrite())
    if old.special:
        m.count("mmc")
        return
    if not m.folio(old.pfn).anon:
        m.count("mmc", 2)
    folio_remove_rmap_ptes(m, old.pfn, 1)
    m.count("rmw_ref")


def do_wp_page(m: Machine, mm: int, va: int, pfn: int, vm_flags: int) -> None:
    """Reuse what is this mm's alone, else copy to ``pfn``."""
    ptep = m.ptep(m.pte_alloc(mm, va), va)
    pte = ptep.load()
    if isinstance(pte, Pte) and not pte.special and ours_alone(m, ptep, pte):
        wp_page_reuse(m, mm, va)
    else:
        wp_page_copy(m, mm, va, pfn, 0, vm_flags)


def ours_alone(m: Machine, ptep: Ptep, pte: Pte) -> bool:
    """wp_can_reuse_anon_folio(): large folios only where their owners are tracked."""
    folio = m.folio(pte.pfn)
    if pte.pfn in folio.exclusive:
        return True
    if not folio.large:
        return folio.mapcount[pte.pfn] == 1
    first = ptep.index - (pte.pfn - folio.head)
    here = [ptep.table.entries.get(k) for k in range(first, first + folio.nr_pages)]
    mine = sum(isinstance(e, Pte) and folio.covers(e.pfn, e.pfn) for e in here)
    return bool(m.f.wp_reuse_large) and sum(folio.mapcount.values()) == mine


def wp_page_reuse(m: Machine, mm: int, va: int) -> None:
    ptep = m.ptep(m.pte_alloc(mm, va), va)
    pte = _wp_fault(m, ptep)
    folio = m.folio(pte.pfn)
    if folio.anon:
        folio.exclusive.add(pte.pfn)
    entry = replace(pte, young=True, cont=False).mkdirty().mkwrite()
    ptep_set_access_flags(m, ptep, va, entry)


def do_swap_page(
    m: Machine, mm: int, va: int, pfn: int, nr: int, order: int, vm_flags: int,
    *, exclusive: bool, new: bool,
) -> None:  # fmt: skip
    """:param new: the folio was never mapped"""
    head = pfn >> order << order
    if new or not m.is_folio(head, order):
        anon_folio(m, head, order)
    table = m.pte_alloc(mm, va)
    step = nr if m.f.swapin_batch else 1
    for done in range(0, nr, step):
        at = va + done * m.page
        ptep = m.ptep(table, at)
        entry = ptep_get(m, ptep, lockless=True)
        m.count("ptl")
        ptep_get(m, ptep)
        if step > 1:
            ptep_get(m, ptep)
            swap_pte_batch(m, ptep, entry, step)
        m.count("rmw_ref")
        m.count("mmc", 2)
        free_swap_run(m, entry.pfn if is_swap(entry) else 0, step)
        m.count("folio_put_swap")
        if not new:
            folio_add_anon_rmap_ptes(m, pfn + done, step, exclusive=exclusive)
        elif done == 0:
            folio_add_new_anon_rmap(m, pfn, nr, exclusive=exclusive)
        pte = mk_pte(pfn + done, vm_flags)
        if is_swap(entry) and entry.uffd:
            pte = pte.mkuffd_wp()
        elif exclusive and vm_flags & VMF_WRITE:
            pte = pte.mkwrite()
        set_ptes(m, ptep, at, pte, step)


def access(m: Machine, mm: int, va: int, nr: int, *, write: bool) -> None:
    """What the CPU does to valid entries by itself; costs nothing."""
    for k in range(nr):
        at = va + k * m.page
        table = m.table(mm, at)
        if table is None:
            continue
        ptep = m.ptep(table, at)
        pte = ptep.load()
        if isinstance(pte, Pte) and pte.valid:
            ptep.store(replace(pte, young=True, rdonly=pte.rdonly and not (write and pte.write)))
