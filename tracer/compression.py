# SPDX-License-Identifier: GPL-2.0-or-later
"""Files inside zstd, gzip or xz, unpacked within bounds."""

from __future__ import annotations

import lzma
import sys
import zlib
from typing import Any, Final, NamedTuple

from tracer.errors import CaptureError

# Wrapper name to the first bytes of such a file.
MAGIC: Final[dict[str, bytes]] = {
    "zstd": b"\x28\xb5\x2f\xfd",
    "gzip": b"\x1f\x8b\x08",
    "xz": b"\xfd7zXZ\x00",
}
# Captures compress 10 to 30 times; a crafted file ten thousand times and more.
MAX_RATIO: Final = 64
MAX_OUTPUT: Final = 4 << 30
MIN_OUTPUT: Final = 16 << 20  # a small file may repeat itself more
_STEP: Final = 1 << 16
_XZ_MEMORY: Final = 128 << 20


class Unwrapped(NamedTuple):
    """What was inside a file; ``kind`` is None and ``data`` the file itself when not wrapped."""

    kind: str | None
    data: bytes
    note: str  # what is wrong with the wrapper, "" when nothing


def wrapper(data: bytes) -> str | None:
    """:return: ``zstd``, ``gzip``, ``xz`` or None, by the first bytes."""
    return next((kind for kind, magic in MAGIC.items() if data.startswith(magic)), None)


def limit(size: int) -> int:
    """:return: bytes that a wrapped file of ``size`` bytes may unpack to."""
    return min(MAX_OUTPUT, max(MIN_OUTPUT, MAX_RATIO * size))


def unwrap(data: bytes, name: str) -> Unwrapped:
    """Unpack one layer of compression, if there is one.

    A damaged or truncated wrapper yields what could be unpacked and a note.

    :param data: the file's bytes
    :param name: its name, for messages
    :raises CaptureError: when nothing can be unpacked, or more than :func:`limit`
    """
    kind = wrapper(data)
    if kind is None:
        return Unwrapped(None, data, "")
    pieces, note = _unpack(data, kind, name)
    inner = b"".join(pieces)
    if not inner:
        raise CaptureError(f"{name} is a damaged or empty {kind} file.")
    if wrapper(inner):
        raise CaptureError(f"{name} is compressed twice.", f"Unpack the outer {kind} layer first.")
    return Unwrapped(kind, inner, note)


def _unpack(data: bytes, kind: str, name: str) -> tuple[list[bytes], str]:
    pieces: list[bytes] = []
    room = limit(len(data))
    errors = (zlib.error, lzma.LZMAError, zstd_module().ZstdError)
    stream, at = _open(kind), 0
    while at < len(data):
        chunk, at = data[at : at + _STEP], at + _STEP
        while True:
            try:
                piece = stream.decompress(chunk, room + 1)
            except errors:
                return pieces, f"the {kind} wrapper is damaged; what follows is lost"
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                raise CaptureError(
                    f"{name} unpacks to more than {MAX_RATIO} times its size.",
                    f"If it is a capture, unpack it with {kind} -d first.",
                )
            chunk = b""
            if stream.eof:
                # Frames may follow one another, as in the output of pzstd or cat.
                chunk = stream.unused_data
                if not (chunk or data[at : at + 1]).startswith(MAGIC[kind][:1]):
                    return pieces, "bytes follow the compressed data" if chunk else ""
                stream = _open(kind)
            elif stream.needs_input:
                break
    return pieces, f"the {kind} wrapper is truncated"


class _Gzip:
    """zlib behind the interface that lzma and zstd share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail


def _open(kind: str) -> Any:
    if kind == "gzip":
        return _Gzip()
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    return zstd_module().ZstdDecompressor()


def zstd_module() -> Any:
    """:return: ``compression.zstd`` (Python 3.14) or its backport, which are the same."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
