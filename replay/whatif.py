# SPDX-License-Identifier: GPL-2.0-or-later
"""What if the folios had another size: recorded anon faults laid on another order.

The workload is kept: the same addresses are touched, reclaimed, forked and
unmapped in the same order. What changes is which folio each anon page is in:
a fault maps a folio of the wanted order where that fits the VMA and nothing
is mapped yet, else the next smaller one, as alloc_anon_folio() does; a fault
on a page that came with an earlier folio does not happen. Operations on a
folio (reclaim, aging, swap-in) follow the folios that are there now.

File folios, copies on write and migration keep their recorded orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracer.errors import UsageError

AS_RECORDED = "as-recorded"
_FAULT = "do_anonymous_page"
_SWAP_IN = "do_swap_page"
_PER_FOLIO = frozenset({"try_to_unmap_one", "folio_referenced_one"})
_STRUCT_PAGE_SHIFT = 6


@dataclass
class _Folio:
    """A folio of the new layout."""

    start: int  # first page number (va / page size)
    order: int
    pfn: int
    swapped: bool = False

    @property
    def nr(self) -> int:
        return 1 << self.order


@dataclass
class _Layout:
    """Who maps what: per mm, page number to folio."""

    page_size: int
    order: int
    next_pfn: int
    maps: dict[tuple[int, int], dict[int, _Folio]] = field(default_factory=dict)

    def of(self, row: dict[str, Any], mm: str = "mm") -> dict[int, _Folio]:
        return self.maps.setdefault((row[mm] or 0, row["mm_gen"] if mm == "mm" else 0), {})

    def allocate(self, order: int) -> int:
        """Naturally aligned frames that no capture uses."""
        nr = 1 << order
        pfn = self.next_pfn + (-self.next_pfn % nr)
        self.next_pfn = pfn + nr
        return pfn

    def fit(self, pages: dict[int, _Folio], page: int, low: int, high: int) -> int:
        """Largest order up to the wanted one whose aligned range is free and in the VMA."""
        order = self.order
        while order > 0:
            nr = 1 << order
            start = page - page % nr
            free = low <= start and start + nr <= high
            if free and not any(p in pages for p in range(start, start + nr)):
                return order
            # There are no anon folios of order 1.
            order = order - 1 if order != 2 else 0
        return 0


def parse_order(text: str, page_size: int) -> int | None:
    """``64K`` or ``2M`` as a folio order; None for ``as-recorded``.

    :raises UsageError: when it is not a power-of-two number of pages
    """
    if text == AS_RECORDED:
        return None
    units = {"K": 10, "M": 20}
    number, unit = text[:-1], text[-1:].upper()
    if unit in units and number.isdigit():
        pages, rest = divmod(int(number) << units[unit], page_size)
        order = pages.bit_length() - 1
        if not rest and pages == 1 << order and order != 1 and order <= 13:
            return order
    raise UsageError(
        f"--folio-size {text} is not a folio size.", "Use 4K, 16K, 32K, ..., 2M or as-recorded."
    )


def relay(ops: pl.DataFrame, order: int, page_size: int) -> pl.DataFrame:
    """Lay the anon folios of an ops table on another order.

    :param ops: :data:`tracer.schema.OP_COLUMNS`
    :param order: wanted folio order; not 1
    :return: an ops table of the same columns; rows that stand for several carry
        the same ``seq``
    """
    top = int(ops["pfn"].max() or 0)  # type: ignore[arg-type]
    layout = _Layout(page_size, order, ((top >> 13) + 1) << 13)
    rows: list[dict[str, Any]] = []
    dirty = -1  # operations that the last try_to_unmap_one() of a task became
    for row in ops.iter_rows(named=True):
        if row["op"] == "try_to_unmap_flush_dirty" and dirty >= 0:
            # All but the last folio's were put behind their folios; no folio, no flush.
            if dirty > 0:
                rows.append(row)
            dirty = -1
            continue
        made = list(_relay_row(layout, row))
        if row["op"] == "try_to_unmap_one":
            dirty = len(made)
            made = _interleave(made, row)
        rows += made
    return pl.DataFrame(rows, schema=ops.schema, orient="row")


def _interleave(made: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """A dirty folio is flushed before it is written: one flush behind each folio but the last."""
    out: list[dict[str, Any]] = []
    for i, one in enumerate(made):
        out.append(one)
        if i + 1 < len(made):
            nothing = dict.fromkeys(("va", "end", "folio", "page", "pfn", "mm"))
            out.append({**row, **nothing, "op": "try_to_unmap_flush_dirty", "nr_pages": 0})
    return out


def _relay_row(layout: _Layout, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What one recorded operation becomes."""
    op = row["op"]
    size = layout.page_size
    if op == _FAULT:
        yield from _faults(layout, row)
        return
    if op in _PER_FOLIO:
        yield from _on_folios(layout, row)
        return
    if op == _SWAP_IN:
        yield from _swap_in(layout, row)
        return
    if op == "zap_page_range":
        _forget(layout.of(row), row["va"] // size, row["end"] // size)
    elif op in ("wp_page_copy", "folio_add_new_anon_rmap", "set_pte_range"):
        layout.of(row).pop(row["va"] // size, None)
    elif op == "exit_mmap":
        layout.of(row).clear()
    elif op == "copy_page_range":
        parent, child = layout.of(row), layout.of(row, "arg")
        for page in _inside(parent, row["va"] // size, row["end"] // size):
            child[page] = parent[page]
    elif op == "move_page_tables":
        _move(layout.of(row), row["va"] // size, row["end"] // size, row["arg"] // size)
    yield row


def _inside(pages: dict[int, _Folio], low: int, high: int) -> list[int]:
    if high - low < len(pages):
        return [p for p in range(low, high) if p in pages]
    return sorted(p for p in pages if low <= p < high)


def _forget(pages: dict[int, _Folio], low: int, high: int) -> None:
    for page in _inside(pages, low, high):
        del pages[page]


def _move(pages: dict[int, _Folio], low: int, high: int, to: int) -> None:
    moved = {page - low + to: pages.pop(page) for page in _inside(pages, low, high)}
    pages.update(moved)


def _faults(layout: _Layout, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A fault on every recorded page that is not mapped by then."""
    size = layout.page_size
    pages = layout.of(row)
    first = row["va"] // size
    low = (row["vm_start"] or 0) // size
    high = (row["vm_end"] or 1 << 62) // size
    for page in range(first, first + (1 << (row["order"] or 0))):
        if page in pages:
            continue
        order = layout.fit(pages, page, low, high)
        folio = _Folio(page - page % (1 << order), order, layout.allocate(order))
        for mapped in range(folio.start, folio.start + folio.nr):
            pages[mapped] = folio
        yield _with_folio(layout, row, folio)


def _with_folio(layout: _Layout, row: dict[str, Any], folio: _Folio) -> dict[str, Any]:
    va = folio.start * layout.page_size
    pointer = folio.pfn << _STRUCT_PAGE_SHIFT
    return {**row, "va": va, "end": va + folio.nr * layout.page_size, "nr_pages": folio.nr,
            "folio": pointer, "page": pointer, "pfn": folio.pfn, "order": folio.order}  # fmt: skip


def _folios(layout: _Layout, row: dict[str, Any], swapped: bool) -> list[_Folio]:
    """Folios of the new layout that the row's pages are in, in address order."""
    pages = layout.of(row)
    first = row["va"] // layout.page_size
    found: list[_Folio] = []
    for page in range(first, first + max(1, row["nr_pages"] or 1)):
        folio = pages.get(page)
        if folio is not None and folio.swapped == swapped and folio not in found:
            found.append(folio)
    return found


def _on_folios(layout: _Layout, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Reclaim and aging work on whole folios, each once."""
    pages = layout.of(row)
    if row["va"] // layout.page_size not in pages:
        yield row
        return
    for folio in _folios(layout, row, swapped=False):
        # A lazyfree folio does not go to swap, but it is gone just the same.
        if row["op"] == "try_to_unmap_one":
            folio.swapped = True
        yield _with_folio(layout, row, folio)


def _swap_in(layout: _Layout, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A refault brings the whole folio back where the recorded one came back whole."""
    pages = layout.of(row)
    if row["va"] // layout.page_size not in pages:
        yield row
        return
    for folio in _folios(layout, row, swapped=True):
        folio.swapped = False
        yield _with_folio(layout, row, folio)
