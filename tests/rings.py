# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer pages and trace.dat files built from scratch, and a plain reader of pages.

Written from the format descriptions alone, with struct, so that it shares
nothing with the readers it checks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tracer.compression import zstd_module

CAPTURES = Path(__file__).resolve().parent.parent.parent / "shared" / "captures" / "formats"


def captures_dir() -> Path | None:
    """:return: the directory of real captures in every container, when it is there."""
    return CAPTURES if CAPTURES.is_dir() else None


HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:{at};\tsize:{size};\tsigned:0;\n"
)
COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
MAP_FORMAT = (
    "name: map_pages\nID: 700\nformat:\n"
    + COMMON
    + "\tfield:u64 mm;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:s32 nr;\toffset:16;\tsize:4;\tsigned:1;\n"
    "\tfield:u16 order;\toffset:20;\tsize:2;\tsigned:0;\n"
    "\tfield:u8 big;\toffset:22;\tsize:1;\tsigned:0;\n"
    "\tfield:char who[8];\toffset:24;\tsize:8;\tsigned:0;\n"
    "\tfield:__data_loc char[] path;\toffset:32;\tsize:4;\tsigned:0;\n\n"
    'print fmt: "mm=0x%Lx nr=%d order=%u big=%u who=%s path=%s", REC->mm, REC->nr, '
    "REC->order, REC->big, REC->who, __get_str(path)\n"
)
MARK_FORMAT = (
    "name: mark\nID: 701\nformat:\n"
    + COMMON
    + "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
    '\nprint fmt: "ip=%lx", REC->ip\n'
)  # fmt: skip
CMDLINES = "10 worker\n11 a-1 [000] 1.0: x\n"


class Event(NamedTuple):
    """One record to write: ns, thread id, mm, nr, path; ``mark`` records have no path."""

    ts: int
    tid: int
    mm: int
    nr: int = 0
    path: str | None = None


def payload(event: Event, e: str) -> bytes:
    """The record of MAP_FORMAT or MARK_FORMAT in byte order ``e``."""
    if event.path is None:
        return struct.pack(e + "HBBiQ", 701, 1, 0, event.tid, event.mm)
    text = event.path.encode() + b"\0"
    out = struct.pack(
        e + "HBBiQiHBx8s", 700, 1, 0, event.tid, event.mm, event.nr, event.nr & 0xFFFF, 7, b"me"
    )
    out += struct.pack(e + "I", 36 | len(text) << 16) + text
    return out + b"\0" * (-len(out) % 4)


def header(kind: int, delta: int, e: str) -> bytes:
    """The u32 before a record: 5 bits of type, 27 of time."""
    word = kind << 27 | delta if e == ">" else delta << 5 | kind
    return struct.pack(e + "I", word)


def record(data: bytes, delta: int, e: str, force_long: bool = False) -> bytes:
    """A data record, behind a TIME_EXTEND when its delta needs one."""
    out = b""
    if delta >= 1 << 27:
        out = header(30, delta & (1 << 27) - 1, e) + struct.pack(e + "I", delta >> 27)
        delta = 0
    if force_long or len(data) > 112:
        return out + header(0, delta, e) + struct.pack(e + "I", len(data) + 4) + data
    return out + header(len(data) // 4, delta, e) + data


def page(
    ts: int, data: bytes, size: int, e: str, long: int = 8, missed: int | None = None
) -> bytes:
    """One sub-buffer; ``missed`` is the lost count, -1 for lost and not counted."""
    commit = len(data)
    tail = b""
    if missed is not None:
        commit |= 1 << 31
        if missed > 0:
            commit |= 1 << 30
            tail = struct.pack(e + ("Q" if long == 8 else "I"), missed)
        # The kernel adds the flags as negative ints.
        commit |= 0xFFFFFFFF00000000
    commit &= (1 << 8 * long) - 1
    out = struct.pack(e + ("QQ" if long == 8 else "QI"), ts, commit) + data + tail
    assert len(out) <= size
    return out + b"\0" * (size - len(out))


def pages(
    events: Sequence[Event], size: int, e: str, long: int = 8, force_long: bool = False
) -> bytes:
    """Pack events into sub-buffers, each starting at its first event's time."""
    out, data, start, now = b"", b"", 0, 0
    for event in events:
        body = payload(event, e)
        if not data:
            start = now = event.ts
        more = record(body, event.ts - now, e, force_long)
        if len(data) + len(more) > size - 8 - long:
            out += page(start, data, size, e, long)
            start, data = event.ts, b""
            more = record(body, 0, e, force_long)
        data += more
        now = event.ts
    return out + page(start, data, size, e, long) if data else out


def plain_walk(
    data: bytes, size: int, e: str = "<", long: int = 8
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (page number, ns, payload) of every record; undamaged pages only."""
    for number in range(len(data) // size):
        at = number * size
        (ts,) = struct.unpack_from(e + "Q", data, at)
        (commit,) = struct.unpack_from(e + ("Q" if long == 8 else "I"), data, at + 8)
        at += 8 + long
        end = at + (commit & 0x7FFFFFF)
        while at < end:
            (word,) = struct.unpack_from(e + "I", data, at)
            kind, delta = (word >> 27, word & 0x7FFFFFF) if e == ">" else (word & 31, word >> 5)
            extra = struct.unpack_from(e + "I", data, at + 4)[0] if at + 8 <= end else 0
            if kind == 29:
                if not delta:
                    break
                ts += delta
                at += 4 + extra
            elif kind == 30:
                ts += (extra << 27) + delta
                at += 8
            elif kind == 31:
                high = ts & 0xF8 << 56
                stamp = (extra << 27) + delta | high
                ts = stamp + (1 << 59) if high and stamp < ts else stamp
                at += 8
            elif kind == 0:
                ts += delta
                yield number, ts, data[at + 8 : at + 4 + extra]
                at += 4 + (extra + 3 & ~3)
            else:
                ts += delta
                yield number, ts, data[at + 4 : at + 4 + 4 * kind]
                at += 4 + 4 * kind


def sized(text: str | bytes, e: str, width: str = "Q") -> bytes:
    """A length and the bytes."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(e + width, len(data)) + data


def header_info(e: str, long: int, size: int) -> bytes:
    """Body of the header section, and the part of version 6."""
    text = HEADER_PAGE.format(long=long, at=8 + long, size=size - 8 - long)
    return b"header_page\0" + sized(text, e) + b"header_event\0" + sized("#", e)


def systems(e: str, formats: dict[str, Sequence[str]]) -> bytes:
    """The event formats of each system."""
    out = struct.pack(e + "I", len(formats))
    for system, texts in formats.items():
        out += system.encode() + b"\0" + struct.pack(e + "I", len(texts))
        out += b"".join(sized(t, e) for t in texts)
    return out


@dataclass
class Dat:
    """A trace.dat to build.

    :ivar buffers: instance name to {cpu: its pages}; "" is the top one
    """

    buffers: dict[str, dict[int, bytes]]
    e: str = "<"
    long: int = 8
    page_size: int = 4096
    formats: dict[str, Sequence[str]] = field(
        default_factory=lambda: {"mm": [MAP_FORMAT], "test": [MARK_FORMAT]}
    )
    cmdlines: str = CMDLINES
    options: Sequence[tuple[int, bytes]] = ()
    clock: str = "local"
    codec: str = "none"
    chunk: int = 8192
    sub_buffer: dict[str, int] = field(default_factory=dict)

    def _initial(self, version: bytes) -> bytes:
        out = b"\x17\x08\x44tracing" + version + b"\0" + bytes([self.e == ">", 8])
        return out + struct.pack(self.e + "I", self.page_size)

    def _parts(self) -> list[tuple[int, bytes]]:
        e = self.e
        return [
            (16, header_info(e, self.long, self.page_size)),
            (17, struct.pack(e + "I", 0)),
            (18, systems(e, self.formats)),
            (19, sized("ffff800080000000 T _text\n", e, "I")),
            (20, sized('0xffff800080001000 : "text %d\\n"\n', e, "I")),
            (21, sized(self.cmdlines, e)),
        ]

    def preamble(self, version: bytes = b"6") -> bytes:
        """The metadata blob, which perf.data holds too."""
        return self._initial(version) + b"".join(body for _, body in self._parts())

    def v6(self) -> bytes:
        """Version 6; further buffers follow behind the top one's pages."""
        e = self.e
        top = self.buffers[""]
        cpus = max(top) + 1
        head = self.preamble() + struct.pack(e + "I", cpus)
        clock = f"[{self.clock}] global".encode()
        names = [n for n in self.buffers if n]
        options = [(4, clock), *self.options]
        fixed = sum(6 + len(v) for _, v in options) + sum(6 + 8 + len(n) + 1 for n in names) + 2
        at = len(head) + 10 + fixed + 10 + 16 * cpus + 8 + len(clock)
        tables, blob = {}, b""
        start = -(-at // self.page_size) * self.page_size
        for name in self.buffers:
            table = b""
            for cpu in range(cpus):
                data = self.buffers[name].get(cpu, b"")
                table += struct.pack(e + "QQ", start + len(blob) if data else 0, len(data))
                blob += data
            tables[name] = table
        where = {}
        for name in names:
            where[name] = start + len(blob)
            blob += b"flyrecord\0" + tables[name]
        for name in names:
            options.append((3, struct.pack(e + "Q", where[name]) + name.encode() + b"\0"))
        out = head + b"options  \0"
        out += b"".join(struct.pack(e + "HI", i, len(v)) + v for i, v in options)
        out += struct.pack(e + "H", 0) + b"flyrecord\0" + tables[""] + sized(clock, e)
        assert len(out) == at
        return out + b"\0" * (start - at) + blob

    def _pack(self, data: bytes) -> bytes:
        if self.codec == "zlib":
            return zlib.compress(data)
        return bytes(zstd_module().compress(data))

    def _section(self, ident: int, body: bytes, compress: bool = True) -> bytes:
        packed = compress and self.codec != "none"
        if packed:
            squeezed = self._pack(body)
            body = struct.pack(self.e + "II", len(squeezed), len(body)) + squeezed
        return struct.pack(self.e + "HHIQ", ident, packed, 0, len(body)) + body

    def _cpu_data(self, data: bytes) -> bytes:
        if self.codec == "none":
            return data
        pieces = [data[i : i + self.chunk] for i in range(0, len(data), self.chunk)]
        out = struct.pack(self.e + "I", len(pieces))
        for piece in pieces:
            squeezed = self._pack(piece)
            out += struct.pack(self.e + "II", len(squeezed), len(piece)) + squeezed
        return out

    def _options(self, values: Iterable[tuple[int, bytes]]) -> bytes:
        body = b"".join(struct.pack(self.e + "HI", i, len(v)) + v for i, v in values)
        return self._section(0, body)

    def v7(self) -> bytes:
        """Version 7: metadata sections, options, pages, options that describe the pages."""
        e = self.e
        out = self._initial(b"7")
        out += self.codec.encode() + b"\0" + (b"1.0" if self.codec != "none" else b"") + b"\0"
        pointer = len(out)
        out += b"\0" * 8
        offsets = []
        for ident, body in self._parts():
            offsets.append((ident, struct.pack(e + "Q", len(out))))
            out += self._section(ident, body)
        first = len(out)
        out = out[:pointer] + struct.pack(e + "Q", first) + out[pointer + 8 :]
        clock = f"[{self.clock}] global\0".encode()
        values = [*offsets, (4, clock), *self.options]
        # The options' packed size does not depend on where the next ones are, nearly: pad.
        room = len(self._options([*values, (0, b"\xff" * 8)])) + 64
        rest, described = b"", []
        start = first + room
        for name, cpus in self.buffers.items():
            section = start + len(rest)
            body, table = b"", b""
            at = section + 16
            for cpu, data in cpus.items():
                pad = -(at + len(body)) % self.page_size
                body += b"\0" * pad
                blob = self._cpu_data(data)
                less = 4 if self.codec != "none" else 0
                table += struct.pack(e + "IQQ", cpu, at + len(body), len(blob) - less)
                body += blob
            packed = self.codec != "none"
            rest += struct.pack(e + "HHIQ", 3, packed, 0, len(body)) + body
            size = self.sub_buffer.get(name, self.page_size)
            value = struct.pack(e + "Q", section) + name.encode() + b"\0"
            value += self.clock.encode() + b"\0" + struct.pack(e + "II", size, len(cpus)) + table
            described.append((3, value))
        second = start + len(rest)
        mine = self._options([*values, (0, struct.pack(e + "Q", second))])
        pad = room - len(mine)
        # What is between the sections must look like a section to one who walks them.
        mine += struct.pack(e + "HHIQ", 15, 0, 0, pad - 16) + b"\0" * (pad - 16)
        return out + mine + rest + self._options([*described, (0, b"\0" * 8)])


def rows(capture: Any, key: str) -> list[tuple[Any, ...]]:
    """(ts, cpu, tid, then the values of one field each) of an event, in order."""
    frame = capture.events[key]
    name = "mm" if "mm" in frame.columns else "ip"
    return list(frame.select("ts", "cpu", "tid", name).iter_rows())
