# SPDX-License-Identifier: GPL-2.0-or-later
"""What rows are called: system calls with their behaviour, folio orders, policies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from replay.result import MIXED, NO_ORDER, SWAP_ENTRIES, Replay
from tracer.output import printable

# include/uapi/asm-generic/mman-common.h
MADVISE: Final[dict[int, str]] = {
    0: "MADV_NORMAL",
    1: "MADV_RANDOM",
    2: "MADV_SEQUENTIAL",
    3: "MADV_WILLNEED",
    4: "MADV_DONTNEED",
    8: "MADV_FREE",
    9: "MADV_REMOVE",
    10: "MADV_DONTFORK",
    11: "MADV_DOFORK",
    12: "MADV_MERGEABLE",
    13: "MADV_UNMERGEABLE",
    14: "MADV_HUGEPAGE",
    15: "MADV_NOHUGEPAGE",
    16: "MADV_DONTDUMP",
    17: "MADV_DODUMP",
    18: "MADV_WIPEONFORK",
    19: "MADV_KEEPONFORK",
    20: "MADV_COLD",
    21: "MADV_PAGEOUT",
    22: "MADV_POPULATE_READ",
    23: "MADV_POPULATE_WRITE",
    24: "MADV_DONTNEED_LOCKED",
    25: "MADV_COLLAPSE",
    100: "MADV_HWPOISON",
    101: "MADV_SOFT_OFFLINE",
    102: "MADV_GUARD_INSTALL",
    103: "MADV_GUARD_REMOVE",
}

# Rows outside any system call: page faults, reclaim by kthreads, exits by signal.
NO_SYSCALL: Final = "(no system call)"

RANGES: Final = "no folio"
LARGEST_ORDER: Final = 15

# Replay.rows.order of ranges that are not of one order.
_WORDS: Final = {MIXED: "several orders", SWAP_ENTRIES: "swap entries"}

_BEHAVIOR = re.compile(r"\b(?:behaviou?r|advice)=(MADV_\w+|0x[0-9a-fA-F]+|\d+)")


def syscall_kind(syscall: str | None, args: str | None) -> str:
    """:return: the system call's name, and for madvise what it asked for."""
    if syscall is None:
        return NO_SYSCALL
    found = _BEHAVIOR.search(args or "") if "madvise" in syscall else None
    if not found:
        return syscall
    value = found[1]
    if not value.startswith("MADV_"):
        number = int(value, 0)
        value = MADVISE.get(number, f"behavior {number}")
    return f"{syscall} {value}"


def asked(args: str = "args") -> pl.Expr:
    """:return: the behavior argument of madvise calls as text, null elsewhere.

    Grouping by it instead of by the argument list keeps captures with a
    million different addresses at a handful of groups.

    :param args: column with the argument list
    """
    found = pl.col(args).str.extract(_BEHAVIOR.pattern, 1)
    madvise = pl.col("syscall").str.contains("madvise", literal=True)
    return pl.when(madvise).then(found).alias("asked")


def asked_kind(syscall: object, behavior: object) -> str:
    """:return: :func:`syscall_kind` from a row grouped by :func:`asked`."""
    args = None if behavior is None else f"behavior={behavior}"
    return syscall_kind(None if syscall is None else str(syscall), args)


def order_name(order: int | None, page_size: int | None = None) -> str:
    """:return: ``order 4 (64K)``; the size only when the page size is known."""
    if order is None or order == NO_ORDER:
        return RANGES
    if order in _WORDS:
        return _WORDS[order]
    if not page_size:
        return f"order {order}"
    kib = (page_size << order) // 1024
    return f"order {order} ({kib // 1024}M)" if kib >= 1024 else f"order {order} ({kib}K)"


def task_name(comm: str | None) -> str:
    """:return: the comm, or a name for tasks the capture does not name."""
    return printable(comm) if comm else "(unnamed task)"


def features(cpu: dict[str, Any]) -> str:
    """:return: the CPU of a replay in words: profile, features on and off, other values."""
    if not cpu:
        return "unknown"
    # The granule is the kernel's page size, which has its own line.
    rest = {k: v for k, v in cpu.items() if k not in ("name", "granule") and v is not None}
    on = [name for name, value in rest.items() if value is True]
    off = [name for name, value in rest.items() if value is False]
    values = [f"{name}={value}" for name, value in rest.items() if not isinstance(value, bool)]
    words = " ".join([*on, *values]) or "no features"
    missing = f"; off: {' '.join(off)}" if off else ""
    return f"{cpu['name']}: {words}{missing}" if cpu.get("name") else words + missing


def labels(replays: Sequence[Replay], given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Short column titles, unique: the policy, and what tells equal policies apart.

    :param given: titles the user chose (``label=path``)
    """
    if given:
        return tuple(given)
    names = [r.policy for r in replays]
    if len(set(names)) == len(names):
        return tuple(names)
    # What is not the policy: the machine that recorded, or the machine that is simulated.
    kernels = [str(r.provenance.get("kernel_release") or "") for r in replays]
    cpus = [str(r.cpu.get("name") or "") for r in replays]
    for others in (kernels, cpus):
        both = [f"{n} on {o}" if o else n for n, o in zip(names, others, strict=True)]
        if len(set(both)) == len(both):
            return tuple(others) if len(set(names)) == 1 and all(others) else tuple(both)
    return tuple(f"{chr(ord('A') + i % 26)}: {n}" for i, n in enumerate(names))
