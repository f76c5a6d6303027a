# SPDX-License-Identifier: GPL-2.0-or-later
"""trace_printk() records: a pointer to a format string and its arguments in binary.

Layout of the arguments: vbin_printf() in lib/vsprintf.c. 8-byte values are
aligned to 4 bytes, smaller ones to their size, strings lie in place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import polars as pl
from numpy.typing import NDArray

from tracer.eventformat import EventFormat
from tracer.kernels import as_bytes
from tracer.ringbuffer import Records

EVENT: Final = "ftrace:bprint"
MAX_WIDTH: Final = 256  # characters a %*d may be padded to
_SPEC: Final = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|\d{1,3})?(?:\.(?P<precision>\*|\d{1,3}))?"
    r"(?P<size>hh|h|ll|l|L|q|z|Z|t|j)?(?P<kind>[diuoxXcsp%])(?P<pointer>\w*)"
)
_SIZES: Final = {"hh": 1, "h": 2, "ll": 8, "L": 8, "q": 8, "j": 8}
# %p with these letters, or none, is stored as a pointer; others were formatted when recorded.
_STORED_POINTERS: Final = frozenset("SsxKeBFf")
_ESCAPES: Final = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\"}


class _Arguments:
    """Takes values off a record's argument bytes."""

    def __init__(self, data: bytes, big_endian: bool, long_size: int) -> None:
        self._data = data
        self._order = ">" if big_endian else "<"
        self._at = 0
        self.long_size = long_size

    def number(self, size: int, signed: bool) -> int:
        align = min(size, 4)
        at = -(-self._at // align) * align
        piece = self._data[at : at + size]
        if len(piece) < size:
            raise ValueError("the arguments end early")
        self._at = at + size
        return int.from_bytes(piece, "big" if self._order == ">" else "little", signed=signed)

    def string(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ValueError("a string has no end")
        piece = self._data[self._at : end]
        self._at = end + 1
        return piece.decode("utf-8", "replace")


def render(fmt: str, data: bytes, big_endian: bool = False, long_size: int = 8) -> str:
    """Print one record.

    :param fmt: the format string, escapes resolved
    :param data: its arguments
    :return: the text; pointers in hexadecimal, whatever their conversion
    :raises ValueError: when the arguments do not fit the format
    """
    args = _Arguments(data, big_endian, long_size)
    return _SPEC.sub(lambda m: _one(m, args), fmt)


def _one(m: re.Match[str], args: _Arguments) -> str:
    kind, tail = m["kind"], m["pointer"]
    if kind == "%":
        return "%" + tail
    width = _starred(m["width"], args)
    precision = _starred(m["precision"], args)
    if kind == "p":
        if tail[:1] and tail[0] not in _STORED_POINTERS:
            return args.string()
        rest = tail.lstrip("SsxKeBFfR")
        return f"{args.number(args.long_size, False):0{2 * args.long_size}x}{rest}"
    spec = "%" + m["flags"] + (width or "") + (f".{precision}" if precision else "")
    if kind == "s":
        return (spec + "s") % args.string() + tail
    if kind == "c":
        return chr(args.number(1, False)) + tail
    signed = kind in "di"
    size = args.long_size if m["size"] in ("l", "z", "Z", "t") else _SIZES.get(m["size"] or "", 4)
    value = args.number(size, signed)
    return (spec + ("d" if kind in "iu" else kind)) % value + tail


def _starred(text: str | None, args: _Arguments) -> str | None:
    if text != "*":
        return text
    return str(max(-MAX_WIDTH, min(args.number(4, True), MAX_WIDTH)))


def text_column(
    buf: Any,
    records: Records,
    rows: NDArray[Any],
    fmt: EventFormat,
    printk: Mapping[int, str],
    big_endian: bool,
) -> pl.Series:
    """Print the bprint records of some rows.

    :param rows: row numbers in ``records``
    :param fmt: format of ftrace:bprint
    :param printk: address of a format string to the string, as printk_formats has it
    :return: String column ``text``; null where the format string or an argument is missing
    """
    place, args = fmt.field("fmt"), fmt.field("buf")
    values: list[str | None] = []
    data = as_bytes(buf)
    for off, length in zip(records.off[rows].tolist(), records.len[rows].tolist(), strict=True):
        text = None
        record = data[off : off + length].tobytes()
        if place and args and place.offset + place.size <= length:
            word = record[place.offset : place.offset + place.size]
            form = printk.get(int.from_bytes(word, "big" if big_endian else "little"))
            if form is not None:
                text = _rendered(form, record[args.offset :], big_endian, place.size)
        values.append(text)
    return pl.Series("text", values, dtype=pl.String)


def _rendered(form: str, data: bytes, big_endian: bool, long_size: int) -> str | None:
    for escape, plain in _ESCAPES.items():
        form = form.replace(escape, plain)
    try:
        return render(form, data, big_endian, long_size)
    except (ValueError, TypeError, OverflowError):
        return None
