# SPDX-License-Identifier: GPL-2.0-or-later
"""change_protection(): mprotect, NUMA hinting and uffd write protection (mm/mprotect.c)."""

from __future__ import annotations

from replay.arm64.contpte import (
    get_and_clear_full_ptes,
    pte_clear,
    ptep_get,
    set_pte_at,
    set_ptes,
)
from replay.arm64.pte import (
    CONT,
    DIRTY,
    KIND_MASK,
    MARKER_UFFD,
    MIGRATION_READ,
    MIGRATION_READ_EXCL,
    MIGRATION_WRITE,
    NP_UFFD,
    PRESENT_INVALID,
    RDONLY,
    SPECIAL,
    UFFD,
    UXN,
    VALID,
    WRITE,
    is_migration,
    is_swap,
    pte_dirty,
    pte_mkwrite,
    pte_pfn,
    pte_present,
    pte_wrprotect,
)
from replay.counters import INDEX
from replay.mm.batch import RESPECT_WRITE, folio_pte_batch
from replay.mm.folio import exclusive_run, folio_head, folio_nr_pages
from replay.mm.huge_memory import change_huge_pmd, pmd_trans_huge, split_huge_pmd_locked
from replay.mm.mmu_gather import tlb_end_vma, tlb_gather_mmu, tlb_remove_tlb_entries
from replay.mm.pgtable import index_of, pmd_addr_end, pte_alloc, table_of
from replay.mm.rmap import flush_tlb_batched_pending
from replay.policies import FEATURE_INDEX
from replay.state import (
    INFO_AE,
    INFO_ANON,
    PAGE_SHIFT,
    PMD_SIZE,
    POLICY,
    TABLE_BLOCK,
    State,
)
from replay.stream import VMF_ANON, VMF_EXEC, VMF_PROT_NONE, VMF_SHARED, VMF_WRITE
from tracer.jit import inner

PTL = INDEX["ptl"]
F_BATCH = POLICY + FEATURE_INDEX["mprotect_batch"]
F_NEEDS_FLUSH = POLICY + FEATURE_INDEX["pte_needs_flush"]

# cp_flags, include/linux/mm.h
MM_CP_TRY_CHANGE_WRITABLE = 1
MM_CP_PROT_NUMA = 2
MM_CP_UFFD_WP = 4
MM_CP_UFFD_WP_RESOLVE = 8

# Bits that only software reads: 63 and 58 to 55.
SW_BITS = 0xF << 55


@inner
def _pte_modify(pte: int, vm_flags: int, cp_flags: int) -> int:
    """pte_modify() with the VMA's protection, then the uffd-wp bits."""
    if pte_dirty(pte):
        pte |= DIRTY
    pte = (pte & ~(WRITE | UXN | VALID | PRESENT_INVALID)) | RDONLY
    if vm_flags & VMF_PROT_NONE or cp_flags & MM_CP_PROT_NUMA:
        pte |= PRESENT_INVALID
    else:
        pte |= VALID
    if not vm_flags & VMF_EXEC:
        pte |= UXN
    if vm_flags & VMF_SHARED and vm_flags & VMF_WRITE:
        pte = pte_mkwrite(pte)
    if cp_flags & MM_CP_UFFD_WP:
        pte = pte_wrprotect(pte) | UFFD
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        pte &= ~UFFD
    return pte & ~CONT


@inner
def _needs_flush(st: State, old: int, new: int) -> bool:
    """pte_needs_flush(): generic kernels always flush."""
    if not st.s[F_NEEDS_FLUSH]:
        return True
    if not old & VALID:
        return False
    return ((old ^ new) & ~(SW_BITS | CONT)) != 0


@inner
def _commit(st: State, ctx: int, i: int, va: int, old: int, new: int, nr: int) -> None:
    set_ptes(st, i, va, new, nr)
    if _needs_flush(st, old, new):
        tlb_remove_tlb_entries(st, ctx, va, nr)


@inner
def _may_write(st: State, pte: int, vm_flags: int) -> int:
    """can_change_pte_writable(): 1 yes, 0 no, 2 anon pages that have to be exclusive."""
    if not vm_flags & VMF_WRITE or pte & (UFFD | SPECIAL) or not pte_present(pte):
        return 0
    if vm_flags & VMF_SHARED:
        return 1 if pte_dirty(pte) else 0
    return 2 if st.info[folio_head(st, pte_pfn(pte))] & INFO_ANON else 0


@inner
def _change_present(
    st: State, ctx: int, i: int, va: int, pte: int, max_nr: int, vm_flags: int, cp_flags: int
) -> int:
    """One run: start, modify, commit. Returns the entries done."""
    pfn = pte_pfn(pte)
    nr = 1
    special = pte & SPECIAL
    if st.s[F_BATCH] and not special and folio_nr_pages(st, pfn) > 1 and max_nr > 1:
        nr = folio_pte_batch(st, i, pte, max_nr, RESPECT_WRITE)
    old = get_and_clear_full_ptes(st, i, va, nr)
    new = _pte_modify(old, vm_flags, cp_flags)
    may = 0
    if cp_flags & MM_CP_TRY_CHANGE_WRITABLE and not new & WRITE:
        may = _may_write(st, new, vm_flags)
    if may != 2:
        _commit(st, ctx, i, va, old, pte_mkwrite(new) if may else new, nr)
        return nr
    done = 0
    while done < nr:
        run = exclusive_run(st, pfn + done, nr - done)
        shift = done << 12
        entry = new + shift
        if st.info[pfn + done] & INFO_AE:
            entry = pte_mkwrite(entry)
        _commit(st, ctx, i + done, va + (done << st.s[PAGE_SHIFT]), old + shift, entry, run)
        done += run
    return nr


@inner
def _change_nonpresent(st: State, i: int, va: int, pte: int, cp_flags: int) -> None:
    """Swap and migration entries carry the uffd-wp bit; a migration entry loses write."""
    if (pte & KIND_MASK) == MARKER_UFFD:
        if cp_flags & MM_CP_UFFD_WP_RESOLVE:
            pte_clear(st, i, va)
        return
    new = pte
    if (pte & KIND_MASK) == MIGRATION_WRITE:
        anon = st.info[folio_head(st, pte_pfn(pte))] & INFO_ANON
        new = (pte & ~KIND_MASK) | (MIGRATION_READ_EXCL if anon else MIGRATION_READ)
    if cp_flags & MM_CP_UFFD_WP:
        new |= NP_UFFD
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        new &= ~NP_UFFD
    if new != pte and (is_swap(pte) or is_migration(pte)):
        set_pte_at(st, i, va, new)


@inner
def _change_huge(st: State, ctx: int, table: int, vm_flags: int, cp_flags: int) -> None:
    """change_huge_pmd(): the same entry for a whole PMD."""
    old = st.table[table, TABLE_BLOCK]
    new = _pte_modify(old, vm_flags, cp_flags)
    if cp_flags & MM_CP_TRY_CHANGE_WRITABLE and not new & WRITE:
        may = _may_write(st, new, vm_flags)
        if may == 1 or (may == 2 and st.info[pte_pfn(old)] & INFO_AE):
            new = pte_mkwrite(new)
    change_huge_pmd(st, ctx, table, new, _needs_flush(st, old, new))


@inner
def change_protection(
    st: State, ctx: int, mm: int, va: int, end: int, vm_flags: int, cp_flags: int
) -> None:
    """Change [va, end) of one VMA to ``vm_flags``; the flush comes with tlb_end_vma()."""
    tlb_gather_mmu(st, ctx, mm, 0)
    markers = cp_flags & MM_CP_UFFD_WP and not vm_flags & VMF_ANON
    while va < end:
        stop = pmd_addr_end(st, va, end)
        table = table_of(st, mm, va)
        if table < 0 and markers:
            table = pte_alloc(st, mm, va)
        if table < 0:
            va = stop
            continue
        if pmd_trans_huge(st, table):
            if stop - va == st.s[PMD_SIZE]:
                _change_huge(st, ctx, table, vm_flags, cp_flags)
                va = stop
                continue
            split_huge_pmd_locked(st, table)
        st.c[PTL] += 1
        flush_tlb_batched_pending(st, mm)
        while va < stop:
            i = index_of(st, table, va)
            pte = ptep_get(st, i)
            nr = 1
            if pte_present(pte):
                max_nr = (stop - va) >> st.s[PAGE_SHIFT]
                nr = _change_present(st, ctx, i, va, pte, max_nr, vm_flags, cp_flags)
            elif pte == 0:
                if markers:
                    set_pte_at(st, i, va, MARKER_UFFD)
            else:
                _change_nonpresent(st, i, va, pte, cp_flags)
            va += nr << st.s[PAGE_SHIFT]
    tlb_end_vma(st, ctx)
