# SPDX-License-Identifier: GPL-2.0-or-later
"""One event's lines to its frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer.eventformat import EventFormat, Field
from tracer.text import printfmt
from tracer.text.fields import ANY_BASE, BASE_16, Bodies, Columns, addresses, strings
from tracer.text.lines import FUNCTION, SYS_ENTER, SYS_EXIT

_MARK: Final = b"tracing_mark_write: "
_INTEGERS: Final[dict[tuple[int, bool], Any]] = {
    (1, False): pl.UInt8, (1, True): pl.Int8, (2, False): pl.UInt16, (2, True): pl.Int16,
    (4, False): pl.UInt32, (4, True): pl.Int32, (8, False): pl.UInt64, (8, True): pl.Int64,
}  # fmt: skip


@dataclass
class Loss:
    """What the text has lost against the binary, ``event.field`` each.

    :ivar hashed: pointers printed as a hash
    :ivar symbolic: numbers printed as names that could not be turned back
    :ivar hexadecimal: numbers without 0x that were taken as hexadecimal
    :ivar missing: fields of the format that the text does not print
    :ivar odd: values that are no numbers where nearly all others are: left out
    :ivar guessed: numbers taken as hexadecimal because of a few letters
    :ivar mixed: numbers and names in one column, which stays text
    :ivar gaps: values that some lines have and others have not
    """

    hashed: list[str] = field(default_factory=list)
    symbolic: list[str] = field(default_factory=list)
    hexadecimal: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


def body_columns(
    key: str, state: int, bodies: Bodies, fmt: EventFormat | None, hashes: bool, loss: Loss
) -> list[pl.Series]:
    """Parse the bodies of one event.

    :param key: ``system:name``
    :param state: ``EVENT`` or one of the ``SYS_*`` line states
    :param fmt: the event's format when known: gives the columns' types and order
    :param hashes: the printer hashes pointers
    :param loss: filled with what cannot be told from the text
    """
    if state == FUNCTION or key == "ftrace:function":
        return _function(bodies)
    if key == "ftrace:print":
        return [_text("buf", bodies, _MARK)]
    if state == SYS_EXIT or key.startswith("syscalls:sys_exit_"):
        return [_returned(bodies)]
    # tracefs prints "sys_read(fd: 3, ...)" in hexadecimal without 0x.
    parsed = Columns(bodies, _bases(fmt, state), BASE_16 if state == SYS_ENTER else ANY_BASE)
    known = printfmt.labels(fmt) if fmt else {}
    columns = []
    for i, name in enumerate(parsed.names):
        label = known.get(name, printfmt.Label())
        columns.append(_column(key, parsed, i, label, fmt, loss))
        if parsed.has_gaps(i):
            loss.gaps.append(f"{key}.{name}")
        if label.hashed and hashes:
            loss.hashed.append(f"{key}.{name}")
    loss.guessed += [f"{key}.{n}" for n in parsed.guessed]
    loss.hexadecimal += [f"{key}.{n}" for n in parsed.hexadecimal if state != SYS_ENTER]
    columns += _probe_address(bodies, {c.name for c in columns})
    if not columns:
        return [_text("text", bodies)]
    if fmt:
        have = {c.name for c in columns}
        own = [f.name for f in fmt.fields if not f.name.startswith("common_")]
        loss.missing += [f"{key}.{n}" for n in own if n not in have]
        columns.sort(key=lambda c: own.index(c.name) if c.name in own else len(own))
    return columns


def _bases(fmt: EventFormat | None, state: int) -> dict[str, int]:
    if fmt is None or state == SYS_ENTER:
        return {}
    return {name: label.base for name, label in printfmt.labels(fmt).items() if label.base == 16}


def _column(
    key: str,
    parsed: Columns,
    i: int,
    label: printfmt.Label,
    fmt: EventFormat | None,
    loss: Loss,
) -> pl.Series:
    """:return: one label's column, of the field's own type when that is known."""
    target = fmt.field(label.member or parsed.names[i]) if fmt else None
    if not parsed.is_text(i):
        if parsed.is_mixed(i):
            loss.odd.append(f"{key}.{parsed.names[i]}")
        return _typed(parsed.number(i), target)
    if parsed.is_mixed(i):
        loss.mixed.append(f"{key}.{parsed.names[i]}")
    column = parsed.text(i)
    if target is not None and not target.is_string:
        numbers = {t: printfmt.value(label, t) for t in column.unique().drop_nulls()}
        if None not in numbers.values():
            column = column.replace_strict(numbers, return_dtype=pl.Int64)
            return _typed(column, target)
        loss.symbolic.append(f"{key}.{parsed.names[i]}")
        return column
    return column.alias(target.name) if target is not None else column


def _typed(column: pl.Series, target: Field | None) -> pl.Series:
    """:return: an integer column as the record has it: width, sign, name."""
    if target is None or not target.is_integer:
        return column
    wide = column if column.dtype == pl.UInt64 else column.reinterpret(signed=False)
    # What the kernel printed of a narrow signed field may have been widened before.
    low = wide & ((1 << 8 * target.size) - 1) if target.size < 8 else wide
    unsigned = low.cast(_INTEGERS[target.size, False])
    out = unsigned.reinterpret(signed=True) if target.signed else unsigned
    return out.alias(target.name)


def _returned(bodies: Bodies) -> pl.Series:
    """:return: Int64 ``ret`` of a system call, printed in hexadecimal."""
    column = strings("ret", bodies.buf, bodies.start, bodies.end - bodies.start)
    values: dict[str, int | None] = {}
    for text in column.unique().drop_nulls():
        number = re.match(r"0x([0-9a-fA-F]{1,16})\b|(-?\d{1,19})\b", text)
        if not number:
            values[text] = None
            continue
        value = int(number[1], 16) if number[1] else int(number[2])
        values[text] = value - (1 << 64) if value >= 1 << 63 else value
    return column.replace_strict(values, return_dtype=pl.Int64)


def _function(bodies: Bodies) -> list[pl.Series]:
    """``func <-parent`` of the function tracer, names instead of addresses."""
    text = _text("ip_symbol", bodies)
    return [
        text.str.extract(r"^([^ ]+)"),
        text.str.extract(r"<-\s*([^ ]+)").alias("parent_ip_symbol"),
    ]


def _text(name: str, bodies: Bodies, prefix: bytes = b"") -> pl.Series:
    column = strings(name, bodies.buf, bodies.start, bodies.end - bodies.start)
    return column.str.strip_prefix(prefix.decode()) if prefix else column


def _probe_address(bodies: Bodies, taken: set[str]) -> list[pl.Series]:
    """:return: where a probe hit, when it was printed as an address."""
    first, second = addresses(bodies)
    if first.null_count() == first.len():
        return []
    # "(func <- caller)" where a function returned, as the print format has it.
    returned = second.null_count() < second.len()
    names = ("__probe_func", "__probe_ret_ip") if returned else ("__probe_ip",)
    columns = zip((first, second), names, strict=False)
    return [column.alias(name) for column, name in columns if name not in taken]


def header_columns(
    rows: NDArray[Any], seq: NDArray[np.uint64], ts: NDArray[np.uint64], number: NDArray[np.int64],
    comm: pl.Series, columns: Sequence[int],
) -> pl.DataFrame:  # fmt: skip
    """The leading columns of one event.

    :param rows: line numbers, ascending in seq
    :param seq: uint64[lines]
    :param number: see :class:`tracer.text.lines.Lines`
    :param comm: task name of every line
    :param columns: numbers of the columns TID, PID and CPU
    """
    tid, pid, cpu = (pl.Series(number[rows, c]) for c in columns)
    return pl.DataFrame(
        {
            "seq": seq[rows],
            "ts": ts[rows],
            "cpu": cpu.set(cpu < 0, None).cast(pl.UInt32),
            "pid": pid.set(pid < 0, None).cast(pl.Int32),
            "tid": tid.cast(pl.Int32),
            "comm": comm.gather(rows),
        }
    )
