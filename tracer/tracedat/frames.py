# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer records and metadata to event frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from tracer.decode import CommTable, Diagnostic, build_frames
from tracer.eventformat import EventFormat
from tracer.ringbuffer import Records
from tracer.tracedat import bprint

# What the idle task is called: saved_cmdlines leaves it out, perf says swapper.
IDLE: Final = "swapper"
UNKNOWN_COMM: Final = "<...>"


def tid_offset(formats: Mapping[int, EventFormat]) -> int:
    """:return: offset of ``common_pid``; every event of a kernel has the same."""
    for fmt in formats.values():
        found = fmt.field("common_pid")
        if found and found.size == 4:
            return found.offset
    return 4


def distinct_ids(records: Records) -> list[int]:
    """:return: the event ids that occur; they have 16 bits."""
    return [int(i) for i in np.flatnonzero(np.bincount(records.id, minlength=1))]


def task_names(saved: Mapping[int, str]) -> CommTable:
    """:return: names that hold for the whole capture; an id used twice has one of its names."""
    names = {tid: name for tid, name in saved.items() if name != UNKNOWN_COMM and tid < 1 << 31}
    return CommTable.from_static({0: IDLE, **names})


def event_frames(
    buf: Any,
    records: Records,
    formats: Mapping[int, EventFormat],
    saved_cmdlines: Mapping[int, str],
    big_endian: bool,
    instances: Sequence[str] = ("",),
    printk: Mapping[int, str] | None = None,
) -> tuple[dict[str, pl.DataFrame], list[Diagnostic]]:
    """Decode records into one frame per event.

    :param buf: what the records' offsets point into
    :param formats: event formats by id
    :param instances: buffer names; with more than one, frames get an ``instance`` column
    :param printk: format strings of trace_printk(), which give its records a ``text`` column
    :return: frames by ``system:name``, and diagnostics
    """
    names = pl.Series("instance", list(instances), dtype=pl.String)

    def more(ident: int, rows: Any) -> list[pl.Series]:
        columns = []
        fmt = formats.get(ident)
        if fmt is not None and fmt.key == bprint.EVENT:
            columns.append(bprint.text_column(buf, records, rows, fmt, printk or {}, big_endian))
        if len(instances) > 1:
            columns.append(names.gather(pl.Series(records.instance[rows])).alias("instance"))
        return columns

    return build_frames(
        buf,
        records.off,
        records.len,
        records.id,
        records.ts,
        records.cpu,
        None,
        records.tid,
        task_names(saved_cmdlines),
        formats,
        big_endian,
        np.arange(records.ts.size, dtype=np.uint64),
        more,
    )
