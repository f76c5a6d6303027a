# SPDX-License-Identifier: GPL-2.0-or-later
"""``name=value`` bodies of one event to columns.

Which labels an event has is learnt from some of its lines; the kernel then
looks for them in that order, so that a value may hold spaces. What a value is,
is told from all of its column: decimal, 0x, bare hexadecimal, or text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer.jit import kernel
from tracer.kernels import intern_slices

# What a value turned out to be.
MISSING, DECIMAL, NEGATIVE, HEX, BARE_HEX, TEXT = range(6)

MAX_LABELS: Final = 64
SAMPLES: Final = 64  # lines an event's labels are learnt from
SAMPLE_BYTES: Final = 4096
ANY_BASE: Final = 0
BASE_16: Final = 16

_EQUALS: Final = re.compile(rb"(?:(?<=[\s(,{])|^)([A-Za-z_]\w{0,63})=")
_COLONS: Final = re.compile(rb"(?:(?<=[\s(,{])|^)([A-Za-z_]\w{0,63}):(?: |(?=[\w(-]))")

_SPACE: Final = 32
_DASH: Final = 45
_COMMA: Final = 44
_EQUAL: Final = 61
_GREATER: Final = 62
_ZERO: Final = 48
_NINE: Final = 57
_LOWER_X: Final = 120
_BYTES_SUFFIX: Final = 66  # the B of rss_stat's size=4096B
_U10: Final = np.uint64(10)
_U16: Final = np.uint64(16)
_MAX_BY_10: Final = np.uint64(((1 << 64) - 1) // 10)


@dataclass(frozen=True)
class Bodies:
    """The bodies of one event: ``buf[start[i]:end[i]]``, int64[n] each."""

    buf: NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def sample(self) -> list[bytes]:
        """:return: the first bytes of some bodies, spread over all of them."""
        n = self.start.size
        rows = sorted({*range(min(n, SAMPLES // 2)), *range(0, n, max(1, 2 * n // SAMPLES))})
        ends = np.minimum(self.end[rows], self.start[rows] + SAMPLE_BYTES)
        pairs = zip(self.start[rows].tolist(), ends.tolist(), strict=True)
        return [self.buf[a:b].tobytes() for a, b in pairs]


@dataclass(frozen=True)
class Labels:
    """Label texts with their ``=`` or ``:``, one after the other.

    :ivar names: field names, without it
    :ivar text: uint8[bytes]
    :ivar at: int64[labels + 1], where each starts in ``text``
    """

    names: list[str]
    text: NDArray[np.uint8]
    at: NDArray[np.int64]


def learn(sample: list[bytes]) -> Labels:
    """Find the labels of an event's bodies, in the order they come in."""
    order: list[bytes] = []
    mark = b"="
    for pattern, mark in ((_EQUALS, b"="), (_COLONS, b":")):  # noqa: B007
        for body in sample:
            _merge(order, [m[1] for m in pattern.finditer(body)])
        if order:
            break
    order = order[:MAX_LABELS]
    text = b"".join(label + mark for label in order)
    at = np.cumsum([0, *(len(label) + 1 for label in order)]).astype(np.int64)
    names = [label.decode("ascii", "replace") for label in order]
    return Labels(names, np.frombuffer(text, np.uint8), at)


def _merge(order: list[bytes], seen: list[bytes]) -> None:
    """Add the labels of one more line, each behind the one it follows there."""
    place = 0
    for label in seen:
        if label in order:
            place = order.index(label) + 1
        elif len(order) < 2 * MAX_LABELS:
            order.insert(place, label)
            place += 1


@kernel
def next_label(buf: Any, p: Any, end: Any, text: Any, at: Any, after: Any) -> Any:
    """:return: the label behind number ``after`` that ``buf[p:end]`` starts with, or -1."""
    for g in range(after + 1, at.shape[0] - 1):
        first = at[g]
        length = at[g + 1] - first
        if p + length <= end and buf[p] == text[first]:
            same = 1
            while same < length and buf[p + same] == text[first + same]:
                same += 1
            if same == length:
                return g
    return -1


@kernel
def read_integer(buf: Any, at: Any, end: Any, base: Any) -> Any:
    """Read the number that fills ``buf[at:end]`` up to a delimiter.

    :return: what it is, TEXT when no number; its value, two's complement
    """
    negative = at < end and buf[at] == _DASH
    if negative:
        at += 1
    hexadecimal = base == BASE_16
    what = DECIMAL
    if at + 2 < end and buf[at] == _ZERO and buf[at + 1] == _LOWER_X:
        hexadecimal = True
        what = HEX
        at += 2
    value = np.uint64(0)
    start = at
    letters = False
    too_big = False
    while at < end:
        c = buf[at]
        if _ZERO <= c <= _NINE:
            digit = np.uint64(c) - np.uint64(_ZERO)
        elif 97 <= c <= 102:
            digit = np.uint64(c) - np.uint64(87)
            letters = True
        else:
            break
        if hexadecimal:
            value = value * _U16 + digit
        else:
            if value > _MAX_BY_10:
                too_big = True
            value = value * _U10 + digit
        at += 1
    if at == start or (hexadecimal and at - start > 16):
        return TEXT, np.uint64(0)
    if at < end and buf[at] == _BYTES_SUFFIX and not hexadecimal:
        at += 1
    # The delimiters: space ) , ; ] }
    if at < end and buf[at] not in (32, 41, 44, 59, 93, 125):
        return TEXT, np.uint64(0)
    if letters and not hexadecimal:
        return (TEXT if negative else BARE_HEX), np.uint64(0)
    if too_big or at - start > 20:
        return TEXT, np.uint64(0)
    if negative:
        return NEGATIVE, np.uint64(0) - value if value != 0 else value
    return what, value


@kernel
def parse_bodies(
    buf: Any, start: Any, end: Any, text: Any, at: Any, base: Any, want: Any,
    value: Any, what: Any, begin: Any, length: Any,
) -> None:  # fmt: skip
    """Parse the labelled values of every body.

    :param text: see :class:`Labels`; at alike
    :param base: int64[labels], BASE_16 where bare numbers are hexadecimal
    :param want: label whose text is located instead, -1 for the numbers
    :param value: uint64[labels, n], written
    :param what: uint8[labels, n], written
    :param begin: int64[n], written with ``want``: where its text starts
    :param length: int64[n], written with ``want``: its bytes, -1 when missing
    """
    labels = at.shape[0] - 1
    for i in range(start.shape[0]):
        stop = end[i]
        if want >= 0:
            begin[i] = 0
            length[i] = -1
        else:
            for f in range(labels):
                value[f, i] = np.uint64(0)
                what[f, i] = MISSING
        field = -1
        first = start[i]
        p = start[i]
        word = True
        while p <= stop:
            found = -1
            if word and p < stop:
                found = next_label(buf, p, stop, text, at, field)
            if found >= 0 or p == stop:
                # The value before this label is complete.
                if field >= 0 and (want < 0 or want == field):
                    a = first
                    b = p
                    while a < b and buf[a] == _SPACE:
                        a += 1
                    # sched_switch prints "R ==> next_comm=".
                    if b - a > 4 and buf[b - 2] == _GREATER and buf[b - 3] == _EQUAL:
                        b -= 4
                    while b > a and (buf[b - 1] == _SPACE or buf[b - 1] == _COMMA):
                        b -= 1
                    if want < 0:
                        kind, number = read_integer(buf, a, b, base[field])
                        value[field, i] = number
                        what[field, i] = kind
                    else:
                        begin[i] = a
                        length[i] = b - a
                if p == stop:
                    break
                field = found
                p += at[field + 1] - at[field]
                first = p
                word = False
                continue
            # A word starts behind one of: space ( , {
            word = buf[p] in (32, 40, 44, 123)
            p += 1


class Columns:
    """Parses one event's bodies.

    :ivar names: labels in the order they come in
    :ivar hexadecimal: labels whose numbers have no 0x and were taken as hexadecimal

    :param bases: label to 16, where the event's print format has %x
    :param base: of the other labels' numbers, ANY_BASE to tell from the values
    """

    def __init__(
        self, bodies: Bodies, bases: Mapping[str, int] | None = None, base: int = ANY_BASE
    ) -> None:
        self._bodies = bodies
        self._labels = learn(bodies.sample())
        self.names = self._labels.names
        self._base = np.array([(bases or {}).get(n, base) for n in self.names], np.int64)
        shape = (len(self.names), bodies.start.size)
        self._value = np.empty(shape, np.uint64)
        self._what = np.empty(shape, np.uint8)
        self.hexadecimal: list[str] = []
        self._parse(-1)
        bare = [bool((w == BARE_HEX).any()) for w in self._what]
        if any(bare):
            # Letters in some of a column's numbers make all of them hexadecimal.
            self._base[bare] = BASE_16
            self.hexadecimal = [n for n, b in zip(self.names, bare, strict=True) if b]
            self._parse(-1)

    def _parse(self, want: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n = self._bodies.start.size if want >= 0 else 0
        begin, length = np.empty(n, np.int64), np.empty(n, np.int64)
        bodies, labels = self._bodies, self._labels
        # A hexadecimal number that is too long wraps; uncompiled, numpy would warn.
        with np.errstate(over="ignore"):
            parse_bodies(
                bodies.buf, bodies.start, bodies.end, labels.text, labels.at, self._base, want,
                self._value, self._what, begin, length,
            )  # fmt: skip
        return begin, length

    def is_text(self, i: int) -> bool:
        """:return: whether any value of label ``i`` is no number."""
        return bool((self._what[i] == TEXT).any())

    def number(self, i: int) -> pl.Series:
        """:return: UInt64 column of label ``i``, Int64 when a value is negative."""
        column = pl.Series(self.names[i], self._value[i])
        if (self._what[i] == NEGATIVE).any():
            column = column.reinterpret(signed=True)
        missing = self._what[i] == MISSING
        return column.set(pl.Series(missing), None) if missing.any() else column

    def text(self, i: int) -> pl.Series:
        """:return: String column of label ``i``."""
        begin, length = self._parse(i)
        return strings(self.names[i], self._bodies.buf, begin, length)


def strings(
    name: str, buf: NDArray[np.uint8], begin: NDArray[np.int64], length: NDArray[np.int64]
) -> pl.Series:
    """Slices of the text as a String column; a length of -1 is null.

    :param begin: int64[n], checked by the caller
    :param length: int64[n]
    """
    code = np.empty(begin.size, np.uint32)
    values: list[str | None] = [
        buf[begin[row] : begin[row] + length[row]].tobytes().decode("utf-8", "replace")
        for row in intern_slices(buf, begin, length, code)
    ]
    return pl.Series(name, [*values, None], dtype=pl.String).gather(pl.Series(code))
