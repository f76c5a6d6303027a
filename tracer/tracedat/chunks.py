# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed parts of a trace.dat of version 7, unpacked within bounds.

Metadata is one compressed block. CPU data is a run of chunks that unpack
separately, so a damaged chunk costs its own pages only.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracer.compression import limit, zstd_module
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.tracedat.cursor import Cursor, ShortError, note

CODECS: Final = ("none", "zlib", "zstd")
MAX_CHUNK: Final = 64 << 20  # bytes of one unpacked chunk; trace-cmd writes 10 pages
_MAX_WINDOW_LOG: Final = 27  # zstd's own default: 128 MiB of history


class Chunk(NamedTuple):
    """One chunk: packed bytes at ``offset`` in the file, unpacked at ``at`` in the arena."""

    offset: int
    packed: int
    unpacked: int
    at: int


def unpack(codec: str, data: bytes, size: int) -> bytes:
    """Unpack one block.

    :param codec: ``zlib`` or ``zstd``
    :param size: bytes it says it unpacks to
    :raises CaptureError: when it is damaged or unpacks to another size
    """
    if codec == "zlib":
        stream: Any = zlib.decompressobj()
    elif codec == "zstd":
        zstd = zstd_module()
        options = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        stream = zstd.ZstdDecompressor(options=options)
    else:
        raise CaptureError(f"Compression {codec!r} is not known.")
    try:
        # One byte more tells a block that is longer than it says.
        out: bytes = stream.decompress(data, size + 1)
    except (zlib.error, zstd_module().ZstdError) as err:
        raise CaptureError(f"A {codec} block is damaged: {err}.") from None
    if len(out) != size:
        raise CaptureError(f"A {codec} block of {size} bytes unpacks to another size.")
    return out


def metadata(cur: Cursor, codec: str, room: int) -> bytes:
    """Unpack the body of a compressed section: u32 packed, u32 unpacked, bytes.

    :param room: bytes that it may unpack to
    :raises CaptureError: when it is damaged or would grow beyond all measure
    """
    packed, unpacked = cur.u32("packed size"), cur.u32("unpacked size")
    data = cur.take(packed, "a compressed section")
    if unpacked > min(room, limit(packed)):
        raise CaptureError(f"A section of {packed} bytes would unpack to {unpacked}.")
    return unpack(codec, data, unpacked)


class Arena:
    """All unpacked CPU data of a file, one stream after the other.

    :ivar problems: chunks that could not be read

    :param data: the file
    """

    def __init__(self, data: bytes | memoryview, codec: str, big_endian: bool) -> None:
        self._data = data
        self._codec = codec
        self._big_endian = big_endian
        self._chunks: list[Chunk] = []
        self._room = limit(len(data))
        self.size = 0
        self.problems: list[Diagnostic] = []

    def add(self, offset: int, size: int, cpu: int) -> tuple[int, int]:
        """Find the chunks of one CPU.

        :param offset: of the u32 number of chunks
        :param size: bytes of chunks behind it
        :return: start and size of the unpacked stream in the arena
        """
        start = self.size
        # ``size`` leaves the leading u32 out.
        cur = Cursor(self._data, offset, offset + 4 + size, big_endian=self._big_endian)
        try:
            count = cur.u32("number of chunks")
            # The count is written last: 0 with chunks behind it is a recorder that died.
            open_ended = not count
            while cur.left if open_ended else count:
                self._add_chunk(cur)
                count -= 1
        except CaptureError as err:
            code = "truncated-data" if isinstance(err, ShortError) else "bad-chunk"
            message = f"CPU {cpu}: {err.message} The rest of its events is lost."
            note(self.problems, Diagnostic(code, "loss", cur.offset, cur.left, message))
        return start, self.size - start

    def _add_chunk(self, cur: Cursor) -> None:
        packed, unpacked = cur.u32("packed size"), cur.u32("unpacked size")
        if unpacked > MAX_CHUNK or unpacked > self._room:
            raise CaptureError(f"A chunk says it unpacks to {unpacked} bytes.")
        offset = cur.pos
        cur.skip(packed, "a chunk")
        if unpacked:
            self._chunks.append(Chunk(offset, packed, unpacked, self.size))
            self.size += unpacked
            self._room -= unpacked

    def fill(self) -> NDArray[np.uint8]:
        """Unpack every chunk; one that is damaged leaves zeroes, which are empty pages.

        :return: uint8[size]
        """
        out = np.zeros(self.size, np.uint8)
        for chunk in self._chunks:
            packed = bytes(self._data[chunk.offset : chunk.offset + chunk.packed])
            try:
                piece = unpack(self._codec, packed, chunk.unpacked)
            except CaptureError as err:
                message = f"{err.message} The {chunk.unpacked} bytes of pages in it are lost."
                row = Diagnostic("bad-chunk", "loss", chunk.offset, chunk.packed, message)
                note(self.problems, row)
                continue
            out[chunk.at : chunk.at + chunk.unpacked] = np.frombuffer(piece, np.uint8)
        return out

    def locate(self, at: int) -> int | None:
        """:return: file offset of the chunk that holds a byte of the arena."""
        found = [c.offset for c in self._chunks if c.at <= at < c.at + c.unpacked]
        return found[0] if found else None
