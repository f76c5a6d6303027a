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

from tracer.decode import distinct_slices
from tracer.jit import kernel

# What a value turned out to be.
MISSING, DECIMAL, NEGATIVE, HEX, BARE_HEX, TEXT = range(6)

MAX_LABELS: Final = 64
SAMPLES: Final = 64  # lines an event's labels are learnt from
SAMPLE_BYTES: Final = 4096
# One damaged line must not decide what a column is: as rare as this, it is the odd one out.
RARE: Final = 16
ANY_BASE: Final = 0
BASE_16: Final = 16

_EQUALS: Final = re.compile(rb"(?:(?<=[\s(,{])|^)([A-Za-z_]\w{0,63})=")
_COLONS: Final = re.compile(rb"(?:(?<=[\s(,{])|^)([A-Za-z_]\w{0,63}):(?: |(?=[\w(-]))")

_SPACE: Final = 32
_OPEN: Final = 40
_CLOSE: Final = 41
_LESS: Final = 60
_DASH: Final = 45
_COMMA: Final = 44
_EQUAL: Final = 61
_GREATER: Final = 62
_ZERO: Final = 48
_NINE: Final = 57
_LOWER_A: Final = 97
_LOWER_F: Final = 102
_LOWER_X: Final = 120
_BYTES_SUFFIX: Final = 66  # the B of rss_stat's size=4096B
# A word, and so a label, starts behind one of these bytes.
_BEFORE_WORD: Final = np.isin(np.arange(256), list(b" (,{"))
_BEHIND_NUMBER: Final = np.isin(np.arange(256), list(b" ),;]}"))
_U10: Final = np.uint64(10)
_U16: Final = np.uint64(16)
_MAX_BY_10: Final = np.uint64(((1 << 64) - 1) // 10)
_MAX_DIGIT: Final = np.uint64(((1 << 64) - 1) % 10)


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
    """Read the number at the start of ``buf[at:end]``, which a delimiter must follow.

    :return: what it is, TEXT when no number; its value, two's complement; offset behind it
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
            digit = np.uint64(c - _ZERO)
        elif _LOWER_A <= c <= _LOWER_F:
            digit = np.uint64(c - _LOWER_A + 10)
            letters = True
        else:
            break
        if hexadecimal:
            value = value * _U16 + digit
        else:
            if value > _MAX_BY_10 or (value == _MAX_BY_10 and digit > _MAX_DIGIT):
                too_big = True
            value = value * _U10 + digit
        at += 1
    if at == start or (hexadecimal and at - start > 16):
        return TEXT, np.uint64(0), at
    if at < end and buf[at] == _BYTES_SUFFIX and not hexadecimal:
        at += 1
    if at < end and not _BEHIND_NUMBER[buf[at]]:
        return TEXT, np.uint64(0), at
    if letters and not hexadecimal:
        return (TEXT if negative else BARE_HEX), np.uint64(0), at
    if too_big:
        return TEXT, np.uint64(0), at
    if negative:
        return NEGATIVE, np.uint64(0) - value if value != 0 else value, at
    return what, value, at


@kernel
def parse_numbers(
    buf: Any, start: Any, end: Any, text: Any, at: Any, base: Any, value: Any, what: Any
) -> None:
    """Parse the labelled values of every body that are numbers.

    :param text: see :class:`Labels`; at alike
    :param base: int64[labels], BASE_16 where bare numbers are hexadecimal
    :param value: uint64[labels, n], zeroes; numbers are written
    :param what: uint8[labels, n], zeroes: MISSING; written where there is a value
    """
    for i in range(start.shape[0]):
        stop = end[i]
        p = start[i]
        field = -1
        word = True
        while word:
            found = next_label(buf, p, stop, text, at, field)
            if found >= 0:
                field = found
                p += at[field + 1] - at[field]
                first = p
                while first < stop and buf[first] == _SPACE:
                    first += 1
                kind, number, behind = read_integer(buf, first, stop, base[field])
                value[field, i] = number
                what[field, i] = kind
                if kind != TEXT:
                    p = behind
            while p < stop and not _BEFORE_WORD[buf[p]]:
                p += 1
            word = p < stop
            p += 1


@kernel
def locate_text(
    buf: Any, start: Any, end: Any, text: Any, at: Any, want: Any, begin: Any, length: Any
) -> None:
    """Find the value of one label in every body: up to the next label.

    :param text: see :class:`Labels`; at alike
    :param want: number of the label
    :param begin: int64[n], written: where the value starts
    :param length: int64[n], written: its bytes, -1 when missing
    """
    for i in range(start.shape[0]):
        begin[i] = 0
        length[i] = -1
        stop = end[i]
        p = start[i]
        field = -1
        word = True
        first = p
        last = stop
        while word and field <= want:
            found = next_label(buf, p, stop, text, at, field)
            if found >= 0:
                if field == want:
                    last = p
                    break
                field = found
                p += at[field + 1] - at[field]
                first = p
            while p < stop and not _BEFORE_WORD[buf[p]]:
                p += 1
            word = p < stop
            p += 1
        if field != want:
            continue
        while first < last and buf[first] == _SPACE:
            first += 1
        # sched_switch prints "R ==> next_comm=".
        if last - first > 4 and buf[last - 2] == _GREATER and buf[last - 3] == _EQUAL:
            last -= 4
        while last > first and (buf[last - 1] == _SPACE or buf[last - 1] == _COMMA):
            last -= 1
        begin[i] = first
        length[i] = last - first


@kernel
def parse_addresses(buf: Any, start: Any, end: Any, value: Any, known: Any) -> None:
    """Parse the ``(ffff800080393550)`` or ``(f1 <- f2)`` that a probe's body starts with.

    :param value: uint64[2, n], written
    :param known: bool[2, n], written: there is such an address
    """
    for i in range(start.shape[0]):
        p = start[i]
        for which in range(2):
            known[which, i] = False
            value[which, i] = np.uint64(0)
        if p >= end[i] or buf[p] != _OPEN:
            continue
        for which in range(2):
            p += 1 if which == 0 else 4
            first = p
            number = np.uint64(0)
            while p < end[i] and p - first <= 16:
                c = buf[p]
                if _ZERO <= c <= _NINE:
                    number = number * _U16 + np.uint64(c - _ZERO)
                elif _LOWER_A <= c <= _LOWER_F:
                    number = number * _U16 + np.uint64(c - _LOWER_A + 10)
                else:
                    break
                p += 1
            arrow = p + 3 < end[i] and buf[p] == _SPACE and buf[p + 1] == _LESS
            closed = p < end[i] and buf[p] == _CLOSE
            if p - first < 4 or p - first > 16 or not (arrow or closed):
                break
            value[which, i] = number
            known[which, i] = True
            if closed:
                break


def addresses(bodies: Bodies) -> tuple[pl.Series, pl.Series]:
    """:return: the two addresses a body may start with, UInt64, null where there is none."""
    n = bodies.start.size
    value, known = np.empty((2, n), np.uint64), np.empty((2, n), np.bool_)
    with np.errstate(over="ignore"):
        parse_addresses(bodies.buf, bodies.start, bodies.end, value, known)
    columns = [pl.Series(v).set(pl.Series(~k), None) for v, k in zip(value, known, strict=True)]
    return columns[0], columns[1]


class Columns:
    """Parses one event's bodies.

    :ivar names: labels in the order they come in
    :ivar hexadecimal: labels whose numbers have no 0x and were taken as hexadecimal
    :ivar guessed: those of them in which hardly any number has a letter

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
        self._value = np.zeros(shape, np.uint64)
        self._what = np.zeros(shape, np.uint8)
        self.hexadecimal: list[str] = []
        self.guessed: list[str] = []
        self._parse()
        bare = [bool((w == BARE_HEX).any()) for w in self._what]
        if any(bare):
            few = [0 < (w == BARE_HEX).sum() * RARE < (w != MISSING).sum() for w in self._what]
            self.guessed = [n for n, f in zip(self.names, few, strict=True) if f]
            # Letters in some of a column's numbers make all of them hexadecimal.
            self._base[bare] = BASE_16
            self.hexadecimal = [n for n, b in zip(self.names, bare, strict=True) if b]
            self._value.fill(0)
            self._what.fill(MISSING)
            self._parse()

    def _parse(self) -> None:
        bodies, labels = self._bodies, self._labels
        # A number that is too long wraps; uncompiled, numpy would warn.
        with np.errstate(over="ignore"):
            parse_numbers(
                bodies.buf, bodies.start, bodies.end, labels.text, labels.at, self._base,
                self._value, self._what,
            )  # fmt: skip

    def is_text(self, i: int) -> bool:
        """:return: whether the values of label ``i`` are no numbers."""
        texts = int((self._what[i] == TEXT).sum())
        values = int((self._what[i] != MISSING).sum())
        return texts * RARE > values and bool(texts > 1 or values < 3)

    def is_mixed(self, i: int) -> bool:
        """:return: whether some values of label ``i`` are numbers and some are not."""
        texts = self._what[i] == TEXT
        return bool(texts.any() and ((self._what[i] != MISSING) & ~texts).any())

    def has_gaps(self, i: int) -> bool:
        """:return: whether some lines lack label ``i``."""
        return bool((self._what[i] == MISSING).any())

    def number(self, i: int) -> pl.Series:
        """:return: UInt64 column of label ``i``, Int64 when a value is negative; null for none."""
        column = pl.Series(self.names[i], self._value[i])
        if (self._what[i] == NEGATIVE).any():
            column = column.reinterpret(signed=True)
        missing = (self._what[i] == MISSING) | (self._what[i] == TEXT)
        return column.set(pl.Series(missing), None) if missing.any() else column

    def text(self, i: int) -> pl.Series:
        """:return: String column of label ``i``."""
        bodies, labels = self._bodies, self._labels
        begin, length = np.empty((2, bodies.start.size), np.int64)
        locate_text(bodies.buf, bodies.start, bodies.end, labels.text, labels.at, i, begin, length)
        return strings(self.names[i], bodies.buf, begin, length)


def strings(
    name: str, buf: NDArray[np.uint8], begin: NDArray[np.int64], length: NDArray[np.int64]
) -> pl.Series:
    """Slices of the text as a String column; a length of -1 is null.

    :param begin: int64[n], checked by the caller
    :param length: int64[n]
    """
    code, rows = distinct_slices(buf, begin, length)
    values: list[str | None] = [
        buf[begin[row] : begin[row] + length[row]].tobytes().decode("utf-8", "replace")
        for row in rows.tolist()
    ]
    return pl.Series(name, [*values, None], dtype=pl.String).gather(pl.Series(code))
