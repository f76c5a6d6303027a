# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases of a measured workload, found again in a capture by its system calls.

A truth file names phases in the order the workload went through them; a
capture has no markers, so the phases are matched from the last system call
backwards (a program's start-up makes calls of its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from tracer.vocabulary import MADV_COLD, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT

PROT_READ = 1
PROT_READ_WRITE = 3
# Argument of the failing ioctl() before and after a loop, fixtures/lab/guest/mmwork.c.
SPAN_MARK = 0x6D6D


@dataclass(frozen=True)
class Phase:
    """How a phase shows in a capture.

    :ivar kind: ``call`` one system call, ``loop`` a run of them, ``faults`` the
        faults of a loop over the region that the next call takes, ``span`` all that
        lies between two calls
    :ivar third: value of the call's third argument, None for any
    :ivar and_first: operation that belongs to the phase although it comes after
        the call, with the reason
    :ivar everyone: other tasks' operations belong to it too, as the workload's children
    """

    kind: str
    syscall: str = ""
    third: int | None = None
    and_first: tuple[str, str] | None = None
    everyone: bool = False


PHASES: Final[dict[str, Phase]] = {
    "pageout": Phase("call", "madvise", MADV_PAGEOUT),
    "pageout_for_swapin": Phase("call", "madvise", MADV_PAGEOUT),
    "pageout_lazyfree": Phase("call", "madvise", MADV_PAGEOUT),
    "pageout_uffdwp": Phase("call", "madvise", MADV_PAGEOUT),
    "pageout_file": Phase("call", "madvise", MADV_PAGEOUT),
    "dontneed": Phase("call", "madvise", MADV_DONTNEED),
    "partial_dontneed": Phase("loop", "madvise", MADV_DONTNEED),
    "madv_free": Phase("call", "madvise", MADV_FREE),
    "fork": Phase(
        "call", "clone", None, ("wp_page_copy", "the store to the stack on return from clone()")
    ),
    "mprotect_ro": Phase("call", "mprotect", PROT_READ),
    "mprotect_rw": Phase("call", "mprotect", PROT_READ_WRITE),
    "mprotect_page_ro": Phase("loop", "mprotect", PROT_READ),
    "mprotect_page_rw": Phase("loop", "mprotect", PROT_READ_WRITE),
    "mremap_aligned": Phase("call", "mremap"),
    "mremap_misaligned": Phase("call", "mremap"),
    "uffd_wp": Phase("call", "ioctl"),
    "filefault": Phase("faults"),
    "fileread": Phase("faults"),
    "swapin": Phase("faults"),
    "madv_cold": Phase("call", "madvise", MADV_COLD),
    "madv_cold_again": Phase("call", "madvise", MADV_COLD),
    "pageout_cold": Phase("call", "madvise", MADV_PAGEOUT),
    "pageout_after": Phase("call", "madvise", MADV_PAGEOUT),
    "dontneed_shared": Phase("call", "madvise", MADV_DONTNEED),
    "munmap_pieces": Phase("loop", "munmap"),
    "mremap_pieces": Phase("loop", "mremap"),
    **{
        name: Phase("span", "ioctl", SPAN_MARK)
        for name in ("sharedfault", "sharedread", "mixed", "compact", "mlock", "pageout_locked",
                     "munlock", "reclaim")
    },
    "forktree": Phase("span", "ioctl", SPAN_MARK, everyone=True),
    **{
        name: Phase("call", "munmap")
        for name in (
            "munmap", "munmap_swapped", "munmap_partial", "munmap_cow", "munmap_mprotect",
            "munmap_mremap", "munmap_uffdwp", "munmap_file", "munmap_swapin",
            "munmap_cold", "munmap_compacted", "munmap_holes", "munmap_tree", "munmap_mlock",
            "munmap_left", "munmap_moved", "munmap_shared", "munmap_mixed",
            "munmap_mixed_moved", "munmap_reclaimed",
        )
    },
}  # fmt: skip


END_OF_TIME: Final = 1 << 62


@dataclass
class Call:
    """One system call of a task: seq of its entry and exit, arguments."""

    name: str
    first: int
    last: int
    args: tuple[int | None, ...]


@dataclass(frozen=True)
class Range:
    """Where a phase is: events ``first`` to ``last``; only addresses in ``region``, if set."""

    first: int
    last: int
    region: tuple[int, int] | None = None


def calls_of(calls: pl.DataFrame, tid: int) -> list[Call]:
    """System calls of a task, in order.

    :param calls: tid, seq, syscall (null for an exit), a0, a1, a2
    """
    out: list[Call] = []
    for row in calls.filter(pl.col("tid") == tid).sort("seq").iter_rows(named=True):
        if row["syscall"] is not None:
            args = (row["a0"], row["a1"], row["a2"])
            out.append(Call(row["syscall"], int(row["seq"]), END_OF_TIME, args))
        elif out and out[-1].last == END_OF_TIME:
            out[-1].last = int(row["seq"])
    return out


def _matches(call: Call, phase: Phase) -> bool:
    return call.name == phase.syscall and phase.third in (None, call.args[2])


def _between(calls: list[Call], at: int) -> Range:
    """The user time before call ``at``, and the region that call takes as (start, length)."""
    first = calls[at - 1].last + 1 if 0 < at <= len(calls) else 0
    if at >= len(calls):
        return Range(first, END_OF_TIME)
    start, length = calls[at].args[:2]
    region = (start, start + length) if start is not None and length is not None else None
    return Range(first, calls[at].first - 1, region)


def match(names: list[str], calls: list[Call]) -> dict[str, Range]:
    """Find the phases, from the end.

    :param names: phases in the order the workload went through them
    :return: phase to range; phases that were not found are missing
    """
    ranges: dict[str, Range] = {}
    at = len(calls)
    for name in reversed(names):
        phase = PHASES.get(name)
        if phase is None:
            continue
        if phase.kind == "faults":
            ranges[name] = _between(calls, at)
            continue
        last = next((i for i in range(at - 1, -1, -1) if _matches(calls[i], phase)), None)
        if last is None:
            continue
        first = last
        if phase.kind == "span":
            marks = (i for i in range(last - 1, -1, -1) if _matches(calls[i], phase))
            first = next(marks, last)
        while phase.kind == "loop" and first > 0 and _matches(calls[first - 1], phase):
            first -= 1
        ranges[name] = Range(calls[first].first, calls[last].last)
        at = first
    return ranges
