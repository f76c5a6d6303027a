# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat of version 7: sections, each behind a header, found through options.

Layout: trace-cmd.dat.v7(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tracer import tracingdata
from tracer.compression import limit
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.tracedat import chunks, model
from tracer.tracedat.cursor import Cursor, note
from tracer.tracedat.model import Buffer, Contents, CpuData
from tracer.tracingdata import TracingData

COMPRESSED: Final = 1  # section flag
MAX_CPUS: Final = 1 << 16  # the kernel's NR_CPUS stops at 8192
MAX_BUFFERS: Final = 1024  # trace instances of one file
OPTIONS: Final = 0  # section id
HEADER: Final = 16  # bytes of a section header

# Section id to what reads its body.
METADATA: Final[dict[int, Callable[[Cursor, TracingData], None]]] = {
    model.HEADER_INFO: tracingdata.read_header_info,
    model.FTRACE_EVENTS: tracingdata.read_ftrace_formats,
    model.EVENT_FORMATS: tracingdata.read_event_formats,
    model.KALLSYMS: tracingdata.read_kallsyms,
    model.PRINTK: tracingdata.read_printk,
    model.CMDLINES: tracingdata.read_saved_cmdlines,
}


class Section(NamedTuple):
    """A section header: u16 id, u16 flags, u32 name, u64 size; ``body`` is its offset."""

    id: int
    flags: int
    size: int
    body: int


class Reader:
    """Reads the sections of one file.

    :ivar out: what was found so far
    :ivar start: offset of the first section

    :raises CaptureError: when the file's first bytes are not those of version 7
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        cur = Cursor(data)
        meta = tracingdata.parse_initial(cur)
        self.out = Contents(meta, problems=meta.problems)
        self.out.codec = cur.cstr("the compression") or "none"
        cur.cstr("the compression's version")
        if self.out.codec not in chunks.CODECS:
            self._note("unknown-compression", cur.pos, f"It says {self.out.codec[:40]!r}.")
        self._first = cur.u64("the offset of the options")
        self.start = cur.pos
        self._seen: set[int] = set()
        self._room = limit(len(data))  # bytes all metadata may unpack to

    def read(self) -> Contents:
        """Follow the options from section to section, each section once."""
        at = self._first
        while at:
            if at in self._seen:
                self._note("option-cycle", at, "Options lead back to a section read before.")
                break
            try:
                at = self.read_options(at)
            except CaptureError as err:
                self._note("damaged-options", at, f"{err.message} What they name is searched for.")
                break
        return self.out

    def section(self, at: int) -> Section:
        """:raises CaptureError: when there is no section header at ``at``"""
        cur = Cursor(self.data, at, big_endian=self.out.meta.big_endian)
        ident, flags = cur.u16("a section's id"), cur.u16("a section's flags")
        cur.skip(4, "a section's name")
        return Section(ident, flags, cur.u64("a section's size"), cur.pos)

    def walk(self) -> Iterator[tuple[int, Section]]:
        """Yield the sections as they lie in the file, for one whose options are lost."""
        at = self.start
        while at + HEADER <= len(self.data):
            section = self.section(at)
            if section.id not in model.KNOWN_OPTIONS or section.flags > COMPRESSED:
                return
            yield at, section
            at = section.body + section.size

    def body(self, section: Section) -> Cursor:
        """:return: a cursor over the section's body, unpacked when it is compressed."""
        big_endian = self.out.meta.big_endian
        if section.size > len(self.data) - section.body:
            raise CaptureError(f"Section {section.id} reaches beyond the end of the file.")
        cur = Cursor(self.data, section.body, section.body + section.size, big_endian=big_endian)
        if section.flags & COMPRESSED:
            plain = chunks.metadata(cur, self.out.codec, self._room)
            self._room -= len(plain)
            return Cursor(plain, big_endian=big_endian, base=section.body)
        return cur

    def read_options(self, at: int) -> int:
        """Read one options section, unless it was read already.

        :return: offset of the next options section, 0 at the end
        """
        if at in self._seen:
            return 0
        self._seen.add(at)
        section = self.section(at)
        if section.id != OPTIONS:
            raise CaptureError(f"There are no options at offset {at}.")
        cur = self.body(section)
        while cur.left:
            ident = cur.u16("an option's id")
            value = cur.sized(4, f"option {ident}")
            if ident == model.DONE:
                return int.from_bytes(value[:8], "big" if cur.big_endian else "little")
            self.out.options.setdefault(ident, []).append(value)
            self._option(ident, value)
        return 0

    def _option(self, ident: int, value: bytes) -> None:
        cur = Cursor(value, big_endian=self.out.meta.big_endian)
        try:
            if ident in METADATA:
                self.read_metadata(cur.u64("a section's offset"), ident)
            elif ident in (model.BUFFER, model.BUFFER_TEXT):
                self._read_buffer(cur, ident)
            elif ident == model.CPUCOUNT:
                self.out.nr_cpus = cur.u32("the number of CPUs")
            elif ident not in model.KNOWN_OPTIONS:
                self._note("unknown-option", None, f"Option {ident} is not known.", "note")
        except CaptureError as err:
            self._note("damaged-option", None, f"Option {ident}: {err.message}")

    def read_metadata(self, at: int, ident: int) -> None:
        """Read one metadata section into :attr:`out`, unless it was read already."""
        if at in self._seen:
            return
        self._seen.add(at)
        section = self.section(at)
        if section.id != ident:
            raise CaptureError(f"There is no section {ident} at offset {at}.")
        METADATA[ident](self.body(section), self.out.meta)

    def _read_buffer(self, cur: Cursor, ident: int) -> None:
        """u64 section, name, clock, u32 page size, u32 cpus, {u32 cpu, u64 offset, u64 size}."""
        at = cur.u64("a buffer's offset")
        if len(self.out.buffers) >= MAX_BUFFERS:
            raise CaptureError("There are too many buffers.")
        buffer = Buffer(cur.cstr("a buffer's name"), clock=cur.cstr("a buffer's clock"))
        section = self.section(at)
        if section.id != ident:
            raise CaptureError(f"There is no buffer at offset {at}.")
        buffer.compressed = bool(section.flags & COMPRESSED)
        if ident == model.BUFFER_TEXT:
            buffer.text = self._text(section)
        else:
            buffer.page_size = cur.u32("a buffer's page size")
            # The count is not trusted: the option ends where it ends.
            for _ in range(min(cur.u32("a buffer's number of CPUs"), cur.left // 20)):
                buffer.cpus.append(CpuData(cur.u32(), cur.u64(), cur.u64()))
        self.out.buffers.append(buffer)

    def _text(self, section: Section) -> bytes:
        cur = Cursor(self.data, section.body, section.body + section.size)
        if not section.flags & COMPRESSED:
            return cur.take(cur.left)
        arena = chunks.Arena(self.data, self.out.codec, self.out.meta.big_endian)
        arena.add(section.body, section.size, 0)
        text = arena.fill().tobytes()
        self.out.problems += arena.problems
        return text

    def _note(self, code: str, at: int | None, text: str, severity: str = "warning") -> None:
        note(self.out.problems, Diagnostic(code, severity, at, None, text))
