# SPDX-License-Identifier: GPL-2.0-or-later
"""Event ``format`` files: field offsets, sizes and signs.

Grammar: kernel/trace/trace_events.c, ``f_show()``. Only offset, size and
signed are used to place a field; nothing is computed from the declaration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tracer.errors import CaptureError

_FIELD = re.compile(
    r"field:(?P<decl>[^;\n]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
    r"(?:\s*signed:(?P<signed>[01]);)?"
)
_NAME = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*(?P<array>\[[^\]]*\])?\s*$")
MAX_FIELDS = 4096


@dataclass(frozen=True)
class Field:
    """One field of an event record; ``offset`` and ``size`` in bytes."""

    name: str
    decl: str
    offset: int
    size: int
    signed: bool
    array: bool  # char[16], u8[N], unsigned long[N]; not __data_loc
    loc: str  # "", "data_loc" or "rel_loc"

    @property
    def is_string(self) -> bool:
        """The declaration is a char array, in place or behind __data_loc."""
        return bool(re.search(r"\bchar\b", self.decl)) and (self.array or bool(self.loc))

    @property
    def is_integer(self) -> bool:
        return not self.array and not self.loc and self.size in (1, 2, 4, 8)


@dataclass(frozen=True)
class EventFormat:
    """One event: ``system:name``, its id in this capture, its fields, its print fmt."""

    system: str
    name: str
    id: int
    fields: tuple[Field, ...]
    print_fmt: str

    @property
    def key(self) -> str:
        return f"{self.system}:{self.name}"

    def field(self, name: str) -> Field | None:
        """:return: the field of that name, or None."""
        return next((f for f in self.fields if f.name == name), None)


def parse(system: str, text: str) -> EventFormat:
    """Parse one format file.

    :param system: the event's system (directory name)
    :param text: the file's text
    :raises CaptureError: when it has no name or no ID
    """
    name = re.search(r"^name:\s*(\S+)", text, re.M)
    ident = re.search(r"^ID:\s*(\d+)", text, re.M)
    if not name or not ident:
        raise CaptureError(f"Event format of system {system!r} has no name or no ID.")
    fields: list[Field] = []
    for m in _FIELD.finditer(text):
        if len(fields) >= MAX_FIELDS:
            break
        decl = m["decl"].strip()
        loc = ""
        for prefix in ("data_loc", "rel_loc"):
            if decl.startswith(f"__{prefix}"):
                loc = prefix
        last = _NAME.search(decl)
        if not last:
            continue
        fields.append(
            Field(
                name=last["name"],
                decl=decl,
                offset=int(m["offset"]),
                size=int(m["size"]),
                signed=m["signed"] == "1",
                array=bool(last["array"]) and not loc,
                loc=loc,
            )
        )
    fmt = re.search(r"^print fmt:\s*(.*)\Z", text, re.M | re.S)
    return EventFormat(system, name[1], int(ident[1]), tuple(fields), fmt[1].strip() if fmt else "")
