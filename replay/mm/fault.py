# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults: the paths of mm/memory.c and mm/filemap.c that map pages."""

from __future__ import annotations

from replay.arm64.contpte import (
    ptep_clear_flush,
    ptep_get,
    ptep_get_lockless,
    ptep_set_access_flags,
    set_pte_at,
    set_ptes,
)
from replay.arm64.pte import (
    AF,
    CONT,
    DIRTY,
    NP_UFFD,
    PFN_SHIFT,
    RDONLY,
    SPECIAL,
    UFFD,
    USER,
    UXN,
    VALID,
    WRITE,
    is_swap,
    pte_mkdirty,
    pte_mkwrite,
    pte_pfn,
    pte_present,
    pte_wrprotect,
)
from replay.arm64.tlbflush import flush_tlb_range
from replay.counters import INDEX
from replay.mm.folio import (
    folio_add_anon_rmap_ptes,
    folio_add_file_rmap_ptes,
    folio_add_new_anon_rmap,
    folio_flag,
    folio_head,
    folio_new,
    folio_nr_pages,
    folio_order,
    folio_remove_rmap_ptes,
)
from replay.mm.huge_memory import (
    map_huge_anon,
    pmd_is_exclusive,
    pmd_trans_huge,
    split_huge_pmd_locked,
)
from replay.mm.memory import free_swap_run, swap_pte_batch
from replay.mm.pgtable import index_of, pte_alloc, pte_free, table_of
from replay.policies import FEATURE_INDEX
from replay.state import (
    INFO_AE,
    INFO_ANON,
    INFO_DIRTY,
    INFO_LIVE,
    INFO_SHMEM,
    INFO_SWAPBACKED,
    LARGE_MAPCOUNT,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SIZE,
    POLICY,
    PTRS_PER_PTE,
    TABLE_BLOCK,
    State,
)
from replay.stream import VMF_EXEC, VMF_SHARED, VMF_WRITE
from tracer.jit import inner

CAS = INDEX["cas"]
LD = INDEX["ld"]
PTL = INDEX["ptl"]
MMC = INDEX["mmc"]
RMW_REF = INDEX["rmw_ref"]
PUT_SWAP = INDEX["folio_put_swap"]

F_FINISH = POLICY + FEATURE_INDEX["finish_fault_folio"]
F_DIRTY = POLICY + FEATURE_INDEX["pte_dirty_folio"]
F_REUSE_LARGE = POLICY + FEATURE_INDEX["wp_reuse_large"]
F_SAF = POLICY + FEATURE_INDEX["saf_local"]
F_SWAPIN = POLICY + FEATURE_INDEX["swapin_batch"]

FAULT_FLAG_WRITE = 1

RMAP_EXCLUSIVE = 1


@inner
def user_pte(pfn: int, vm_flags: int, write: int, young: int) -> int:
    """A new user entry for ``pfn``: vm_page_prot, and writable and dirty with ``write``."""
    pte = VALID | USER | RDONLY | (pfn << PFN_SHIFT)
    if young:
        pte |= AF
    if not vm_flags & VMF_EXEC:
        pte |= UXN
    if write:
        pte = pte_mkwrite(pte_mkdirty(pte))
    elif vm_flags & VMF_SHARED and vm_flags & VMF_WRITE:
        pte |= WRITE
    return pte


@inner
def _install_folio(st: State, pfn: int, order: int, flags: int) -> None:
    """Know a folio that an event names; one of another order starts a new life."""
    head = pfn & -(1 << order)
    # The frame of an anon folio that is gone may come back as a page cache folio.
    reborn = (st.info[head] ^ flags) & INFO_ANON
    if not st.info[head] & INFO_LIVE or folio_order(st, head) != order or reborn:
        folio_new(st, head, order, flags | INFO_LIVE)


@inner
def _pte_table(st: State, mm: int, va: int) -> int:
    """Table for a fault on one entry; a folio that the PMD maps is split for it."""
    table = pte_alloc(st, mm, va)
    split_huge_pmd_locked(st, table)
    return table


@inner
def _drop_table(st: State, mm: int, va: int) -> None:
    """A folio of PMD size comes where a table was: what khugepaged collapses leaves the rmap."""
    table = table_of(st, mm, va)
    if table < 0:
        return
    split_huge_pmd_locked(st, table)
    first = index_of(st, table, va)
    for i in range(first, first + st.s[PTRS_PER_PTE]):
        pte = st.pte[i]
        if pte_present(pte) and not pte & SPECIAL:
            folio_remove_rmap_ptes(st, pte_pfn(pte), 1)
    pte_free(st, table)


@inner
def _orig_pte(st: State, mm: int, va: int) -> None:
    """handle_pte_fault() reads the entry first, if there is a table."""
    table = table_of(st, mm, va)
    if table >= 0 and not pmd_trans_huge(st, table):
        ptep_get_lockless(st, index_of(st, table, va))


@inner
def map_new_anon(
    st: State, mm: int, va: int, pfn: int, order: int, vm_flags: int, exclusive: int
) -> None:
    """do_anonymous_page(): a new folio of any order at ``va``."""
    nr = 1 << order
    folio_new(st, pfn, order, INFO_ANON | INFO_SWAPBACKED | INFO_LIVE)
    if nr == st.s[PTRS_PER_PTE] and va % st.s[PMD_SIZE] == 0:
        _drop_table(st, mm, va)
        map_huge_anon(st, mm, va, pfn, user_pte(pfn, vm_flags, vm_flags & VMF_WRITE, 1), exclusive)
        return
    _orig_pte(st, mm, va)
    table = _pte_table(st, mm, va)
    i = index_of(st, table, va)
    if nr > 1:
        for _check in range(2):
            for k in range(nr):
                ptep_get_lockless(st, i + k)
        st.c[RMW_REF] += 1
    else:
        ptep_get(st, i)
    st.c[PTL] += 1
    st.c[MMC] += 1
    folio_add_new_anon_rmap(st, pfn, nr, exclusive)
    set_ptes(st, i, va, user_pte(pfn, vm_flags, vm_flags & VMF_WRITE, 1), nr)


@inner
def _wp_fault(st: State, i: int) -> int:
    """handle_pte_fault() and the entry of do_wp_page(), which looks for uffd-wp."""
    ptep_get_lockless(st, i)
    st.c[PTL] += 1
    ptep_get(st, i)
    return ptep_get(st, i)


@inner
def wp_page_copy(st: State, mm: int, va: int, pfn: int, order: int, vm_flags: int) -> None:
    """Copy on write: the old page leaves the rmap after the new one is mapped."""
    folio_new(st, pfn, order, INFO_ANON | INFO_SWAPBACKED | INFO_LIVE)
    table = _pte_table(st, mm, va)
    i = index_of(st, table, va)
    _wp_fault(st, i)
    # wp_page_copy() takes the lock again and compares.
    st.c[PTL] += 1
    ptep_get(st, i)
    old = ptep_clear_flush(st, i, va, 0)
    folio_add_new_anon_rmap(st, pfn, 1, 1)
    set_pte_at(st, i, va, user_pte(pfn, vm_flags, 1, 1))
    if pte_present(old) and not old & SPECIAL:
        before = pte_pfn(old)
        if not st.info[folio_head(st, before)] & INFO_ANON:
            st.c[MMC] += 2
        folio_remove_rmap_ptes(st, before, 1)
        st.c[RMW_REF] += 1
    else:
        st.c[MMC] += 1


@inner
def wp_page_reuse(st: State, mm: int, va: int, vm_flags: int) -> None:
    """The page is ours: make the entry writable in place."""
    table = pte_alloc(st, mm, va)
    if pmd_trans_huge(st, table):
        _reuse_huge(st, table, va)
        return
    i = index_of(st, table, va)
    pte = _wp_fault(st, i)
    if not pte_present(pte) or pte & SPECIAL:
        return
    pfn = pte_pfn(pte)
    if st.info[folio_head(st, pfn)] & INFO_ANON:
        st.info[pfn] = st.info[pfn] | INFO_AE
    entry = pte_mkwrite(pte_mkdirty(pte | AF)) & ~CONT
    ptep_set_access_flags(st, i, va, entry, 1)


@inner
def _reuse_huge(st: State, table: int, va: int) -> None:
    """do_huge_pmd_wp_page(): the whole mapping becomes writable."""
    pmd = st.table[table, TABLE_BLOCK]
    pfn = pte_pfn(pmd)
    st.c[PTL] += 1
    st.c[LD] += 1
    st.c[CAS] += 1
    st.info[pfn] = st.info[pfn] | INFO_AE
    st.table[table, TABLE_BLOCK] = pte_mkwrite(pte_mkdirty(pmd | AF))
    flush_tlb_range(st, va, va + st.s[PAGE_SIZE], 1, 1, st.s[F_SAF])


@inner
def _ours_alone(st: State, i: int, pfn: int) -> bool:
    """wp_can_reuse_anon_folio(): no other address space maps the folio.

    Without owner tracking a large folio is never reused.
    """
    order = folio_order(st, pfn)
    if st.info[pfn] & INFO_AE:
        return True
    if order == 0:
        return st.mapcount[pfn] == 1
    if not st.s[F_REUSE_LARGE]:
        return False
    head = folio_head(st, pfn)
    table = i - i % st.s[PTRS_PER_PTE]
    mine = 0
    for k in range(
        max(table, i - (pfn - head)),
        min(table + st.s[PTRS_PER_PTE], i - (pfn - head) + (1 << order)),
    ):
        pte = st.pte[k]
        if pte_present(pte) and folio_head(st, pte_pfn(pte)) == head:
            mine += 1
    return st.large[st.largeix[head >> 1], LARGE_MAPCOUNT] == mine


@inner
def do_wp_page(st: State, mm: int, va: int, pfn: int, vm_flags: int) -> None:
    """Write to a write-protected anon page: reuse what is ours alone, copy the rest.

    :param pfn: frame of the copy, if one is made
    """
    table = pte_alloc(st, mm, va)
    if pmd_trans_huge(st, table):
        if pmd_is_exclusive(st, table):
            _reuse_huge(st, table, va)
            return
        split_huge_pmd_locked(st, table)
    i = index_of(st, table, va)
    pte = st.pte[i]
    mapped = pte_present(pte) and not pte & SPECIAL
    if mapped and _ours_alone(st, i, pte_pfn(pte)):
        wp_page_reuse(st, mm, va, vm_flags)
    else:
        wp_page_copy(st, mm, va, pfn, 0, vm_flags)


@inner
def set_pte_range(
    st: State,
    mm: int,
    va: int,
    pfn: int,
    nr: int,
    order: int,
    flags: int,
    vm_flags: int,
    info: int,
) -> None:
    """File folio mapped by finish_fault() or fault-around; nr as recorded.

    A private write fault copies first: its anon folio is announced by the
    folio_add_new_anon_rmap() that follows (:func:`rmap_of_mapped`).
    """
    write = flags & FAULT_FLAG_WRITE
    cow = write and not vm_flags & VMF_SHARED
    if cow:
        _install_anon(st, pfn, order)
    else:
        _install_folio(st, pfn, order, info & (INFO_SHMEM | INFO_SWAPBACKED))
        if write:
            folio_flag(st, pfn, INFO_DIRTY, 1)
    young = 1 if write or nr > 1 else 0
    whole = st.s[F_FINISH] == 2 or (st.s[F_FINISH] == 1 and info & INFO_SHMEM) or not write
    step = nr if whole else 1
    done = 0
    while done < nr:
        run = min(step, nr - done)
        _orig_pte(st, mm, va + (done << st.s[PAGE_SHIFT]))
        i = index_of(st, _pte_table(st, mm, va), va)
        st.c[PTL] += 1
        st.c[RMW_REF] += 1
        for k in range(run):
            ptep_get(st, i + done + k)
        if not cow:
            st.c[MMC] += 1
            folio_add_file_rmap_ptes(st, pfn + done, run)
        pte = user_pte(pfn + done, vm_flags, write, young)
        if pte & WRITE and st.s[F_DIRTY] and st.info[folio_head(st, pfn)] & INFO_DIRTY:
            pte = pte_mkdirty(pte)
        set_ptes(st, i + done, va + (done << st.s[PAGE_SHIFT]), pte, run)
        done += run


@inner
def _install_anon(st: State, pfn: int, order: int) -> None:
    folio_new(st, pfn & -(1 << order), order, INFO_ANON | INFO_SWAPBACKED | INFO_LIVE)


@inner
def rmap_of_mapped(st: State, mm: int, va: int, pfn: int) -> bool:
    """The entry at ``va`` maps this new anon folio already; count only the rmap."""
    table = pte_alloc(st, mm, va)
    pte = st.pte[index_of(st, table, va)]
    if not pte & VALID or pte_pfn(pte) != pfn or st.mapcount[pfn]:
        return False
    st.c[MMC] += 1
    folio_add_new_anon_rmap(st, pfn, folio_nr_pages(st, pfn), 1)
    return True


@inner
def do_swap_page(
    st: State, mm: int, va: int, pfn: int, nr: int, order: int, vm_flags: int, flags: int, new: int
) -> None:
    """Swap-in of nr pages of a folio.

    :param new: 1 when the folio was never mapped (folio_add_new_anon_rmap())
    :param flags: rmap_t; RMAP_EXCLUSIVE makes the pages ours
    """
    if new:
        folio_new(st, pfn & -(1 << order), order, INFO_ANON | INFO_SWAPBACKED | INFO_LIVE)
    else:
        _install_folio(st, pfn, order, INFO_ANON | INFO_SWAPBACKED)
    table = _pte_table(st, mm, va)
    i = index_of(st, table, va)
    step = nr if st.s[F_SWAPIN] else 1
    done = 0
    while done < nr:
        run = min(step, nr - done)
        at = va + (done << st.s[PAGE_SHIFT])
        pte = ptep_get_lockless(st, i + done)
        st.c[PTL] += 1
        ptep_get(st, i + done)
        if run > 1:
            ptep_get(st, i + done)
            swap_pte_batch(st, i + done, pte, run)
        st.c[RMW_REF] += 1
        st.c[MMC] += 2
        free_swap_run(st, pte >> PFN_SHIFT if is_swap(pte) else 0, run)
        st.c[PUT_SWAP] += 1
        exclusive = flags & RMAP_EXCLUSIVE
        if new:
            if done == 0:
                folio_add_new_anon_rmap(st, pfn, nr, exclusive)
        else:
            folio_add_anon_rmap_ptes(st, pfn + done, run, exclusive)
        writable = 1 if exclusive and vm_flags & VMF_WRITE else 0
        entry = user_pte(pfn + done, vm_flags, 0, 1)
        if is_swap(pte) and pte & NP_UFFD:
            entry = pte_wrprotect(entry) | UFFD
        elif writable:
            entry = pte_mkwrite(entry)
        set_ptes(st, i + done, at, entry, run)
        done += run


@inner
def _accessed(pte: int, write: int) -> int:
    pte |= AF
    if write and pte & WRITE:
        pte = (pte | DIRTY) & ~RDONLY
    return pte


@inner
def access(st: State, mm: int, va: int, nr: int, write: int) -> None:
    """What the CPU does by itself: set young, and dirty on a writable entry. Free of counts."""
    for k in range(nr):
        at = va + (k << st.s[PAGE_SHIFT])
        table = table_of(st, mm, at)
        if table < 0:
            continue
        if pmd_trans_huge(st, table):
            st.table[table, TABLE_BLOCK] = _accessed(st.table[table, TABLE_BLOCK], write)
            continue
        i = index_of(st, table, at)
        pte = st.pte[i]
        if pte & VALID:
            st.pte[i] = _accessed(pte, write)
