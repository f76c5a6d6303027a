# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat to a capture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from tracer import schema
from tracer.capture import Capture, Provenance
from tracer.decode import Diagnostic, diagnostics_frame
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat
from tracer.ringbuffer import PageLayout, page_layout
from tracer.tracedat import frames, model, recover, v6, v7
from tracer.tracedat.clock import NS_CLOCKS, Clock, clock_of
from tracer.tracedat.model import Buffer, Contents
from tracer.tracedat.records import Walk
from tracer.tracedat.streams import Plan
from tracer.tracedat.v6 import MAX_CPUS
from tracer.tracingdata import MAGIC

# Linux NODE RELEASE ... MACHINE, from trace-cmd's add_uname().
_UNAME = re.compile(r"(\S+) (\S+) (\S+) (.+)", re.S)
_STAT = re.compile(r"^([a-z ]+): *(\d{1,19})$", re.M)


def read(data: bytes, path: str, formats: Mapping[str, EventFormat] | None = None) -> Capture:
    """Read a trace.dat of version 6 or 7.

    :param data: the whole file
    :param path: as given by the user, for provenance
    :param formats: stand in for event formats that the file has lost
    :raises CaptureError: when no event can be found in it
    """
    contents, layout = open_file(data)
    texts = [b for b in contents.buffers if b.text is not None]
    if texts and not any(b.cpus for b in contents.buffers):
        return _text_capture(texts[0], contents, path, formats)
    if not contents.buffers:
        raise CaptureError(
            "The trace.dat has no CPU data.",
            "The events may still be in the recorder's trace.dat.cpu* files.",
        )
    clock = clock_of(contents)
    names = [b.name for b in contents.buffers]
    plan = Plan(data, contents, layout)
    sample = contents.meta.formats_of(list(contents.meta.texts)[:1])
    big_endian, tid_at = contents.meta.big_endian, frames.tid_offset(sample)
    walk = Walk(plan.buf, layout, big_endian, tid_at, plan.locate, names)
    records = walk.read(
        plan.streams, None if clock.plain else (lambda ts, stream: clock.apply(ts, stream.cpu))
    )
    known = contents.meta.formats_of(frames.distinct_ids(records))
    if formats and _formats_are_damaged(contents):
        known = {f.id: f for f in formats.values()} | known
    events, notes = frames.event_frames(
        plan.buf,
        records,
        known,
        contents.meta.saved_cmdlines,
        big_endian,
        names,
        contents.meta.printk,
    )
    problems = [*contents.problems, *plan.problems, *walk.diagnostics, *notes]
    return Capture(
        events=events,
        formats={f.key: f for f in known.values() if f.key in events},
        provenance=provenance(contents, path, clock),
        loss=pl.concat([walk.loss_frame(), _counted_loss(contents)]),
        diagnostics=diagnostics_frame(problems + _clock_notes(contents.buffers, clock)),
        kallsyms=contents.meta.kallsyms,
    )


def open_file(data: bytes) -> tuple[Contents, PageLayout]:
    """Read everything but the events.

    :return: the contents, searched for where options are lost, and the layout of pages
    :raises CaptureError: when it is no trace.dat of version 6 or 7, or cut too early
    """
    if not data.startswith(MAGIC):
        raise CaptureError("The file is no trace.dat.")
    version = data[len(MAGIC) : len(MAGIC) + 16].partition(b"\0")[0].decode("latin-1")
    if version == "6":
        contents = v6.read(data)
        return contents, _layout(contents)
    if version != "7":
        raise CaptureError(
            f"The trace.dat has version {version!a}; mmtrace reads 6 and 7.",
            "Convert it with: trace-cmd convert",
        )
    reader = v7.Reader(data)
    contents = reader.read()
    if not contents.buffers or not contents.meta.header_page or not contents.meta.texts:
        recover.sections(reader)
    layout = _layout(contents)
    if not contents.buffers:
        recover.buffers(reader, layout)
    return contents, layout


def _formats_are_damaged(contents: Contents) -> bool:
    """Otherwise an event without a format has none, whatever another capture says of its id."""
    codes = {p.code for p in contents.meta.problems}
    return not contents.meta.texts or bool(codes & {"damaged-metadata", "damaged-option"})


def _layout(contents: Contents) -> PageLayout:
    meta = contents.meta
    try:
        return page_layout(meta.header_page, meta.long_size, meta.page_size)
    except CaptureError as err:
        text = f"{err.message} Pages are taken to be of {meta.page_size} bytes."
        contents.problems.append(Diagnostic("bad-header-page", "warning", None, None, text))
        return page_layout("", meta.long_size, meta.page_size)


def provenance(contents: Contents, path: str, clock: Clock) -> Provenance:
    """:return: what the options say about the recording."""
    meta = contents.meta
    uname = _UNAME.match(contents.text_option(model.UNAME))
    recorder = contents.text_option(model.VERSION)
    extra: dict[str, Any] = {
        "instances": [
            {"name": b.name, "clock": b.clock, "page_size": b.page_size or None}
            for b in contents.buffers
        ],
        "compression": contents.codec,
        "cpu_stats": _stats(contents),
    }
    if not clock.plain:
        extra["clock_conversion"] = {
            "mult": clock.mult,
            "shift": clock.shift,
            "offset_ns": clock.offset,
            "guest_cpus": len(clock.shifts),
        }
    return Provenance(
        path=path,
        container=f"trace.dat v{meta.version}",
        hostname=uname[2] if uname else None,
        kernel_release=uname[3] if uname else None,
        arch=uname[4] if uname else None,
        page_size=meta.page_size,
        nr_cpus=contents.nr_cpus,
        clock=contents.buffers[0].clock or None,
        byte_order="big" if meta.big_endian else "little",
        long_size=meta.long_size,
        recorder=f"trace-cmd {recorder}" if recorder else "trace-cmd",
        extra=extra,
    )


def _stats(contents: Contents) -> list[dict[str, int]]:
    """:return: integers of each CPU's per_cpu/cpuN/stats."""
    texts = (v.decode("ascii", "replace") for v in contents.options.get(model.CPUSTAT, []))
    return [
        {name: int(number) for name, number in _STAT.findall(text.replace("CPU:", "cpu:"))}
        for text in texts
    ]


def _counted_loss(contents: Contents) -> pl.DataFrame:
    """Events that never reached a page, of which only the CPU's statistics tell.

    ``overrun`` is left out: the pages' missed flags count the same events.
    """
    rows = [
        (None, stats.get("cpu"), None, stats[what], False, f"{what} of per_cpu stats")
        for stats in _stats(contents)
        for what in ("dropped events", "commit overrun")
        if stats.get(what, 0) > 0 and stats.get("cpu", 0) < MAX_CPUS
    ]
    return pl.DataFrame(rows, schema=schema.polars_schema(schema.LOSS_COLUMNS), orient="row")


def _clock_notes(buffers: list[Buffer], clock: Clock) -> list[Diagnostic]:
    clocks = {b.clock for b in buffers if b.clock}
    notes = []
    if len(clocks) > 1:
        text = f"The buffers used the clocks {', '.join(sorted(clocks))}: their order is not known."
        notes.append(Diagnostic("mixed-clocks", "warning", None, None, text))
    for name in sorted(clocks - NS_CLOCKS) if not clock.mult else []:
        text = f"Times are in units of the clock {name[:40]}, not in nanoseconds."
        notes.append(Diagnostic("clock-unit", "warning", None, None, text))
    return notes


def _text_capture(
    buffer: Buffer, contents: Contents, path: str, formats: Mapping[str, EventFormat] | None
) -> Capture:
    """A latency tracer's file, which holds the tracefs text instead of pages."""
    from tracer.text import reader as text_reader

    known = dict(formats or {}) or {f.key: f for f in contents.meta.formats.values()}
    out = text_reader.read(buffer.text or b"", path, known)
    about = provenance(contents, path, clock_of(contents))
    about.extra |= out.provenance.extra
    out.provenance = about
    rows = diagnostics_frame(contents.problems)
    out.diagnostics = pl.concat([rows, out.diagnostics])
    return out
