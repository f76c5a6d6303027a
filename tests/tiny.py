# SPDX-License-Identifier: GPL-2.0-or-later
"""A small capture made by hand, with addresses in the upper half."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tracer import schema
from tracer.capture import Capture, Provenance
from tracer.enums import KernelEnums
from tracer.eventformat import EventFormat, parse

HIGH = 0xFFFF_8000_0012_3000
FORMAT = """name: folio_remove_rmap_ptes
ID: 1503
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned long folio;\toffset:8;\tsize:8;\tsigned:0;
\tfield:int nr_pages;\toffset:16;\tsize:4;\tsigned:1;

print fmt: "folio=%lx nr_pages=%d", REC->folio, REC->nr_pages
"""


def event_frame(rows: int = 3) -> pl.DataFrame:
    """:return: EVENT_COLUMNS, ``folio`` and ``nr_pages``."""
    columns = schema.polars_schema(schema.EVENT_COLUMNS)
    return pl.DataFrame(
        {
            "seq": range(rows),
            "ts": [10**18 + i for i in range(rows)],
            "cpu": [0] * rows,
            "pid": [None] * rows,
            "tid": [7] * rows,
            "comm": ["mm\x1b[31mwork"] * rows,
            "folio": [HIGH + i for i in range(rows)],
            "nr_pages": [16] * rows,
        },
        schema={**columns, "folio": pl.UInt64(), "nr_pages": pl.Int32()},
    )


def ops_frame(capture: Capture, _: KernelEnums | None = None) -> pl.DataFrame:
    """A stand-in for normalisation: one ``unmap`` operation per event row."""
    own = [name for name, _, _ in schema.EVENT_COLUMNS]
    frames = [
        frame.select(*own, op=pl.lit("unmap"), mm=pl.lit(HIGH, pl.UInt64()))
        for frame in capture.events.values()
    ]
    every = pl.concat([schema.empty(schema.OP_COLUMNS), *frames], how="diagonal")
    return every.select(name for name, _, _ in schema.OP_COLUMNS)


def event_format(key: str = "mmtrace:folio_remove_rmap_ptes") -> EventFormat:
    """:return: the format of :func:`event_frame` under another name."""
    system, _, name = key.partition(":")
    base = parse(system, FORMAT)
    return EventFormat(system, name, base.id, base.fields, base.print_fmt)


def tiny(*keys: str) -> Capture:
    """:return: a capture with three rows per event."""
    keys = keys or ("mmtrace:folio_remove_rmap_ptes",)
    records = {"comm": event_frame(1).select("seq", "ts", "tid", "comm")}
    return Capture(
        events={key: event_frame() for key in keys},
        formats={key: event_format(key) for key in keys},
        provenance=Provenance(path="perf.data", sha256="00" * 32, kernel_release="6.12.0"),
        records=records,
    )


def read(data: bytes, path: str, formats: dict[str, EventFormat] | None = None) -> Capture:
    """A container reader for tests of what lies around it."""
    capture = tiny()
    capture.provenance = Provenance(container="tiny", kernel_release="6.12.0")
    capture.provenance.extra = {
        "head": data[:8].decode("latin-1"),
        "formats": sorted(formats or {}),
    }
    return capture


def read_directory(path: Path, formats: dict[str, EventFormat] | None = None) -> Capture:
    """The same for directories."""
    return read(path.name.encode(), str(path), formats)
