# SPDX-License-Identifier: GPL-2.0-or-later
"""arch/arm64/include/asm/tlbflush.h: the instructions of one invalidation, in closed form."""

from __future__ import annotations

from tests.oracle.machine import Machine

MAX_RANGE_PAGES = 2**21
ALIGNMENT = 64 * 1024  # of a range operation under LPA2


def sync(m: Machine) -> None:
    """DSB ISH; the erratum adds one TLBI and one DSB. Without broadcast, one IPI round."""
    if not m.f.broadcast_tlbi:
        m.count("flush_ipi")
        return
    m.count("dsb_ish")
    if m.cpu.repeat_tlbi:
        m.count("tlbi_va")
        m.count("dsb_ish")


def kpti(m: Machine) -> int:
    return 2 if m.cpu.kpti else 1


def flush_tlb_mm(m: Machine) -> None:
    if m.f.broadcast_tlbi:
        m.count("dsb_ishst")
        m.count("tlbi_asid", kpti(m))
    sync(m)


def digits(q: int) -> list[int]:
    """Base 32 digits of q; the fourth may be 32."""
    return [q % 32, q // 32 % 32, q // 32**2 % 32, q // 32**3]


def operations(m: Machine, start: int, pages: int, stride: int) -> tuple[int, int]:
    """(single, range) operations for ``pages`` pages from ``start``."""
    if not m.cpu.tlbi_range:
        return pages // stride, 0
    single = 0
    if m.cpu.lpa2 and m.f.lpa2_alignment:
        unaligned = -start % ALIGNMENT // m.page
        single = min(pages, unaligned)
        pages -= single
    return single + pages % 2, sum(1 for digit in digits(pages // 2) if digit)


def flush_tlb_range(
    m: Machine, start: int, end: int, *, stride: int = 1, wait: bool = True, local: bool = False
) -> None:
    """:param stride: pages of one entry"""
    if not m.f.broadcast_tlbi:
        if wait and not local:
            sync(m)
        return
    size = stride * m.page
    start, end = start // size * size, -(-end // size) * size
    pages = m.pages(start, end)
    limit = pages > MAX_RANGE_PAGES if m.cpu.tlbi_range else pages >= m.ptrs * stride
    if limit:
        flush_tlb_mm(m)
        return
    m.count("dsb_nshst" if local else "dsb_ishst")
    single, ranged = operations(m, start, pages, stride)
    m.count("tlbi_local" if local else "tlbi_va", single * kpti(m))
    m.count("tlbi_local" if local else "tlbi_range", ranged * kpti(m))
    if wait and local:
        m.count("dsb_nsh")
    elif wait:
        sync(m)
