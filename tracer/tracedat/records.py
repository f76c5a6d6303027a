# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams of ring-buffer pages to records in time order, with what was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import schema
from tracer.decode import Diagnostic
from tracer.kernels import as_bytes
from tracer.ringbuffer import (
    BAD_COMMIT,
    BAD_RECORD,
    CUT,
    EMPTY,
    LONE_COUNT,
    NO_HEADER,
    NONE_KNOWN,
    OK,
    PADDED,
    TRAILING,
    PageLayout,
    Records,
    Stream,
    gather_records,
    is_sorted,
    merge_order,
    walk_pages,
)

# Page state to code, severity and text of its diagnostics row.
STATES: Final[dict[int, tuple[str, str, str]]] = {
    EMPTY: ("empty-page", "warning", "A page is all zero; events may be missing here."),
    NO_HEADER: ("truncated-data", "loss", "The data ends inside a page header."),
    BAD_COMMIT: ("bad-page", "loss", "A page says it holds more than its size; it is dropped."),
    CUT: ("truncated-data", "loss", "The data ends inside a page; its later events are lost."),
    BAD_RECORD: ("bad-record", "loss", "A record does not fit; the page's later events are lost."),
    LONE_COUNT: ("bad-missed-count", "warning", "A count of missed events is implausible."),
    TRAILING: (
        "odd-page-end",
        "warning",
        "A page holds more bytes than it says; events may be missing here.",
    ),
    PADDED: (
        "odd-padding",
        "warning",
        "A page ends in unused bytes that had room for any record; events may be missing here.",
    ),
}
MAX_ROWS: Final = 100  # diagnostics rows per code before they are summed up


class Walk:
    """Reads streams of pages out of one buffer.

    :ivar loss: :data:`tracer.schema.LOSS_COLUMNS` frames, one per stream with loss
    :ivar diagnostics: rows about damaged pages

    :param data: any contiguous buffer that holds the pages
    :param layout: parts of a page; its size is not used, each stream has its own
    :param big_endian: byte order of the pages
    :param tid_at: offset of ``common_pid`` in a payload
    :param locate: maps an offset in ``data`` to one in the capture file
    :param instances: buffer names, by :attr:`~tracer.ringbuffer.Stream.instance`
    """

    def __init__(
        self,
        data: Any,
        layout: PageLayout,
        big_endian: bool,
        tid_at: int = 4,
        locate: Callable[[int], int | None] | None = None,
        instances: Sequence[str] = ("",),
    ) -> None:
        self.buf = as_bytes(data)
        self.layout = layout
        self.big_endian = big_endian
        self.tid_at = max(0, min(tid_at, 64))
        self.loss: list[pl.DataFrame] = []
        self.diagnostics: list[Diagnostic] = []
        self._locate = locate or (lambda offset: offset)
        self._instances = instances
        self._rows: dict[str, int] = {}

    def read(
        self,
        streams: Sequence[Stream],
        adjust: Callable[[NDArray[np.uint64], Stream], NDArray[np.uint64]] | None = None,
    ) -> Records:
        """Find every record of the streams.

        :param streams: in file order; ranges must lie in the buffer
        :param adjust: turns a stream's raw times into ns
        :return: the records, sorted by time, then stream, then place
        """
        counted = [self.scan(s) for s in streams]
        totals = [int(pages[:, 0].sum()) for pages, _, _ in counted]
        bounds = np.zeros(len(streams) + 1, np.int64)
        np.cumsum(totals, out=bounds[1:])
        heads = np.empty(int(bounds[-1]), np.int64)
        ts = np.empty(heads.size, np.uint64)
        for i, stream in enumerate(streams):
            pages, stamps, missed = counted[i]
            rows = slice(int(bounds[i]), int(bounds[i + 1]))
            base = np.cumsum(pages[:, 0]) - pages[:, 0]
            self.scan(stream, base, heads[rows], ts[rows])
            if adjust is not None:
                ts[rows] = adjust(ts[rows], stream)
                stamps = adjust(stamps, stream)
            self._report(stream, pages)
            self._lost(stream, pages, base, ts[rows], stamps, missed)
        return self._sorted(streams, bounds, heads, ts)

    def scan(
        self,
        stream: Stream,
        base: NDArray[np.int64] | None = None,
        heads: NDArray[np.int64] | None = None,
        ts: NDArray[np.uint64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Run the kernel over one stream, to count without ``base``, to fill with it.

        :return: the per-page arrays of :func:`tracer.ringbuffer.walk_pages`
        """
        n = -(-stream.size // stream.page_size)
        pages = np.empty((n, 3), np.int64)
        stamps, missed = np.empty(n, np.uint64), np.empty(n, np.uint64)
        if not 0 <= stream.start <= stream.start + stream.size <= self.buf.size:
            raise ValueError("a stream lies outside the buffer")
        # Times wrap like the kernel's; uncompiled, numpy would warn.
        with np.errstate(over="ignore"):
            walk_pages(
                self.buf,
                stream.start,
                stream.size,
                stream.page_size,
                self.layout.data_at,
                self.layout.commit_size,
                self.tid_at + 4,
                self.big_endian,
                np.empty(0, np.int64) if base is None else base,
                np.empty(0, np.int64) if heads is None else heads,
                np.empty(0, np.uint64) if ts is None else ts,
                pages,
                stamps,
                missed,
            )
        return pages, stamps, missed

    def _sorted(
        self,
        streams: Sequence[Stream],
        bounds: NDArray[np.int64],
        heads: NDArray[np.int64],
        ts: NDArray[np.uint64],
    ) -> Records:
        n, order = ts.size, np.empty(ts.size, np.uint32)
        if all(is_sorted(ts[bounds[i] : bounds[i + 1]]) for i in range(len(streams))):
            scratch = np.empty((2, len(streams)), np.int64)
            merge_order(bounds, ts, scratch[0], scratch[1], order)
        else:
            order = np.argsort(ts, kind="stable").astype(np.uint32)
        out = Records(
            np.empty(n, np.int64),
            np.empty(n, np.int64),
            np.empty(n, np.int32),
            np.empty(n, np.uint64),
            np.empty(n, np.int32),
            np.empty(n, np.uint32),
            np.empty(n, np.uint32),
        )
        gather_records(
            self.buf,
            self.big_endian,
            self.tid_at,
            order,
            bounds,
            np.array([s.cpu for s in streams], np.uint32),
            np.array([s.instance for s in streams], np.uint32),
            heads,
            ts,
            out.off,
            out.len,
            out.id,
            out.ts,
            out.tid,
            out.cpu,
            out.instance,
        )
        return out

    def _report(self, stream: Stream, pages: NDArray[np.int64]) -> None:
        """Add one diagnostics row per damaged page, up to a limit, then one for the rest."""
        bad = np.flatnonzero(pages[:, 1] != OK)
        over: dict[int, int] = {}
        for p in bad.tolist():
            state, at = int(pages[p, 1]), int(pages[p, 2])
            code, severity, text = STATES[state]
            self._rows[code] = self._rows.get(code, 0) + 1
            if self._rows[code] > MAX_ROWS:
                over[state] = over.get(state, 0) + 1
                continue
            end = min(stream.start + (p + 1) * stream.page_size, stream.start + stream.size)
            self.diagnostics.append(
                Diagnostic(code, severity, self._locate(at), end - at, f"CPU {stream.cpu}: {text}")
            )
        for state, count in over.items():
            code, severity, text = STATES[state]
            text = f"CPU {stream.cpu}: {count} more pages like the ones before: {text}"
            self.diagnostics.append(
                Diagnostic(code, severity, None, count * stream.page_size, text)
            )

    def _lost(
        self,
        stream: Stream,
        pages: NDArray[np.int64],
        base: NDArray[np.int64],
        ts: NDArray[np.uint64],
        stamps: NDArray[np.uint64],
        missed: NDArray[np.uint64],
    ) -> None:
        """Turn the pages' missed flags into loss rows at the time of the page's first event."""
        at = np.flatnonzero(missed != 0)
        if not at.size:
            return
        first = stamps[at].copy()
        some = pages[at, 0] > 0
        first[some] = ts[base[at[some]]]
        known = missed[at]
        unknown = known == NONE_KNOWN
        name = self._instances[stream.instance]
        source = "missed events flag of a page" + (f", buffer {name}" if name else "")
        self.loss.append(
            pl.DataFrame(
                {
                    "ts": first,
                    "cpu": np.full(at.size, stream.cpu, np.int32),
                    "event": pl.repeat(None, at.size, dtype=pl.String, eager=True),
                    "known": np.where(unknown, np.uint64(0), known),
                    "unknown": unknown,
                    "source": pl.repeat(source, at.size, dtype=pl.String, eager=True),
                },
                schema=schema.polars_schema(schema.LOSS_COLUMNS),
            )
        )

    def loss_frame(self) -> pl.DataFrame:
        """:return: all losses in time order."""
        frames = [schema.empty(schema.LOSS_COLUMNS), *self.loss]
        return pl.concat(frames).sort("ts", "cpu", maintain_order=True)
