# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event's print format tells about its text: fields, bases, symbols.

A print format is C: a string and expressions. Only the shapes that name one
field are understood: ``REC->x`` in casts and parentheses, ``__print_symbolic``
and ``__print_flags`` of one. Anything else leaves the label as it is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from tracer.eventformat import EventFormat

MAX_TEXT: Final = 1 << 16  # bytes of a print format that are looked at
_LABELLED = re.compile(r"([A-Za-z_]\w{0,63})[=:]\s?(?:0x)?$")
_SPEC = re.compile(
    r"%[-+ #0]{0,5}(?:\d{1,4}|\*)?(?:\.(?:\d{1,4}|\*))?(?:hh|h|ll|l|L|z|t|j)?([a-zA-Z%])"
)
_FIELD = re.compile(r"\bREC->(\w{1,64})")
_PLAIN = re.compile(r"[\s()]*(?:\([\w\s*]{1,64}\)[\s()]*)*REC->\w{1,64}[\s()]*\Z")
_TABLE = re.compile(r"__print_(?:symbolic|flags)(?:_u64)?\s*\(")
_ROW = re.compile(
    r"\{\s*(?:\([^()]{1,40}\)\s*)?"  # a cast
    r"(-?(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})|\(?1(?:UL|ULL|U)?\s*<<\s*\d{1,2}\)?)(?:U|L|UL|ULL)?"
    r"\s*,\s*\"([^\"]{1,64})\"\s*\}"
)
_SHIFT = re.compile(r"1(?:UL|ULL|U)?\s*<<\s*(\d{1,2})")


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
            found.setdefault(name[1], _label(spec[1], pointer, argument, name[1]))
    return found


def _label(conversion: str, hashed: bool, argument: str, name: str) -> Label:
    out = Label(base={"x": 16, "X": 16, "p": 16, "d": 10, "u": 10, "i": 10}.get(conversion, 0))
    out.hashed = hashed
    fields = set(_FIELD.findall(argument))
    table = _TABLE.search(argument)
    if len(fields) == 1 and (table or _PLAIN.match(argument) or name in fields):
        out.member = fields.pop()
    if table:
        out.flags = "flags" in table[0]
        out.symbols = {m[2]: _number(m[1]) for m in _ROW.finditer(argument)}
    return out


def _number(text: str) -> int:
    shift = _SHIFT.search(text)
    return 1 << int(shift[1]) if shift else int(text, 16 if "x" in text.lower() else 10)


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
