# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the fields of a SAMPLE lie, for each attribute, and which frame it goes to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer import decode, kernels
from tracer.decode import Diagnostic
from tracer.eventformat import EventFormat, Field
from tracer.perfdata import format as layout
from tracer.perfdata.header import Attr

_TAIL: Final = {name: i for i, (name, _, _) in enumerate(layout.SAMPLE_TAIL)}
_SHAPES: Final = {name: shape for name, _, shape in layout.SAMPLE_TAIL}
# What a record without a format keeps: all of its RAW bytes.
_RAW_FIELD: Final = Field("raw", "u8 raw[]", 0, 0, False, True, "")
_UNSAFE: Final = re.compile(r"[^\w.,+@=:-]", re.A)


def head_places(sample_type: int) -> dict[int, int]:
    """:return: byte of each fixed field of a SAMPLE, the record's header included, by bit."""
    places = {}
    at = layout.RECORD_HEADER
    for bit in layout.SAMPLE_HEAD:
        if sample_type & bit:
            places[bit] = at
            at += 8
    return places


def end_places(sample_type: int) -> dict[int, int]:
    """:return: bytes from the end of a record back to each field of its sample_id, by bit."""
    places = {}
    back = 0
    for bit in reversed(layout.SAMPLE_ID):
        if sample_type & bit:
            back += 8
            places[bit] = back
    return places


@dataclass
class Slot:
    """One frame: all attributes of one event.

    :ivar key: ``system:name``
    :ivar fmt: places the RAW bytes; without fields when there are none
    :ivar attrs: positions of its attributes in the plan
    """

    key: str
    fmt: EventFormat
    attrs: list[int] = field(default_factory=list)


@dataclass
class Plan:
    """How to read the samples of a capture.

    :ivar slot_of: frame number of each attribute
    :ivar table: int64[attributes, L_COLUMNS] for :func:`tracer.kernels.read_records`
    :ivar by_id: the attribute of a record is found by its id
    :ivar by_type: it is found by the record's ``common_type``: no ids were recorded
    :ivar want: int64[TAIL_FIELDS], row of each variable field that is kept, or -1
    """

    attrs: list[Attr]
    slots: list[Slot]
    slot_of: list[int]
    table: NDArray[np.int64]
    by_id: bool
    by_type: bool
    keys: NDArray[np.uint64]
    values: NDArray[np.int32]
    want: NDArray[np.int64]

    @property
    def wanted(self) -> int:
        """Number of variable fields that are kept."""
        return int((self.want >= 0).sum())

    def key_of_id(self, ident: int) -> str | None:
        """:return: ``system:name`` of the event an id belongs to."""
        if len(self.attrs) == 1:
            return self.slots[0].key
        found = int(kernels.find_id(self.keys, self.values, np.uint64(ident)))
        return self.slots[self.slot_of[found]].key if found >= 0 else None


def make_plan(
    attrs: list[Attr],
    formats: Mapping[int, EventFormat],
    by_name: Mapping[str, EventFormat],
    pmus: Mapping[int, str],
    diagnostics: list[Diagnostic],
) -> Plan:
    """Decide how each attribute's samples are read and which frame they go to.

    See evlist__event2evsel() in tools/perf/util/evlist.c for how a record finds
    its attribute.

    :param formats: event formats of this capture by id
    :param by_name: formats borrowed from another capture, by ``system:name``
    :param pmus: name of each dynamic PMU type
    """
    slots, slot_of = _slots(attrs, formats, by_name, pmus)
    _note_names(attrs, slots, slot_of, diagnostics)
    table = np.zeros((len(attrs), kernels.L_COLUMNS), np.int64)
    for i, attr in enumerate(attrs):
        table[i] = _layout_row(attr, slot_of[i])
        unknown = attr.sample_type & ~layout.SAMPLE_BITS
        if unknown:
            diagnostics.append(
                Diagnostic(
                    "unknown-sample-bits",
                    "loss",
                    None,
                    None,
                    f"Samples of {slots[slot_of[i]].key} have fields that are not known "
                    f"(sample_type {attr.sample_type:#x}) and are left out.",
                )
            )
    by_id, by_type = _lookup(table, diagnostics)
    keys, values = _id_table(attrs)
    want = np.full(kernels.TAIL_FIELDS, -1, np.int64)
    present = 0
    for attr in attrs:
        present |= attr.sample_type
    want[kernels.T_RAW] = 0  # always there, so that every capture reads alike
    rows = 1
    for i, (_, bits, _) in enumerate(layout.SAMPLE_TAIL):
        if present & bits and i != kernels.T_RAW:
            want[i] = rows
            rows += 1
    return Plan(attrs, slots, slot_of, table, by_id, by_type, keys, values, want)


def _layout_row(attr: Attr, slot: int) -> NDArray[np.int64]:
    """:return: one row of the table for :func:`tracer.kernels.read_records`."""
    row = np.zeros(kernels.L_COLUMNS, np.int64)
    bits = attr.sample_type
    head = head_places(bits)
    known = not bits & ~layout.SAMPLE_BITS
    row[kernels.L_SLOT] = slot if known else kernels.REFUSED
    row[kernels.L_HEAD] = layout.RECORD_HEADER + 8 * len(head)
    row[kernels.L_ID] = head.get(layout.IDENTIFIER, head.get(layout.ID, 0))
    row[kernels.L_TID] = head.get(layout.TID, 0)
    row[kernels.L_TIME] = head.get(layout.TIME, 0)
    row[kernels.L_CPU] = head.get(layout.CPU, 0)
    row[kernels.L_READ_FORMAT] = attr.read_format & 0xFF
    row[kernels.L_USER_REGS] = attr.sample_regs_user.bit_count()
    row[kernels.L_INTR_REGS] = attr.sample_regs_intr.bit_count()
    row[kernels.L_HW_INDEX] = bool(attr.branch_sample_type & layout.BRANCH_HW_INDEX)
    row[kernels.L_COUNTERS] = bool(attr.branch_sample_type & layout.BRANCH_COUNTERS)
    if attr.sample_id_all:
        end = end_places(bits)
        row[kernels.L_END_SIZE] = 8 * len(end)
        row[kernels.L_END_ID] = end.get(layout.IDENTIFIER, end.get(layout.ID, 0))
        row[kernels.L_END_TID] = end.get(layout.TID, 0)
        row[kernels.L_END_TIME] = end.get(layout.TIME, 0)
        row[kernels.L_END_CPU] = end.get(layout.CPU, 0)
    row[kernels.L_EVENT] = attr.config if attr.is_tracepoint and attr.config < 1 << 16 else -1
    present = [i for i, (_, mask, _) in enumerate(layout.SAMPLE_TAIL) if bits & mask]
    row[kernels.L_FIELDS] = len(present)
    row[kernels.L_FIELD : kernels.L_FIELD + len(present)] = present
    return row


def _lookup(table: NDArray[np.int64], diagnostics: list[Diagnostic]) -> tuple[bool, bool]:
    """Decide how a record finds its attribute; mark the samples refused when it cannot.

    :return: (by id, by ``common_type``)
    """
    if len(table) == 1:
        return False, False
    places = table[:, (kernels.L_ID, kernels.L_END_ID)]
    if places[0, 0] and (places[:, 0] == places[0, 0]).all():
        return True, False
    layouts = np.delete(table, (kernels.L_SLOT, kernels.L_EVENT), axis=1)
    if (layouts == layouts[0]).all():
        table[:, kernels.L_EVENT] = -1
        return False, True
    table[:, kernels.L_SLOT] = kernels.REFUSED
    diagnostics.append(
        Diagnostic(
            "ambiguous-samples",
            "loss",
            None,
            None,
            "The events record different fields and no id at a common place, so their "
            "samples cannot be told apart and are left out; perf record --sample-identifier "
            "(or any recent perf) avoids it.",
        )
    )
    return False, False


def _id_table(attrs: list[Attr]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """:return: the hash table of :func:`tracer.kernels.id_table`."""
    total = sum(a.ids.size for a in attrs)
    size = 1 << max(4, (2 * total).bit_length())
    keys, values = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    if total:
        ids = np.concatenate([a.ids for a in attrs])
        owner = np.repeat(np.arange(len(attrs), dtype=np.int32), [a.ids.size for a in attrs])
        kernels.id_table(ids, owner, keys, values)
    return keys, values


def _slots(
    attrs: list[Attr],
    formats: Mapping[int, EventFormat],
    by_name: Mapping[str, EventFormat],
    pmus: Mapping[int, str],
) -> tuple[list[Slot], list[int]]:
    """:return: the frames, and the frame number of each attribute."""
    slots: list[Slot] = []
    number: dict[str, int] = {}
    slot_of = []
    borrowed = {fmt.id: fmt for fmt in by_name.values()}
    for i, attr in enumerate(attrs):
        fmt = None
        if attr.is_tracepoint:
            fmt = formats.get(attr.config) or by_name.get(attr.name or "")
            if fmt is None and attr.name is None:
                fmt = borrowed.get(attr.config)
        fmt = fmt or _bare_format(attr, pmus)
        there = slots[number[fmt.key]].fmt if fmt.key in number else fmt
        if there.id < 0 and fmt.id < 0:
            there = fmt = max(there, fmt, key=lambda f: len(f.fields))
        if there != fmt:  # one name, two events: a probe that was made anew
            fmt = replace(fmt, name=f"{fmt.name}.{attr.config}")
        if fmt.key not in number:
            number[fmt.key] = len(slots)
            slots.append(Slot(fmt.key, fmt))
        slot = slots[number[fmt.key]]
        slot.fmt = fmt
        slot.attrs.append(i)
        slot_of.append(number[fmt.key])
    return slots, slot_of


def _note_names(
    attrs: list[Attr], slots: list[Slot], slot_of: list[int], diagnostics: list[Diagnostic]
) -> None:
    """Say when a tracepoint's name is not that of the event format with its id."""
    odd = []
    for attr, number in zip(attrs, slot_of, strict=True):
        name, key = attr.name or "", slots[number].key
        if attr.is_tracepoint and ":" in name and not name.startswith(key):
            odd.append(f"{name} is {key}")
    if odd:
        diagnostics.append(
            Diagnostic(
                "name-conflict",
                "warning",
                None,
                None,
                f"{len(odd)} events have another name in their event format, which is used: "
                f"{', '.join(odd[:8])}.",
            )
        )


def _bare_format(attr: Attr, pmus: Mapping[int, str]) -> EventFormat:
    """A format for events without one: keeps the RAW bytes when there are any."""
    fields = (_RAW_FIELD,) if attr.sample_type & layout.RAW else ()
    if attr.is_tracepoint:
        system, _, name = (attr.name or f"unknown:{attr.config}").partition(":")
    else:
        system = layout.ATTR_TYPES.get(attr.type) or pmus.get(attr.type) or f"pmu{attr.type}"
        name = attr.name or _generic_name(attr)
    return EventFormat(_UNSAFE.sub("_", system), _UNSAFE.sub("_", name), -1, fields, "")


def _generic_name(attr: Attr) -> str:
    names = {0: layout.HARDWARE_NAMES, 1: layout.SOFTWARE_NAMES}.get(attr.type, ())
    return names[attr.config] if attr.config < len(names) else f"config={attr.config:#x}"


@dataclass
class Samples:
    """Places of the samples' fields, one row per record of the stream.

    :ivar start: int64[wanted, n] and ``length``: see :func:`tracer.kernels.read_records`
    """

    buf: NDArray[np.uint8]
    off: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    plan: Plan
    big_endian: bool

    def columns(self, number: int, rows: NDArray[np.uint32]) -> list[pl.Series]:
        """Sample fields of one frame beyond time, task and CPU.

        Tracepoints have neither an instruction of interest nor a period, unless
        they were sampled with one.

        :param number: of the frame
        :param rows: uint32[n]
        """
        slot = self.plan.slots[number]
        attrs = [self.plan.attrs[i] for i in slot.attrs]
        out = []
        for name, bit in (("ip", layout.IP), ("addr", layout.ADDR), ("period", layout.PERIOD)):
            places = {head_places(a.sample_type).get(bit) for a in attrs}
            place = places.pop()
            if places or place is None or not _interesting(name, attrs):
                continue
            at = self.off[rows] + place
            out.append(pl.Series(f"sample_{name}", self._words(at)))
        present = 0
        for a in attrs:
            present |= a.sample_type
        for name, bits, _ in layout.SAMPLE_TAIL:
            if present & bits and name != "raw":
                out.append(self._tail_column(name, rows))
        return out

    def _words(self, at: NDArray[np.int64]) -> NDArray[np.uint64]:
        out = np.empty(at.size, np.uint64)
        kernels.gather_u64(self.buf, at, self.big_endian, out)
        return out

    def _tail_column(self, name: str, rows: NDArray[np.uint32]) -> pl.Series:
        """:return: UInt64, List(UInt64) or Binary column of a variable field."""
        which = self.plan.want[_TAIL[name]]
        start, length = self.start[which][rows], self.length[which][rows]
        column = name if name == "callchain" else f"sample_{name}"
        if _SHAPES[name] == "words":
            flat, offsets = decode.gather_words(self.buf, start, length // 8, 8, self.big_endian)
            return decode.list_series(column, flat, offsets)
        if _SHAPES[name] == "bytes":
            return decode.slices_series(column, self.buf, start, length)
        words = pl.Series(column, self._words(np.where(length == 8, start, -1)))
        if (length == 8).all():
            return words
        return pl.select(pl.when(pl.Series(length == 8)).then(words).alias(column)).to_series()


def _interesting(name: str, attrs: list[Attr]) -> bool:
    """Whether a fixed field of these attributes says anything."""
    if name == "addr" or not attrs[0].is_tracepoint:
        return True
    sampled = any(a.flags & layout.FLAG_FREQ or a.sample_period > 1 for a in attrs)
    return name == "period" and sampled


def event_type_slots(
    plan: Plan, buf: NDArray[np.uint8], start: Any, length: Any, big_endian: bool, state: Any
) -> None:
    """Tell samples without ids apart by the ``common_type`` of their RAW bytes.

    :param start: int64[n], where the RAW bytes start; ``length`` alike
    :param state: int32[n], frame numbers, corrected
    """
    rows = np.flatnonzero((state >= 0) & (length >= 2))
    pair = buf[start[rows]].astype(np.int64), buf[start[rows] + 1].astype(np.int64)
    types = pair[0] << 8 | pair[1] if big_endian else pair[1] << 8 | pair[0]
    slot_of = np.full(1 << 16, kernels.NO_ID, np.int32)
    for number, slot in enumerate(plan.slots):
        for i in slot.attrs:
            attr = plan.attrs[i]
            if attr.is_tracepoint and attr.config < 1 << 16:
                slot_of[attr.config] = number
    state[rows] = slot_of[types]
