# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of ``mmtrace script``: events in time order, as ``perf script --ns`` prints them.

::

    COMM TID [CPU] SECONDS.NANOSECONDS: SYSTEM:NAME: field=value ...

Flags print as their names, addresses of code as function+offset, other addresses in
hexadecimal; nothing is hashed. Lines come in batches, small at first, so that
``| head`` answers at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import polars as pl

from tracer import schema
from tracer.capture import Capture
from tracer.errors import UsageError
from tracer.eventformat import EventFormat
from tracer.output import printable
from tracer.printfmt import SUFFIX
from tracer.store import Store
from tracer.symbolize import OFFSET, SYMBOL
from tracer.text.printfmt import labels

FIRST_BATCH: Final = 256
BATCH: Final = 1 << 16
NS: Final = 10**9
_TIME = re.compile(r"(?P<from>\d{0,12}(?:\.\d{1,9})?),(?P<to>\d{0,12}(?:\.\d{1,9})?)", re.A)
# Fields that hold addresses or masks although probes print them in decimal.
_HEX = re.compile(
    r"(?:.*_)?(?:addr|address|start|end|ip|page|folio|vma|mm|ptep?|pte|flags|pfn|func|caller"
    r"|site|ptr|callsite|arg|prot)",
    re.A,
)
_LEADING: Final = frozenset(name for name, _, _ in schema.EVENT_COLUMNS)
_Column = Callable[[pl.DataFrame], list[Any]]


@dataclass(frozen=True)
class Selection:
    """Which events are printed; the default is all.

    :ivar events: patterns of ``system:name`` or of a name alone, with ``*`` and ``?``
    :ivar tid: thread id
    :ivar start: first time in ns of the capture's clock
    :ivar stop: time in ns of the first event that is left out
    """

    events: Sequence[str] = ()
    tid: int | None = None
    start: int | None = None
    stop: int | None = None


def parse_time(text: str) -> tuple[int | None, int | None]:
    """``START,STOP`` in seconds of the capture's clock, either may be left out.

    :return: ns; None where left out
    :raises UsageError: when it is something else
    """
    m = _TIME.fullmatch(text.strip())
    if m is None or text.strip() in (".", ","):
        raise UsageError(f"--time {text} is not START,STOP in seconds.", "As in --time 12.5,13")

    def ns(part: str) -> int | None:
        whole, _, rest = part.partition(".")
        return int(whole or 0) * NS + int(rest.ljust(9, "0")) if part else None

    return ns(m["from"]), ns(m["to"])


def select_events(have: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """:return: the events that any pattern matches, all without patterns.

    :raises UsageError: when a pattern matches none, naming the closest
    """
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [k for k in have if fnmatchcase(k, pattern) or fnmatchcase(_name(k), pattern)]
        if not hits:
            close = difflib.get_close_matches(pattern, [*have, *map(_name, have)], 3, 0.5)
            near = "Did you mean " + " or ".join(close) + "?" if close else ""
            raise UsageError(f"The capture has no event {pattern}.", near)
        chosen.update(hits)
    return [k for k in have if not patterns or k in chosen]


def _name(key: str) -> str:
    return key.partition(":")[2]


def lines(source: Store | Capture, selection: Selection | None = None) -> Iterator[str]:
    """Print events.

    :param source: a store, or a capture in memory
    :param selection: which events; None for all
    :return: one line per event in seq order, without line ends, safe for a terminal
    :raises UsageError: when an event does not exist
    """
    chosen = selection or Selection()
    frames: list[tuple[pl.DataFrame, Callable[[pl.DataFrame], list[str]]]] = []
    for key in select_events(_keys(source), chosen.events):
        frame = source.event(key) if isinstance(source, Store) else source.events[key]
        frame = _filtered(frame, chosen)
        if frame.height:
            frames.append((frame, formatter(key, frame, source.formats.get(key))))
    seqs = [frame["seq"].to_numpy() for frame, _ in frames]
    every = np.sort(np.concatenate(seqs)) if seqs else np.empty(0, np.uint64)
    at, size = 0, FIRST_BATCH
    done = [0] * len(frames)
    while at < every.size:
        at = min(at + size, every.size)
        size = min(size * 4, BATCH)
        batch: list[tuple[int, str]] = []
        for i, (frame, to_lines) in enumerate(frames):
            stop = int(np.searchsorted(seqs[i], every[at - 1], side="right"))
            if stop > done[i]:
                rows = frame.slice(done[i], stop - done[i])
                batch += zip(rows["seq"].to_list(), to_lines(rows), strict=True)
                done[i] = stop
        batch.sort()
        yield from (line for _, line in batch)


def _keys(source: Store | Capture) -> list[str]:
    return sorted(source.counts if isinstance(source, Store) else source.events)


def _filtered(frame: pl.DataFrame, chosen: Selection) -> pl.DataFrame:
    keep = []
    if chosen.tid is not None:
        keep.append(pl.col("tid") == chosen.tid)
    if chosen.start is not None:
        keep.append(pl.col("ts") >= pl.lit(chosen.start, pl.UInt64))
    if chosen.stop is not None:
        keep.append(pl.col("ts") < pl.lit(chosen.stop, pl.UInt64))
    return frame.filter(*keep) if keep else frame


def formatter(
    key: str, frame: pl.DataFrame, fmt: EventFormat | None
) -> Callable[[pl.DataFrame], list[str]]:
    """Prepare to print one event.

    :param frame: all its rows: its columns decide what is printed
    :return: a function from some of its rows to their lines
    """
    bases = {n: label.base for n, label in labels(fmt).items()} if fmt else {}
    template = ["%16s %7s [%3s] %s.%09d: ", printable(key).replace("%", "%%"), ":"]
    columns: list[_Column] = [
        _texts("comm", ":unknown"),
        _numbers("tid", "%d"),
        _numbers("cpu", "%03d"),
        lambda rows: (rows["ts"] // NS).to_list(),
        lambda rows: (rows["ts"] % NS).to_list(),
    ]
    for name in frame.columns:
        if name in _LEADING or name.startswith("common_") or _is_derived(name, frame):
            continue
        template.append(f" {printable(name).replace('%', '%%')}=%s")
        columns.append(_column(name, frame, bases))
    text = "".join(template)

    def to_lines(rows: pl.DataFrame) -> list[str]:
        return [text % row for row in zip(*(column(rows) for column in columns), strict=True)]

    return to_lines


def _is_derived(name: str, frame: pl.DataFrame) -> bool:
    """The column says in words what another one says in numbers."""
    return any(
        name.endswith(end) and name.removesuffix(end) in frame.columns
        for end in (SUFFIX, SYMBOL, OFFSET)
    )


def _column(name: str, frame: pl.DataFrame, bases: dict[str, int]) -> _Column:
    dtype = frame.schema[name]
    if isinstance(dtype, pl.List):
        return _lists(name, name + SYMBOL if name + SYMBOL in frame.columns else "")
    if dtype == pl.Binary:
        return lambda rows: [None if v is None else v.hex() for v in rows[name].to_list()]
    if not dtype.is_integer():
        return _texts(name, "")
    base = bases.get(name, 0)
    in_hex = base == 16 or (dtype.is_unsigned_integer() and bool(_HEX.fullmatch(name)))
    mask = (1 << 8 * _width(dtype)) - 1
    plain = _numbers(name, "0x%x", mask) if in_hex else _numbers(name, "%d")
    if name + SYMBOL in frame.columns:
        return _symbols(name, plain)
    if name + SUFFIX in frame.columns:
        return _names(name, plain)
    return plain


def _width(dtype: pl.DataType) -> int:
    return int(re.sub(r"\D", "", str(dtype)) or 64) // 8


def _numbers(name: str, spec: str, mask: int = 0) -> _Column:
    def column(rows: pl.DataFrame) -> list[Any]:
        values = rows[name].to_list()
        if mask:
            return ["-" if v is None else spec % (v & mask) for v in values]
        return ["-" if v is None else spec % v for v in values]

    return column


def _texts(name: str, missing: str) -> _Column:
    """Text from a capture: each distinct one is made safe once."""

    def column(rows: pl.DataFrame) -> list[Any]:
        values = rows[name].to_list()
        safe = {v: missing if v is None else printable(v) for v in set(values)}
        return [safe[v] for v in values]

    return column


def _names(name: str, plain: _Column) -> _Column:
    """Flags as A|B and symbols, the number where there is no name."""

    def column(rows: pl.DataFrame) -> list[Any]:
        decoded = rows[name + SUFFIX]
        if isinstance(decoded.dtype, pl.List):
            decoded = decoded.cast(pl.List(pl.String)).list.join("|")
        texts = _texts("t", "")(decoded.cast(pl.String).alias("t").to_frame())
        return [t or n for t, n in zip(texts, plain(rows), strict=True)]

    return column


def _symbols(name: str, plain: _Column) -> _Column:
    def column(rows: pl.DataFrame) -> list[Any]:
        functions = _texts(name + SYMBOL, "")(rows)
        offsets = rows[name + OFFSET].to_list()
        numbers = plain(rows)
        return [
            f"{f}+0x{o:x}" if f else n for f, o, n in zip(functions, offsets, numbers, strict=True)
        ]

    return column


def _lists(name: str, symbols: str) -> _Column:
    def column(rows: pl.DataFrame) -> list[Any]:
        values = rows[name].to_list()
        named = rows[symbols].to_list() if symbols else values
        return [_list(v, n) for v, n in zip(values, named, strict=True)]

    return column


def _list(values: list[Any] | None, named: list[Any] | None) -> str:
    if values is None or named is None:
        return "-"
    words = (
        f"0x{v:x}" if isinstance(n, int) or (n is None and isinstance(v, int)) else printable(n)
        for v, n in zip(values, named, strict=True)
    )
    return "[" + " ".join(words) + "]"
