# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw pages: their CPU, shape and formats are told from what lies around them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests import rings
from tests.rings import Event
from tracer import eventformat
from tracer.errors import CaptureError
from tracer.rawpages import Side, read, read_directory, read_pages
from tracer.tracingdata import TracingData, add_format

HIGH = 0xFFFF_8000_0012_3457
EVENTS = {c: [Event(5000 + 10 * i + c, 10 + c, HIGH + i) for i in range(150)] for c in range(2)}
FORMATS = {"test:mark": eventformat.parse("test", rings.MARK_FORMAT)}


def side(header_page: str = "") -> Side:
    meta = TracingData(header_page=header_page, saved_cmdlines={10: "worker"})
    add_format(meta, "test", rings.MARK_FORMAT.encode(), None)
    return Side(meta)


@pytest.mark.parametrize("e", ["<", ">"])
@pytest.mark.parametrize("long", [8, 4])
@pytest.mark.parametrize("size", [4096, 8192, 65536])
@pytest.mark.parametrize("with_header", [False, True])
def test_shape_is_told_from_the_pages(e: str, long: int, size: int, with_header: bool) -> None:
    header = rings.HEADER_PAGE.format(long=long, at=8 + long, size=size - 8 - long)
    pages = [(c, rings.pages(EVENTS[c], size, e, long)) for c in EVENTS]
    capture = read_pages(pages, side(header if with_header else ""))
    assert rings.rows(capture, "test:mark") == sorted(
        (v.ts, c, v.tid, v.mm) for c in EVENTS for v in EVENTS[c]
    )
    about = capture.provenance
    assert about.byte_order == ("big" if e == ">" else "little")
    assert about.long_size == long
    assert capture.diagnostics.is_empty()


def test_sub_buffer_size_changed_after_header_page_was_copied() -> None:
    header = rings.HEADER_PAGE.format(long=8, at=16, size=4080)
    many = [Event(5000 + i, 10, i) for i in range(3000)]
    capture = read_pages([(0, rings.pages(many, 16384, "<"))], side(header))
    assert capture.provenance.extra["sub_buffer_size"] == 16384
    assert capture.events["test:mark"].height == 3000


def test_dump_of_the_mapped_buffer() -> None:
    """The first page describes the others, which lie in the order of their numbers."""
    size = 4096
    data = rings.pages(EVENTS[0], size, "<")
    pages = [data[i : i + size] for i in range(0, len(data), size)]
    meta = struct.pack("<IIII", 4096, 96, size, len(pages) + 1).ljust(4096, b"\0")
    dump = meta + b"".join(reversed(pages)) + bytes(size)
    capture = read_pages([(0, dump)], side())
    assert [r[0] for r in rings.rows(capture, "test:mark")] == [v.ts for v in EVENTS[0]]


def test_directory_like_tracefs(tmp_path: Path) -> None:
    for c, events in EVENTS.items():
        at = tmp_path / "per_cpu" / f"cpu{c}"
        at.mkdir(parents=True)
        (at / "trace_pipe_raw").write_bytes(rings.pages(events, 4096, "<"))
    mark = tmp_path / "events" / "test" / "mark"
    mark.mkdir(parents=True)
    (mark / "format").write_text(rings.MARK_FORMAT)
    (tmp_path / "saved_cmdlines").write_text("10 worker\n")
    (tmp_path / "trace_clock").write_text("local [global] counter\n")
    for place in (tmp_path, tmp_path / "per_cpu"):
        capture = read_directory(place)
        assert capture.events["test:mark"].height == 300
        assert set(capture.events["test:mark"]["comm"]) == {"worker", None}
        assert capture.provenance.clock == "global"
    one = tmp_path / "per_cpu" / "cpu1" / "trace_pipe_raw"
    capture = read(one.read_bytes(), str(one))
    assert set(capture.events["test:mark"]["cpu"]) == {1}


def test_facts_of_the_recorder(tmp_path: Path) -> None:
    def read_with(text: str) -> Any:
        (tmp_path / "recording.json").write_text(text)
        return read_directory(tmp_path).provenance

    (tmp_path / "x.cpu0.trace_pipe_raw").write_bytes(rings.pages(EVENTS[0], 4096, "<"))
    (tmp_path / "test.mark.format").write_text(rings.MARK_FORMAT)
    about = read_with('{"page_size": 16384, "arch": "aarch64", "probe_set": ["a:b"], "path": "x"}')
    assert (about.page_size, about.arch, about.probe_set) == (16384, "aarch64", ["a:b"])
    assert about.path == str(tmp_path)
    for damaged in ('{"page_size": 3, "arch": 7, "probe_set": [1]}', "[]", "{", "[" * 99999):
        about = read_with(damaged)
        assert (about.page_size, about.arch, about.probe_set) == (None, None, [])


def test_without_formats(tmp_path: Path) -> None:
    data = rings.pages(EVENTS[0], 4096, "<")
    lonely = tmp_path / "a" / "b" / "c" / "d"
    lonely.mkdir(parents=True)
    (lonely / "pages").write_bytes(data)
    with pytest.raises(CaptureError, match="no event formats"):
        read(data, str(lonely / "pages"))
    capture = read(data, str(lonely / "pages"), FORMATS)
    assert capture.events["test:mark"].height == 150
    assert capture.diagnostics["code"].to_list() == ["cpu-guessed"]
    assert read(data, "-", FORMATS).events["test:mark"].height == 150
    with pytest.raises(CaptureError, match="no trace_pipe_raw"):
        read_directory(lonely)


def test_other_cpus_are_pointed_out(tmp_path: Path) -> None:
    for c, events in EVENTS.items():
        (tmp_path / f"x.cpu{c}.trace_pipe_raw").write_bytes(rings.pages(events, 4096, "<"))
    path = tmp_path / "x.cpu0.trace_pipe_raw"
    capture = read(path.read_bytes(), str(path), FORMATS)
    assert capture.diagnostics["code"].to_list() == ["other-cpus"]


def test_what_is_not_pages() -> None:
    for junk in (b"text, not pages\n" * 5000, b"\xff" * 8192, bytes(8192), b"short"):
        capture = read_pages([(0, junk)], side())
        assert not capture.events
        assert not capture.diagnostics.is_empty()


def test_real_pages(fixtures: Any) -> None:
    directory = fixtures / "formats"
    capture = read_directory(directory)
    expected = 0
    for c in range(2):
        data = (directory / f"pageout.cpu{c}.trace_pipe_raw").read_bytes()
        expected += sum(1 for _ in rings.plain_walk(data, 4096))
    assert sum(f.height for f in capture.events.values()) == expected
    assert capture.events["mmtrace:try_to_unmap_one"].height == 32
    assert not any(key.startswith("unknown:") for key in capture.events)
    assert capture.diagnostics.is_empty()
