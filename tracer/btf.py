# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: the kernel's own description of its enums, structures and functions.

Layout: include/uapi/linux/btf.h, Documentation/bpf/btf.rst. Reads the bytes of
/sys/kernel/btf/vmlinux, the ``.BTF`` section of an ELF file, and both inside zstd.

Hostile input costs at most time and memory in proportion to its size: every
offset is checked against the section it points into, type chains are followed
at most :data:`MAX_DEPTH` steps, and at most :data:`MAX_NESTED` anonymous
structures are searched for a member.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from tracer.compression import unwrap
from tracer.errors import CaptureError

MAGIC: Final = 0xEB9F
MAX_DEPTH: Final = 32
MAX_NESTED: Final = 256  # anonymous structures searched for one member
MAX_NAME: Final = 512

# BTF_KIND_*: number, name, bytes after struct btf_type as (fixed, per vlen entry).
KINDS: Final[dict[int, tuple[str, int, int]]] = {
    0: ("void", 0, 0),
    1: ("int", 4, 0),
    2: ("ptr", 0, 0),
    3: ("array", 12, 0),
    4: ("struct", 0, 12),
    5: ("union", 0, 12),
    6: ("enum", 0, 8),
    7: ("fwd", 0, 0),
    8: ("typedef", 0, 0),
    9: ("volatile", 0, 0),
    10: ("const", 0, 0),
    11: ("restrict", 0, 0),
    12: ("func", 0, 0),
    13: ("func_proto", 0, 8),
    14: ("var", 4, 0),
    15: ("datasec", 0, 12),
    16: ("float", 0, 0),
    17: ("decl_tag", 4, 0),
    18: ("type_tag", 0, 0),
    19: ("enum64", 0, 12),
}
_STRUCT, _UNION, _FUNC, _FUNC_PROTO, _ENUM, _ENUM64 = 4, 5, 12, 13, 6, 19
_MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type_tag


class BtfType(NamedTuple):
    """One ``struct btf_type``."""

    name: int  # offset into the string section
    kind: int
    flag: bool  # kind_flag
    vlen: int
    size_or_type: int
    extra: int  # offset of what follows, in the type section


class Member(NamedTuple):
    """One structure member; ``offset`` in bits from the start of the structure."""

    name: str
    offset: int
    bits: int  # width of a bit-field, 0 for others
    type: int  # type id


@dataclass(frozen=True)
class Enum:
    """An enum: its name ("" when anonymous) and its enumerators in source order."""

    name: str
    values: dict[str, int]


class Btf:
    """One BTF object without a base (vmlinux, not a module).

    :param data: raw BTF
    :raises CaptureError: when the header is not one; damage after the header
        ends the type list early and is told in :attr:`damage`
    """

    def __init__(self, data: bytes) -> None:
        self._order, types, strings = _header(data)
        self._types = data[types]
        self._strings = data[strings]
        self.damage = ""
        self.types: list[BtfType] = [BtfType(0, 0, False, 0, 0, 0)]
        self._walk()

    def _walk(self) -> None:
        """Index the type section. See btf_check_all_metas() in kernel/bpf/btf.c."""
        head = struct.Struct(self._order + "III")
        data, at, end = self._types, 0, len(self._types)
        while at + head.size <= end:
            name, info, size_or_type = head.unpack_from(data, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            if kind not in KINDS:
                # Nothing says how long a type of an unknown kind is.
                self.damage = f"type {len(self.types)} has the unknown kind {kind}"
                return
            _, fixed, each = KINDS[kind]
            extra = at + head.size
            at = extra + fixed + each * vlen
            if at > end:
                self.damage = f"type {len(self.types)} runs past the end"
                return
            self.types.append(BtfType(name, kind, bool(info >> 31), vlen, size_or_type, extra))
        if at != end:
            self.damage = f"{end - at} bytes after the last type"

    def string(self, offset: int) -> str:
        """:return: the name at an offset, "" for 0 and for offsets outside."""
        if not 0 < offset < len(self._strings):
            return ""
        end = self._strings.find(b"\0", offset, offset + MAX_NAME)
        return self._strings[offset : end if end >= 0 else offset + MAX_NAME].decode(
            "utf-8", "replace"
        )

    def _entries(self, t: BtfType, fmt: str) -> Iterator[tuple[int, ...]]:
        layout = struct.Struct(self._order + fmt)
        return layout.iter_unpack(self._types[t.extra : t.extra + layout.size * t.vlen])

    def enums(self) -> Iterator[Enum]:
        """Every enum and enum64, anonymous ones included, in BTF order."""
        for t in self.types:
            if t.kind == _ENUM:
                fmt = "Ii" if t.flag else "II"  # kind_flag: signed
                values = {self.string(n): v for n, v in self._entries(t, fmt)}
            elif t.kind == _ENUM64:
                values = {}
                for name, low, high in self._entries(t, "III"):
                    value = high << 32 | low
                    values[self.string(name)] = value - (1 << 64 if t.flag and high >> 31 else 0)
            else:
                continue
            yield Enum(self.string(t.name), values)

    def enum(self, name: str) -> Enum | None:
        """:return: the first enum of that name, or None."""
        return next((e for e in self.enums() if e.name == name), None)

    @cached_property
    def _named(self) -> dict[tuple[int, str], int]:
        """(kind, name) to the first type id, for structures and functions."""
        out: dict[tuple[int, str], int] = {}
        for i, t in enumerate(self.types):
            if t.kind in (_STRUCT, _UNION, _FUNC) and t.name:
                out.setdefault((_STRUCT if t.kind == _UNION else t.kind, self.string(t.name)), i)
        return out

    def struct_id(self, name: str) -> int | None:
        """:return: type id of ``struct name`` or ``union name``, or None."""
        return self._named.get((_STRUCT, name))

    def size(self, name: str) -> int | None:
        """:return: sizeof(struct name) in bytes, or None."""
        i = self.struct_id(name)
        return None if i is None else self.types[i].size_or_type

    def members(self, type_id: int) -> list[Member]:
        """:return: the direct members of a structure, [] for any other type."""
        i = self._resolve(type_id)
        if i is None or self.types[i].kind not in (_STRUCT, _UNION):
            return []
        out = []
        for name, type_, offset in self._entries(self.types[i], "III"):
            # kind_flag: the top byte of the offset is the width of a bit-field.
            bits = offset >> 24 if self.types[i].flag else 0
            place = offset & 0xFFFFFF if self.types[i].flag else offset
            out.append(Member(self.string(name), place, bits, type_))
        return out

    def offset_of(self, name: str, path: str) -> int | None:
        """offsetof() in bytes, through anonymous structures and unions.

        :param name: structure, for example ``folio``
        :param path: member path with dots, for example ``flags.f``
        :return: byte offset, or None when there is no such member
        """
        here, total = self.struct_id(name), 0
        for part in path.split("."):
            found = self._find(here, part, set()) if here is not None else None
            if found is None:
                return None
            total, here = total + found.offset, found.type
        return total // 8

    def _find(self, type_id: int, name: str, seen: set[int]) -> Member | None:
        # Each structure once and not too deep: a crafted one may contain itself.
        if type_id in seen or len(seen) > MAX_NESTED:
            return None
        seen.add(type_id)
        for m in self.members(type_id):
            if m.name == name:
                return m
            if not m.name and (inner := self._find(m.type, name, seen)):
                return inner._replace(offset=m.offset + inner.offset)
        return None

    def _resolve(self, type_id: int) -> int | None:
        """Strip typedefs and qualifiers; None when the chain is broken or circular."""
        for _ in range(MAX_DEPTH):
            if not 0 < type_id < len(self.types):
                return None
            if self.types[type_id].kind not in _MODIFIERS:
                return type_id
            type_id = self.types[type_id].size_or_type
        return None

    def function(self, name: str) -> tuple[str, ...] | None:
        """:return: a function's parameter names in order, or None when there is none."""
        i = self._named.get((_FUNC, name))
        proto = None if i is None else self._resolve(self.types[i].size_or_type)
        if proto is None or self.types[proto].kind != _FUNC_PROTO:
            return None
        return tuple(self.string(n) for n, _ in self._entries(self.types[proto], "II"))


def _header(data: bytes) -> tuple[str, slice, slice]:
    """``struct btf_header``: byte order, type section, string section."""
    if len(data) < 24:
        raise CaptureError("Not BTF: shorter than its header.")
    for order in "<>":
        magic, version, _, length, *rest = struct.unpack_from(order + "HBBIIIII", data)
        if magic == MAGIC:
            break
    else:
        raise CaptureError("Not BTF: the magic number 0xeb9f is missing.")
    type_off, type_len, str_off, str_len = rest
    end = len(data) - length
    if version != 1 or length < 24 or end < 0:
        raise CaptureError(f"BTF version {version} with a header of {length} bytes is unknown.")
    if type_off + type_len > end or str_off + str_len > end:
        raise CaptureError("BTF is truncated: its sections end after the file.")
    return (
        order,
        slice(length + type_off, length + type_off + type_len),
        slice(length + str_off, length + str_off + str_len),
    )


def load(data: bytes, name: str) -> Btf:
    """Read BTF from raw bytes, from an ELF file's ``.BTF`` section, or compressed.

    :param data: the file's bytes
    :param name: its name, for messages
    :raises CaptureError: when there is no BTF in it
    """
    data = unwrap(data, name).data
    if data[:4] == b"\x7fELF":
        data = _elf_section(data, name)
    try:
        return Btf(data)
    except CaptureError as e:
        raise CaptureError(
            f"{name}: {e.message}", "Copy /sys/kernel/btf/vmlinux of the captured kernel."
        ) from None


def _elf_section(data: bytes, name: str) -> bytes:
    from elftools.common.exceptions import ELFError  # 90 ms: only for ELF input
    from elftools.elf.elffile import ELFFile

    try:
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".BTF")
        if section is not None:
            return bytes(section.data())
    # pyelftools parses with construct, whose errors on damaged files have no common base.
    except (ELFError, ArithmeticError, LookupError, OSError, TypeError, ValueError) as e:
        raise CaptureError(f"{name} is a damaged ELF file: {type(e).__name__}.") from None
    raise CaptureError(
        f"{name} is an ELF file without a .BTF section.",
        "Take one built with CONFIG_DEBUG_INFO_BTF, or /sys/kernel/btf/vmlinux.",
    )
