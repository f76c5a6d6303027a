# SPDX-License-Identifier: GPL-2.0-or-later
"""The tracing metadata blob: event formats, kallsyms, printk formats, task names.

The same bytes open a trace.dat of version 6 and lie in the TRACING_DATA record
or feature of a perf.data, where the version reads ``0.6``. Version 7 of
trace.dat keeps the parts but puts each into a section of its own, so every part
has its own function here. Layout: tools/perf/util/trace-event-info.c,
``tracing_data_get()``; trace-cmd.dat.v6(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from tracer import eventformat
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.eventformat import EventFormat
from tracer.tracedat.cursor import Cursor, ShortError, note

MAGIC: Final = b"\x17\x08\x44tracing"
# A system or event name becomes a frame key and later a file name.
_SAFE_NAME = re.compile(r"[\w.,+@=-]{1,255}\Z", re.A)
_NAME = re.compile(rb"^name:\s*(\S+)", re.M)
_ID = re.compile(rb"^ID:\s*(\d{1,9})\b", re.M | re.A)
# "0xffffffff82a7a2c0 : "text"", kernel/trace/trace_printk.c, t_show().
_PRINTK = re.compile(r"^(0x[0-9a-fA-F]+)\s*:\s*\"(.*)\"\s*$")
MAX_FORMAT_TEXT: Final = 1 << 20  # bytes of one format file; the largest in 7.3 has 23 kB


@dataclass
class TracingData:
    """What one blob says.

    :ivar version: as written, ``6``, ``7`` or ``0.6``
    :ivar long_size: of the recording *program*, bytes; the kernel's is in ``header_page``
    :ivar header_page: text of events/header_page
    :ivar texts: event id in this capture to its system and format file
    :ivar saved_cmdlines: tid to task name
    :ivar printk: address of a trace_printk format to its text
    :ivar kallsyms: text of /proc/kallsyms, or empty
    :ivar end: offset of the first byte behind the blob
    :ivar problems: what could not be read, with file offsets
    """

    version: str = ""
    big_endian: bool = False
    long_size: int = 8
    page_size: int = 4096
    header_page: str = ""
    header_event: str = ""
    texts: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    saved_cmdlines: dict[int, str] = field(default_factory=dict)
    printk: dict[int, str] = field(default_factory=dict)
    kallsyms: bytes = b""
    end: int = 0
    problems: list[Diagnostic] = field(default_factory=list)

    @cached_property
    def formats(self) -> dict[int, EventFormat]:
        """Event id in this capture to its format, of every event."""
        return self.formats_of(self.texts)

    def formats_of(self, ids: Iterable[int]) -> dict[int, EventFormat]:
        """Parse the formats of some events only: trace-cmd stores all the kernel's 2,300.

        :return: event id to format; ids without a format are left out
        """
        found = {ident: self.texts[ident] for ident in ids if ident in self.texts}
        return {
            ident: eventformat.parse(system, text.decode("utf-8", "replace"))
            for ident, (system, text) in found.items()
        }


def parse(data: bytes | memoryview, offset: int = 0) -> TracingData:
    """Parse the blob that starts at ``offset``.

    A damaged blob gives what comes before the damage, and a row in ``problems``.

    :raises CaptureError: when there is no blob at ``offset``
    """
    cur = Cursor(data, offset)
    out = parse_initial(cur)
    parts: list[Callable[[Cursor, TracingData], None]] = [
        read_header_info,
        read_ftrace_formats,
        read_event_formats,
        read_kallsyms,
        read_printk,
    ]
    if _version_number(out.version) >= 6:
        parts.append(read_saved_cmdlines)
    for part in parts:
        try:
            part(cur, out)
        except CaptureError as err:
            what = part.__name__.removeprefix("read_").replace("_", " ")
            note_damage(out, cur, f"{what}: {err.message} Everything behind it is missing.")
            break
    out.end = cur.pos
    return out


def parse_initial(cur: Cursor) -> TracingData:
    """Magic, version, byte order, long size and page size.

    :raises CaptureError: when the magic or a value is wrong
    """
    try:
        if cur.take(len(MAGIC)) != MAGIC:
            raise CaptureError("The tracing data does not start with its magic number.")
        out = TracingData(version=cur.cstr("the version"))
        out.big_endian = cur.u8() == 1
        cur.set_order(out.big_endian)
        out.long_size = cur.u8()
        out.page_size = cur.u32()
    except ShortError as err:
        raise CaptureError("The tracing data ends inside its first 24 bytes.") from err
    if out.long_size not in (4, 8):
        raise CaptureError(f"The tracing data says a long has {out.long_size} bytes.")
    return out


def read_header_info(cur: Cursor, out: TracingData) -> None:
    """events/header_page and events/header_event, each behind its name."""
    for name in ("header_page", "header_event"):
        found = cur.cstr("a header name")
        if found != name:
            raise CaptureError(f"Expected {name}, found {found[:40]!r}.")
        text = cur.sized(8, name).decode("utf-8", "replace")
        setattr(out, name, text)


def read_ftrace_formats(cur: Cursor, out: TracingData) -> None:
    """u32 count, then {u64 size, text}: the formats of system ``ftrace``."""
    _read_formats(cur, out, "ftrace")


def read_event_formats(cur: Cursor, out: TracingData) -> None:
    """u32 systems, then {name, u32 events, {u64 size, text}}."""
    for _ in range(cur.u32("number of systems")):
        _read_formats(cur, out, cur.cstr("a system name"))


def _read_formats(cur: Cursor, out: TracingData, system: str) -> None:
    for _ in range(cur.u32(f"number of events in {system}")):
        start = cur.offset
        text = cur.sized(8, f"a format of {system}")
        add_format(out, system, text, start)


def add_format(out: TracingData, system: str, text: bytes, offset: int | None) -> None:
    """Keep one format file in ``out``; a bad one becomes a problem, not an error."""
    try:
        ident, name = _identity(system, text)
        if ident in out.texts:
            raise CaptureError(f"{system}:{name} has the id {ident} of an event before it.")
    except CaptureError as err:
        message = f"{err.message} Its records are not decoded."
        row = Diagnostic("bad-event-format", "warning", offset, len(text), message)
        note(out.problems, row)
        return
    out.texts[ident] = (system, text)


def _identity(system: str, text: bytes) -> tuple[int, str]:
    """:return: id and name of a format file that :func:`tracer.eventformat.parse` accepts.

    :raises CaptureError: when it has none, or names that cannot be a frame's key
    """
    if len(text) > MAX_FORMAT_TEXT:
        raise CaptureError(f"An event format of system {system[:80]!r} has {len(text)} bytes.")
    name, ident = _NAME.search(text), _ID.search(text)
    if not name or not ident:
        raise CaptureError(f"An event format of system {system[:80]!r} has no name or no id.")
    if not _SAFE_NAME.match(system) or not _SAFE_NAME.match(name[1].decode("latin-1")):
        raise CaptureError(f"An event is called {system[:80]}:{name[1][:80]!a}.")
    return int(ident[1]), name[1].decode()


def read_kallsyms(cur: Cursor, out: TracingData) -> None:
    """u32 size, text of /proc/kallsyms."""
    out.kallsyms = cur.sized(4, "kallsyms")


def read_printk(cur: Cursor, out: TracingData) -> None:
    """u32 size, text of printk_formats."""
    out.printk = parse_printk(cur.sized(4, "printk formats").decode("utf-8", "replace"))


def read_saved_cmdlines(cur: Cursor, out: TracingData) -> None:
    """u64 size, text of saved_cmdlines."""
    out.saved_cmdlines = parse_cmdlines(cur.sized(8, "saved cmdlines").decode("utf-8", "replace"))


def parse_printk(text: str) -> dict[int, str]:
    """:return: format address to format string, of printk_formats lines."""
    found = (_PRINTK.match(line) for line in text.splitlines())
    return {int(m[1], 16) & (1 << 64) - 1: m[2] for m in found if m}


def parse_cmdlines(text: str) -> dict[int, str]:
    """:return: tid to task name, of ``TID NAME`` lines; the first of two lines wins."""
    names: dict[int, str] = {}
    for line in text.split("\n"):
        tid, _, name = line.lstrip(" ").partition(" ")
        if name and tid.isascii() and tid.isdigit() and len(tid) <= 10:
            names.setdefault(int(tid), name.rstrip("\0"))
    return names


def note_damage(out: TracingData, cur: Cursor, message: str) -> None:
    """Record that the metadata from the cursor's position on is unreadable."""
    row = Diagnostic("damaged-metadata", "warning", cur.offset, cur.left, message)
    note(out.problems, row)


def _version_number(version: str) -> int:
    """:return: 6 for ``6`` and ``0.6``; 0 when it is not a number."""
    last = version.rpartition(".")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < 9 else 0
