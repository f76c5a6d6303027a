# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat against trace-cmd, and against files built from scratch."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests import rings
from tests.conftest import content
from tests.rings import Dat, Event
from tracer import schema, tracingdata
from tracer.capture import Capture
from tracer.errors import CaptureError
from tracer.tracedat.bprint import render
from tracer.tracedat.reader import open_file, read

HIGH = 0xFFFF_8000_0012_3457
REAL = ("pageout.v6.dat", "pageout.v7.zlib.dat", "pageout.v7.zstd.dat", "pageout.function.dat",
        "pageout.fgraph.dat")  # fmt: skip


def total(capture: Capture) -> int:
    return sum(frame.height for frame in capture.events.values())


def codes(capture: Capture) -> set[str]:
    return set(capture.diagnostics["code"])


def sample(cpus: int = 3, n: int = 200, tid: int = 10) -> dict[int, list[Event]]:
    """Events of some CPUs, interleaved in time, with ties."""
    return {
        c: [
            Event(10_000 + 10 * i + c // 2, tid, HIGH + i, i - 5, f"/f{i % 7}" if i % 3 else None)
            for i in range(n)
        ]
        for c in range(cpus)
    }


def packed(events: dict[int, list[Event]], dat: Dat, size: int = 4096) -> dict[int, bytes]:
    return {c: rings.pages(v, size, dat.e, dat.long) for c, v in events.items()}


def dat_of(events: dict[int, list[Event]], **kw: Any) -> Dat:
    dat = Dat({}, **kw)
    dat.buffers[""] = packed(events, dat, dat.page_size)
    return dat


def expected(events: dict[int, list[Event]], key: str) -> list[tuple[int, int, int, int]]:
    """(ts, cpu, tid, mm) of one kind of event, by time, then CPU."""
    flat = [
        (e.ts, c, e.tid, e.mm)
        for c, v in events.items()
        for e in v
        if (e.path is None) == (key == "test:mark")
    ]
    return sorted(flat, key=lambda row: row[:2])


def built(dat: Dat, version: str) -> bytes:
    return dat.v6() if version == "6" else dat.v7()


VARIANTS = [
    ("6", {}),
    ("6", {"e": ">"}),
    ("6", {"long": 4}),
    ("7", {}),
    ("7", {"codec": "zlib"}),
    ("7", {"codec": "zstd"}),
    ("7", {"codec": "zstd", "e": ">"}),
    ("7", {"codec": "zstd", "page_size": 65536, "chunk": 65536 * 2}),
    ("7", {"e": ">", "long": 4}),
]


@pytest.mark.parametrize(("version", "kw"), VARIANTS)
def test_built_files(version: str, kw: dict[str, Any]) -> None:
    events = sample()
    capture = read(built(dat_of(events, **kw), version), "built.dat")
    for key in ("mm:map_pages", "test:mark"):
        assert rings.rows(capture, key) == expected(events, key)
        schema.check(capture.events[key], schema.EVENT_COLUMNS, key)
    frame = capture.events["mm:map_pages"]
    flat = sorted((e.ts, c, e) for c, v in events.items() for e in v if e.path is not None)
    assert frame["path"].to_list() == [e.path for _, _, e in flat]
    assert frame["nr"].to_list() == [e.nr for _, _, e in flat]
    assert frame["order"].to_list() == [e.nr & 0xFFFF for _, _, e in flat]
    assert set(frame["who"]) == {"me"}
    assert set(frame["comm"]) == {"worker"}
    assert frame["pid"].null_count() == frame.height
    seqs = pl.concat([f["seq"] for f in capture.events.values()]).sort()
    assert seqs.to_list() == list(range(600))
    assert capture.diagnostics.is_empty()
    assert capture.provenance.byte_order == ("big" if kw.get("e") == ">" else "little")
    assert capture.provenance.clock == "local"


@pytest.mark.parametrize("version", ["6", "7"])
def test_instances(version: str) -> None:
    top, extra = sample(2, 50), sample(2, 30, tid=11)
    dat = dat_of(top)
    # Version 7 says how large the sub-buffers of each instance are.
    size = 8192 if version == "7" else 4096
    dat.buffers["other"] = packed(extra, dat, size)
    dat.sub_buffer = {"other": size}
    capture = read(built(dat, version), "built.dat")
    marks = capture.events["mm:map_pages"]
    for name, events in (("", top), ("other", extra)):
        part = marks.filter(pl.col("instance") == name)
        assert list(part.select("ts", "cpu", "tid", "mm").iter_rows()) == expected(
            events, "mm:map_pages"
        )
    assert marks["seq"].is_sorted()
    assert [i["name"] for i in capture.provenance.extra["instances"]] == ["", "other"]
    assert set(marks.filter(pl.col("tid") == 11)["comm"]) == {"a-1 [000] 1.0: x"}


def test_sparse_cpus() -> None:
    events = sample(2, 20)
    dat = dat_of({7: events[0], 300: events[1]})
    assert set(read(dat.v7(), "x").events["test:mark"]["cpu"]) == {7, 300}


def test_loss() -> None:
    one = rings.record(rings.payload(Event(0, 10, 1), "<"), 5, "<")
    data = b"".join(
        rings.page(1000 * (i + 1), one, 4096, "<", 8, missed)
        for i, missed in enumerate([None, 17, -1])
    )
    stats = (
        b"CPU: 1\nentries: 3\noverrun: 40\ncommit overrun: 2\ndropped events: 9\nread events: 3\n\0"
    )
    capture = read(Dat({"": {1: data}}, options=[(2, stats)]).v7(), "x")
    assert capture.loss.rows() == [
        (2005, 1, None, 17, False, "missed events flag of a page"),
        (3005, 1, None, 0, True, "missed events flag of a page"),
        (None, 1, None, 9, False, "dropped events of per_cpu stats"),
        (None, 1, None, 2, False, "commit overrun of per_cpu stats"),
    ]
    assert capture.provenance.extra["cpu_stats"][0]["overrun"] == 40


def test_clocks() -> None:
    events = {0: [Event((1 << 40) + i, 10, i) for i in range(5)]}
    raw = [e.ts for e in events[0]]

    def times(
        options: list[tuple[int, bytes]], clock: str = "x86-tsc"
    ) -> tuple[list[int], Capture]:
        capture = read(dat_of(events, options=options, clock=clock).v7(), "x")
        return capture.events["test:mark"]["ts"].to_list(), capture

    tsc = (14, struct.pack("<IIQ", 3_000_000_001, 32, 0))
    assert times([tsc])[0] == [t * 3_000_000_001 >> 32 for t in raw]
    assert times([(14, struct.pack("<IIQ", 7, 40, 0))])[0] == [t * 7 >> 40 for t in raw]
    assert times([(7, b"-100\0")])[0] == [t - 100 for t in raw]
    assert times([(1, b"0x10\0")])[0] == [t + 16_000 for t in raw]
    got, capture = times([])
    assert got == raw
    assert codes(capture) == {"clock-unit"}
    shift = struct.pack("<QIIIQqQ", 1, 0, 1, 1, raw[0], -1000, 1)
    assert times([(12, shift)], "local")[0] == [t - 1000 for t in raw]
    # Two corrections, interpolated: 0 at the first time, 40 four ns later.
    shift = struct.pack("<QIII2Q2q2Q", 1, 1, 1, 2, raw[0], raw[0] + 4, 0, 40, 1, 1)
    assert times([(12, shift)], "local")[0] == [t + 10 * i for i, t in enumerate(raw)]
    assert codes(times([(7, b"soon\0")])[1]) == {"bad-clock", "clock-unit"}
    assert codes(times([(12, shift[:30])])[1]) == {"bad-clock", "clock-unit"}


def test_options_that_form_a_cycle() -> None:
    data = bytearray(dat_of(sample(1, 20), codec="none").v7())
    # The last options section says that the first comes next.
    (first,) = struct.unpack_from("<Q", data, data.index(b"none\0\0") + 6)
    assert data[-8:] == b"\0" * 8
    data[-8:] = struct.pack("<Q", first)
    capture = read(bytes(data), "x")
    assert codes(capture) == {"option-cycle"}
    assert total(capture) == 20


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_hostile_table(codec: str) -> None:
    events = sample(2, 50)
    data = dat_of(events, codec=codec).v7()
    contents, _ = open_file(data)
    one, two = contents.buffers[0].cpus
    old = [struct.pack("<IQQ", c.cpu, c.offset, c.size) for c in (one, two)]
    cases = {
        "bad-cpu": (old[1], struct.pack("<IQQ", 0xFFFFFFFF, two.offset, two.size)),
        "overlap": (old[1], struct.pack("<IQQ", 1, one.offset, one.size)),
        "truncated-data": (old[1], struct.pack("<IQQ", 1, 1 << 62, two.size)),
    }
    if codec == "none":
        for code, (was, now) in cases.items():
            assert was in data
            capture = read(data.replace(was, now), "x")
            assert code in codes(capture)
            assert rings.rows(capture, "test:mark") == expected({0: events[0]}, "test:mark")
    counts = b"\0\x10\0\0" + struct.pack("<I", 2)  # page size, CPUs
    if codec == "none":
        assert total(read(data.replace(counts, b"\0\x10\0\0\xff\xff\xff\xff"), "x")) == 100


def test_chunks_are_bounded() -> None:
    data = dat_of(sample(1, 200), codec="zstd", chunk=4096).v7()
    contents, _ = open_file(data)
    at = contents.buffers[0].cpus[0].offset
    # The second chunk says it unpacks to 4 GiB; then, that its bytes are damaged.
    (size,) = struct.unpack_from("<I", data, at + 4)
    second = at + 12 + size
    huge = data[: second + 4] + b"\xff" * 4 + data[second + 8 :]
    capture = read(huge, "x")
    assert "bad-chunk" in codes(capture)
    assert 0 < total(capture) < 200
    flipped = data[: second + 20] + b"\xff" * 8 + data[second + 28 :]
    capture = read(flipped, "x")
    assert {"bad-chunk", "empty-page"} == codes(capture)
    whole = [ts for _, ts, _ in rings.plain_walk(rings.pages(sample(1, 200)[0], 4096, "<"), 4096)]
    pages = [p for p, _, _ in rings.plain_walk(rings.pages(sample(1, 200)[0], 4096, "<"), 4096)]
    kept = [ts for p, ts in zip(pages, whole, strict=True) if p != 1]
    assert sorted(t for f in capture.events.values() for t in f["ts"]) == kept


def test_metadata_bomb_is_refused() -> None:
    dat = dat_of(sample(1, 20), codec="zstd")
    dat.cmdlines = "1 x\n" * 6_000_000
    with_bomb = dat.v7()
    assert len(with_bomb) < 1 << 20
    capture = read(with_bomb, "x")
    assert "damaged-option" in codes(capture)
    assert total(capture) == 20
    assert capture.events["test:mark"]["comm"].null_count()


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd"])
def test_cut_files_keep_their_pages(codec: str) -> None:
    """trace-cmd prints nothing at all for these."""
    events = sample(2, 400)
    stats = [(2, b"CPU: 0\nentries: 5\nread events: 1\n\0"), (2, b"CPU: 1\nentries: 9\n\0")]
    data = dat_of(events, codec=codec, options=stats, chunk=4096).v7()
    contents, _ = open_file(data)
    last = contents.buffers[0].cpus[-1]
    everything = total(read(data, "x"))
    # Without the table of CPU data, which comes last.
    whole = data[: last.offset + last.size + 4]
    capture = read(whole, "x")
    assert total(capture) == everything == 800
    assert {"damaged-options", "cpu-guessed"} <= codes(capture)
    for key in ("mm:map_pages", "test:mark"):
        assert rings.rows(capture, key) == expected(events, key)
    capture = read(data[: last.offset + last.size // 2], "x")
    assert "truncated-data" in codes(capture)
    assert 400 < total(capture) < 800
    first = [r for r in rings.rows(capture, "test:mark") if r[1] == 0]
    assert first == expected({0: events[0]}, "test:mark")


@pytest.mark.parametrize("name", REAL)
def test_every_cut_of_a_real_file(name: str) -> None:
    data = content(f"formats/{name}")
    whole = total(read(data, name))
    before = 0
    for share in (0.0, 0.2, 0.5, 0.9, 0.97, 0.99, 0.999, 0.9999):
        try:
            capture = read(data[: int(len(data) * share)], name)
        except CaptureError:
            continue
        # The names of the sections come last; nothing needs them.
        assert total(capture) == whole or not capture.diagnostics.is_empty()
        assert before <= total(capture) <= whole
        before = total(capture)


def mutants(data: bytes, count: int, seed: int) -> list[bytes]:
    """Copies with a few bytes replaced."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        bad = bytearray(data)
        at = int(rng.integers(len(bad) - 8))
        kind = int(rng.integers(3))
        if kind == 0:
            bad[at] ^= 1 << int(rng.integers(8))
        else:
            bad[at : at + 8] = b"\xff" * 8 if kind == 1 else bytes(8)
        out.append(bytes(bad))
    return out


@pytest.mark.parametrize(("version", "kw"), VARIANTS)
def test_mutants(version: str, kw: dict[str, Any]) -> None:
    """No exception but CaptureError, and never more rows than the pages have room for."""
    data = built(dat_of(sample(2, 40), **kw), version)
    for bad in mutants(data, 150, 3):
        try:
            capture = read(bad, "x")
        except CaptureError:
            continue
        assert total(capture) <= len(data)


# The oracle prints these as symbols.
_SYMBOLS = {"func", "ip", "parent_ip"}
_LINE = re.compile(r"\s*(.+)-(-?\d+)\s+\[(\d+)\]\s+(\d+)\.(\d{9}): (\S+): +(.*)")


def oracle(path: Path) -> list[re.Match[str]]:
    """:return: the lines of trace-cmd report -R -t."""
    if not shutil.which("trace-cmd"):
        pytest.skip("trace-cmd is not installed")
    done = subprocess.run(
        ["trace-cmd", "report", "-R", "-t", "-N", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "error reading header" in done.stderr:
        pytest.skip("this trace-cmd does not read the file")
    found = [_LINE.fullmatch(line) for line in done.stdout.split("\n")]
    return [m for m in found if m]


def same(printed: str, value: Any) -> bool:
    if isinstance(value, int):
        readings = [int(printed, 16)]
        if printed.lstrip("-").isdigit():
            readings.append(int(printed))
        return value in readings or value % (1 << 64) in readings
    return not isinstance(value, str) or value.startswith(printed)


def agrees(capture: Capture, lines: list[re.Match[str]]) -> int:
    """Compare every row and field with the oracle's; :return: fields compared."""
    by_seq = {
        row["seq"]: (key, row)
        for key, frame in capture.events.items()
        for row in frame.iter_rows(named=True)
    }
    assert len(by_seq) == len(lines)
    fields = 0
    for seq, m in enumerate(lines):
        key, row = by_seq[seq]
        ts = int(m[4]) * 10**9 + int(m[5])
        assert (row["ts"], row["tid"], row["cpu"]) == (ts, int(m[2]), int(m[3]))
        assert key.partition(":")[2] == m[6]
        assert row["comm"] == m[1].strip()
        for name, printed in re.findall(r"(\w+)=(\S*)", m[7]):
            if name in _SYMBOLS:
                continue
            assert same(printed, row[name]), (key, name, printed, row[name])
            fields += 1
    return fields


@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_trace_cmd(name: str, tmp_path: Path) -> None:
    data = content(f"formats/{name}")
    capture = read(data, name)
    assert capture.diagnostics.is_empty()
    assert capture.loss.is_empty()
    (tmp_path / name).write_bytes(data)
    assert agrees(capture, oracle(tmp_path / name)) > 1000 or "function" in name


@pytest.mark.parametrize(("version", "kw"), [v for v in VARIANTS if v[1].get("codec") != "zlib"])
def test_built_files_equal_trace_cmd(version: str, kw: dict[str, Any], tmp_path: Path) -> None:
    data = built(dat_of(sample(), **kw), version)
    (tmp_path / "built.dat").write_bytes(data)
    assert agrees(read(data, "built.dat"), oracle(tmp_path / "built.dat")) > 600


def test_real_provenance() -> None:
    about = read(content("formats/pageout.v7.zstd.dat"), "pageout.dat").provenance
    assert about.container == "trace.dat v7"
    assert about.kernel_release == "6.12.107+deb13-cloud-arm64"
    assert about.arch == "aarch64"
    assert (about.nr_cpus, about.page_size, about.long_size) == (2, 4096, 8)
    assert about.recorder is not None
    assert about.recorder.startswith("trace-cmd 3.")
    kallsyms = read(content("formats/pageout.v7.zstd.dat"), "pageout.dat").kallsyms
    assert b" T try_to_unmap_one" in kallsyms.lower().replace(b" t ", b" T ")


def test_every_record_is_decoded() -> None:
    """Counts by event id of an independent walk over the unpacked pages."""
    data = content("formats/pageout.v6.dat")
    contents, _ = open_file(data)
    counts: dict[int, int] = {}
    for cpu in contents.buffers[0].cpus:
        for _, _, body in rings.plain_walk(data[cpu.offset : cpu.offset + cpu.size], 4096):
            ident = int.from_bytes(body[:2], "little")
            counts[ident] = counts.get(ident, 0) + 1
    capture = read(data, "x")
    assert counts == {f.id: capture.events[k].height for k, f in capture.formats.items()}


def test_tracing_data_blob() -> None:
    for e in "<>":
        blob = Dat({}, e=e).preamble(b"0.6")
        out = tracingdata.parse(b"junk" + blob + b"more", 4)
        assert out.end == 4 + len(blob)
        assert (out.version, out.big_endian, out.page_size) == ("0.6", e == ">", 4096)
        assert {f.key for f in out.formats.values()} == {"mm:map_pages", "test:mark"}
        assert out.saved_cmdlines == {10: "worker", 11: "a-1 [000] 1.0: x"}
        assert out.printk == {0xFFFF800080001000: "text %d\\n"}
        assert out.kallsyms.startswith(b"ffff800080000000 T _text")
        assert not out.problems
        for cut in range(len(blob)):
            try:
                part = tracingdata.parse(blob[:cut])
            except CaptureError:
                assert cut < 30
                continue
            assert part.problems
    with pytest.raises(CaptureError):
        tracingdata.parse(b"\x17\x08\x44nothing")


def test_formats_that_cannot_be() -> None:
    bad = [
        "name: x\nformat:\n",
        "name: ../../etc\nID: 5\nformat:\n",
        rings.MARK_FORMAT.replace("mark", "again"),
        "name: long\nID: 9\n" + "x" * (2 << 20),
    ]
    blob = Dat(
        {}, formats={"test": [rings.MARK_FORMAT, *bad], "a/b": [rings.MAP_FORMAT]}
    ).preamble()
    out = tracingdata.parse(blob)
    assert [f.key for f in out.formats.values()] == ["test:mark"]
    assert [p.code for p in out.problems] == ["bad-event-format"] * 5


def test_records_without_a_format() -> None:
    dat = dat_of(sample(1, 20), formats={"mm": [rings.MAP_FORMAT]})
    capture = read(dat.v6(), "x")
    assert "unknown:701" in capture.events
    assert codes(capture) == {"no-format"}
    whole = dat_of(sample(1, 20), codec="zstd")
    with_formats = read(whole.v6(), "x").formats
    # A file that is whole does not take another's word for its ids.
    assert "unknown:701" in read(dat.v6(), "x", with_formats).events
    dat.formats = {}
    assert set(read(dat.v6(), "x", with_formats).events) == {"mm:map_pages", "test:mark"}
    data = bytearray(whole.v7())
    section = data.index(struct.pack("<HH", 18, 1))
    data[section + 24 : section + 40] = bytes(16)
    assert set(read(bytes(data), "x").events) == {"unknown:700", "unknown:701"}
    assert set(read(bytes(data), "x", with_formats).events) == {"mm:map_pages", "test:mark"}


FTRACE = {
    "bprint": (
        "name: bprint\nID: 6\nformat:\n"
        + rings.COMMON
        + "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
        "\tfield:const char * fmt;\toffset:16;\tsize:8;\tsigned:0;\n"
        '\tfield:u32 buf[];\toffset:24;\tsize:0;\tsigned:0;\n\nprint fmt: "%ps", REC->fmt\n'
    ),
    "kernel_stack": (
        "name: kernel_stack\nID: 4\nformat:\n"
        + rings.COMMON
        + "\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n"
        '\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\nprint fmt: ""\n'
    ),
}


@pytest.mark.parametrize("e", ["<", ">"])
def test_trace_printk_and_stacks(e: str) -> None:
    bodies = [
        struct.pack(e + "HBBiQQiI", 6, 0, 0, 10, HIGH, 0xFFFF800080001000, -5, 0),
        struct.pack(e + "HBBiQQ", 6, 0, 0, 10, HIGH, 0xFFFF800080001000),
        struct.pack(e + "HBBiQQI", 6, 0, 0, 10, HIGH, 0x1234, 0),
        struct.pack(e + "HBBiiI3Q", 4, 0, 0, 10, 3, 0, HIGH, 1, 2),
        struct.pack(e + "HBBiiI1Q", 4, 0, 0, 10, 99, 0, HIGH),
    ]
    page = rings.page(1000, b"".join(rings.record(b, 1, e) for b in bodies), 4096, e)
    capture = read(Dat({"": {0: page}}, e=e, formats={"ftrace": [*FTRACE.values()]}).v7(), "x")
    assert capture.events["ftrace:bprint"]["text"].to_list() == ["text -5\n", None, None]
    # The depth is in the record; the 8 of the format is no bound.
    assert capture.events["ftrace:kernel_stack"]["caller"].to_list() == [[HIGH, 1, 2], [HIGH]]


def test_trace_printk_formats() -> None:
    def args(*values: tuple[str, Any]) -> bytes:
        out = b""
        for code, value in values:
            if isinstance(value, bytes):
                out += value + b"\0"
                continue
            size = struct.calcsize("<" + code)
            out += b"\0" * (-len(out) % min(size, 4)) + struct.pack("<" + code, value)
        return out

    cases = [
        ("a %d %u %x|", args(("i", -1), ("I", 2), ("I", 255)), "a -1 2 ff|"),
        (
            "%ld %llu %#lx",
            args(("q", -9), ("Q", 1 << 63), ("Q", 16)),
            "-9 9223372036854775808 0x10",
        ),
        ("%s=%s.", args(("s", b"key"), ("s", b"")), "key=."),
        ("%s%d", args(("s", b"odd"), ("i", 7)), "odd7"),
        ("%c%hhd%hd", args(("B", 65), ("b", -2), ("h", -3)), "A-2-3"),
        ("%5d|%-4u|%05x", args(("i", 1), ("I", 2), ("I", 3)), "    1|2   |00003"),
        ("%*d|%.*s", args(("i", 4), ("i", 5), ("i", 2), ("s", b"abc")), "   5|ab"),
        ("%p %pS!", args(("Q", HIGH), ("Q", HIGH)), f"{HIGH:016x} {HIGH:016x}!"),
        ("%pI4 100%%", args(("s", b"1.2.3.4")), "1.2.3.4 100%"),
    ]
    for fmt, data, text in cases:
        assert render(fmt, data) == text
    for fmt in ("%d", "%s", "%p", "%*d"):
        with pytest.raises(ValueError):
            render(fmt, b"")


def test_what_is_no_trace_dat() -> None:
    magic = b"\x17\x08\x44tracing"
    for data in (b"", b"PERFILE2", magic, magic + b"8\0" + bytes(20), magic + b"7\0" + bytes(40),
                 Dat({}).preamble()[:300]):  # fmt: skip
        with pytest.raises(CaptureError):
            read(data, "x")
