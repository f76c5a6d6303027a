# SPDX-License-Identifier: GPL-2.0-or-later
"""The young and dirty half of contpte.c: aging, MADV_FREE, access flag faults."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.contpte import block, raw_get, unfold
from tests.oracle.entries import Pte
from tests.oracle.machine import Machine, Ptep
from tests.oracle.tlbflush import flush_tlb_range


def _widen(m: Machine, ptep: Ptep, nr: int) -> tuple[int, int]:
    """contpte_align_addr_ptep(): [first, end) grown to whole blocks; two loads."""
    first, end = ptep.index, ptep.index + nr
    last, head = raw_get(m, ptep.plus(nr - 1)), raw_get(m, ptep)
    if last.cont:
        end = -(-end // m.cont) * m.cont
    if head.cont:
        first = first // m.cont * m.cont
    return first, end


def _is_multi(m: Machine, ptep: Ptep, nr: int) -> bool:
    """Whether the contpte form is taken; one entry is looked at first."""
    return m.f.contpte and (nr > 1 or raw_get(m, ptep).cont)


def clear_young_dirty_ptes(m: Machine, ptep: Ptep, nr: int, *, dirty: bool) -> None:
    first, end = ptep.index, ptep.index + nr
    if _is_multi(m, ptep, nr):
        m.count("contpte_clear_young_dirty_ptes")
        first, end = _widen(m, ptep, nr)
    m.count("ld", end - first)
    m.count("st" if dirty else "cas", end - first)
    for index in range(first, end):
        slot = ptep.at(index)
        pte = replace(slot.load(), young=False)
        slot.store(pte.mkclean() if dirty else pte)


def clear_flush_young_ptes(m: Machine, ptep: Ptep, va: int, nr: int) -> bool:
    """Test and clear young of a run, and flush it without waiting."""
    first, end = ptep.index, ptep.index + nr
    if m.f.aging_batch or nr > 1:
        multi = _is_multi(m, ptep, nr)
    else:
        multi = m.f.contpte and raw_get(m, ptep).valid_cont
    if multi:
        m.count("contpte_clear_flush_young_ptes")
        m.count("contpte_test_and_clear_young_ptes")
        if m.f.aging_batch:
            first, end = _widen(m, ptep, nr)
        else:
            first, end = block(m, ptep)[0].index, block(m, ptep)[-1].index + 1
    young = False
    m.count("ld", end - first)
    m.count("cas", end - first)
    for index in range(first, end):
        pte = ptep.at(index).load()
        young |= pte.young
        ptep.at(index).store(replace(pte, young=False))
    if young:
        if multi and m.f.aging_batch:
            _widen(m, ptep, nr)  # for the range of the flush, again
        start = va - (ptep.index - first) * m.page
        flush_tlb_range(m, start, start + (end - first) * m.page, wait=False)
    return young


def _upgrade(pte: Pte, entry: Pte) -> Pte:
    """___ptep_set_access_flags(): only ever more permissive."""
    return replace(
        pte,
        young=pte.young or entry.young,
        write=pte.write or entry.write,
        sw_dirty=pte.sw_dirty or entry.sw_dirty,
        rdonly=pte.rdonly and entry.rdonly,
    )


def _flags(pte: Pte) -> tuple[bool, ...]:
    return (pte.rdonly, pte.young, pte.write, pte.sw_dirty)


def ptep_set_access_flags(m: Machine, ptep: Ptep, va: int, entry: Pte) -> None:
    """After a write fault; always flushes what it changes."""
    local = bool(m.f.saf_local)
    old = raw_get(m, ptep)
    if not (m.f.contpte and old.valid_cont):
        if (_flags(old), old.valid) == (_flags(entry), entry.valid):
            return
        m.count("cas")
        ptep.store(_upgrade(old, entry))
        flush_tlb_range(m, va, va + m.page, local=local)
        return
    m.count("contpte_ptep_set_access_flags")
    slots = block(m, ptep)
    differing = [k for k, slot in enumerate(slots) if _flags(slot.load()) != _flags(entry)]
    m.count("ld", differing[0] + 1 if differing else m.cont)
    if not differing:
        return
    m.count("ld")  # the target, for the test of its write bit
    if old.write == entry.write:
        m.count("ld", m.cont)
        m.count("cas", m.cont)
        for slot in slots:
            slot.store(_upgrade(slot.load(), entry))
        start = va - ptep.index % m.cont * m.page
        flush_tlb_range(m, start, start + m.cont * m.page, local=local)
        return
    unfold(m, ptep, va, inside=True)
    m.count("ld")
    m.count("cas")
    ptep.store(_upgrade(ptep.load(), entry))
    flush_tlb_range(m, va, va + m.page, local=local)
