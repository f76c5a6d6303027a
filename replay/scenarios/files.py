# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios on shared file mappings: write and read faults, page_fault3, unmap, aging."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from replay.scenarios.builder import Builder
from replay.scenarios.params import Params
from replay.scenarios.reclaim import SHMEM_INFO, age, madvise_pageout, shrink_list
from replay.scenarios.region import BASE, FILE_VMF, Region, anon, touch, unmap
from tracer.errors import UsageError

FAULT_FLAG_WRITE: Final = 1
FAULTAROUND: Final = 64 << 10  # fault_around_bytes


@dataclass(frozen=True)
class Config:
    """One of the four page_fault3 configurations.

    :ivar large: the page cache has large folios
    :ivar whole: finish_fault() maps whole folios
    """

    title: str
    large: bool
    whole: bool


CONFIGS: Final[dict[str, Config]] = {
    "C1": Config("no large folios", False, False),
    "C2": Config("large folios, contpte", True, False),
    "C3": Config("large folios, no contpte", True, False),
    "C4": Config("large folios, finish_fault() maps whole folios", True, True),
}


def cached(p: Params) -> Region:
    """A shared mapping of page cache folios, nothing mapped yet."""
    r = anon(BASE + p.alignment, p.size, p.order, p.geometry(), frame=1 << max(9, p.order))
    return replace(r, vmf=FILE_VMF)


def pages_of(r: Region) -> Region:
    """The same region by pages of its folios: ``order`` stays the folio's."""
    count = r.nr
    index = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return replace(
        r,
        va=np.repeat(r.va, count) + (index << r.geometry.page_shift),
        pfn=np.repeat(r.pfn, count) + index,
        order=np.repeat(r.order, count),
    )


def write_faults(b: Builder, r: Region, *, whole: bool, info: int = 0) -> None:
    """Ascending writes: one fault per page, or per folio where the fault maps all of it."""
    f = r if whole else pages_of(r)
    nr = f.nr if whole else np.ones(len(f.va), np.int64)
    b.op(
        "set_pte_range", va=f.va, end=f.va + (nr << r.geometry.page_shift), pfn=f.pfn, nr=nr,
        order=f.order, flags=FAULT_FLAG_WRITE, info=info, **r.vma(),
    )  # fmt: skip


def read_faults(b: Builder, r: Region, *, info: int = 0) -> None:
    """Ascending reads: fault-around maps every folio in one run."""
    b.op(
        "set_pte_range", va=r.va, end=r.folio_end, pfn=r.pfn, nr=r.nr, order=r.order, info=info,
        **r.vma(),
    )  # fmt: skip


def page_fault3(b: Builder, p: Params) -> None:
    """will-it-scale page_fault3: write a byte of every page of a shared mapping, munmap()."""
    how = p.how or "C2"
    if how not in CONFIGS:
        raise UsageError(f"page_fault3 has no configuration {how!r}.", "Known: C1, C2, C3, C4.")
    config = CONFIGS[how]
    r = cached(p if config.large else replace(p, folio_size=p.geometry().page_size))
    for _ in range(p.iterations):
        b.phase("fault")
        write_faults(b, r, whole=config.whole)
        b.phase("munmap", "munmap")
        unmap(b, r)


def filefault(b: Builder, p: Params) -> None:
    """Shared tmpfs file: written page by page, unmapped, read, written back, paged out."""
    r = cached(p)
    b.phase("filefault")
    write_faults(b, r, whole=False, info=SHMEM_INFO)
    b.phase("munmap_file", "munmap", timed=False)
    unmap(b, r)
    b.phase("fileread")
    read_faults(b, r, info=SHMEM_INFO)
    b.phase("pageout_file", "madvise", "behavior=MADV_PAGEOUT", timed=False)
    madvise_pageout(b, r, dirty=True, info=SHMEM_INFO)


def file_unmap(b: Builder, p: Params) -> None:
    """Reclaim of clean, mapped file folios."""
    r = cached(p)
    read_faults(b, r)
    if p.young:
        touch(b, r, write=False)
    b.phase("file_unmap")
    b.add(shrink_list(r, dirty=False, info=0))


def aging(b: Builder, p: Params) -> None:
    """Classic LRU aging of mapped file folios: test and clear young."""
    r = cached(p)
    read_faults(b, r)
    for _ in range(p.iterations):
        if p.young:
            b.setup()
            touch(b, r, write=False)
        b.phase("aging")
        age(b, r)


__all__ = ["CONFIGS", "aging", "file_unmap", "filefault", "page_fault3"]
