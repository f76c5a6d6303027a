# SPDX-License-Identifier: GPL-2.0-or-later
"""perf.data files written from scratch, in either byte order."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

HEADER_PAGE = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
ALLOC = (
    "name: alloc\nID: 400\nformat:\n" + COMMON + "\tfield:u64 pfn;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:s32 delta;\toffset:16;\tsize:4;\tsigned:1;\n\n"
    'print fmt: "%llx", REC->pfn\n'
)
FREE = (
    "name: free\nID: 401\nformat:\n"
    + COMMON
    + "\tfield:__data_loc char[] why;\toffset:8;\tsize:4;\tsigned:0;\n\n"
    'print fmt: "%s", __get_str(why)\n'
)
IDENTIFIER, IP, TID, TIME, ADDR, READ = 1 << 16, 1, 2, 4, 8, 16
CALLCHAIN, ID, CPU, PERIOD, STREAM, RAW = 32, 64, 128, 256, 512, 1024
TRACEPOINT = IDENTIFIER | IP | TID | TIME | CPU | PERIOD | RAW
SAMPLE_ID_ALL = 1 << 18


def alloc(e: str, pid: int, pfn: int, delta: int = -1, ident: int = 400) -> bytes:
    """RAW bytes of event ``mm:alloc``."""
    return struct.pack(e + "HBBiQi", ident, 1, 0, pid, pfn, delta)


def free(e: str, pid: int, why: bytes) -> bytes:
    """RAW bytes of event ``mm:free``."""
    head = struct.pack(e + "HBBiHH", 401, 1, 0, pid, 12, len(why) + 1)
    if e == ">":  # __data_loc is a u32: the halves change places
        head = struct.pack(e + "HBBiI", 401, 1, 0, pid, 12 | (len(why) + 1) << 16)
    return head + why + b"\0"


def pad(raw: bytes, to: int = 8) -> bytes:
    return raw + b"\0" * (-len(raw) % to)


@dataclass
class Attr:
    """An attribute to write; ``size`` may be any, published or not."""

    type: int = 2
    config: int = 400
    sample_type: int = TRACEPOINT
    ids: tuple[int, ...] = (1,)
    name: str | None = None
    read_format: int = 0
    flags: int = SAMPLE_ID_ALL
    period: int = 1
    branch: int = 0
    regs_user: int = 0
    regs_intr: int = 0
    clockid: int = 0
    size: int = 136
    tail: bytes = b""

    def __post_init__(self) -> None:
        if self.name is None:
            self.name = {400: "mm:alloc", 401: "mm:free"}.get(self.config, "")

    def pack(self, e: str) -> bytes:
        flags = self.flags
        if e == ">":
            flags = int(f"{flags:064b}"[::-1], 2)
        out = struct.pack(
            e + "IIQQQQQIIQQQQIiQIHHIIQQQ",
            *(self.type, self.size, self.config, self.period, self.sample_type),
            *(self.read_format, flags, 0, 0, 0, 0, self.branch, self.regs_user, 0),
            *(self.clockid, self.regs_intr, 0, 0, 0, 0, 0, 0, 0, 0),
        )
        return (out + self.tail).ljust(self.size, b"\0")[: self.size]


@dataclass
class File:
    """A capture to write.

    :ivar e: ``<`` or ``>``
    :ivar features: payload by feature bit, besides the usual ones
    """

    e: str = "<"
    attrs: list[Attr] = field(default_factory=lambda: [Attr()])
    records: list[bytes] = field(default_factory=list)
    features: dict[int, bytes] = field(default_factory=dict)
    formats: dict[str, list[str]] = field(default_factory=lambda: {"mm": [ALLOC, FREE]})

    def record(self, kind: int, body: bytes = b"", misc: int = 0) -> bytes:
        return struct.pack(self.e + "IHH", kind, misc, 8 + len(body)) + body

    def add(self, kind: int, body: bytes = b"", misc: int = 0) -> None:
        self.records.append(self.record(kind, body, misc))

    def words(self, *values: int) -> bytes:
        return struct.pack(f"{self.e}{len(values)}Q", *values)

    def ints(self, *values: int) -> bytes:
        return struct.pack(f"{self.e}{len(values)}i", *values)

    def text(self, value: str) -> bytes:
        raw = pad(value.encode() + b"\0", 64)
        return struct.pack(self.e + "I", len(raw)) + raw

    def sample(self, attr: int = 0, raw: bytes = b"", **v: Any) -> bytes:
        """A SAMPLE of an attribute; missing fields are 0."""
        a = self.attrs[attr]
        bits = a.sample_type
        ident = v.get("id", a.ids[0] if a.ids else 0)
        body = b""
        if bits & IDENTIFIER:
            body += self.words(ident)
        if bits & IP:
            body += self.words(v.get("ip", 0))
        if bits & TID:
            body += self.ints(v.get("pid", 0), v.get("tid", 0))
        for bit, value in ((TIME, v.get("time", 0)), (ADDR, v.get("addr", 0)), (ID, ident)):
            if bits & bit:
                body += self.words(value)
        if bits & STREAM:
            body += self.words(ident)
        if bits & CPU:
            body += struct.pack(self.e + "II", v.get("cpu", 0), 0)
        if bits & PERIOD:
            body += self.words(v.get("period", 1))
        if bits & READ:
            body += self.words(*v["read"])
        if bits & CALLCHAIN:
            body += self.words(len(v["callchain"]), *v["callchain"])
        if bits & RAW:
            raw = raw + b"\0" * (-(len(raw) + 4) % 8)
            body += struct.pack(self.e + "I", len(raw)) + raw
        body += v.get("tail", b"")
        return self.record(9, body)

    def add_sample(self, attr: int = 0, raw: bytes = b"", **v: Any) -> None:
        self.records.append(self.sample(attr, raw, **v))

    def add_alloc(self, time: int, pfn: int = 1, tid: int = 7, **v: Any) -> None:
        """A sample of ``mm:alloc`` for attribute 0."""
        raw = alloc(self.e, tid, pfn)
        self.add_sample(0, raw, time=time, pid=v.pop("pid", tid), tid=tid, **v)

    def sample_id(
        self, time: int = 0, tid: int = 0, cpu: int = 0, attr: int = 0, **v: Any
    ) -> bytes:
        """What follows a record that is no sample."""
        a = self.attrs[attr]
        bits = a.sample_type
        ident = v.get("id", a.ids[0] if a.ids else 0)
        out = b""
        if bits & TID:
            out += self.ints(v.get("pid", tid), tid)
        if bits & TIME:
            out += self.words(time)
        if bits & ID:
            out += self.words(ident)
        if bits & STREAM:
            out += self.words(ident)
        if bits & CPU:
            out += struct.pack(self.e + "II", cpu, 0)
        if bits & IDENTIFIER:
            out += self.words(ident)
        return out

    def add_comm(self, time: int, tid: int, name: bytes, misc: int = 0) -> None:
        body = self.ints(tid, tid) + pad(name + b"\0")
        self.add(3, body + self.sample_id(time, tid), misc)

    def add_fork(self, time: int, tid: int, parent: int) -> None:
        body = self.ints(tid, parent, tid, parent) + self.words(time)
        self.add(7, body + self.sample_id(time, parent))

    def tracing_data(self) -> bytes:
        e = self.e
        out = b"\x17\x08\x44tracing0.6\0" + bytes([e == ">", 8]) + struct.pack(e + "I", 4096)
        for name in (b"header_page\0", b"header_event\0"):
            out += name + struct.pack(e + "Q", len(HEADER_PAGE)) + HEADER_PAGE.encode()
        out += struct.pack(e + "II", 0, len(self.formats))
        for system, texts in self.formats.items():
            out += system.encode() + b"\0" + struct.pack(e + "I", len(texts))
            for text in texts:
                out += struct.pack(e + "Q", len(text)) + text.encode()
        return out + struct.pack(e + "IIQ", 0, 0, 0)

    def event_desc(self) -> bytes:
        out = struct.pack(self.e + "II", len(self.attrs), self.attrs[0].size)
        for a in self.attrs:
            out += a.pack(self.e) + struct.pack(self.e + "I", len(a.ids))
            out += self.text(a.name or "") + self.words(*a.ids)
        return out

    def all_features(self) -> dict[int, bytes]:
        out = {
            1: self.tracing_data(),
            3: self.text("host"),
            4: self.text("7.3.0"),
            5: self.text("7.3"),
            6: self.text("aarch64"),
            7: struct.pack(self.e + "II", 4, 2),
            11: struct.pack(self.e + "I", 2) + self.text("perf") + self.text("record"),
            12: self.event_desc(),
        }
        out.update(self.features)
        return {bit: out[bit] for bit in sorted(out) if out[bit] is not None}

    def bitmap(self, bits: Any, word: int = 8) -> bytes:
        value = sum(1 << bit for bit in bits)
        code = {4: "I", 8: "Q"}[word]
        values = [value >> (8 * word * i) & (1 << 8 * word) - 1 for i in range(32 // word)]
        return struct.pack(f"{self.e}{32 // word}{code}", *values)

    def build(self, magic: bytes = b"", finished: bool = True, word: int = 8) -> bytes:
        """The file; ``finished`` False leaves it as a killed recorder does."""
        e = self.e
        magic = magic or (b"PERFILE2" if e == "<" else b"2ELIFREP")
        ids = [self.words(*a.ids) for a in self.attrs]
        at, placed = 104, []
        for raw in ids:
            placed.append(self.words(at, len(raw)))
            at += len(raw)
        attrs = b"".join(a.pack(e) + p for a, p in zip(self.attrs, placed, strict=True))
        data = b"".join(self.records)
        start = at + len(attrs)
        features = self.all_features() if finished else {}
        head = magic + self.words(104, self.attrs[0].size + 16, at, len(attrs))
        head += self.words(start, len(data) if finished else 0, 0, 0)
        head += self.bitmap(features, word)
        out = head + b"".join(ids) + attrs + data
        where = len(out) + 16 * len(features)
        table, bodies = b"", b""
        for raw in features.values():
            table += self.words(where + len(bodies), len(raw))
            bodies += raw
        return out + table + bodies

    def build_pipe(self, order: str = "afe", padded: bool = True, magic: bytes = b"") -> bytes:
        """A pipe stream: a(ttributes), f(eatures), e(vent formats) in the order told."""
        e = self.e
        out = magic or (b"PERFILE2" if e == "<" else b"2ELIFREP")
        out += self.words(16)
        blob = self.tracing_data()
        parts = {
            "a": b"".join(self.record(64, a.pack(e) + self.words(*a.ids)) for a in self.attrs),
            "f": b"".join(
                self.record(80, self.words(bit) + raw)
                for bit, raw in self.all_features().items()
                if bit != 1
            )
            + self.record(80, self.words(32)),
            "e": self.record(66, struct.pack(e + "I", len(pad(blob))) + b"\0" * (4 * padded))
            + pad(blob),
        }
        return out + b"".join(parts[p] for p in order) + b"".join(self.records)
