# SPDX-License-Identifier: GPL-2.0-or-later
"""From bytes to one contiguous run of plain records, decompressed where needed.

``perf record -z`` makes one zstd stream of the ring buffers' bytes and cuts it
into COMPRESSED records, so that a record may begin in one of them and end in
the next, with plain records of perf itself between the two. Such a record
counts where it ends.

See perf_session__process_compressed_event() in tools/perf/util/tool.c.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracer import kernels
from tracer.compression import zstd_module
from tracer.decode import Diagnostic
from tracer.perfdata import format as layout

Bytes = NDArray[np.uint8]

# Output of one compressed record when the capture does not say: perf's own
# default ring is 512 kB.
DEFAULT_CHUNK: Final = 1 << 20
MAX_CHUNK: Final = 1 << 30
# All output, as a multiple of the compressed file: tracepoints shrink about 20 times.
MAX_RATIO: Final = 100
MIN_BUDGET: Final = 16 << 20


class Source(NamedTuple):
    """Bytes ``start`` to ``end`` of one file; ``name`` is "" for a capture of one file."""

    data: Bytes
    start: int
    end: int
    name: str = ""


@dataclass
class Stream:
    """Records of a capture.

    :ivar off: int64[n], where each record starts
    :ivar kind: uint8[n], its type, 255 for 255 and more
    :ivar counts: int64[256], records of each kind, compressed ones included
    :ivar pieces: (first byte in ``buf``, byte in the file, file), ascending
    """

    buf: Bytes
    off: NDArray[np.int64]
    kind: NDArray[np.uint8]
    counts: NDArray[np.int64]
    pieces: list[tuple[int, int, str]] = field(default_factory=list)

    def where(self, at: int) -> tuple[str, int]:
        """:return: file name ("" for the only one) and offset of byte ``at`` of ``buf``.

        For decompressed bytes the offset is that of the compressed record.
        """
        i = max(0, bisect.bisect_right(self.pieces, at, key=lambda piece: piece[0]) - 1)
        first, offset, name = self.pieces[i] if self.pieces else (0, 0, "")
        return name, offset + (at - first if offset >= 0 else 0)


class Walk(NamedTuple):
    """Records of one range: offsets, kinds, counts, and where the walk stopped."""

    off: NDArray[np.int64]
    kind: NDArray[np.uint8]
    counts: NDArray[np.int64]
    stop: int


def walk(buf: Bytes, start: int, end: int, big_endian: bool) -> Walk:
    """Find all records of a range: count them, then fill arrays of that size."""
    none = np.empty(0, np.int64), np.empty(0, np.uint8)
    counts = np.zeros(256, np.int64)
    n, stop = kernels.walk_records(buf, start, end, big_endian, *none, counts)
    off, kind = np.empty(n, np.int64), np.empty(n, np.uint8)
    kernels.walk_records(buf, start, end, big_endian, off, kind, np.zeros(256, np.int64))
    return Walk(off, kind, counts, int(stop))


def open_stream(
    sources: list[Source],
    walks: list[Walk],
    big_endian: bool,
    chunk: int | None,
    diagnostics: list[Diagnostic],
) -> Stream:
    """Bring the records of a capture into one buffer.

    :param sources: the file, or the files of a directory in order
    :param walks: of each source
    :param chunk: most bytes one compressed record expands to, when the capture says
    """
    for source, found in zip(sources, walks, strict=True):
        note_stop(source, found.stop, big_endian, diagnostics)
    packed = [bool(w.counts[layout.COMPRESSED] + w.counts[layout.COMPRESSED2]) for w in walks]
    if len(sources) == 1 and not packed[0]:
        source, found = sources[0], walks[0]
        pieces = [(0, 0, source.name)]
        return Stream(source.data, found.off, found.kind, found.counts, pieces)
    return _joined(sources, walks, packed, big_endian, chunk, diagnostics)


def _joined(
    sources: list[Source],
    walks: list[Walk],
    packed: list[bool],
    big_endian: bool,
    chunk: int | None,
    diagnostics: list[Diagnostic],
) -> Stream:
    """Copy plain records and decompressed ones into one buffer and walk it again."""
    out = bytearray()
    pieces: list[tuple[int, int, str]] = []
    ranges: list[tuple[int, int]] = []
    budget = max(MIN_BUDGET, MAX_RATIO * sum(s.data.size for s in sources))
    for source, found, compressed in zip(sources, walks, packed, strict=True):
        first = len(out)
        spans: Iterable[tuple[Any, int]] = [(source.data[source.start : found.stop], source.start)]
        if compressed:
            expander = Expander(source, big_endian, chunk, budget, diagnostics)
            spans = expander.spans(found)
        for span, offset in spans:
            pieces.append((len(out), offset, source.name))
            out += memoryview(span)
            budget -= len(span)
        ranges.append((first, len(out)))
    buf = kernels.as_bytes(out)
    again = [walk(buf, a, b, big_endian) for a, b in ranges]
    counts = np.sum([w.counts for w in again], axis=0)
    for kind in (layout.COMPRESSED, layout.COMPRESSED2):
        counts[kind] = sum(int(w.counts[kind]) for w in walks)
    return Stream(
        buf,
        np.concatenate([w.off for w in again]),
        np.concatenate([w.kind for w in again]),
        counts,
        pieces,
    )


class Expander:
    """Decompresses the records of one file, whose zstd stream it follows.

    :param chunk: most bytes one record may expand to, None for the default
    :param budget: most bytes all of them may expand to
    """

    def __init__(
        self,
        source: Source,
        big_endian: bool,
        chunk: int | None,
        budget: int,
        diagnostics: list[Diagnostic],
    ) -> None:
        self.source = source
        self.big_endian = big_endian
        self.chunk = min(chunk or DEFAULT_CHUNK, MAX_CHUNK)
        self.budget = budget
        self.diagnostics = diagnostics
        self.carry = b""  # start of a record whose end is in a later chunk
        self.zstd = zstd_module().ZstdDecompressor()
        self.error = zstd_module().ZstdError

    def spans(self, found: Walk) -> Iterator[tuple[Any, int]]:
        """:return: runs of whole records with the file offset they come from."""
        data, at = self.source.data, self.source.start
        compressed = (found.kind == layout.COMPRESSED) | (found.kind == layout.COMPRESSED2)
        broken = False
        last = 0
        for offset in found.off[compressed].tolist():
            if offset > at:
                yield data[at:offset], at
            payload, at = self._payload(offset)
            if broken:
                continue
            last = offset
            whole, broken = self._expand(payload, offset)
            if len(whole):
                yield whole, offset
        if found.stop > at:
            yield data[at : found.stop], at
        if self.carry and not broken:
            # perf does not write what its compressor still holds when the last
            # output buffer is full, so this is no rare case.
            self.diagnostics.append(
                Diagnostic(
                    "truncated-data",
                    "loss",
                    last,
                    len(self.carry),
                    f"The compressed data{self._of()} ends inside a record; its "
                    f"{len(self.carry)} bytes cannot be used, and how many records should "
                    "follow is not known.",
                )
            )

    def _payload(self, offset: int) -> tuple[Bytes, int]:
        """:return: the zstd bytes of the record at ``offset``, and where it ends."""
        data, e = self.source.data, ">" if self.big_endian else "<"
        head = data[offset : offset + 16].tobytes().ljust(16, b"\0")
        kind, _, size, used = struct.unpack(e + "IHHQ", head)
        end = offset + size
        if kind == layout.COMPRESSED or size < 16:
            return data[offset + layout.RECORD_HEADER : end], end
        return data[offset + 16 : min(end, offset + 16 + used)], end

    def _expand(self, payload: Bytes, offset: int) -> tuple[Bytes, bool]:
        """:return: the whole records that are complete now, and whether the stream is broken."""
        room = min(self.chunk, self.budget)
        try:
            out = self.zstd.decompress(payload.tobytes(), room + 1)
        except (self.error, EOFError) as err:
            self._note("bad-compression", offset, payload.size, f"is damaged ({err})")
            return np.empty(0, np.uint8), True
        if len(out) > room:
            self._note("compression-limit", offset, payload.size, f"is larger than {room} bytes")
            return np.empty(0, np.uint8), True
        self.budget -= len(out)
        whole = kernels.as_bytes(self.carry + out)
        found = np.empty(0, np.int64), np.empty(0, np.uint8), np.zeros(256, np.int64)
        _, stop = kernels.walk_records(whole, 0, whole.size, self.big_endian, *found)
        self.carry = whole[stop:].tobytes()
        if len(self.carry) > 0xFFFF:  # no record is that large: its size is impossible
            self._note("bad-record-size", offset, len(self.carry), "holds an impossible record")
            return whole[:stop], True
        return whole[:stop], False

    def _of(self) -> str:
        return f" of {self.source.name}" if self.source.name else ""

    def _note(self, code: str, offset: int, size: int, what: str) -> None:
        self.diagnostics.append(
            Diagnostic(
                code,
                "loss",
                offset,
                size,
                f"The compressed data{self._of()} {what} at byte {offset}; "
                "compressed records behind it are lost.",
            )
        )


def note_stop(source: Source, stop: int, big_endian: bool, diagnostics: list[Diagnostic]) -> None:
    """Say what a walk that did not reach the end leaves out."""
    lost = source.end - stop
    if not lost:
        return
    of = f" of {source.name}" if source.name else ""
    head = source.data[stop : stop + 8].tobytes().ljust(8, b"\0")
    kind, _, size = struct.unpack(">IHH" if big_endian else "<IHH", head)
    if lost >= layout.RECORD_HEADER and size < layout.RECORD_HEADER:
        code, severity = "bad-record-size", "loss"
        message = f"The record at byte {stop}{of} has an impossible size of {size} bytes; "
    elif lost >= layout.RECORD_HEADER and kind not in layout.RECORDS:
        # Such as the messages of perf record itself, caught in the same pipe.
        code, severity = "trailing-bytes", "warning"
        message = f"What follows the last record at byte {stop}{of} is no record; "
    else:
        code, severity = "truncated-data", "loss"
        message = f"The data{of} ends inside the record at byte {stop}; "
    message += f"the last {lost} bytes are left out."
    diagnostics.append(Diagnostic(code, severity, stop, lost, message))
