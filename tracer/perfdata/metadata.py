# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture says about itself, wherever in the file it says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tracer import tracingdata
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.perfdata import format as layout
from tracer.perfdata.features import Features, read_feature
from tracer.perfdata.header import Attr, Header, parse_attrs, parse_header


@dataclass
class Metadata:
    """Header, attributes and features of one capture.

    :ivar data: bytes of the file with the header
    :ivar tracing: event formats, when the capture has them
    """

    header: Header
    data: memoryview
    diagnostics: list[Diagnostic] = field(default_factory=list)
    attrs: list[Attr] = field(default_factory=list)
    features: Features = field(default_factory=Features)
    tracing: tracingdata.TracingData | None = None

    @property
    def chunk(self) -> int | None:
        """Most bytes that one compressed record expands to, when the capture says."""
        value = self.features.values.get("compressed", {}).get("mmap_len")
        return int(value) if value else None

    @cached_property
    def tracepoints(self) -> dict[int, list[Attr]]:
        """The attributes of each tracepoint, by its number; for when all are there."""
        out: dict[int, list[Attr]] = {}
        for attr in self.attrs:
            if attr.is_tracepoint:
                out.setdefault(attr.config, []).append(attr)
        return out

    @cached_property
    def _ids(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """All ids, ascending, and the position of each one's attribute."""
        if not self.attrs:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        ids = np.concatenate([attr.ids for attr in self.attrs])
        owner = np.repeat(np.arange(len(self.attrs)), [attr.ids.size for attr in self.attrs])
        order = np.argsort(ids, kind="stable")
        return ids[order], owner[order]

    def attr_of_id(self, ident: int) -> Attr | None:
        """:return: the attribute an id belongs to; for when all are there."""
        ids, owner = self._ids
        at = int(np.searchsorted(ids, np.uint64(ident)))
        return self.attrs[owner[at]] if at < ids.size and ids[at] == ident else None

    def note(
        self, code: str, severity: str, offset: int | None, size: int | None, message: str
    ) -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(code, severity, offset, size, message))


def read_header(data: memoryview) -> Metadata:
    """Read what precedes and follows the records of a file; of a pipe stream, the header.

    :raises CaptureError: when it is no perf.data or has no attributes
    """
    meta = Metadata(parse_header(data), data)
    if meta.header.pipe:
        return meta
    meta.attrs = parse_attrs(data, meta.header, meta.diagnostics)
    for bit, (offset, size) in meta.header.features.items():
        read_feature(
            meta.features, bit, data, offset, size, meta.header.big_endian, meta.diagnostics
        )
    if meta.header.lost_features:
        names = [layout.FEATURES.get(b, f"feature {b}") for b in meta.header.lost_features]
        meta.note(
            "missing-features",
            "warning",
            None,
            None,
            f"{len(names)} feature sections do not lie in the file: {', '.join(names)}.",
        )
    return meta


def data_range(meta: Metadata) -> tuple[int, int]:
    """Where the records are; a recorder that was killed left a size of 0.

    See __perf_session__process_events() in tools/perf/util/session.c.
    """
    total = len(meta.data)
    if meta.header.pipe:
        return layout.PIPE_HEADER_SIZE, total
    start, size = meta.header.data
    if start >= total:
        meta.note("truncated-data", "loss", total, size, "The file ends before its data.")
        return total, total
    if not size:
        meta.note(
            "unfinished-recording",
            "loss",
            start,
            None,
            "The recorder was killed before it finished the file: event names, event formats "
            "and the machine's description are missing.",
        )
        return start, total
    missing = start + size - total
    if missing > 0:
        meta.note(
            "truncated-data",
            "loss",
            total,
            missing,
            f"The file ends {missing} bytes before its data does; the event formats behind "
            "them are missing too.",
        )
    return start, min(start + size, total)


def finish(meta: Metadata) -> None:
    """Parse the event formats and give the attributes their names.

    :raises CaptureError: when a pipe stream has no attribute
    """
    if not meta.attrs:
        raise CaptureError("The stream has no event attributes.", "Was its beginning cut off?")
    _name_attrs(meta)
    if meta.features.tracing is None:
        return
    raw, offset = meta.features.tracing
    try:
        meta.tracing = tracingdata.parse(raw)
    except CaptureError as err:
        meta.note("bad-feature", "warning", offset, len(raw), f"TRACING_DATA: {err.message}")
        return
    for problem in meta.tracing.problems:
        at = None if problem.offset is None else problem.offset + offset
        meta.diagnostics.append(problem._replace(offset=at))


def _name_attrs(meta: Metadata) -> None:
    """Match EVENT_DESC rows with attributes: by id, else by type and config."""
    by_id = {int(attr.ids[0]): attr for attr in meta.attrs if attr.ids.size}
    by_kind: dict[tuple[int, int], Attr] = {}
    odd: list[str] = []
    for attr in reversed(meta.attrs):
        by_kind[attr.type, attr.config] = attr
    for desc in meta.features.events:
        found = by_id.get(int(desc.ids[0])) if desc.ids.size else None
        found = found or by_kind.get((desc.attr.type, desc.attr.config))
        if found is None:
            continue
        if found.name is None:
            found.name = desc.name
        # The same attribute, written twice.
        ours = (found.type, found.config, found.sample_type, found.read_format)
        if ours != (desc.attr.type, desc.attr.config, desc.attr.sample_type, desc.attr.read_format):
            odd.append(desc.name)
    if odd:
        meta.note(
            "attr-conflict",
            "warning",
            None,
            None,
            f"{len(odd)} events are described in two ways, the first of which is used: "
            f"{', '.join(odd[:8])}.",
        )
