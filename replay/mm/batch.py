# SPDX-License-Identifier: GPL-2.0-or-later
"""folio_pte_batch(): how many entries from here map consecutive pages of one folio.

Mirrors mm/internal.h (6.12.107, 7.2, 7.3).
"""

from __future__ import annotations

from replay.arm64.contpte import pte_batch_hint, ptep_get
from replay.arm64.pte import (
    AF,
    DIRTY,
    RDONLY,
    WRITE,
    pte_advance_pfn,
    pte_dirty,
    pte_mkclean,
    pte_pfn,
)
from replay.mm.folio import folio_head, folio_nr_pages
from replay.state import State
from tracer.jit import inner

# fpb_t, with the sense of 7.x: what must match besides the frame numbers.
RESPECT_DIRTY = 1
RESPECT_WRITE = 2


@inner
def _comparable(pte: int, flags: int) -> int:
    """__pte_batch_clear_ignored()"""
    dirty = pte_dirty(pte)
    pte = pte_mkclean(pte) & ~AF
    if not flags & RESPECT_WRITE:
        pte &= ~WRITE
    if flags & RESPECT_DIRTY and dirty:
        pte |= DIRTY
    return pte | RDONLY


@inner
def folio_pte_batch(st: State, i: int, pte: int, max_nr: int, flags: int) -> int:
    """Length of the run at ``i``; the first entry was read by the caller.

    :param pte: the entry at ``i`` as ptep_get() gave it
    :param max_nr: entries left in the range and the table
    """
    pfn = pte_pfn(pte)
    max_nr = min(max_nr, folio_head(st, pfn) + folio_nr_pages(st, pfn) - pfn)
    nr = pte_batch_hint(st, i, pte)
    expected = _comparable(pte, flags)
    while nr < max_nr:
        entry = ptep_get(st, i + nr)
        if _comparable(entry, flags) != pte_advance_pfn(expected, nr):
            break
        nr += pte_batch_hint(st, i + nr, entry)
    return min(nr, max_nr)
