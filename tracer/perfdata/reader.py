# SPDX-License-Identifier: GPL-2.0-or-later
"""perf.data to a :class:`tracer.capture.Capture`: files, saved pipe streams, directories."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import decode, kernels
from tracer.capture import Capture, Provenance
from tracer.decode import Rows
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat
from tracer.perfdata import format as layout
from tracer.perfdata import records
from tracer.perfdata.features import fill_provenance
from tracer.perfdata.metadata import Metadata, data_range, finish, read_header
from tracer.perfdata.pipe import read_records
from tracer.perfdata.sample import Plan, Samples, event_type_slots, make_plan
from tracer.perfdata.stream import Source, Stream, open_stream, walk

_MIN_SIZE: Final = np.array(
    [layout.RECORDS.get(t, ("", layout.RECORD_HEADER))[1] for t in range(64)], np.int64
)
# Diagnostics behind which samples are missing, nobody knows how many.
_DAMAGE: Final = frozenset(
    {
        "truncated-data",
        "unfinished-recording",
        "bad-record-size",
        "bad-compression",
        "compression-limit",
    }
)
_DATA_FILE: Final = re.compile(r"data\.(\d{1,6})\Z", re.A)


def read(
    data: Any, path: str | None = None, formats: Mapping[str, EventFormat] | None = None
) -> Capture:
    """Read a perf.data file or a saved pipe stream.

    Records come out in (time, file position) order. What cannot be read is named
    in the diagnostics; all intact records before damage are kept.

    :param data: the file's bytes: any contiguous buffer, for example numpy.memmap
    :param path: its name, for the provenance
    :param formats: event formats by ``system:name`` of another capture of the same
        kernel, for a file that lost its own
    :raises CaptureError: when it is no perf.data or has no event attributes
    """
    return _read([(kernels.as_bytes(data), "")], path, formats)


def read_directory(
    path: str | os.PathLike[str], formats: Mapping[str, EventFormat] | None = None
) -> Capture:
    """Read what ``perf record --threads`` writes: ``data`` and one ``data.N`` per thread.

    :raises CaptureError: see :func:`read`
    """
    root = Path(path)
    found = sorted((int(m[1]), p) for p in root.iterdir() if (m := _DATA_FILE.match(p.name)))
    files = [root / "data", *(p for _, p in found)]
    return _read([(kernels.as_bytes(_load(p)), p.name) for p in files], os.fspath(path), formats)


def _load(path: Path) -> NDArray[np.uint8]:
    """:return: the file's bytes, read rather than mapped: a file may shrink meanwhile."""
    try:
        return np.fromfile(path, np.uint8)
    except OSError as err:
        raise CaptureError(f"{path} cannot be read: {err.strerror}.") from err


def _read(
    files: list[tuple[NDArray[np.uint8], str]],
    path: str | None,
    formats: Mapping[str, EventFormat] | None,
) -> Capture:
    meta = read_header(files[0][0].data)
    big_endian = meta.header.big_endian
    sources = [Source(files[0][0], *data_range(meta), files[0][1])]
    sources += [Source(array, 0, array.size, name) for array, name in files[1:]]
    walks = [walk(s.data, s.start, s.end, big_endian) for s in sources]
    read_records(meta, walks[0])
    finish(meta)
    stream = open_stream(sources, walks, big_endian, meta.chunk, meta.diagnostics)
    capture = _decode(meta, stream, formats or {})
    about = capture.provenance
    about.path, about.size = path, sum(array.size for array, _ in files)
    about.container = "perf.data" if meta.header.version == 2 else "perf.data v1"
    if len(files) > 1:
        about.container += " directory"
    elif meta.header.pipe:
        about.container += " pipe"
    return capture


def _decode(meta: Metadata, stream: Stream, borrowed: Mapping[str, EventFormat]) -> Capture:
    """Turn the records into frames and side tables."""
    own = meta.tracing.formats if meta.tracing else {}
    pmus = meta.features.values.get("pmu_mappings", {})
    plan = make_plan(meta.attrs, own, borrowed, pmus, meta.diagnostics)
    rows, state, samples, order = _scan(meta, stream, plan)
    tables = records.side_tables(rows, stream.kind, state, plan, meta.diagnostics)
    frames, found = decode.build_frames(
        rows.buf,
        samples.start[0],
        samples.length[0],
        state,
        rows.ts,
        rows.cpu,
        rows.pid,
        rows.tid,
        records.comm_table(tables),
        {i: slot.fmt for i, slot in enumerate(plan.slots)},
        meta.header.big_endian,
        rows.seq,
        samples.columns,
        order,
    )
    meta.diagnostics += found
    _note_formats(meta, plan, frames, own)
    left_out = _note_samples(meta, stream, state)
    capture = Capture(
        events=frames,
        formats={s.key: s.fmt for s in plan.slots if s.fmt.id >= 0 and s.key in frames},
        provenance=_provenance(meta, stream, frames),
        records=tables,
        loss=records.loss_table(tables, plan, left_out),
    )
    capture.diagnostics = decode.diagnostics_frame(meta.diagnostics)
    return capture


def _scan(
    meta: Metadata, stream: Stream, plan: Plan
) -> tuple[Rows, NDArray[np.int32], Samples, NDArray[np.int64]]:
    """:return: all records as rows, their states, the samples' fields, and the seq order."""
    n = stream.off.size
    ts, cpu = np.empty(n, np.uint64), np.empty(n, np.uint32)
    pid, tid, state = (np.empty(n, np.int32) for _ in range(3))
    start, length = (np.empty((plan.wanted, n), np.int64) for _ in range(2))
    big = meta.header.big_endian
    kernels.read_records(
        *(stream.buf, stream.off, stream.kind, big),
        *(plan.table, plan.by_id, plan.keys, plan.values, _MIN_SIZE, plan.want),
        *(ts, cpu, pid, tid, state, start, length),
    )
    if plan.by_type:
        event_type_slots(plan, stream.buf, start[0], length[0], big, state)
    order = np.argsort(ts, kind="stable")
    seq = np.empty(n, np.uint64)
    seq[order] = np.arange(n, dtype=np.uint64)
    rows = Rows(stream.buf, stream.off, start[0], ts, cpu, pid, tid, seq, big)
    return rows, state, Samples(stream.buf, stream.off, start, length, plan, big), order


def _note_formats(
    meta: Metadata, plan: Plan, frames: Mapping[str, pl.DataFrame], own: Mapping[int, EventFormat]
) -> None:
    """Say which events are not decoded, or with formats that are not their own."""
    bare, lent = [], []
    for slot in plan.slots:
        if slot.key not in frames or not plan.attrs[slot.attrs[0]].is_tracepoint:
            continue
        if slot.fmt.id < 0:
            bare.append(slot.key)
        elif slot.fmt not in own.values():
            lent.append(slot.key)
    if bare:
        meta.note(
            "no-format",
            "warning",
            None,
            None,
            f"{len(bare)} events have no event format, so their fields are not decoded "
            f"and their bytes are in column raw: {', '.join(bare[:8])}.",
        )
    if lent:
        meta.note(
            "borrowed-formats",
            "warning",
            None,
            None,
            f"{len(lent)} events are decoded with the formats of another capture: "
            f"{', '.join(lent[:8])}.",
        )


def _note_samples(
    meta: Metadata, stream: Stream, state: NDArray[np.int32]
) -> list[tuple[str, str | None, int]]:
    """Say which samples are left out.

    :return: (source, event, number) for the loss table
    """
    out: list[tuple[str, str | None, int]] = []
    left_out = np.flatnonzero((state < 0) & (state > kernels.BARE))
    for code, value, what in (
        ("unknown-id", kernels.NO_ID, "belong to no event of the capture"),
        ("bad-sample", kernels.DAMAGED, "have fields that do not lie in them"),
        ("event-conflict", kernels.CONFLICT, "have an id and a common_type that disagree"),
        ("refused-sample", kernels.REFUSED, "are laid out in a way that is not known"),
    ):
        bad = left_out[state[left_out] == value]
        if bad.size:
            name, offset = stream.where(int(stream.off[bad[0]]))
            of = f" of {name}" if name else ""
            message = f"{bad.size} samples {what}; the first is at byte {offset}{of}."
            meta.note(code, "loss", offset, None, message)
            out.append((code, None, int(bad.size)))
    damage = {d.code: None for d in meta.diagnostics if d.code in _DAMAGE}
    out += [(code, None, 0) for code in damage]
    return out


def _provenance(meta: Metadata, stream: Stream, frames: Mapping[str, Any]) -> Provenance:
    about = Provenance()
    about.byte_order = "big" if meta.header.big_endian else "little"
    fill_provenance(about, meta.features)
    if meta.tracing:
        about.page_size = meta.tracing.page_size
        about.long_size = meta.tracing.long_size
    clocks = sorted({attr.clock for attr in meta.attrs})
    about.clock = ", ".join(clocks)
    about.probe_set = sorted(frames)
    about.extra["records"] = _record_counts(stream)
    about.extra["attrs"] = [
        {
            "name": attr.name,
            "type": attr.type,
            "config": attr.config,
            "sample_type": attr.sample_type,
            "flags": attr.flags,
            "size": attr.size,
        }
        for attr in meta.attrs[:256]
    ]
    return about


def _record_counts(stream: Stream) -> dict[str, int]:
    """:return: number of records by name, ``type N`` for unknown ones."""
    return {
        layout.RECORDS.get(kind, (f"type {kind}" if kind < 255 else "type 255 and above", 0))[
            0
        ]: int(stream.counts[kind])
        for kind in np.flatnonzero(stream.counts).tolist()
    }
