# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event's print format tells about its text: fields, bases, symbols.

A print format is C: a string and expressions. Only the shapes that name one
field are understood: ``REC->x`` in casts and parentheses, and the tables of
:mod:`tracer.printfmt`. Anything else leaves the label as it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tracer.eventformat import EventFormat
from tracer.printfmt import Table, tables

MAX_ARGUMENT: Final = 512  # bytes of an argument that may be a field in casts
MAX_TEXT: Final = 1 << 16  # bytes of a print format that are looked at
_LABELLED = re.compile(r"([A-Za-z_]\w{0,63})[=:]\s?(?:0x)?$")
_SPEC = re.compile(
    r"%[-+ #0]{0,5}(?:\d{1,4}|\*)?(?:\.(?:\d{1,4}|\*))?(?:hh|h|ll|l|L|z|t|j)?([a-zA-Z%])"
)
_FIELD = re.compile(r"\bREC->(\w{1,64})")
_PLAIN = re.compile(r"[\s()]*(?:\([\w\s*]{1,64}\)[\s()]*)*REC->\w{1,64}[\s()]*\Z")


@dataclass
class Label:
    """One ``name=%x`` of a print format.

    :ivar member: the record's field it prints, "" when that is not clear
    :ivar base: 16 for %x, 10 for %d and %u, 0 for the rest
    :ivar hashed: %p prints a hash of the pointer
    :ivar symbols: printed name to value
    :ivar flags: names may be joined by ``|``
    """

    member: str = ""
    base: int = 0
    hashed: bool = False
    symbols: dict[str, int] = field(default_factory=dict)
    flags: bool = False


def labels(fmt: EventFormat) -> dict[str, Label]:
    """Read an event's print format.

    :return: printed label to what it stands for; the first of two equal labels
    """
    text, arguments = _split(fmt.print_fmt[:MAX_TEXT])
    named = tables(fmt)
    found: dict[str, Label] = {}
    behind = 0
    for spec in _SPEC.finditer(text):
        if spec[1] == "%":
            continue
        argument = arguments.pop(0) if arguments else ""
        name = _LABELLED.search(text[behind : spec.start()])
        behind = spec.end()
        if name:
            pointer = spec[1] == "p" and not text[spec.end() : spec.end() + 1].isalnum()
            found.setdefault(name[1], _label(spec[1], pointer, argument, name[1], named))
    return found


def _label(
    conversion: str, hashed: bool, argument: str, name: str, tables: Mapping[str, Table]
) -> Label:
    out = Label(base={"x": 16, "X": 16, "p": 16, "d": 10, "u": 10, "i": 10}.get(conversion, 0))
    out.hashed = hashed
    fields = set(_FIELD.findall(argument))
    named = next((tables[f] for f in fields if f in tables and "__print_" in argument), None)
    plain = len(argument) < MAX_ARGUMENT and _PLAIN.match(argument)
    if len(fields) == 1 and (named or plain or name in fields):
        out.member = fields.pop()
    if named:
        out.flags = named.flags
        out.symbols = {text: value for value, text in reversed(named.rows)}
    return out


def _split(fmt: str) -> tuple[str, list[str]]:
    """:return: the format string without its quotes, and the arguments."""
    strings = re.match(r'\s*"((?:[^"\\]|\\.)*)"', fmt)
    if not strings:
        return "", []
    arguments: list[str] = []
    depth, quoted, start = 0, False, -1
    for i in range(strings.end(), len(fmt)):
        c = fmt[i]
        if c == '"' and fmt[i - 1] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and not depth:
            if start >= 0:
                arguments.append(fmt[start:i])
            start = i + 1
    if start >= 0:
        arguments.append(fmt[start:])
    return strings[1], arguments


def value(label: Label, text: str) -> int | None:
    """:return: the number behind a printed symbol or ``a|b``, None when it is not all known."""
    if text in label.symbols:
        return label.symbols[text]
    if not label.flags:
        return None
    if text in ("none", ""):
        return 0
    parts = [p.strip() for p in text.split("|")]
    total = 0
    for part in parts:
        if part in label.symbols:
            total |= label.symbols[part]
        elif re.fullmatch(r"0x[0-9a-fA-F]{1,16}", part):
            total |= int(part, 16)
        else:
            return None
    return total
