# SPDX-License-Identifier: GPL-2.0-or-later
"""A bounds-checked reader of one byte range.

Every length in a capture comes from the file, so nothing here allocates or
moves by a length before it was compared with what is left.
"""

from __future__ import annotations

from tracer.decode import Diagnostic
from tracer.errors import CaptureError

MAX_NAME = 4096  # bytes of a NUL-terminated name; the kernel's own limit is 64 (MAX_EVENT_NAME_LEN)


MAX_PROBLEMS = 1000  # rows one reader lists before it only says that there are more


class ShortError(CaptureError):
    """The bytes end before the value does."""

    def __init__(self, what: str, offset: int, need: int, left: int) -> None:
        super().__init__(f"{what} needs {need} bytes at offset {offset}, {left} are left.")
        self.offset = offset
        self.left = left


def note(problems: list[Diagnostic], row: Diagnostic) -> None:
    """Add a row, unless a hostile file has made a thousand already."""
    if len(problems) == MAX_PROBLEMS:
        text = "More was found wrong than is listed here."
        row = Diagnostic("more-problems", "warning", None, None, text)
    if len(problems) <= MAX_PROBLEMS:
        problems.append(row)


class Cursor:
    """Reads integers and byte strings of ``data[pos:end]``, moving forward.

    :param base: added to offsets in errors, for ranges that were decompressed
        or cut out of a larger file
    """

    __slots__ = ("base", "big_endian", "data", "end", "pos")

    def __init__(
        self,
        data: bytes | memoryview,
        pos: int = 0,
        end: int | None = None,
        *,
        big_endian: bool = False,
        base: int = 0,
    ) -> None:
        size = len(data)
        self.data = data
        self.pos = pos
        self.end = size if end is None else max(0, min(end, size))
        self.base = base
        self.set_order(big_endian)

    def set_order(self, big_endian: bool) -> None:
        """Byte order of the integers that follow."""
        self.big_endian = big_endian

    @property
    def left(self) -> int:
        """Bytes between the position and the end, never negative."""
        return max(0, self.end - self.pos)

    @property
    def offset(self) -> int:
        """The position as a file offset."""
        return self.base + self.pos

    def take(self, size: int, what: str = "data") -> bytes:
        """:raises ShortError: when fewer than ``size`` bytes are left; the position stays."""
        if size < 0 or size > self.left:
            raise ShortError(what, self.offset, size, self.left)
        start = self.pos
        self.pos += size
        return bytes(self.data[start : self.pos])

    def skip(self, size: int, what: str = "data") -> None:
        """Move forward without reading.

        :raises ShortError: when fewer than ``size`` bytes are left
        """
        if size < 0 or size > self.left:
            raise ShortError(what, self.offset, size, self.left)
        self.pos += size

    def uint(self, size: int, what: str = "integer") -> int:
        """:return: an unsigned integer of ``size`` bytes in the current byte order."""
        return int.from_bytes(self.take(size, what), "big" if self.big_endian else "little")

    def u8(self, what: str = "u8") -> int:
        return self.uint(1, what)

    def u16(self, what: str = "u16") -> int:
        return self.uint(2, what)

    def u32(self, what: str = "u32") -> int:
        return self.uint(4, what)

    def u64(self, what: str = "u64") -> int:
        return self.uint(8, what)

    def sized(self, width: int, what: str) -> bytes:
        """:return: the bytes behind a length of ``width`` bytes (4 or 8)."""
        start = self.pos
        size = self.uint(width, f"length of {what}")
        try:
            return self.take(size, what)
        except ShortError:
            self.pos = start
            raise

    def cstr(self, what: str = "name") -> str:
        """:return: the text up to a NUL, which is consumed; at most MAX_NAME bytes."""
        window = bytes(self.data[self.pos : min(self.end, self.pos + MAX_NAME)])
        length = window.find(b"\0")
        if length < 0:
            raise ShortError(f"the NUL that ends {what}", self.offset, len(window) + 1, self.left)
        self.pos += length + 1
        return window[:length].decode("utf-8", "replace")
