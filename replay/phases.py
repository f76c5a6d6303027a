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

from tracer.vocabulary import MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT

PROT_READ = 1
PROT_READ_WRITE = 3


@dataclass(frozen=True)
class Phase:
    """How a phase shows in a capture.

    :ivar kind: ``call`` one system call, ``loop`` a run of them, ``faults`` the
        stretch of user time before the next call
    :ivar third: value of the call's third argument, None for any
    :ivar and_first: operation that belongs to the phase although it comes after
        the call, with the reason
    """

    kind: str
    syscall: str = ""
    third: int | None = None
    and_first: tuple[str, str] | None = None


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
    **{
        name: Phase("call", "munmap")
        for name in (
            "munmap", "munmap_swapped", "munmap_partial", "munmap_cow", "munmap_mprotect",
            "munmap_mremap", "munmap_uffdwp", "munmap_file", "munmap_swapin",
        )
    },
}  # fmt: skip


def calls_of(ops: pl.DataFrame, calls: pl.DataFrame, tid: int) -> list[dict[str, object]]:
    """System calls of a task, in order: seq of entry, seq of exit, name, third argument.

    :param calls: tid, seq, syscall (null for an exit), syscall_a2
    """
    out: list[dict[str, object]] = []
    for row in calls.filter(pl.col("tid") == tid).sort("seq").iter_rows(named=True):
        if row["syscall"] is not None:
            out.append({"from": row["seq"], "to": None, "name": row["syscall"],
                        "third": row["syscall_a2"]})  # fmt: skip
        elif out and out[-1]["to"] is None:
            out[-1]["to"] = row["seq"]
    return out


def _matches(call: dict[str, object], phase: Phase) -> bool:
    third = phase.third is None or call["third"] == phase.third
    return call["name"] == phase.syscall and third


def match(names: list[str], calls: list[dict[str, object]]) -> dict[str, tuple[int, int]]:
    """Sequence ranges of the phases, [first, last], found from the end.

    :param names: phases in the order the workload went through them
    :param calls: :func:`calls_of`
    :return: phase to range; phases that were not found are missing
    """
    ranges: dict[str, tuple[int, int]] = {}
    at = len(calls)
    for name in reversed(names):
        phase = PHASES.get(name)
        if phase is None:
            continue
        if phase.kind == "faults":
            begin = int(calls[at - 1]["to"] or 0) + 1 if 0 < at <= len(calls) else 0  # type: ignore[call-overload]
            end = int(calls[at]["from"]) - 1 if at < len(calls) else 1 << 62  # type: ignore[call-overload]
            ranges[name] = (begin, end)
            continue
        last = next((i for i in range(at - 1, -1, -1) if _matches(calls[i], phase)), None)
        if last is None:
            continue
        first = last
        while phase.kind == "loop" and first > 0 and _matches(calls[first - 1], phase):
            first -= 1
        ranges[name] = (int(calls[first]["from"]), int(calls[last]["to"] or 1 << 62))  # type: ignore[call-overload]
        at = first
    return ranges
