# SPDX-License-Identifier: GPL-2.0-or-later
"""arch/arm64/mm/contpte.c and the wrappers of asm/pgtable.h."""

from __future__ import annotations

from dataclasses import replace

from tests.oracle.entries import Entry, Pte, present
from tests.oracle.machine import Machine, Ptep
from tests.oracle.tlbflush import flush_tlb_range


def block(m: Machine, ptep: Ptep) -> list[Ptep]:
    """The entries of the contpte block around ``ptep``."""
    first = ptep.index // m.cont * m.cont
    return [ptep.at(first + k) for k in range(m.cont)]


# --- reading --------------------------------------------------------------------------


def block_loads(m: Machine, slots: list[Pte]) -> int:
    """Loads of contpte_ptep_get(): the table of lambda."""
    size = len(slots)
    if not m.f.getter_early_exit:
        return size
    d = next((k for k, slot in enumerate(slots) if slot.dirty), None)
    y = next((k for k, slot in enumerate(slots) if slot.young), None)
    if d is None and y is None:
        return size
    if y is None or (d is not None and d <= y):
        assert d is not None
        return (d + 1) + (y - d + 1 if y is not None else size - d)
    return (y + 1) + (d - y if d is not None else size - 1 - y)


def logical(m: Machine, ptep: Ptep) -> Entry:
    """The entry with its block's young and dirty; costs nothing."""
    pte = ptep.load()
    if not isinstance(pte, Pte) or not pte.valid_cont:
        return pte
    slots = [p.load() for p in block(m, ptep)]
    if any(s.dirty for s in slots):
        pte = pte.mkdirty()
    return replace(pte, young=any(s.young for s in slots))


def ptep_get(m: Machine, ptep: Ptep, *, lockless: bool = False) -> Entry:
    pte = ptep.load()
    m.count("ptep_get")
    m.count("ld")
    if isinstance(pte, Pte) and pte.valid_cont:
        m.count("cp_get_ll" if lockless else "cp_get")
        m.count("ld", block_loads(m, [p.load() for p in block(m, ptep)]) + lockless)
    return logical(m, ptep)


def raw_get(m: Machine, ptep: Ptep) -> Entry:
    m.count("ld")
    return ptep.load()


def batch_hint(m: Machine, ptep: Ptep, pte: Pte) -> int:
    return m.cont - ptep.index % m.cont if pte.valid_cont else 1


# --- fold and unfold --------------------------------------------------------------------


def convert(m: Machine, ptep: Ptep, va: int, *, cont: bool) -> None:
    """contpte_convert(): clear the block, flush it, write it again."""
    slots = block(m, ptep)
    old = [p.load() for p in slots]
    here = ptep.index % m.cont
    model = replace(old[here], cont=cont)
    if any(pte.dirty for pte in old):
        model = model.mkdirty()
    model = replace(model, young=any(pte.young for pte in old))
    m.count("xchg", m.cont)
    if not (m.f.bbml_elision and m.cpu.bbm):
        start = va - here * m.page
        flush_tlb_range(m, start, start + m.cont * m.page)
    m.count("st", m.cont)
    for k, slot in enumerate(slots):
        slot.store(model.advance(k - here))


def unfold(m: Machine, ptep: Ptep, va: int, *, inside: bool = False) -> None:
    """Unfold the block if it is one.

    :param inside: called in contpte.c, where __contpte_try_unfold() is inlined
    """
    pte = ptep.load()
    if isinstance(pte, Pte) and pte.valid_cont:
        m.count("unfold")
        if not inside:
            m.count("__contpte_try_unfold")
        convert(m, ptep, va, cont=False)


def unfold_for_single(m: Machine, ptep: Ptep, va: int) -> None:
    """The raw load and the unfold of every single-entry setter and clearer."""
    if m.f.contpte:
        raw_get(m, ptep)
        unfold(m, ptep, va)


def unfold_partial(m: Machine, ptep: Ptep, va: int, nr: int) -> None:
    """contpte_try_unfold_partial(): blocks at the ends that are not covered whole."""
    m.count("contpte_try_unfold_partial")
    if ptep.index % m.cont or nr < m.cont:
        raw_get(m, ptep)
        unfold(m, ptep, va, inside=True)
    if (ptep.index + nr) % m.cont:
        last = ptep.plus(nr - 1)
        raw_get(m, last)
        unfold(m, last, va + (nr - 1) * m.page, inside=True)


def try_fold(m: Machine, ptep: Ptep, va: int) -> None:
    """Only a store to the last slot of an aligned block may fold it."""
    pte = ptep.load()
    if not m.f.contpte or not m.f.fold or not isinstance(pte, Pte):
        return
    last = m.cont - 1
    if not pte.valid or pte.special or pte.pfn % m.cont != last or va // m.page % m.cont != last:
        return
    m.count("fold_try")
    if not m.folio(pte.pfn).covers(pte.pfn - last, pte.pfn):
        return
    for k, slot in enumerate(block(m, ptep)):
        other = raw_get(m, slot)
        if not isinstance(other, Pte) or other.pfn != pte.pfn - last + k:
            return
        if other.attributes() != pte.attributes() or other.write != pte.write:
            return
    m.count("fold")
    convert(m, ptep, va, cont=True)


# --- writing ------------------------------------------------------------------------------


def set_pte_at(m: Machine, ptep: Ptep, va: int, entry: Pte | object) -> None:
    unfold_for_single(m, ptep, va)
    m.count("st")
    ptep.store(replace(entry, cont=False) if m.f.contpte else replace(entry))
    try_fold(m, ptep, va)


def set_ptes(m: Machine, ptep: Ptep, va: int, entry: object, nr: int) -> None:
    """nr entries of one folio; whole aligned chunks are painted CONT."""
    if nr == 1:
        set_pte_at(m, ptep, va, entry)
        return
    m.count("st", nr)
    if m.f.contpte:
        m.count("contpte_set_ptes")
    paintable = m.f.contpte and (getattr(entry, "valid", False) or not m.f.cont_valid_only)
    for k in range(nr):
        into = (ptep.index + k) % m.cont  # slot in its block
        whole = k >= into and k - into + m.cont <= nr
        aligned = (entry.pfn + k - into) % m.cont == 0
        cont = bool(paintable and whole and aligned) if m.f.contpte else entry.cont
        ptep.plus(k).store(replace(entry.advance(k), cont=cont))


def pte_clear(m: Machine, ptep: Ptep, va: int) -> None:
    unfold_for_single(m, ptep, va)
    m.count("st")
    ptep.store(None)


def get_and_clear(m: Machine, ptep: Ptep, va: int) -> Entry:
    unfold_for_single(m, ptep, va)
    m.count("xchg")
    pte = ptep.load()
    ptep.store(None)
    return pte


def get_and_clear_ptes(
    m: Machine, ptep: Ptep, va: int, nr: int, *, name: str = "contpte_get_and_clear_full_ptes"
) -> Entry:
    """get_and_clear_full_ptes(): the first entry, young and dirty from all.

    :param name: clear_full_ptes() does the same under another name
    """
    if nr == 1:
        return get_and_clear(m, ptep, va)
    if m.f.contpte:
        m.count(name)
        unfold_partial(m, ptep, va, nr)
    m.count("xchg", nr)
    old = [ptep.plus(k).load() for k in range(nr)]
    for k in range(nr):
        ptep.plus(k).store(None)
    first = old[0]
    if any(pte.dirty for pte in old):
        first = first.mkdirty()
    return replace(first, young=any(pte.young for pte in old))


def ptep_clear_flush(m: Machine, ptep: Ptep, va: int, *, pending: bool) -> Entry:
    """:param pending: a gather is in flight on the mm: PROT_NONE may be in a TLB too"""
    pte = get_and_clear(m, ptep, va)
    if accessible(pte, pending=pending):
        flush_tlb_range(m, va, va + m.page)
    return pte


def accessible(pte: Entry, *, pending: bool) -> bool:
    return present(pte) and (pte.valid or pending)


def wrprotect_ptes(m: Machine, ptep: Ptep, va: int, nr: int) -> None:
    if nr == 1:
        m.count("ld")
        if m.f.contpte:
            unfold(m, ptep, va)
    else:
        if m.f.contpte:
            m.count("contpte_wrprotect_ptes")
            unfold_partial(m, ptep, va, nr)
        m.count("ld", nr)
    m.count("cas", nr)
    for k in range(nr):
        ptep.plus(k).store(ptep.plus(k).load().wrprotect())
