# SPDX-License-Identifier: GPL-2.0-or-later
"""include/linux/rmap.h and mm/rmap.c: the counters of folios and of their pages."""

from __future__ import annotations

from tests.oracle.machine import Folio, Machine


def _call(m: Machine, nr: int, name: str = "") -> None:
    m.count("rmap_call")
    m.count("page_line", nr)
    if name:
        m.count(name)


def _rmw(m: Machine, folio: Folio, nr: int, *, mapped_changed: bool) -> None:
    """Every _mapcount, the large mapcount, and _nr_pages_mapped where a page crossed zero."""
    m.count("rmw_map", nr)
    if folio.large:
        m.count("rmw_map", 1 + mapped_changed)


def folio_remove_rmap_ptes(m: Machine, pfn: int, nr: int) -> None:
    folio = m.folio(pfn)
    _call(m, nr, "folio_remove_rmap_ptes")
    before = folio.nr_mapped
    for page in range(pfn, pfn + nr):
        folio.mapcount[page] -= 1
    gone = folio.nr_mapped < before
    _rmw(m, folio, nr, mapped_changed=gone)
    if folio.large and gone and folio.nr_mapped and folio.anon and not folio.partially_mapped:
        m.count("dsplit")
        # deferred_split_folio() leaves order 1 and the swap cache alone.
        folio.partially_mapped = folio.order > 1 and not folio.swapcache


def _add(m: Machine, pfn: int, nr: int, name: str) -> Folio:
    folio = m.folio(pfn)
    _call(m, nr, name)
    before = folio.nr_mapped
    for page in range(pfn, pfn + nr):
        folio.mapcount[page] += 1
    _rmw(m, folio, nr, mapped_changed=folio.nr_mapped > before)
    return folio


def folio_add_file_rmap_ptes(m: Machine, pfn: int, nr: int) -> None:
    _add(m, pfn, nr, "folio_add_file_rmap_ptes")


def folio_add_anon_rmap_ptes(m: Machine, pfn: int, nr: int, *, exclusive: bool) -> None:
    folio = _add(m, pfn, nr, "folio_add_anon_rmap_ptes")
    if exclusive:
        folio.exclusive.update(range(pfn, pfn + nr))
        m.count("aex", nr)


def folio_add_new_anon_rmap(m: Machine, pfn: int, nr: int, *, exclusive: bool) -> None:
    """Plain stores; only PG_anon_exclusive is set atomically."""
    folio = m.folio(pfn)
    _call(m, nr, "folio_add_new_anon_rmap")
    for page in range(pfn, pfn + nr):
        folio.mapcount[page] = 1
    if exclusive:
        folio.exclusive.update(range(pfn, pfn + nr))
        m.count("aex", nr)


def folio_dup_rmap_ptes(m: Machine, pfn: int, nr: int) -> None:
    """Fork: one more mapping of each page, none of them exclusive any more."""
    folio = m.folio(pfn)
    _call(m, nr)
    pages = range(pfn, pfn + nr)
    for page in pages:
        folio.mapcount[page] += 1
    m.count("aex", len(folio.exclusive & set(pages)))
    folio.exclusive -= set(pages)
    m.count("rmw_map", nr + folio.large)


def folio_try_share_anon_rmap(m: Machine, pfn: int, nr: int) -> None:
    m.count("mb", 2)
    m.count("aex", nr)
    m.folio(pfn).exclusive -= set(range(pfn, pfn + nr))


def exclusive_runs(m: Machine, pfn: int, nr: int) -> list[tuple[int, int, bool]]:
    """(first page, pages, exclusive) of the runs of equal PG_anon_exclusive."""
    exclusive = m.folio(pfn).exclusive
    runs: list[tuple[int, int, bool]] = []
    for page in range(pfn, pfn + nr):
        own = page in exclusive
        if runs and runs[-1][2] == own:
            first, length, _ = runs[-1]
            runs[-1] = (first, length + 1, own)
        else:
            runs.append((page, 1, own))
    return runs


def swap_offset(m: Machine, pfn: int) -> int:
    """Offset of a page: handed out upwards, a large folio's run naturally aligned.

    A large folio keeps its run while it lives.
    """
    folio = m.folio(pfn)
    if not folio.large:
        m.next_swap += 1
        return m.next_swap - 1
    if folio.swap is None:
        folio.swap = -(-m.next_swap // folio.nr_pages) * folio.nr_pages
        m.next_swap = folio.swap + folio.nr_pages
    return folio.swap + pfn - folio.head
