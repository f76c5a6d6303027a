# SPDX-License-Identifier: GPL-2.0-or-later
"""The file header and the attributes of the recorded events."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.perfdata import format as layout

NOT_PERF: Final = "This is no perf.data file."
_CODE: Final = {2: "H", 4: "I", 8: "Q"}


class Section(NamedTuple):
    """Bytes ``offset`` to ``offset + size`` of the file, as the file says: unchecked."""

    offset: int
    size: int

    def within(self, size: int) -> bool:
        """:return: whether the section lies in a file of ``size`` bytes."""
        return self.offset + self.size <= size


NO_SECTION: Final = Section(0, 0)


@dataclass(frozen=True)
class Header:
    """struct perf_file_header, decoded.

    :ivar features: section of each set feature bit, in ascending order
    :ivar lost_features: feature bits whose section lies behind the end of the file
    """

    big_endian: bool
    version: int
    pipe: bool
    size: int
    attr_size: int = 0
    attrs: Section = NO_SECTION
    data: Section = NO_SECTION
    features: dict[int, Section] = field(default_factory=dict)
    lost_features: list[int] = field(default_factory=list)


@dataclass
class Attr:
    """struct perf_event_attr and the ids of its events.

    :ivar flags: the bit field, bit 0 first whatever the byte order
    :ivar extra: bytes that this version does not know
    :ivar name: the event's name as perf prints it, when the capture has it
    """

    type: int
    config: int
    sample_period: int
    sample_type: int
    read_format: int
    flags: int
    branch_sample_type: int
    sample_regs_user: int
    sample_regs_intr: int
    clockid: int
    size: int
    extra: bytes = b""
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    name: str | None = None

    @property
    def is_tracepoint(self) -> bool:
        return self.type == layout.TYPE_TRACEPOINT

    @property
    def sample_id_all(self) -> bool:
        return bool(self.flags & layout.FLAG_SAMPLE_ID_ALL)

    @property
    def clock(self) -> str:
        """Name of the clock of its timestamps."""
        if not self.flags & layout.FLAG_USE_CLOCKID:
            return layout.DEFAULT_CLOCK
        return layout.CLOCKS.get(self.clockid, f"clockid {self.clockid}")


def parse_header(data: memoryview) -> Header:
    """Parse the header and the table of feature sections.

    See perf_file_header__read() and check_magic_endian() in tools/perf/util/header.c.

    :raises CaptureError: when it is no perf.data
    """
    if len(data) < layout.PIPE_HEADER_SIZE:
        raise CaptureError(NOT_PERF, f"It has {len(data)} bytes.")
    big_endian, version = _byte_order(data)
    e = ">" if big_endian else "<"
    (size,) = struct.unpack_from(e + "Q", data, 8)
    if size == layout.PIPE_HEADER_SIZE:
        return Header(big_endian, version, True, size)
    if len(data) < layout.HEADER_SIZE_NO_FEATURES:
        raise CaptureError("The file ends inside its header.", "Was it cut?")
    attr_size, *numbers = struct.unpack_from(e + "5Q", data, 16)
    attrs, sections = Section(*numbers[:2]), Section(*numbers[2:])
    header = Header(big_endian, version, False, size, attr_size, attrs, sections)
    if size >= layout.HEADER_SIZE and len(data) >= layout.HEADER_SIZE and sections.size:
        _read_feature_table(data, header)
    return header


def _byte_order(data: memoryview) -> tuple[bool, int]:
    """:return: (big-endian, 1 or 2), from the magic number."""
    magic = bytes(data[:8])
    if magic in (layout.MAGIC_LITTLE, layout.MAGIC_BIG):
        return magic == layout.MAGIC_BIG, 2
    if magic not in (layout.MAGIC_V1, layout.MAGIC_V1_SWAPPED):
        raise CaptureError(NOT_PERF, "It starts with neither PERFILE2 nor PERFFILE.")
    # Version 1 has one magic number for both orders: the header size tells.
    (size,) = struct.unpack_from("<Q", data, 8)
    return size > 0xFFFFFFFF, 1


def _read_feature_table(data: memoryview, header: Header) -> None:
    """Read the table behind the data into ``header``: one row for each set bit."""
    at = header.data.offset + header.data.size
    e = ">" if header.big_endian else "<"
    for bit in _feature_bits(bytes(data[72:104]), header.big_endian):
        section = NO_SECTION
        if at + 16 <= len(data):
            section = Section(*struct.unpack_from(e + "QQ", data, at))
            at += 16
        if section.offset and section.within(len(data)):
            header.features[bit] = section
        else:
            header.lost_features.append(bit)


def _feature_bits(bitmap: bytes, big_endian: bool) -> list[int]:
    """The bitmap is an array of the writer's unsigned long, whose width is not known.

    HOSTNAME is always there, so it tells 64-bit from 32-bit words; only their
    order in a big-endian file differs.
    """
    word = 8
    if big_endian and not int.from_bytes(bitmap[:8], "big") >> layout.FEATURE_HOSTNAME & 1:
        word = 4
    order = ">" if big_endian else "<"
    words = struct.unpack(f"{order}{32 // word}{_CODE[word]}", bitmap)
    value = sum(w << (8 * word * i) for i, w in enumerate(words))
    return [bit for bit in range(layout.FEATURE_BITS) if value >> bit & 1]


def parse_attr(raw: bytes, big_endian: bool) -> Attr:
    """Parse one perf_event_attr of any published or future size.

    :param raw: the attribute; bytes behind ``attr.size`` are ignored
    """
    e = ">" if big_endian else "<"
    (said,) = struct.unpack_from(e + "I", raw, 4)
    size = min(said or layout.ATTR_SIZES[0], len(raw))
    values = {
        name: struct.unpack_from(e + _CODE[width], raw, offset)[0] if offset + width <= size else 0
        for name, offset, width, _ in layout.ATTR
    }
    flags = values["flags"]
    if big_endian:  # bit fields fill a big-endian word from the top
        flags = int(f"{flags:064b}"[::-1], 2)
    return Attr(
        type=values["type"],
        config=values["config"],
        sample_period=values["sample_period"],
        sample_type=values["sample_type"],
        read_format=values["read_format"],
        flags=flags,
        branch_sample_type=values["branch_sample_type"],
        sample_regs_user=values["sample_regs_user"],
        sample_regs_intr=values["sample_regs_intr"],
        clockid=values["clockid"],
        size=size,
        extra=bytes(raw[layout.ATTR_SIZE : size]),
    )


def parse_attrs(data: memoryview, header: Header, diagnostics: list[Diagnostic]) -> list[Attr]:
    """Read the attribute section of a file.

    See perf_session__read_header() in tools/perf/util/header.c.

    :raises CaptureError: when there is none, for without one no record can be read
    """
    stride = header.attr_size
    count = header.attrs.size // stride if stride else 0
    if not layout.ATTR_SIZES[0] + 16 <= stride <= layout.MAX_ATTR_SIZE or not count:
        raise CaptureError(
            f"The header has no usable event attributes ({stride} bytes each).",
            "The file is damaged before its data.",
        )
    at, end = header.attrs.offset, len(data)
    if at < header.data.offset:
        end = min(end, header.data.offset)
    room = max(0, end - at) // stride
    if count > min(room, layout.MAX_ATTRS):
        diagnostics.append(
            Diagnostic(
                "truncated-attrs",
                "warning",
                header.attrs.offset,
                header.attrs.size,
                f"The header promises {count} events, there is room for {room}.",
            )
        )
        count = min(room, layout.MAX_ATTRS)
    out = []
    for i in range(count):
        at = header.attrs.offset + i * stride
        raw = bytes(data[at : at + stride])
        attr = parse_attr(raw[:-16], header.big_endian)
        ids = Section(*struct.unpack(">QQ" if header.big_endian else "<QQ", raw[-16:]))
        attr.ids = _ids(data, ids, header.big_endian, diagnostics)
        out.append(attr)
    if not out:
        raise CaptureError("The file ends before its event attributes.", "Was it cut?")
    note_unknown_bytes(out, diagnostics)
    return out


def _ids(
    data: memoryview, section: Section, big_endian: bool, diagnostics: list[Diagnostic]
) -> NDArray[np.uint64]:
    """:return: the ids in a section; none when it is not in the file."""
    if not section.within(len(data)) or section.size // 8 > layout.MAX_IDS:
        diagnostics.append(
            Diagnostic(
                "bad-ids",
                "warning",
                section.offset if section.offset < 1 << 63 else None,
                None,
                "The ids of an event are not in the file; its records may not be found.",
            )
        )
        return np.empty(0, np.uint64)
    return parse_ids(data[section.offset : section.offset + section.size], big_endian)


def parse_ids(raw: memoryview | bytes, big_endian: bool) -> NDArray[np.uint64]:
    """:return: uint64[n], native byte order; bytes behind the last whole id are ignored."""
    whole = len(raw) // 8
    return np.frombuffer(raw, ">u8" if big_endian else "<u8", whole).astype(np.uint64)


def note_unknown_bytes(attrs: list[Attr], diagnostics: list[Diagnostic]) -> None:
    """Say when attributes are newer than this version and use what it does not know."""
    used = [attr.size for attr in attrs if any(attr.extra)]
    if used:
        diagnostics.append(
            Diagnostic(
                "newer-attr",
                "note",
                None,
                None,
                f"{len(used)} event attributes of up to {max(used)} bytes set fields behind "
                f"the {layout.ATTR_SIZE} that are known; they are not interpreted.",
            )
        )
