# SPDX-License-Identifier: GPL-2.0-or-later
"""TLB invalidation: which TLBI and DSB instructions one flush executes.

Mirrors arch/arm64/include/asm/tlbflush.h of 6.12 and 7.3.
"""

from __future__ import annotations

from replay.arm64.geometry import TLBI_RANGE_MAX_PAGES
from replay.counters import INDEX
from replay.policies import FEATURE_INDEX
from replay.state import (
    CPU_KPTI,
    CPU_LPA2,
    CPU_REPEAT_TLBI,
    CPU_TLBI_RANGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    POLICY,
    PTRS_PER_PTE,
    State,
)
from tracer.jit import inner

TLBI_VA = INDEX["tlbi_va"]
TLBI_RANGE = INDEX["tlbi_range"]
TLBI_ASID = INDEX["tlbi_asid"]
TLBI_LOCAL = INDEX["tlbi_local"]
DSB_ISHST = INDEX["dsb_ishst"]
DSB_ISH = INDEX["dsb_ish"]
DSB_NSHST = INDEX["dsb_nshst"]
DSB_NSH = INDEX["dsb_nsh"]
FLUSH_IPI = INDEX["flush_ipi"]
F_BROADCAST = POLICY + FEATURE_INDEX["broadcast_tlbi"]
LPA2_KERNEL = POLICY + FEATURE_INDEX["lpa2_alignment"]

SCALES = 4
NUM_MAX = 31


@inner
def _tlbi(st: State, counter: int) -> None:
    """One __tlbi(); KPTI adds the __tlbi_user() of the user ASID."""
    st.c[counter] += 2 if st.s[CPU_KPTI] else 1


@inner
def flush_sync(st: State) -> None:
    """DSB ISH that ends an invalidation; the erratum repeats TLBI and DSB."""
    if not st.s[F_BROADCAST]:
        st.c[FLUSH_IPI] += 1
        return
    st.c[DSB_ISH] += 1
    if st.s[CPU_REPEAT_TLBI]:
        st.c[TLBI_VA] += 1
        st.c[DSB_ISH] += 1


@inner
def flush_tlb_mm(st: State) -> None:
    """Whole address space: DSB ISHST, TLBI ASIDE1IS, DSB ISH."""
    if st.s[F_BROADCAST]:
        st.c[DSB_ISHST] += 1
        _tlbi(st, TLBI_ASID)
    flush_sync(st)


@inner
def _range_limit_excess(st: State, pages: int, stride_pages: int) -> bool:
    """__flush_tlb_range_limit_excess(): too many operations, invalidate the ASID."""
    if st.s[CPU_TLBI_RANGE]:
        return pages > TLBI_RANGE_MAX_PAGES
    return pages >= st.s[PTRS_PER_PTE] * stride_pages


@inner
def _range_op(st: State, start: int, pages: int, stride_pages: int, local: int) -> None:
    """__flush_tlb_range_op(): range instructions by falling scale, singles where they must be."""
    va_counter = TLBI_LOCAL if local else TLBI_VA
    range_counter = TLBI_LOCAL if local else TLBI_RANGE
    shift = st.s[PAGE_SHIFT]
    lpa2 = st.s[CPU_LPA2] and st.s[LPA2_KERNEL]
    use_range = st.s[CPU_TLBI_RANGE]
    scale = SCALES - 1
    while pages > 0:
        if not use_range or pages == 1 or (lpa2 and (start & 0xFFFF)):
            _tlbi(st, va_counter)
            start += stride_pages << shift
            pages -= stride_pages
            continue
        # __TLBI_RANGE_NUM(pages, scale): 2**(5*scale+1) pages per unit.
        unit = 5 * scale + 1
        num = min(pages, (NUM_MAX + 1) << unit) >> unit
        if num > 0:
            _tlbi(st, range_counter)
            start += (num << unit) << shift
            pages -= num << unit
        scale -= 1


@inner
def flush_tlb_range(
    st: State, start: int, end: int, stride_pages: int, sync: int, local: int
) -> None:
    """__flush_tlb_range() and its _nosync and local forms.

    :param start: first byte; ``end``: one past the last
    :param stride_pages: pages that one entry maps
    :param sync: 1 to wait for completion
    :param local: 1 for this CPU only
    """
    if not st.s[F_BROADCAST]:
        # A deferred flush asks nobody until try_to_unmap_flush(); a local one nobody at all.
        if sync and not local:
            flush_sync(st)
        return
    stride = stride_pages << st.s[PAGE_SHIFT]
    start -= start % stride
    end += -end % stride
    pages = (end - start) >> st.s[PAGE_SHIFT]
    if _range_limit_excess(st, pages, stride_pages):
        flush_tlb_mm(st)
        return
    st.c[DSB_NSHST if local else DSB_ISHST] += 1
    _range_op(st, start, pages, stride_pages, local)
    if sync:
        if local:
            st.c[DSB_NSH] += 1
        else:
            flush_sync(st)


@inner
def flush_tlb_page(st: State, va: int) -> None:
    """One page, synchronous."""
    flush_tlb_range(st, va, va + st.s[PAGE_SIZE], 1, 1, 0)
