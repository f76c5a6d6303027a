# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-buffer pages against a reader written with struct."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import rings
from tests.rings import Event
from tracer.errors import CaptureError
from tracer.ringbuffer import PageLayout, Stream, check_page_size, merge_order, page_layout
from tracer.tracedat.records import Walk

HIGH = 0xFFFF_8000_0012_3457


def walk(
    data: bytes, e: str = "<", long: int = 8, size: int = 4096, cpus: int = 1
) -> tuple[Walk, Any]:
    """Read ``data`` as the pages of ``cpus`` CPUs of equal size."""
    reader = Walk(data, PageLayout(size, long, 8 + long), e == ">")
    part = len(data) // cpus
    records = reader.read([Stream(c, c * part, part, size) for c in range(cpus)])
    return reader, records


def found(data: bytes, records: Any) -> list[tuple[int, bytes]]:
    """(ns, payload) of every record."""
    return [
        (int(ts), data[off : off + length])
        for ts, off, length in zip(records.ts, records.off, records.len, strict=True)
    ]


events = st.lists(
    st.builds(
        Event,
        ts=st.integers(0, 1 << 33),
        tid=st.integers(-1, 1 << 22),
        mm=st.sampled_from([0, 1, HIGH, (1 << 64) - 1]),
        nr=st.integers(-5, 5),
        path=st.none() | st.text("ab/", max_size=200),
    ),
    max_size=30,
)


@given(
    events,
    st.sampled_from("<>"),
    st.sampled_from([4, 8]),
    st.sampled_from([512, 4096, 65536]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_stream(deltas: list[Event], e: str, long: int, size: int, force_long: bool) -> None:
    # Times that only grow; some gaps need a TIME_EXTEND.
    now, made = 1 << 40, []
    for event in deltas:
        now += event.ts
        made.append(event._replace(ts=now))
    data = rings.pages(made, size, e, long, force_long)
    reader, records = walk(data, e, long, size)
    assert found(data, records) == [
        (ts, body) for _, ts, body in rings.plain_walk(data, size, e, long)
    ]
    assert records.ts.tolist() == [event.ts for event in made]
    assert records.tid.tolist() == [event.tid for event in made]
    assert records.id.tolist() == [701 if event.path is None else 700 for event in made]
    assert not reader.diagnostics


@pytest.mark.parametrize("name", ["pageout.cpu0.trace_pipe_raw", "pageout.cpu1.trace_pipe_raw"])
def test_real_pages(name: str, fixtures: Any) -> None:
    data = (fixtures / "formats" / name).read_bytes()
    reader, records = walk(data)
    assert found(data, records) == [(ts, body) for _, ts, body in rings.plain_walk(data, 4096)]
    assert records.ts.size
    assert not reader.diagnostics
    assert reader.loss_frame().is_empty()


def body(value: int) -> bytes:
    return rings.payload(Event(0, 10, value), "<")


def test_absolute_time_stamps() -> None:
    # 59 bits in the record; the five above come from the time before it, and carry.
    top = 0b00011 << 59
    e = "<"

    def stamp(ts: int) -> bytes:
        return rings.header(31, ts & 0x7FFFFFF, e) + struct.pack("<I", ts >> 27 & 0xFFFFFFFF)

    low, lower = (1 << 58) + 5, 17
    one, two = rings.record(body(1), 2, e), rings.record(body(2), 3, e)
    data = rings.page(top | low, stamp(low + 10) + one + stamp(lower) + two, 4096, e)
    _, records = walk(data)
    assert records.ts.tolist() == [top + low + 12, top + (1 << 59) + lower + 3]
    assert records.ts.tolist() == [ts for _, ts, _ in rings.plain_walk(data, 4096)]


def test_discarded_records_move_the_clock() -> None:
    """libtraceevent adds a discarded record's delta, the kernel's reader does not."""
    gone = rings.header(29, 50, "<") + struct.pack("<I", 12) + b"\xaa" * 8
    data = rings.page(
        1000, rings.record(body(1), 1, "<") + gone + rings.record(body(2), 1, "<"), 4096, "<"
    )
    _, records = walk(data)
    assert records.ts.tolist() == [1001, 1052]


def test_padding_ends_a_page() -> None:
    data = rings.page(
        1000, rings.record(body(1), 1, "<") + rings.header(29, 0, "<") + b"\xff" * 40, 4096, "<"
    )
    reader, records = walk(data)
    assert records.ts.tolist() == [1001]
    assert not reader.diagnostics


@pytest.mark.parametrize("long", [4, 8])
@pytest.mark.parametrize("e", ["<", ">"])
def test_lost_events(e: str, long: int) -> None:
    one = rings.record(rings.payload(Event(0, 10, 1), e), 5, e)
    data = b"".join(
        rings.page(1000 * (i + 1), one, 4096, e, long, missed)
        for i, missed in enumerate([None, 17, -1])
    )
    reader, records = walk(data, e, long)
    assert records.ts.tolist() == [1005, 2005, 3005]
    assert reader.loss_frame().rows() == [
        (2005, 0, None, 17, False, "missed events flag of a page"),
        (3005, 0, None, 0, True, "missed events flag of a page"),
    ]


def damaged(second: bytes) -> tuple[Walk, list[int]]:
    """Read a page of one good record and ``second``, and a good page behind it."""
    good = rings.record(body(1), 1, "<")
    data = rings.page(1000, good + second, 4096, "<") + rings.page(5000, good, 4096, "<")
    reader, records = walk(data)
    return reader, records.ts.tolist()


@pytest.mark.parametrize(
    "second",
    [
        rings.header(28, 1, "<") + b"\0" * 8,  # longer than the page's data
        rings.header(0, 1, "<") + struct.pack("<I", 0) + b"\0" * 8,
        rings.header(0, 1, "<") + struct.pack("<I", 0xFFFFFFFF) + b"\0" * 8,
        rings.header(0, 1, "<"),
        rings.header(30, 1, "<"),
        rings.header(29, 1, "<") + struct.pack("<I", 0),
        rings.header(1, 1, "<") + b"\0" * 4,  # no room for common_pid
        b"\0" * 16,
        b"\x01\x02",
    ],
)
def test_damage_keeps_what_is_before_it(second: bytes) -> None:
    reader, times = damaged(second)
    assert times == [1001, 5001]
    (row,) = reader.diagnostics
    assert (row.code, row.severity, row.offset) == ("bad-record", "loss", 16 + 20)


def test_bad_commit_word() -> None:
    good = rings.page(1000, rings.record(body(1), 1, "<"), 4096, "<")
    bad = good[:8] + struct.pack("<Q", 4081) + good[16:]
    reader, records = walk(bad + good)
    assert records.ts.tolist() == [1001]
    assert [d.code for d in reader.diagnostics] == ["bad-page"]


def test_cut_pages() -> None:
    data = rings.pages([Event(1000 + i, 1, i) for i in range(300)], 4096, "<")
    whole = walk(data)[1].ts.size
    for cut in (len(data) - 1, 4096 + 700, 4096 + 15, 4096 + 16, 3):
        reader, records = walk(data[:cut])
        at_least = sum(
            off + length <= cut
            for off, length in zip(*[walk(data)[1].off, walk(data)[1].len], strict=True)
        )
        assert records.ts.size == at_least <= whole
        full = cut == len(data) - 1  # only zeroes are missing
        assert full or [d.code for d in reader.diagnostics] == ["truncated-data"]


def test_zero_pages_are_reported_and_rows_are_bounded() -> None:
    good = rings.page(1000, rings.record(body(1), 1, "<"), 4096, "<")
    reader, records = walk(good + bytes(4096 * 500))
    assert records.ts.size == 1
    assert len(reader.diagnostics) == 101
    assert "400 more pages" in reader.diagnostics[-1].message


def test_every_mutant_ends() -> None:
    """Flipped bytes cost records, never an exception, and never one of another page."""
    rng = np.random.default_rng(5)
    made = [Event(1000 + 7 * i, 1, i, i, "x" * (i % 90)) for i in range(400)]
    data = rings.pages(made, 1024, "<")
    for _ in range(300):
        bad = bytearray(data)
        at = int(rng.integers(len(bad)))
        width = min(int(rng.integers(1, 5)), len(bad) - at)
        bad[at : at + width] = rng.bytes(width)
        _, records = walk(bytes(bad), size=1024)
        outside = [
            ts
            for p, ts, _ in rings.plain_walk(data, 1024)
            if p not in (at // 1024, (at + 3) // 1024)
        ]
        assert set(outside) <= set(records.ts.tolist())


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_merge(streams: list[list[int]]) -> None:
    streams = [sorted(s) for s in streams]
    ts = np.array([t for s in streams for t in s], np.uint64)
    bounds = np.cumsum([0, *(len(s) for s in streams)]).astype(np.int64)
    order = np.empty(ts.size, np.uint32)
    scratch = np.empty((2, len(streams)), np.int64)
    merge_order(bounds, ts, scratch[0], scratch[1], order)
    assert order.tolist() == np.argsort(ts, kind="stable").tolist()


def test_streams_that_go_back_are_sorted() -> None:
    back = b"".join(
        rings.page(t, rings.record(body(t), 0, "<"), 4096, "<") for t in (900, 100, 500, 50)
    )
    _, records = walk(back, cpus=2)
    assert records.ts.tolist() == [50, 100, 500, 900]
    assert records.cpu.tolist() == [1, 0, 1, 0]


def test_header_page() -> None:
    text = rings.HEADER_PAGE.format(long=4, at=12, size=8180)
    assert page_layout(text) == PageLayout(8192, 4, 12)
    assert page_layout("", 4, 65536) == PageLayout(65536, 4, 12)
    for bad in (
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;",
        text.replace("offset:12", "offset:999"),
    ):
        with pytest.raises(CaptureError):
            page_layout(bad)
    for size in (0, 3000, 1 << 31, -4096):
        with pytest.raises(CaptureError):
            check_page_size(size)
