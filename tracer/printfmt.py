# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers to the names an event's own print format gives them.

``__print_symbolic(REC->member, {0, "MM_FILEPAGES"}, ...)`` and
``__print_flags(REC->gfp_flags, "|", {mask, "GFP_KERNEL"}, ...)`` are tables of
the recording kernel; page and VMA flags of probes come from its
:class:`tracer.enums.KernelEnums`. A decoded column stands beside the number:
``member_name`` is an Enum, ``gfp_flags_name`` a list of Enum in the table's order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from tracer import schema
from tracer.capture import Capture
from tracer.cexpr import MASK, evaluate
from tracer.decode import Diagnostic, diagnostics_frame
from tracer.enums import KernelEnums
from tracer.eventformat import EventFormat

MAX_TEXT: Final = 1 << 20  # bytes of a print format that are looked at
MAX_ROWS: Final = 4096  # rows of all tables of an event
MAX_NAME: Final = 128
MAX_DISTINCT: Final = 1 << 16  # values of one column that are given names
SUFFIX: Final = "_name"

_CALL = re.compile(r'"(?:[^"\\]|\\.)*"|\b__print_(symbolic|flags)(?:_u64)?\s*\(', re.S)
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[(){},]|[^"(){},]+|"', re.S)
_PLAIN = re.compile(r"[\s()]*(?:\([\w\s*]{1,64}\)[\s()]*){0,4}REC->([A-Za-z_]\w{0,127})[\s()]*")
_STRING = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*', re.S)
# Fields of the mmtrace probes, which print plain numbers, and the enum that names them.
_PAGE_FLAGS: Final = "page_flags"
_VM_FLAGS: Final = "vm_flags"
_ENUM_FIELDS: Final = {"migratetype": "migratetype"}


@dataclass(frozen=True)
class Table:
    """Names of one field's values.

    :ivar field: the field's name
    :ivar flags: rows are masks, of which several hold at once
    :ivar rows: (value or mask modulo 2**64, name), in the kernel's order: the first wins
    :ivar ignored: bits that are no flags: node, zone and section of ``page_flags``
    """

    field: str
    flags: bool
    rows: tuple[tuple[int, str], ...]
    ignored: int = 0

    @property
    def dtype(self) -> pl.DataType:
        """Enum of the names, in a list for flags; bits without a name are ``0x...``."""
        names = list(dict.fromkeys(name for _, name in self.rows))
        if not self.flags:
            return pl.Enum(names)
        return pl.List(pl.Enum(list(dict.fromkeys([*names, *(hex(1 << b) for b in range(64))]))))

    def name(self, value: int) -> str | None:
        """Name of a value, see trace_print_symbols_seq() in kernel/trace/trace_output.c."""
        return next((name for number, name in self.rows if number == value), None)

    def names(self, word: int) -> list[str]:
        """Names of a word's flags, see trace_print_flags_seq(); the rest bit by bit."""
        word &= ~self.ignored
        out = []
        for mask, name in self.rows:
            if mask and word & mask == mask:
                out.append(name)
                word &= ~mask
        return out + [hex(1 << bit) for bit in range(64) if word >> bit & 1]


def tables(fmt: EventFormat, names: Mapping[str, int] | None = None) -> dict[str, Table]:
    """Read the tables of an event's print format.

    :param fmt: the event's format
    :param names: enumerators that its rows may use; a row with any other is left out
    :return: field name to its table; the first of two tables of one field
    """
    out: dict[str, Table] = {}
    room = MAX_ROWS
    for kind, arguments in _calls(fmt.print_fmt[:MAX_TEXT]):
        plain = _PLAIN.fullmatch(arguments[0])
        if plain is None or plain[1] in out:
            continue
        rows = list(_rows(arguments[1:], names or {}, room))
        room -= len(rows)
        if rows:
            out[plain[1]] = Table(plain[1], kind == "flags", tuple(rows))
    return out


def _calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """:return: (``symbolic`` or ``flags``, arguments) of each call, once through the text."""
    at = 0
    while m := _CALL.search(text, at):
        at = m.end()
        if m[1] is None:  # a string, in which nothing is a call
            continue
        arguments, at = _arguments(text, at)
        yield m[1], arguments


def _arguments(text: str, at: int) -> tuple[list[str], int]:
    """Split what follows an opening parenthesis at the commas of its own level.

    :return: the arguments, and where the call ends
    """
    out: list[str] = []
    depth, start = 0, at
    for piece in _PIECE.finditer(text, at):
        c = piece[0]
        if c in ("(", "{"):
            depth += 1
        elif c in (")", "}"):
            depth -= 1
            if depth < 0:
                return [*out, text[start : piece.start()]], piece.end()
        elif c == "," and not depth:
            out.append(text[start : piece.start()])
            start = piece.end()
    return [*out, text[start:]], len(text)


def _rows(arguments: list[str], names: Mapping[str, int], room: int) -> Iterator[tuple[int, str]]:
    for argument in arguments:
        row = argument.strip()
        if not room or row[:1] != "{" or row[-1:] != "}":
            continue
        quote = row.find('"')
        value, comma, rest = row[1:quote].rpartition(",")
        label = _STRING.fullmatch(row[quote:-1])
        number = evaluate(value, names) if comma and not rest.strip() else None
        if label and number is not None and 0 < len(label[1]) <= MAX_NAME:
            room -= 1
            yield number, label[1]


def probe_tables(fields: Collection[str], enums: KernelEnums) -> dict[str, Table]:
    """Tables of fields that print formats show as numbers: page and VMA flags, migratetype.

    :param fields: the event's field names
    :param enums: the captured kernel's numbers; what it does not know gets no table
    """
    out = {}
    flags = enums.enums.get("pageflags", {})
    bits = [(1 << b, n) for n, b in flags.items() if 0 <= b < 64 and n[:2] != "__"]
    if _PAGE_FLAGS in fields and bits:
        above = flags.get("__NR_PAGEFLAGS", 64)
        ignored = MASK & ~((1 << above) - 1) if 0 < above < 64 else 0
        out[_PAGE_FLAGS] = Table(_PAGE_FLAGS, True, _first(bits), ignored)
    # Four documented flags do not name the others: a list of them would look complete.
    if _VM_FLAGS in fields and enums.sources.get("vm_flags") in ("btf", "print_fmt"):
        single = [(m, n) for n, m in enums.vm_flags.items() if m & MASK == m and m]
        out[_VM_FLAGS] = Table(_VM_FLAGS, True, _first(single))
    for field, enum in _ENUM_FIELDS.items():
        values = enums.enums.get(enum, {})
        if field in fields and values:
            rows = [(v & MASK, n) for n, v in values.items()]
            out[field] = Table(field, False, _first(rows))
    return out


def _first(rows: list[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """Rows in order of their value, the first name of each: later ones are aliases."""
    by_value: dict[int, str] = {}
    for value, name in rows:
        by_value.setdefault(value, name)
    return tuple(sorted(by_value.items())[:MAX_ROWS])


def tables_of(
    fmt: EventFormat | None, fields: Collection[str], enums: KernelEnums
) -> dict[str, Table]:
    """:return: every table of an event, the print format's own before the kernel's enums."""
    found = probe_tables(fields, enums)
    if fmt is None or "__print_" not in fmt.print_fmt:
        return found
    names = {n: v for group in enums.enums.values() for n, v in group.items()}
    return {**found, **tables(fmt, {**names, **enums.vm_flags})}


def decode_column(column: pl.Series, table: Table) -> pl.Series | None:
    """Names of a column's values, row by row.

    :param column: any integer dtype; null stays null
    :param table: its names
    :return: :attr:`Table.dtype`, null where a symbol is not known; None when the
        column has more than :data:`MAX_DISTINCT` values
    """
    # The kernel hands an unsigned long to its printers: narrow signed fields are widened.
    wide = column.cast(pl.Int64).reinterpret(signed=False) if _signed(column) else column
    values = (wide.cast(pl.UInt64) & (MASK & ~table.ignored)).alias("v")
    distinct = values.drop_nulls().unique()
    if distinct.len() > MAX_DISTINCT:
        return None
    numbers = distinct.to_list()
    texts: list[list[str]] | list[str | None]
    if table.flags:
        texts = [table.names(n) for n in numbers]
    else:
        by_value = dict(reversed(table.rows))
        texts = [by_value.get(n) for n in numbers]
    names = pl.DataFrame(
        {"v": distinct, "name": pl.Series("name", texts, dtype=table.dtype)},
    )
    joined = values.to_frame().join(names, on="v", how="left", maintain_order="left")
    return joined["name"].alias(column.name + SUFFIX)


def _signed(column: pl.Series) -> bool:
    return column.dtype.is_signed_integer()


def decode_frame(
    key: str, frame: pl.DataFrame, fmt: EventFormat | None, enums: KernelEnums
) -> tuple[pl.DataFrame, list[Diagnostic]]:
    """Put the decoded columns of one event behind its others; the numbers stay.

    :param key: ``system:name``, for messages
    :param frame: the event's frame, or a part of it
    :param fmt: its format; None decodes what the kernel's enums know
    :param enums: the captured kernel's numbers
    """
    own = {name for name, _, _ in schema.EVENT_COLUMNS}
    found = tables_of(fmt, frame.columns, enums)
    new, notes = [], []
    for field, table in found.items():
        # A field whose name a leading column has is kept with an underscore.
        name = field + "_" if field in own else field
        if name not in frame.columns or not frame[name].dtype.is_integer():
            continue
        if name + SUFFIX in frame.columns:
            continue
        column = decode_column(frame[name], table)
        if column is None:
            message = f"{key}: {name} has too many different values to name them."
            notes.append(Diagnostic("too-many-names", "note", None, None, message))
        else:
            new.append(column)
    return (frame.hstack(new) if new else frame), notes


def decode_capture(capture: Capture, enums: KernelEnums) -> None:
    """Give every event of a capture its decoded columns, in place."""
    notes: list[Diagnostic] = []
    for key, frame in capture.events.items():
        capture.events[key], found = decode_frame(key, frame, capture.formats.get(key), enums)
        notes += found
    if notes:
        capture.diagnostics = pl.concat([capture.diagnostics, diagnostics_frame(notes)])
