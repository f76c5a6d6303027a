# SPDX-License-Identifier: GPL-2.0-or-later
"""Folios: order, flags, and the rmap's counters.

Mirrors include/linux/rmap.h and the counter half of mm/rmap.c. Frames are
naturally aligned, so a page's folio starts at its frame number rounded down
to the folio's size.
"""

from __future__ import annotations

from replay.counters import INDEX
from replay.policies import FEATURE_INDEX
from replay.state import (
    INFO_AE,
    INFO_ANON,
    INFO_ORDER,
    INFO_PARTIAL,
    INFO_SWAPCACHE,
    LARGE_ENTIRE,
    LARGE_MAPCOUNT,
    LARGE_NR_MAPPED,
    LARGE_SWAP,
    NR_LARGE,
    POLICY,
    SWAP_NEXT,
    State,
)
from tracer.jit import inner

RMW_MAP = INDEX["rmw_map"]
RMAP_CALL = INDEX["rmap_call"]
AEX = INDEX["aex"]
DSPLIT = INDEX["dsplit"]
MB = INDEX["mb"]
REMOVE = INDEX["folio_remove_rmap_ptes"]
ADD_NEW = INDEX["folio_add_new_anon_rmap"]
ADD_ANON = INDEX["folio_add_anon_rmap_ptes"]
ADD_FILE = INDEX["folio_add_file_rmap_ptes"]
PAGE_LINE = INDEX["page_line"]
F_MM_ID = POLICY + FEATURE_INDEX["mm_id"]


@inner
def folio_order(st: State, pfn: int) -> int:
    return st.info[pfn] & INFO_ORDER


@inner
def folio_nr_pages(st: State, pfn: int) -> int:
    return 1 << (st.info[pfn] & INFO_ORDER)


@inner
def folio_head(st: State, pfn: int) -> int:
    return pfn - pfn % (1 << (st.info[pfn] & INFO_ORDER))


@inner
def folio_test(st: State, pfn: int, flag: int) -> bool:
    """Folio flags are kept on the head page."""
    return (st.info[folio_head(st, pfn)] & flag) != 0


@inner
def folio_new(st: State, head: int, order: int, flags: int) -> None:
    """A folio as the page allocator hands it out: nothing mapped, no page exclusive."""
    for pfn in range(head, head + (1 << order)):
        st.info[pfn] = order
        st.mapcount[pfn] = 0
    st.info[head] = order | flags
    if order:
        row = st.largeix[head >> 1]
        if row < 0:
            row = st.s[NR_LARGE]
            st.s[NR_LARGE] += 1
            st.largeix[head >> 1] = row
        st.large[row, LARGE_MAPCOUNT] = 0
        st.large[row, LARGE_NR_MAPPED] = 0
        st.large[row, LARGE_ENTIRE] = 0
        st.large[row, LARGE_SWAP] = -1


@inner
def folio_flag(st: State, pfn: int, flag: int, value: int) -> None:
    """Set or clear a folio flag; 0x7FFF keeps the complement inside 16 bits."""
    head = folio_head(st, pfn)
    if value:
        st.info[head] = st.info[head] | flag
    else:
        st.info[head] = st.info[head] & (0x7FFF ^ flag)


@inner
def _page_lines(st: State, pfn: int, nr: int) -> None:
    """A struct page is one 64 byte line; the folio's first pages hold its counters."""
    st.c[PAGE_LINE] += nr


@inner
def _count_mappings(st: State, pfn: int, nr: int, delta: int) -> int:
    """Change nr _mapcounts; return how many pages crossed between mapped and not."""
    crossed = 0
    for page in range(pfn, pfn + nr):
        before = st.mapcount[page]
        st.mapcount[page] = before + delta
        if before == 0 or before + delta == 0:
            crossed += 1
    st.c[RMW_MAP] += nr
    return crossed


@inner
def folio_remove_rmap_ptes(st: State, pfn: int, nr: int) -> None:
    """Undo nr mappings; queue a partly mapped anon folio for splitting."""
    st.c[RMAP_CALL] += 1
    st.c[REMOVE] += 1
    _page_lines(st, pfn, nr)
    crossed = _count_mappings(st, pfn, nr, -1)
    order = folio_order(st, pfn)
    if order == 0:
        return
    head = folio_head(st, pfn)
    row = st.largeix[head >> 1]
    st.large[row, LARGE_MAPCOUNT] -= nr
    st.c[RMW_MAP] += 1
    if crossed == 0:
        return
    st.large[row, LARGE_NR_MAPPED] -= crossed
    st.c[RMW_MAP] += 1
    # While a PMD maps the folio whole, no page of it becomes unmapped.
    partly = st.large[row, LARGE_NR_MAPPED] > 0 and st.large[row, LARGE_ENTIRE] == 0
    info = st.info[head]
    if partly and info & INFO_ANON and not info & INFO_PARTIAL:
        st.c[DSPLIT] += 1
        if order > 1 and not info & INFO_SWAPCACHE:
            st.info[head] = info | INFO_PARTIAL


@inner
def _add_ptes(st: State, pfn: int, nr: int) -> None:
    st.c[RMAP_CALL] += 1
    _page_lines(st, pfn, nr)
    crossed = _count_mappings(st, pfn, nr, 1)
    if folio_order(st, pfn):
        row = st.largeix[folio_head(st, pfn) >> 1]
        st.large[row, LARGE_MAPCOUNT] += nr
        st.c[RMW_MAP] += 1
        if crossed:
            st.large[row, LARGE_NR_MAPPED] += crossed
            st.c[RMW_MAP] += 1


@inner
def folio_add_file_rmap_ptes(st: State, pfn: int, nr: int) -> None:
    st.c[ADD_FILE] += 1
    _add_ptes(st, pfn, nr)


@inner
def folio_add_anon_rmap_ptes(st: State, pfn: int, nr: int, exclusive: int) -> None:
    """Map pages of an anon folio that is mapped, or was."""
    st.c[ADD_ANON] += 1
    _add_ptes(st, pfn, nr)
    if exclusive:
        for page in range(pfn, pfn + nr):
            st.info[page] = st.info[page] | INFO_AE
        st.c[AEX] += nr


@inner
def folio_add_new_anon_rmap(st: State, pfn: int, nr: int, exclusive: int) -> None:
    """First mapping of a new folio: plain stores, nobody else can see it."""
    st.c[ADD_NEW] += 1
    st.c[RMAP_CALL] += 1
    _page_lines(st, pfn, nr)
    for page in range(pfn, pfn + nr):
        st.mapcount[page] = 1
        if exclusive:
            st.info[page] = st.info[page] | INFO_AE
    if exclusive:
        st.c[AEX] += nr
    if folio_order(st, pfn):
        row = st.largeix[folio_head(st, pfn) >> 1]
        st.large[row, LARGE_MAPCOUNT] = nr
        st.large[row, LARGE_NR_MAPPED] = nr


@inner
def folio_dup_rmap_ptes(st: State, pfn: int, nr: int) -> None:
    """folio_try_dup_anon_rmap_ptes(), folio_dup_file_rmap_ptes() at fork."""
    st.c[RMAP_CALL] += 1
    _page_lines(st, pfn, nr)
    for page in range(pfn, pfn + nr):
        st.mapcount[page] += 1
        if st.info[page] & INFO_AE:
            st.info[page] = st.info[page] & (0x7FFF ^ INFO_AE)
            st.c[AEX] += 1
    st.c[RMW_MAP] += nr
    if folio_order(st, pfn):
        st.large[st.largeix[folio_head(st, pfn) >> 1], LARGE_MAPCOUNT] += nr
        st.c[RMW_MAP] += 1


@inner
def folio_try_share_anon_rmap(st: State, pfn: int, nr: int) -> None:
    """folio_try_share_anon_rmap_pte(): two full barriers, then nobody owns the pages alone."""
    st.c[MB] += 2
    for page in range(pfn, pfn + nr):
        st.info[page] = st.info[page] & (0x7FFF ^ INFO_AE)
    st.c[AEX] += nr


@inner
def exclusive_run(st: State, pfn: int, nr: int) -> int:
    """page_anon_exclusive_batch(): pages from ``pfn`` with equal PG_anon_exclusive."""
    first = st.info[pfn] & INFO_AE
    run = 1
    while run < nr and (st.info[pfn + run] & INFO_AE) == first:
        run += 1
    return run


@inner
def folio_swap_entry(st: State, pfn: int) -> int:
    """Swap offset of a page; a folio gets a run of offsets when it enters the swap cache."""
    order = folio_order(st, pfn)
    if order == 0:
        st.s[SWAP_NEXT] += 1
        return st.s[SWAP_NEXT] - 1
    head = folio_head(st, pfn)
    row = st.largeix[head >> 1]
    if st.large[row, LARGE_SWAP] < 0:
        nr = 1 << order
        first = st.s[SWAP_NEXT] + (-st.s[SWAP_NEXT] % nr)
        st.s[SWAP_NEXT] = first + nr
        st.large[row, LARGE_SWAP] = first
    return st.large[row, LARGE_SWAP] + (pfn - head)
