# SPDX-License-Identifier: GPL-2.0-or-later
"""Page table entry accessors with transparent contpte mappings.

Mirrors arch/arm64/mm/contpte.c and the inline wrappers of
arch/arm64/include/asm/pgtable.h (6.12, 7.3). ``i`` is an index into
``State.pte``; tables start at multiples of PTRS_PER_PTE, so a block's first
entry is ``i`` rounded down to CONT_PTES. ``va`` is the entry's address.
"""

from __future__ import annotations

from replay.arm64.pte import (
    AF,
    CONT,
    DIRTY,
    PRESENT_INVALID,
    RDONLY,
    SPECIAL,
    VALID,
    WRITE,
    pte_advance_pfn,
    pte_dirty,
    pte_mkclean,
    pte_mkdirty,
    pte_pfn,
    pte_valid_cont,
    pte_wrprotect,
)
from replay.arm64.tlbflush import flush_tlb_page, flush_tlb_range
from replay.counters import INDEX
from replay.policies import FEATURE_INDEX
from replay.state import (
    CONT_PTES,
    CPU_BBML,
    INFO_ORDER,
    PAGE_SHIFT,
    PAGE_SIZE,
    POLICY,
    State,
)
from tracer.jit import inner

LD = INDEX["ld"]
XCHG = INDEX["xchg"]
CAS = INDEX["cas"]
ST = INDEX["st"]
PTEP_GET = INDEX["ptep_get"]
CP_GET = INDEX["cp_get"]
CP_GET_LL = INDEX["cp_get_ll"]
UNFOLD = INDEX["unfold"]
FOLD = INDEX["fold"]
FOLD_TRY = INDEX["fold_try"]
TRY_UNFOLD = INDEX["__contpte_try_unfold"]
UNFOLD_PARTIAL = INDEX["contpte_try_unfold_partial"]
SET_PTES = INDEX["contpte_set_ptes"]
CLEAR_FULL = INDEX["contpte_clear_full_ptes"]
GET_CLEAR_FULL = INDEX["contpte_get_and_clear_full_ptes"]
WRPROTECT = INDEX["contpte_wrprotect_ptes"]
YOUNG_DIRTY = INDEX["contpte_clear_young_dirty_ptes"]
CLEAR_YOUNG = INDEX["contpte_test_and_clear_young_ptes"]
CLEAR_FLUSH_YOUNG = INDEX["contpte_clear_flush_young_ptes"]
SET_ACCESS = INDEX["contpte_ptep_set_access_flags"]

F_CONTPTE = POLICY + FEATURE_INDEX["contpte"]
F_FOLD = POLICY + FEATURE_INDEX["fold"]
F_EARLY_EXIT = POLICY + FEATURE_INDEX["getter_early_exit"]
F_BBML = POLICY + FEATURE_INDEX["bbml_elision"]
F_VALID_ONLY = POLICY + FEATURE_INDEX["cont_valid_only"]
F_SAF_LOCAL = POLICY + FEATURE_INDEX["saf_local"]
F_AGING = POLICY + FEATURE_INDEX["aging_batch"]


# --- reading -----------------------------------------------------------------


@inner
def _gather_access(st: State, i: int, pte: int) -> int:
    """contpte_ptep_get(): fold the block's young and dirty bits into ``pte``."""
    cont = st.s[CONT_PTES]
    first = i - i % cont
    early = st.s[F_EARLY_EXIT]
    k = first
    end = first + cont
    while k < end:
        entry = st.pte[k]
        st.c[LD] += 1
        if pte_dirty(entry):
            pte = pte_mkdirty(pte)
            if early:
                # The inner scan for a young entry reads this one again.
                while k < end:
                    st.c[LD] += 1
                    if st.pte[k] & AF:
                        return pte | AF
                    k += 1
                return pte
        if entry & AF:
            pte |= AF
            if early:
                k += 1
                while k < end:
                    st.c[LD] += 1
                    if pte_dirty(st.pte[k]):
                        return pte_mkdirty(pte)
                    k += 1
                return pte
        k += 1
    return pte


@inner
def ptep_get(st: State, i: int) -> int:
    """The logical entry: a contpte block's young and dirty are the OR of its slots."""
    pte = st.pte[i]
    st.c[PTEP_GET] += 1
    st.c[LD] += 1
    if not pte_valid_cont(pte):
        return pte
    st.c[CP_GET] += 1
    return _gather_access(st, i, pte)


@inner
def ptep_get_lockless(st: State, i: int) -> int:
    """ptep_get() without the lock: contpte_ptep_get_lockless() reads its entry again."""
    pte = st.pte[i]
    st.c[PTEP_GET] += 1
    st.c[LD] += 1
    if not pte_valid_cont(pte):
        return pte
    st.c[CP_GET_LL] += 1
    st.c[LD] += 1
    return _gather_access(st, i, pte)


@inner
def raw_get(st: State, i: int) -> int:
    """__ptep_get()"""
    st.c[LD] += 1
    return st.pte[i]


@inner
def peek(st: State, i: int) -> int:
    """The logical entry without counting a load; for decisions that cost nothing."""
    pte = st.pte[i]
    if not pte_valid_cont(pte):
        return pte
    cont = st.s[CONT_PTES]
    first = i - i % cont
    for k in range(first, first + cont):
        if pte_dirty(st.pte[k]):
            pte = pte_mkdirty(pte)
        pte |= st.pte[k] & AF
    return pte


@inner
def pte_batch_hint(st: State, i: int, pte: int) -> int:
    """Entries from here to the end of the contpte block; 1 outside one."""
    if not pte_valid_cont(pte):
        return 1
    cont = st.s[CONT_PTES]
    return cont - i % cont


# --- fold and unfold -----------------------------------------------------------


@inner
def _convert(st: State, i: int, va: int, pte: int) -> None:
    """contpte_convert(): break-before-make repaint of one block."""
    cont = st.s[CONT_PTES]
    first = i - i % cont
    start = va - ((i % cont) << st.s[PAGE_SHIFT])
    pte = pte_advance_pfn(pte, -(pte_pfn(pte) % cont))
    for k in range(first, first + cont):
        entry = st.pte[k]
        if pte_dirty(entry):
            pte = pte_mkdirty(pte)
        pte |= entry & AF
    st.c[XCHG] += cont
    if not (st.s[F_BBML] and st.s[CPU_BBML]):
        flush_tlb_range(st, start, start + (cont << st.s[PAGE_SHIFT]), 1, 1, 0)
    for k in range(cont):
        st.pte[first + k] = pte_advance_pfn(pte, k)
    st.c[ST] += cont


@inner
def contpte_try_unfold(st: State, i: int, va: int, pte: int) -> None:
    """Inline test and __contpte_try_unfold()."""
    if pte_valid_cont(pte):
        st.c[TRY_UNFOLD] += 1
        st.c[UNFOLD] += 1
        _convert(st, i, va, pte & ~CONT)


@inner
def _unfold_in_batch(st: State, i: int, va: int, pte: int) -> None:
    """The same from inside contpte.c, where __contpte_try_unfold() is inlined."""
    if pte_valid_cont(pte):
        st.c[UNFOLD] += 1
        _convert(st, i, va, pte & ~CONT)


@inner
def contpte_try_unfold_partial(st: State, i: int, va: int, nr: int) -> None:
    """Unfold the blocks that [i, i + nr) covers in part."""
    st.c[UNFOLD_PARTIAL] += 1
    cont = st.s[CONT_PTES]
    if i % cont or nr < cont:
        _unfold_in_batch(st, i, va, raw_get(st, i))
    if (i + nr) % cont:
        last = i + nr - 1
        _unfold_in_batch(st, last, va + ((nr - 1) << st.s[PAGE_SHIFT]), raw_get(st, last))


@inner
def _try_fold(st: State, i: int, va: int, pte: int) -> None:
    """contpte_try_fold() and __contpte_try_fold(): only the block's last entry may fold."""
    cont = st.s[CONT_PTES]
    if (va >> st.s[PAGE_SHIFT]) % cont != cont - 1 or not st.s[F_FOLD]:
        return
    if not pte & VALID or pte & (SPECIAL | CONT) or pte_pfn(pte) % cont != cont - 1:
        return
    st.c[FOLD_TRY] += 1
    pfn = pte_pfn(pte)
    # Both ends are aligned, so a folio at least as large as a block covers it.
    if (1 << (st.info[pfn] & INFO_ORDER)) < cont:
        return
    first = i - (cont - 1)
    expected = pte_advance_pfn(pte_mkclean(pte) & ~AF, 1 - cont)
    for k in range(cont):
        st.c[LD] += 1
        if (pte_mkclean(st.pte[first + k]) & ~AF) != pte_advance_pfn(expected, k):
            return
    st.c[FOLD] += 1
    _convert(st, i, va, pte_advance_pfn(expected, cont - 1) | CONT)


# --- writing -------------------------------------------------------------------


@inner
def set_pte_at(st: State, i: int, va: int, pte: int) -> None:
    """set_ptes() of one entry."""
    if not st.s[F_CONTPTE]:
        st.pte[i] = pte
        st.c[ST] += 1
        return
    contpte_try_unfold(st, i, va, raw_get(st, i))
    st.pte[i] = pte & ~CONT
    st.c[ST] += 1
    _try_fold(st, i, va, pte & ~CONT)


@inner
def set_ptes(st: State, i: int, va: int, pte: int, nr: int) -> None:
    """Consecutive entries of one folio; whole aligned blocks are painted CONT."""
    if nr == 1:
        set_pte_at(st, i, va, pte)
        return
    st.c[ST] += nr
    if not st.s[F_CONTPTE]:
        for k in range(nr):
            st.pte[i + k] = pte_advance_pfn(pte, k)
        return
    st.c[SET_PTES] += 1
    cont = st.s[CONT_PTES]
    pte &= ~CONT
    paint = pte & VALID or not st.s[F_VALID_ONLY]
    done = 0
    while done < nr:
        run = min(cont - (i + done) % cont, nr - done)
        entry = pte_advance_pfn(pte, done)
        if paint and run == cont and pte_pfn(entry) % cont == 0:
            entry |= CONT
        for k in range(run):
            st.pte[i + done + k] = pte_advance_pfn(entry, k)
        done += run


@inner
def pte_clear(st: State, i: int, va: int) -> None:
    """pte_clear(): a plain store of zero."""
    if st.s[F_CONTPTE]:
        contpte_try_unfold(st, i, va, raw_get(st, i))
    st.pte[i] = 0
    st.c[ST] += 1


@inner
def ptep_get_and_clear(st: State, i: int, va: int) -> int:
    """One entry, unfolding its block first."""
    if st.s[F_CONTPTE]:
        contpte_try_unfold(st, i, va, raw_get(st, i))
    pte = st.pte[i]
    st.pte[i] = 0
    st.c[XCHG] += 1
    return pte


@inner
def _clear_run(st: State, i: int, nr: int) -> int:
    """nr atomic exchanges; the first entry with the run's young and dirty."""
    pte = st.pte[i]
    for k in range(i, i + nr):
        if pte_dirty(st.pte[k]):
            pte = pte_mkdirty(pte)
        pte |= st.pte[k] & AF
        st.pte[k] = 0
    st.c[XCHG] += nr
    return pte


@inner
def get_and_clear_full_ptes(st: State, i: int, va: int, nr: int) -> int:
    """get_and_clear_full_ptes(): the first entry with the run's young and dirty."""
    if nr == 1:
        return ptep_get_and_clear(st, i, va)
    if st.s[F_CONTPTE]:
        st.c[GET_CLEAR_FULL] += 1
        contpte_try_unfold_partial(st, i, va, nr)
    return _clear_run(st, i, nr)


@inner
def clear_full_ptes(st: State, i: int, va: int, nr: int) -> None:
    """clear_full_ptes(): young and dirty are thrown away."""
    if nr == 1:
        ptep_get_and_clear(st, i, va)
        return
    if st.s[F_CONTPTE]:
        st.c[CLEAR_FULL] += 1
        contpte_try_unfold_partial(st, i, va, nr)
    _clear_run(st, i, nr)


@inner
def wrprotect_ptes(st: State, i: int, va: int, nr: int) -> None:
    """Write-protect a run; a single entry of a block unfolds it."""
    if nr == 1:
        pte = raw_get(st, i)
        if st.s[F_CONTPTE]:
            contpte_try_unfold(st, i, va, pte)
        st.pte[i] = pte_wrprotect(st.pte[i])
        st.c[CAS] += 1
        return
    if st.s[F_CONTPTE]:
        st.c[WRPROTECT] += 1
        contpte_try_unfold_partial(st, i, va, nr)
    for k in range(i, i + nr):
        st.pte[k] = pte_wrprotect(st.pte[k])
    st.c[LD] += nr
    st.c[CAS] += nr


@inner
def ptep_clear_flush(st: State, i: int, va: int, pending: int) -> int:
    """Clear one entry and flush its page, waiting for it.

    :param pending: a gather is in flight, so a PROT_NONE entry may be in a TLB as well
    """
    pte = ptep_get_and_clear(st, i, va)
    if pte & VALID or (pending and pte & PRESENT_INVALID):
        flush_tlb_page(st, va)
    return pte


# --- young and dirty -------------------------------------------------------------


@inner
def clear_young_dirty_ptes(st: State, i: int, va: int, nr: int, dirty: int) -> None:
    """Clear young, and with ``dirty`` both, widened to whole contpte blocks.

    Both flags: load and plain store. Young alone: load and cmpxchg.
    """
    start, end = i, i + nr
    if st.s[F_CONTPTE]:
        cont = st.s[CONT_PTES]
        multi = nr > 1
        if not multi:
            multi = (raw_get(st, i) & CONT) != 0
        if multi:
            st.c[YOUNG_DIRTY] += 1
            if raw_get(st, end - 1) & CONT:
                end += -end % cont
            if raw_get(st, i) & CONT:
                start -= start % cont
    for k in range(start, end):
        pte = st.pte[k] & ~AF
        st.pte[k] = pte_mkclean(pte) if dirty else pte
    st.c[LD] += end - start
    if dirty:
        st.c[ST] += end - start
    else:
        st.c[CAS] += end - start


@inner
def _test_and_clear_young(st: State, start: int, end: int) -> bool:
    young = 0
    for k in range(start, end):
        young |= st.pte[k] & AF
        st.pte[k] &= ~AF
    st.c[LD] += end - start
    st.c[CAS] += end - start
    return young != 0


@inner
def _count_clear_young(st: State, flush: int) -> None:
    """The flushing form calls the other one out of line."""
    st.c[CLEAR_YOUNG] += 1
    if flush:
        st.c[CLEAR_FLUSH_YOUNG] += 1


@inner
def test_and_clear_young_ptes(st: State, i: int, va: int, nr: int, flush: int) -> bool:
    """clear_flush_young_ptes() with ``flush``, else test_and_clear_young_ptes().

    6.12 clears the whole block for each of its entries; 7.0 takes the run.
    The flush does not wait.
    """
    start, end = i, i + nr
    multi = False
    if st.s[F_CONTPTE]:
        cont = st.s[CONT_PTES]
        if nr == 1 and not st.s[F_AGING]:
            if pte_valid_cont(raw_get(st, i)):
                _count_clear_young(st, flush)
                start -= start % cont
                end = start + cont
        else:
            multi = nr > 1
            if not multi:
                multi = (raw_get(st, i) & CONT) != 0
            if multi:
                _count_clear_young(st, flush)
                if raw_get(st, end - 1) & CONT:
                    end += -end % cont
                if raw_get(st, i) & CONT:
                    start -= start % cont
    young = _test_and_clear_young(st, start, end)
    if young and flush:
        if multi and st.s[F_AGING]:
            # contpte_align_addr_ptep() again, for the range of the flush.
            st.c[LD] += 2
        first = va - ((i - start) << st.s[PAGE_SHIFT])
        flush_tlb_range(st, first, first + ((end - start) << st.s[PAGE_SHIFT]), 1, 0, 0)
    return young


@inner
def _set_access(st: State, i: int, entry: int) -> None:
    """___ptep_set_access_flags(): OR the access bits of ``entry`` in."""
    pte = st.pte[i]
    pte |= entry & (AF | WRITE | DIRTY)
    if not entry & RDONLY:
        pte &= ~RDONLY
    st.pte[i] = pte


@inner
def ptep_set_access_flags(st: State, i: int, va: int, entry: int, dirty: int) -> bool:
    """Upgrade an entry after a fault; True when something changed.

    :param entry: the wanted entry
    :param dirty: 1 for a write fault, which flushes
    """
    local = st.s[F_SAF_LOCAL]
    pte = raw_get(st, i)
    entry &= ~CONT
    if not pte_valid_cont(pte):
        if pte == entry:
            return False
        _set_access(st, i, entry)
        st.c[CAS] += 1
        if dirty:
            flush_tlb_range(st, va, va + st.s[PAGE_SIZE], 1, 1, local)
        return True
    st.c[SET_ACCESS] += 1
    cont = st.s[CONT_PTES]
    first = i - i % cont
    start = va - ((i - first) << st.s[PAGE_SHIFT])
    same = 0
    while same < cont:
        st.c[LD] += 1
        if (st.pte[first + same] & ~CONT) != pte_advance_pfn(entry, first + same - i):
            break
        same += 1
    if same == cont:
        return False
    st.c[LD] += 1  # the target again, for its write bit
    if (pte & WRITE) == (entry & WRITE):
        for k in range(first, first + cont):
            _set_access(st, k, entry)
        st.c[LD] += cont
        st.c[CAS] += cont
        if dirty:
            flush_tlb_range(st, start, start + (cont << st.s[PAGE_SHIFT]), 1, 1, local)
        return True
    _unfold_in_batch(st, i, va, pte)
    st.c[LD] += 1
    _set_access(st, i, entry)
    st.c[CAS] += 1
    if dirty:
        flush_tlb_range(st, va, va + st.s[PAGE_SIZE], 1, 1, local)
    return True
