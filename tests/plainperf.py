# SPDX-License-Identifier: GPL-2.0-or-later
"""A plain reader of perf.data with struct, one record at a time.

Written from the format description alone, so that it shares nothing with the
reader it checks. It believes what the file says: for undamaged files only.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

from tracer.compression import zstd_module

SAMPLE = 9


@dataclass
class PlainAttr:
    type: int
    config: int
    sample_type: int
    read_format: int
    flags: int
    branch: int
    regs_user: int
    regs_intr: int
    ids: tuple[int, ...] = ()
    name: str = ""


@dataclass
class Plain:
    """Everything in a file.

    :ivar records: (type, misc, whole record) in stream order
    :ivar formats: tracepoint id to (system:name, fields)
    """

    e: str
    attrs: list[PlainAttr] = field(default_factory=list)
    records: list[tuple[int, int, bytes]] = field(default_factory=list)
    formats: dict[int, tuple[str, list[tuple[str, int, int, bool, str]]]] = field(
        default_factory=dict
    )
    features: dict[int, bytes] = field(default_factory=dict)


def attr_of(raw: bytes, e: str) -> PlainAttr:
    kind, size, config, _, sample_type, read_format = struct.unpack_from(e + "IIQQQQ", raw)
    if e == "<":
        flags = int.from_bytes(raw[40:48], "little")
    else:
        flags = sum((raw[40 + i // 8] >> (7 - i % 8) & 1) << i for i in range(64))
    raw = raw[: size or 64].ljust(144, b"\0")
    branch, user = struct.unpack_from(e + "QQ", raw, 72)
    (intr,) = struct.unpack_from(e + "Q", raw, 96)
    return PlainAttr(kind, config, sample_type, read_format, flags, branch, user, intr)


def decode(data: bytes) -> Plain:
    """Read a file or a saved pipe stream."""
    e = "<" if data[:8] == b"PERFILE2" else ">"
    out = Plain(e)
    size, attr_size, at, attrs_size, start, length = struct.unpack_from(e + "QQQQQQ", data, 8)
    if size == 16:
        _walk_pipe(out, data)
    else:
        for i in range(attrs_size // attr_size):
            raw = data[at + i * attr_size : at + (i + 1) * attr_size]
            attr = attr_of(raw, e)
            ids_at, ids_size = struct.unpack(e + "QQ", raw[-16:])
            attr.ids = struct.unpack_from(f"{e}{ids_size // 8}Q", data, ids_at)
            out.attrs.append(attr)
        table = start + length
        for bit in range(256):
            if (
                data[72 + bit // 64 * 8 :][bit % 64 // 8 if e == "<" else 7 - bit % 64 // 8]
                >> (bit % 8)
                & 1
            ):
                o, s = struct.unpack_from(e + "QQ", data, table)
                out.features[bit] = data[o : o + s]
                table += 16
        _walk(out, data[start : start + length])
    if 1 in out.features:
        _formats(out, out.features[1])
    if 12 in out.features:
        _names(out, out.features[12])
    return out


def _walk(out: Plain, data: bytes) -> None:
    inflate = zstd_module().ZstdDecompressor()
    at, carry = 0, b""
    while at + 8 <= len(data):
        kind, misc, size = struct.unpack_from(out.e + "IHH", data, at)
        record = data[at : at + size]
        if size < 8 or len(record) < size:
            break
        at += size
        if kind in (81, 83):
            inner = record[8:]
            if kind == 83:
                (used,) = struct.unpack_from(out.e + "Q", record, 8)
                inner = record[16 : 16 + used]
            carry += inflate.decompress(inner)
            while len(carry) >= 8:
                k, m, s = struct.unpack_from(out.e + "IHH", carry)
                if len(carry) < s:
                    break
                out.records.append((k, m, carry[:s]))
                carry = carry[s:]
        else:
            out.records.append((kind, misc, record))
        if kind == 66:
            (blob,) = struct.unpack_from(out.e + "I", record, 8)
            out.features[1] = data[at : at + blob]
            at += (blob + 7) // 8 * 8


def _walk_pipe(out: Plain, data: bytes) -> None:
    _walk(out, data[16:])
    for kind, _, record in out.records:
        if kind == 64:
            attr = attr_of(record[8:], out.e)
            (size,) = struct.unpack_from(out.e + "I", record, 12)
            ids = record[8 + size :]
            attr.ids = struct.unpack(f"{out.e}{len(ids) // 8}Q", ids)
            out.attrs.append(attr)
        if kind == 80 and len(record) > 16:
            (bit,) = struct.unpack_from(out.e + "Q", record, 8)
            out.features[bit] = record[16:]


def text(raw: bytes, at: int, e: str) -> tuple[str, int]:
    (n,) = struct.unpack_from(e + "I", raw, at)
    return raw[at + 4 : at + 4 + n].split(b"\0")[0].decode(), at + 4 + n


def _names(out: Plain, raw: bytes) -> None:
    n, size = struct.unpack_from(out.e + "II", raw)
    at = 8
    for _ in range(n):
        at += size
        (nr,) = struct.unpack_from(out.e + "I", raw, at)
        name, at = text(raw, at + 4, out.e)
        ids = struct.unpack_from(f"{out.e}{nr}Q", raw, at)
        at += 8 * nr
        for attr in out.attrs:
            if not ids or attr.ids[:1] == ids[:1]:
                attr.name = attr.name or name


def _formats(out: Plain, raw: bytes) -> None:
    systems = re.finditer(rb"name: (\S+)\nID: (\d+)\nformat:\n(.*?)\nprint fmt", raw, re.S)
    for m in systems:
        system = _system_before(raw, m.start(), out.e)
        fields = [
            (decl.decode(), int(o), int(s), g == b"1", "")
            for decl, o, s, g in re.findall(
                rb"field:([^;]*);\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d);", m[3]
            )
        ]
        out.formats[int(m[2])] = (f"{system}:{m[1].decode()}", fields)


def _system_before(raw: bytes, at: int, e: str) -> str:
    """The last system name in front of a format: NUL-terminated, then a u32 count."""
    found = [
        m[1].decode()
        for m in re.finditer(rb"([a-z_0-9]+)\0(?=.{4}.{8}name: )", raw[: at + 6], re.S)
    ]
    return found[-1]


def fields(plain: Plain, attr: PlainAttr, record: bytes) -> dict[str, Any]:
    """All fields of one SAMPLE, in the order they lie on disk."""
    e, at, bits = plain.e, 8, attr.sample_type
    out: dict[str, Any] = {}

    def word() -> int:
        nonlocal at
        (value,) = struct.unpack_from(e + "Q", record, at)
        at += 8
        return int(value)

    def words(n: int) -> list[int]:
        return [word() for _ in range(n)]

    def pair(first: str, second: str) -> None:
        nonlocal at
        out[first], out[second] = struct.unpack_from(e + "ii", record, at)
        at += 8

    for bit, name in ((16, "identifier"), (0, "ip")):
        if bits >> bit & 1:
            out[name] = word()
    if bits >> 1 & 1:
        pair("pid", "tid")
    for bit, name in ((2, "time"), (3, "addr"), (6, "id"), (9, "stream_id")):
        if bits >> bit & 1:
            out[name] = word()
    if bits >> 7 & 1:
        pair("cpu", "res")
    if bits >> 8 & 1:
        out["period"] = word()
    if bits >> 4 & 1:
        begin, f = at, attr.read_format
        nr = word() if f & 8 else 1
        words((f & 1) + (f >> 1 & 1) + nr * (1 + (f >> 2 & 1) + (f >> 4 & 1)))
        out["read"] = list(struct.unpack(f"{e}{(at - begin) // 8}Q", record[begin:at]))
    if bits >> 5 & 1:
        out["callchain"] = words(word())
    if bits >> 10 & 1:
        (n,) = struct.unpack_from(e + "I", record, at)
        out["raw"] = record[at + 4 : at + 4 + n]
        at += 4 + n
    if bits >> 11 & 1:
        nr = word()
        if attr.branch >> 17 & 1:
            word()
        out["branch_stack"] = words(3 * nr)
        if attr.branch >> 19 & 1:
            words(nr)
    if bits >> 12 & 1:
        out["regs_user"] = words(attr.regs_user.bit_count()) if word() else []
    if bits >> 13 & 1:
        n = word()
        out["stack_user"] = record[at : at + n]
        at += n
        if n:
            out["stack_user"] = out["stack_user"][: word()]
    if bits & (1 << 14 | 1 << 24):
        out["weight"] = word()
    for bit, name in ((15, "data_src"), (17, "transaction")):
        if bits >> bit & 1:
            out[name] = word()
    if bits >> 18 & 1:
        out["regs_intr"] = words(attr.regs_intr.bit_count()) if word() else []
    for bit, name in ((19, "phys_addr"), (21, "cgroup"), (22, "data_page_size")):
        if bits >> bit & 1:
            out[name] = word()
    if bits >> 23 & 1:
        out["code_page_size"] = word()
    if bits >> 20 & 1:
        n = word()
        out["aux"] = record[at : at + n]
        at += n
    assert at <= len(record)
    return out


def attr_of_sample(plain: Plain, record: bytes) -> PlainAttr:
    if len(plain.attrs) == 1:
        return plain.attrs[0]
    (ident,) = struct.unpack_from(plain.e + "Q", record, 8)
    return next(a for a in plain.attrs if ident in a.ids)


def trailer(plain: Plain, record: bytes) -> dict[str, int]:
    """sample_id of a record that is no sample, read from its start."""
    bits = plain.attrs[0].sample_type
    out: dict[str, int] = {}
    size = 8 * sum(bits >> b & 1 for b in (1, 2, 6, 9, 7, 16))
    at = len(record) - size
    for bit, name in ((1, "tid"), (2, "time"), (6, "id"), (9, "stream"), (7, "cpu"), (16, "id")):
        if bits >> bit & 1:
            if name == "tid":
                out["pid"], out["tid"] = struct.unpack_from(plain.e + "ii", record, at)
            elif name == "cpu":
                (out["cpu"],) = struct.unpack_from(plain.e + "I", record, at)
            else:
                (out[name],) = struct.unpack_from(plain.e + "Q", record, at)
            at += 8
    return out


def payload(plain: Plain, config: int, raw: bytes) -> dict[str, Any]:
    """The event's fields of RAW bytes, by the event format."""
    out: dict[str, Any] = {}
    for decl, offset, size, signed, _ in plain.formats[config][1]:
        name = re.findall(r"\w+", re.sub(r"\[[^\]]*\]\s*$", "", decl))[-1]
        code = {1: "b", 2: "h", 4: "i", 8: "q"}.get(size, "")
        if decl.startswith("__data_loc"):
            (where,) = struct.unpack_from(plain.e + "I", raw, offset)
            blob = raw[where & 0xFFFF :][: where >> 16]
            out[name] = blob.split(b"\0")[0].decode("utf-8", "replace")
        elif "[" in decl and "char" in decl:
            out[name] = raw[offset : offset + size].split(b"\0")[0].decode("utf-8", "replace")
        else:
            code = code if signed else code.upper()
            (out[name],) = struct.unpack_from(plain.e + code, raw, offset)
    return out
