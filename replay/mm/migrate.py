# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration and folio split: entries out and back, one page at a time in every release."""

from __future__ import annotations

from replay.arm64.contpte import (
    ptep_clear_flush,
    ptep_get,
    ptep_get_and_clear,
    set_pte_at,
)
from replay.arm64.pte import (
    AF,
    KIND_MASK,
    MIGRATION_READ,
    MIGRATION_READ_EXCL,
    MIGRATION_WRITE,
    NP_DIRTY,
    NP_UFFD,
    NP_YOUNG,
    PFN_SHIFT,
    SPECIAL,
    UFFD,
    WRITE,
    is_migration,
    pte_dirty,
    pte_mkdirty,
    pte_mkwrite,
    pte_pfn,
    pte_wrprotect,
)
from replay.counters import INDEX
from replay.mm.fault import user_pte
from replay.mm.folio import (
    folio_add_anon_rmap_ptes,
    folio_add_file_rmap_ptes,
    folio_head,
    folio_new,
    folio_nr_pages,
    folio_order,
    folio_remove_rmap_ptes,
    folio_try_share_anon_rmap,
)
from replay.mm.huge_memory import split_huge_pmd
from replay.mm.page_vma_mapped import page_vma_mapped_walk, walk_start
from replay.mm.pgtable import index_of, table_of
from replay.mm.rmap import (
    TTU_BATCH_FLUSH,
    TTU_SYNC,
    mm_tlb_flush_pending,
    set_tlb_ubc_flush_pending,
)
from replay.policies import FEATURE_INDEX
from replay.state import (
    INFO_AE,
    INFO_ANON,
    INFO_LIVE,
    INFO_SHMEM,
    INFO_SWAPBACKED,
    INFO_SWAPCACHE,
    PAGE_SHIFT,
    POLICY,
    PVMW_ADDR,
    PVMW_PTE,
    State,
)
from tracer.jit import inner

MMC = INDEX["mmc"]
RMW_REF = INDEX["rmw_ref"]
F_DEFER = POLICY + FEATURE_INDEX["deferred_flush"]


@inner
def _migration_entry(pte: int, exclusive: int) -> int:
    """make_*_migration_entry() with the old entry's access bits."""
    if pte & WRITE:
        kind = MIGRATION_WRITE
    elif exclusive:
        kind = MIGRATION_READ_EXCL
    else:
        kind = MIGRATION_READ
    entry = kind | (pte_pfn(pte) << PFN_SHIFT)
    if pte & AF:
        entry |= NP_YOUNG
    if pte_dirty(pte):
        entry |= NP_DIRTY
    if pte & UFFD:
        entry |= NP_UFFD
    return entry


@inner
def try_to_migrate_one(
    st: State, ctx: int, mm: int, pfn: int, va: int, vm_end: int, flags: int
) -> None:
    """Replace a folio's entries in one VMA by migration entries (mm/rmap.c)."""
    head = folio_head(st, pfn)
    nr_folio = folio_nr_pages(st, pfn)
    anon = st.info[head] & INFO_ANON
    end = min(va + ((nr_folio - (pfn - head)) << st.s[PAGE_SHIFT]), vm_end)
    walk_start(st, mm, va, end, head, nr_folio, 1 if flags & TTU_SYNC else 0, 0)
    while page_vma_mapped_walk(st):
        i, at = st.s[PVMW_PTE], st.s[PVMW_ADDR]
        if i < 0:
            split_huge_pmd(st, table_of(st, mm, at))
            continue
        page = pte_pfn(ptep_get(st, i))
        if flags & TTU_BATCH_FLUSH and st.s[F_DEFER]:
            pte = ptep_get_and_clear(st, i, at)
            set_tlb_ubc_flush_pending(st, ctx, mm, pte, at, 1)
        else:
            pte = ptep_clear_flush(st, i, at, mm_tlb_flush_pending(st, mm))
        exclusive = st.info[page] & INFO_AE
        if anon and exclusive:
            folio_try_share_anon_rmap(st, page, 1)
        set_pte_at(st, i, at, _migration_entry(pte, exclusive))
        folio_remove_rmap_ptes(st, page, 1)
        st.c[RMW_REF] += 1


@inner
def _adopt(st: State, pfn: int, order: int, flags: int) -> None:
    """The folio that comes back may be a new one, or a piece of the old one.

    A piece takes over what folio_split() leaves it; a new folio has the recorded flags.
    """
    head = pfn & -(1 << order)
    if not st.info[head] & INFO_LIVE or folio_order(st, head) != order:
        old = st.info[folio_head(st, pfn)]
        if old & INFO_LIVE:
            flags = old
        kept = INFO_ANON | INFO_SWAPBACKED | INFO_SWAPCACHE | INFO_SHMEM
        folio_new(st, head, order, (flags & kept) | INFO_LIVE)


@inner
def _first_migration(st: State, mm: int, va: int, nr: int) -> int:
    """Frame in the first migration entry of the range, or -1."""
    for k in range(nr):
        at = va + (k << st.s[PAGE_SHIFT])
        table = table_of(st, mm, at)
        if table < 0:
            continue
        pte = st.pte[index_of(st, table, at)]
        if is_migration(pte):
            return pte_pfn(pte) - k
    return -1


@inner
def remove_migration_pte(
    st: State,
    mm: int,
    pfn: int,
    order: int,
    va: int,
    vm_end: int,
    vm_flags: int,
    info: int,
    zero: int,
) -> None:
    """Map the folio again where its migration entries are (mm/migrate.c).

    :param zero: the page of a split folio holds only zeros, and the shared zero page takes
        its place: try_to_map_unused_to_zeropage()
    """
    nr = 1 << order
    old = _first_migration(st, mm, va, nr)
    _adopt(st, pfn, order, info)
    end = min(va + (nr << st.s[PAGE_SHIFT]), vm_end)
    # The rmap leads to pages that were unmapped or moved since, too: a walk that finds nothing.
    walk_start(st, mm, va, end, pfn if old < 0 else old, nr, 1, 1)
    while page_vma_mapped_walk(st):
        i, at = st.s[PVMW_PTE], st.s[PVMW_ADDR]
        entry = ptep_get(st, i)
        page = pfn + ((at - va) >> st.s[PAGE_SHIFT])
        if zero:
            set_pte_at(st, i, at, user_pte(0, vm_flags, 0, 1) | SPECIAL)
            st.c[MMC] += 1
            continue
        st.c[RMW_REF] += 1
        kind = entry & KIND_MASK
        # Old, whatever the entry was: the booted kernels' migration entries carry no young bit.
        pte = user_pte(page, vm_flags, 0, 0)
        if entry & NP_DIRTY:
            pte = pte_mkdirty(pte)
        if kind == MIGRATION_WRITE:
            pte = pte_mkwrite(pte)
        elif entry & NP_UFFD:
            pte = pte_wrprotect(pte) | UFFD
        if st.info[folio_head(st, page)] & INFO_ANON:
            folio_add_anon_rmap_ptes(st, page, 1, 1 if kind != MIGRATION_READ else 0)
        else:
            folio_add_file_rmap_ptes(st, page, 1)
        set_pte_at(st, i, at, pte)
