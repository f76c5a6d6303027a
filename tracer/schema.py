# SPDX-License-Identifier: GPL-2.0-or-later
"""Column tables of every frame that crosses a module border.

Each row is (name, polars dtype, unit or meaning). Frames are checked against
these tables at the borders (:func:`check`), not everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tracer.errors import MmtraceError

Column = tuple[str, pl.DataType, str]

# Leading columns of every event frame; the event format's own fields follow.
EVENT_COLUMNS: tuple[Column, ...] = (
    ("seq", pl.UInt64(), "place in the whole capture's (time, file position) order; unique"),
    ("ts", pl.UInt64(), "timestamp in ns of the capture's clock"),
    ("cpu", pl.UInt32(), "CPU the event was recorded on"),
    ("pid", pl.Int32(), "thread group id; null where the container does not record it"),
    ("tid", pl.Int32(), "thread id (the kernel's task_struct pid)"),
    ("comm", pl.String(), "task name at the time of the event; null when unknown"),
)

LOSS_COLUMNS: tuple[Column, ...] = (
    ("ts", pl.UInt64(), "time of the loss record in ns; null when the container has none"),
    ("cpu", pl.Int32(), "CPU whose buffer overflowed; null when unknown"),
    ("event", pl.String(), "event the loss belongs to; null when it is not known"),
    ("known", pl.UInt64(), "lost events the container counts"),
    ("unknown", pl.Boolean(), "true when events were lost but not counted"),
    ("source", pl.String(), "record that says so, for example PERF_RECORD_LOST"),
)

DIAGNOSTIC_COLUMNS: tuple[Column, ...] = (
    ("code", pl.String(), "stable short name, for example truncated-data"),
    ("severity", pl.String(), "note, warning or loss"),
    ("offset", pl.UInt64(), "file offset in bytes; null when it has none"),
    ("bytes", pl.UInt64(), "bytes affected"),
    ("message", pl.String(), "what it means for the result, one sentence"),
)

# One row per operation on an mm. Columns that an operation does not have are null.
OP_COLUMNS: tuple[Column, ...] = (
    *EVENT_COLUMNS,
    ("op", pl.String(), "operation name from tracer.vocabulary.OPERATIONS"),
    ("probe", pl.String(), "event it came from, system:name"),
    ("mm", pl.UInt64(), "struct mm_struct *"),
    ("mm_gen", pl.UInt32(), "generation: the same mm pointer freed and used again counts on"),
    ("whole_life", pl.Boolean(), "the mm's first mapping is in the capture"),
    ("vma", pl.UInt64(), "struct vm_area_struct *"),
    ("vm_start", pl.UInt64(), "vma->vm_start"),
    ("vm_end", pl.UInt64(), "vma->vm_end"),
    ("vm_flags", pl.UInt64(), "vma->vm_flags"),
    ("vm_pgoff", pl.UInt64(), "vma->vm_pgoff, pages"),
    ("va", pl.UInt64(), "first virtual address of the operation"),
    ("end", pl.UInt64(), "one past the last virtual address"),
    ("nr_pages", pl.UInt64(), "pages the operation covers"),
    ("folio", pl.UInt64(), "struct folio *"),
    ("page", pl.UInt64(), "struct page * of the first page"),
    ("pfn", pl.UInt64(), "page frame number up to a constant, exact in its low 9 bits"),
    ("order", pl.UInt8(), "folio order; 0 when the folio is not large"),
    ("page_flags", pl.UInt64(), "folio->flags"),
    ("flags", pl.UInt64(), "the operation's own flag argument (rmap, ttu, cp_flags, fault flags)"),
    (
        "arg",
        pl.UInt64(),
        "second address: new_addr of mremap, dst_mm of fork, pte word of set_ptes",
    ),
    ("outcome", pl.UInt64(), "pages a try_to_unmap_one() that failed had unmapped; else null"),
    ("syscall", pl.String(), "system call the task was in; null outside"),
    ("syscall_seq", pl.UInt64(), "seq of its sys_enter event; null outside"),
    ("syscall_args", pl.String(), "name=value list of the system call's arguments"),
    ("syscall_a2", pl.UInt64(), "third system call argument, for example the madvise behavior"),
    ("window", pl.UInt64(), "running count of system calls the task has entered and left"),
)


def polars_schema(columns: Sequence[Column]) -> dict[str, pl.DataType]:
    """:return: name to dtype, in table order."""
    return {name: dtype for name, dtype, _ in columns}


def empty(columns: Sequence[Column]) -> pl.DataFrame:
    """:return: a frame with the table's columns and no rows."""
    return pl.DataFrame(schema=polars_schema(columns))


def check(frame: pl.DataFrame, columns: Sequence[Column], what: str) -> pl.DataFrame:
    """Refuse a frame whose leading columns are not the table's.

    :raises MmtraceError: naming the first column that differs
    """
    for i, (name, dtype, _) in enumerate(columns):
        have = (frame.columns[i], frame.dtypes[i]) if i < frame.width else (None, None)
        if have != (name, dtype):
            raise MmtraceError(f"{what}: column {i} should be {name}: {dtype}, found {have}.")
    return frame
