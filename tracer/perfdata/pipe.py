# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata that travels as records: all of it in a pipe stream, little in a file.

The order differs between versions of perf, so every record is looked at before
the first sample is decoded.

See perf_event__process_attr(), perf_event__process_feature() and
perf_event__process_tracing_data() in tools/perf/util/header.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from tracer.errors import CaptureError
from tracer.perfdata import format as layout
from tracer.perfdata.features import build_id_record, read_feature
from tracer.perfdata.header import note_unknown_bytes, parse_attr, parse_ids
from tracer.perfdata.metadata import Metadata
from tracer.perfdata.stream import Walk
from tracer.tracedat.cursor import Cursor

MAX_RECORDS: Final = 1 << 18  # of one kind; captures have one per event or feature
# Features whose payload is empty.
_EMPTY: Final = (15, 19)  # BRANCH_STACK, STAT


def read_records(meta: Metadata, walk: Walk) -> None:
    """Take attributes, names, features and event formats from the records of a stream."""
    for kind, take in _TAKERS.items():
        if not walk.counts[kind] or (kind in _PIPE_ONLY and not meta.header.pipe):
            continue
        found = walk.off[walk.kind == kind][:MAX_RECORDS]
        for at in found.tolist():
            head = bytes(meta.data[at + 4 : at + 8])
            order = ">" if meta.header.big_endian else "<"
            misc, size = (int(v) for v in np.frombuffer(head, f"{order}u2"))
            try:
                cur = Cursor(
                    meta.data,
                    at + layout.RECORD_HEADER,
                    at + size,
                    big_endian=meta.header.big_endian,
                )
                take(meta, cur, misc)
            except CaptureError as err:
                name = layout.RECORDS[kind][0]
                meta.note("bad-record", "warning", at, size, f"{name} is damaged: {err.message}")
    if meta.header.pipe:
        note_unknown_bytes(meta.attrs, meta.diagnostics)


def _attr(meta: Metadata, cur: Cursor, misc: int) -> None:
    """HEADER_ATTR: the attribute, ids behind it."""
    if len(meta.attrs) >= layout.MAX_ATTRS:
        raise CaptureError(f"There are more than {layout.MAX_ATTRS} events.")
    start = cur.pos
    cur.skip(4, "an attribute")
    size = cur.u32("an attribute's size") or layout.ATTR_SIZES[0]
    cur.pos = start
    attr = parse_attr(cur.take(max(size, layout.ATTR_SIZES[0]), "an attribute"), cur.big_endian)
    attr.ids = parse_ids(cur.take(cur.left), cur.big_endian)
    meta.attrs.append(attr)


def _tracing_data(meta: Metadata, cur: Cursor, misc: int) -> None:
    """HEADER_TRACING_DATA: the blob lies behind the record; old writers omit the padding."""
    size = cur.u32("the size of the tracing data")
    start = cur.end
    end = min(start + size, len(meta.data))
    if meta.features.tracing is None:
        meta.features.tracing = (meta.data[start:end], start)


def _feature(meta: Metadata, cur: Cursor, misc: int) -> None:
    """HEADER_FEATURE; one without payload ends the list and names the writer's last feature."""
    bit = cur.u64("a feature's number")
    if cur.left or bit in _EMPTY:
        read_feature(
            meta.features,
            bit,
            meta.data,
            cur.pos,
            cur.left,
            cur.big_endian,
            meta.diagnostics,
        )


def _event_update(meta: Metadata, cur: Cursor, misc: int) -> None:
    """EVENT_UPDATE of a name."""
    what, ident = cur.u64("an update's type"), cur.u64("an id")
    if what == layout.EVENT_UPDATE_NAME:
        name = cur.take(cur.left).split(b"\0", 1)[0].decode("utf-8", "replace")
        attr = meta.attr_of_id(ident)
        if attr is not None and attr.name is None:
            attr.name = name


def _event_type(meta: Metadata, cur: Cursor, misc: int) -> None:
    """HEADER_EVENT_TYPE of perf before 3.11: name of a tracepoint."""
    config = cur.u64("an event's number")
    name = cur.take(cur.left).split(b"\0", 1)[0].decode("utf-8", "replace")
    for attr in meta.tracepoints.get(config, ()):
        attr.name = attr.name or name


def _build_id(meta: Metadata, cur: Cursor, misc: int) -> None:
    """HEADER_BUILD_ID."""
    ids = meta.features.values.setdefault("build_id", [])
    ids.append(build_id_record(cur, misc, cur.end))


_TAKERS: Final[dict[int, Callable[[Metadata, Cursor, int], None]]] = {
    layout.HEADER_ATTR: _attr,
    layout.HEADER_TRACING_DATA: _tracing_data,
    layout.HEADER_FEATURE: _feature,
    layout.HEADER_EVENT_TYPE: _event_type,
    layout.EVENT_UPDATE: _event_update,
    layout.HEADER_BUILD_ID: _build_id,
}
_PIPE_ONLY: Final = (layout.HEADER_ATTR, layout.HEADER_FEATURE, layout.HEADER_BUILD_ID)
