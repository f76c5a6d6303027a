# SPDX-License-Identifier: GPL-2.0-or-later
"""perf.data against a plain reader, perf script and files written field by field."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests import plainperf
from tests.conftest import FIXTURES, ROOT, content
from tests.perfwriter import (
    ADDR,
    CALLCHAIN,
    CPU,
    ID,
    IDENTIFIER,
    IP,
    PERIOD,
    RAW,
    READ,
    STREAM,
    TID,
    TIME,
    Attr,
    File,
    alloc,
    free,
    pad,
)
from tracer import schema
from tracer.capture import Capture
from tracer.compression import zstd_module
from tracer.perfdata import format as layout
from tracer.perfdata.reader import read, read_directory

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
PUBLIC = ROOT.parent / "shared" / "captures" / "public"
HIGH = 0xFFFF_8000_0012_3457

REAL = sorted(
    str(p.relative_to(FIXTURES)).removesuffix(".zst") for p in FIXTURES.rglob("*.perf.data.zst")
)
if not JIT:  # 100 times slower
    REAL = [
        name
        for name in REAL
        if name in ("linux-7.3/mremap-64k.perf.data", "formats/pageout.pipe.zstd.perf.data")
    ]


def rows(capture: Capture, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of all events in seq order, the event's name first."""
    frames = [
        f.select(pl.lit(key).alias("event"), "seq", *columns) for key, f in capture.events.items()
    ]
    return pl.concat(frames).sort("seq").drop("seq").rows() if frames else []


def codes(capture: Capture) -> list[str]:
    return capture.diagnostics["code"].to_list()


# Real captures


def plain_rows(plain: plainperf.Plain) -> dict[str, list[dict[str, Any]]]:
    """Every sample by event, in (time, position) order."""
    found = []
    for kind, _, record in plain.records:
        if kind == plainperf.SAMPLE:
            attr = plainperf.attr_of_sample(plain, record)
            found.append((attr, plainperf.fields(plain, attr, record)))
    found.sort(key=lambda pair: pair[1]["time"])  # stable
    out: dict[str, list[dict[str, Any]]] = {}
    for attr, sample in found:
        if attr.type == 2:
            key = plain.formats[attr.config][0]
            sample["fields"] = plainperf.payload(plain, attr.config, sample["raw"])
        else:
            key = {0: "hardware", 1: "software"}[attr.type] + ":" + attr.name
        out.setdefault(key, []).append(sample)
    return out


def check_against_plain(data: bytes) -> Capture:
    """Compare every field of every sample."""
    capture = read(data)
    plain = plain_rows(plainperf.decode(data))
    assert set(capture.events) == set(plain)
    for key, samples in plain.items():
        frame = capture.events[key]
        schema.check(frame, schema.EVENT_COLUMNS, key)
        assert frame.height == len(samples)
        for column, name in (("ts", "time"), ("cpu", "cpu"), ("pid", "pid"), ("tid", "tid")):
            if name in samples[0]:
                assert frame[column].to_list() == [s[name] for s in samples]
        if "callchain" in samples[0]:
            assert frame["callchain"].to_list() == [s["callchain"] for s in samples]
        for name in samples[0].get("fields", {}):
            if name in ("common_type", "common_pid"):
                continue
            column = (
                name + "_" if name in dict(schema.polars_schema(schema.EVENT_COLUMNS)) else name
            )
            assert frame[column].to_list() == [s["fields"][name] for s in samples], (key, name)
        for name in ("ip", "period", "addr"):
            if f"sample_{name}" in frame.columns:
                assert frame[f"sample_{name}"].to_list() == [s[name] for s in samples]
    seqs = [f["seq"] for f in [*capture.events.values(), *capture.records.values()]]
    assert pl.concat(seqs).n_unique() == sum(s.len() for s in seqs)
    assert all(f["seq"].is_sorted() for f in capture.events.values())
    return capture


@pytest.mark.parametrize("name", REAL)
def test_every_field_of_a_real_capture(name: str) -> None:
    capture = check_against_plain(content(name))
    assert capture.diagnostics.height == 0
    about = capture.provenance
    assert about.arch == "aarch64"
    assert about.recorder == "perf 6.12.107"
    assert about.cmdline[:2] == ["/usr/bin/perf", "record"]
    assert about.byte_order == "little"
    assert about.clock == "local_clock"
    if "cpuclock" not in name:
        assert about.page_size == 4096
        assert all(fmt.key == key for key, fmt in capture.formats.items())
        assert set(capture.formats) == set(capture.events)


@pytest.mark.parametrize("name", REAL)
def test_side_tables_of_a_real_capture(name: str) -> None:
    data = content(name)
    capture, plain = read(data), plainperf.decode(data)
    for kind, table in ((3, "comm"), (7, "fork"), (4, "exit")):
        found = []
        for number, _, record in plain.records:
            if number == kind:
                end = plainperf.trailer(plain, record)
                if kind == 3:
                    pid, tid = struct.unpack_from("<ii", record, 8)
                    text = record[16:].split(b"\0")[0].decode()
                    found.append((end["time"], tid, pid, text))
                else:
                    found.append((end["time"], *struct.unpack_from("<ii", record, 8), ""))
        found.sort(key=lambda row: row[0])
        names = ["ts", "tid", "pid", "comm"] if kind == 3 else ["ts", "pid", "ppid"]
        have = capture.records[table].select(names).rows()
        assert have == [row[: len(names)] for row in found]
    maps = [r for k, _, r in plain.records if k == 10]
    have = capture.records["mmap"].filter(pl.col("prot").is_not_null())
    assert sorted(have["addr"].to_list()) == sorted(
        struct.unpack_from("<Q", r, 16)[0] for r in maps
    )
    names_there = {r[72:].split(b"\0")[0].decode() for r in maps}
    assert set(have["filename"]) == names_there


LINE = re.compile(
    r"^\s*(?P<comm>.*?)\s+(?P<tid>-?\d+) \[(?P<cpu>\d+)\]\s+(?P<sec>\d+)\.(?P<usec>\d+):"
    r"\s+(?P<event>\S+:\S+): (?P<text>.*)$"
)


def test_same_rows_and_values_as_perf_script() -> None:
    """pageout.perf-script.txt is perf's own reading of pageout.zstd.perf.data."""
    lines = content("formats/pageout.perf-script.txt").decode().splitlines()
    capture = read(content("formats/pageout.zstd.perf.data"))
    merged = sorted(
        (row for key, f in capture.events.items() for row in _named(key, f)),
        key=lambda row: row["seq"],
    )
    assert len(merged) == len(lines)
    compared = 0
    for line, row in zip(lines, merged, strict=True):
        m = LINE.match(line)
        assert m
        assert m["event"] == row["event"]
        # perf forgets a task's name at its exit, before its mm is torn down.
        assert m["comm"] in (row["comm"], f":{row['tid']}")
        assert int(m["tid"]) == row["tid"]
        assert int(m["cpu"]) == row["cpu"]
        assert int(m["sec"]) * 10**6 + int(m["usec"]) == row["ts"] // 1000
        for name, value in re.findall(r"(\w+)=(0x[0-9a-f]+|-?\d+)(?= |$)", m["text"]):
            have = row.get(name)
            if have is not None:
                assert int(value, 0) % 2**64 == have % 2**64, (name, line)
                compared += 1
    assert compared > 20_000


def _named(key: str, frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{"event": key, **row} for row in frame.rows(named=True)]


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public captures are not here")
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("sleep.data", 7),
        ("sleep.compressed.data", 8),
        ("sleep.compressed.pipe.data", 8),
        ("sleep.compressed2.data", 7),
        ("sleep.compressed2.pipe.data", 7),
        ("fibo.compressed2.pipe.data", 547),
    ],
)
def test_public_capture(name: str, samples: int) -> None:
    if samples > 100 and not JIT:
        pytest.skip("its call chains take long without the compiler")
    data = (PUBLIC / name).read_bytes()
    capture = check_against_plain(data)
    assert sum(f.height for f in capture.events.values()) == samples
    assert capture.records["mmap"].height > 0
    # perf's own messages follow this stream.
    assert codes(capture) == (["trailing-bytes"] if name == "sleep.compressed2.pipe.data" else [])
    assert capture.loss.height == 0


def test_features_of_a_real_capture() -> None:
    about = read(content("formats/pageout.lost.perf.data")).provenance
    assert about.kernel_release == "6.12.107+deb13-cloud-arm64"
    assert about.nr_cpus == 2
    features = about.extra["features"]
    assert features["nrcpus"] == {"available": 2, "online": 2}
    assert features["total_mem"] > 1 << 20
    assert len(features["cpu_topology"]["core_ids"]) == 2
    assert features["mem_topology"]["block_size"] == 128 << 20
    build_ids = {row["filename"]: row["build_id"] for row in features["build_id"]}
    assert len(build_ids["[kernel.kallsyms]"]) == 40
    assert about.extra["records"]["SAMPLE"] == 12745


def test_loss_is_not_counted_twice() -> None:
    """The capture says LOST 100 and, per event, LOST_SAMPLES of the same 100."""
    capture = read(content("formats/pageout.lost.perf.data"))
    assert capture.records["lost_samples"]["lost"].sum() == 100
    assert capture.loss["known"].sum() == 100
    row = capture.loss.row(0, named=True)
    assert row["source"] == "PERF_RECORD_LOST"
    assert row["cpu"] == 0
    assert row["ts"] == 16911546928


# Byte orders and containers


def workload(e: str = "<") -> File:
    """Two events and the life of two tasks."""
    f = File(e, [Attr(), Attr(config=401, ids=(2, 3), name="mm:free")])
    f.add_comm(0, 7, b"seven")
    f.add(68)
    f.add_fork(20, 8, 7)
    f.add_alloc(30, HIGH, tid=8, cpu=1)
    f.add_alloc(10, HIGH + 1)
    f.add_comm(35, 8, b"eight", misc=1 << 13)
    f.add_sample(1, free(e, 8, b"done"), time=40, pid=8, tid=8, id=3)
    return f


def check_workload(capture: Capture) -> None:
    assert codes(capture) == []
    assert rows(capture, "ts", "cpu", "pid", "tid", "comm") == [
        ("mm:alloc", 10, 0, 7, 7, "seven"),
        ("mm:alloc", 30, 1, 8, 8, "seven"),
        ("mm:free", 40, 0, 8, 8, "eight"),
    ]
    assert capture.events["mm:alloc"]["pfn"].to_list() == [HIGH + 1, HIGH]
    assert capture.events["mm:alloc"]["pfn"].dtype == pl.UInt64
    assert capture.events["mm:alloc"]["delta"].to_list() == [-1, -1]
    assert capture.events["mm:free"]["why"].to_list() == ["done"]
    assert capture.records["comm"]["exec"].to_list() == [False, True]
    about = capture.provenance
    assert (about.hostname, about.nr_cpus, about.page_size) == ("host", 2, 4096)
    assert about.cmdline == ["perf", "record"]


@pytest.mark.parametrize("e", ["<", ">"])
def test_file_in_both_byte_orders(e: str) -> None:
    capture = read(workload(e).build())
    check_workload(capture)
    assert capture.provenance.byte_order == ("big" if e == ">" else "little")
    assert capture.provenance.container == "perf.data"


@pytest.mark.parametrize("e", ["<", ">"])
@pytest.mark.parametrize("order", ["afe", "fae", "eaf"])
@pytest.mark.parametrize("padded", [True, False])
def test_pipe_in_any_order(e: str, order: str, padded: bool) -> None:
    """Old perf writes TRACING_DATA in 12 bytes, so that all records behind it are unaligned."""
    capture = read(workload(e).build_pipe(order, padded))
    check_workload(capture)
    assert capture.provenance.container == "perf.data pipe"


@pytest.mark.parametrize("e", ["<", ">"])
def test_version_1_has_one_magic_for_both_orders(e: str) -> None:
    capture = read(workload(e).build(magic=b"PERFFILE"))
    check_workload(capture)
    assert capture.provenance.container == "perf.data v1"
    check_workload(read(workload(e).build_pipe(magic=b"PERFFILE")))


def test_feature_bitmap_of_a_32_bit_big_endian_writer() -> None:
    check_workload(read(workload(">").build(word=4)))
    check_workload(read(workload("<").build(word=4)))


def test_any_buffer_will_do(tmp_path: Path) -> None:
    data = workload().build()
    (tmp_path / "x").write_bytes(data)
    mapped = np.memmap(tmp_path / "x", np.uint8, "r")
    for source in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), mapped):
        check_workload(read(source, "x"))


@pytest.mark.parametrize(
    "name", ["linux-7.3/fork-64k.perf.data", "formats/pageout.pipe.zstd.perf.data"]
)
def test_big_endian_twin_of_a_real_capture(name: str) -> None:
    """The same capture as a big-endian machine would have written it."""
    data = content(name)
    ours, theirs = read(data), read(_twin(plainperf.decode(data)))
    assert set(ours.events) == set(theirs.events)
    for key, frame in ours.events.items():
        assert frame.drop("seq").equals(theirs.events[key].drop("seq")), key
    assert theirs.provenance.byte_order == "big"


def _twin(plain: plainperf.Plain) -> bytes:
    used = [a for a in plain.attrs if a.type == 2]
    out = File(
        ">",
        [
            Attr(a.type, a.config, a.sample_type, a.ids, a.name, a.read_format, a.flags)
            for a in used
        ],
    )
    out.formats = _format_texts(plain)
    number = {a.ids: i for i, a in enumerate(used)}
    for kind, misc, record in plain.records:
        if kind == plainperf.SAMPLE:
            attr = plainperf.attr_of_sample(plain, record)
            sample = plainperf.fields(plain, attr, record)
            sample["id"] = sample["identifier"]
            raw = bytearray(sample.pop("raw"))
            for decl, offset, size, _, _ in plain.formats[attr.config][1]:
                if (size > 1 and "char" not in decl) or decl.startswith("__data_loc"):
                    raw[offset : offset + size] = raw[offset : offset + size][::-1]
            out.add_sample(number[attr.ids], bytes(raw), **sample)
        elif kind in (3, 4, 7):
            end = plainperf.trailer(plain, record)
            body = record[8 : -48 + 8 * (6 - _id_words(used[0].sample_type))]
            if kind == 3:
                pid, tid = struct.unpack_from("<ii", body)
                body = out.ints(pid, tid) + body[8:]
            else:
                body = out.ints(*struct.unpack_from("<4i", body)) + out.words(end["time"])
            ends = out.sample_id(end["time"], end["tid"], end["cpu"], pid=end["pid"], id=end["id"])
            out.add(kind, body + ends, misc)
    return out.build()


def _id_words(bits: int) -> int:
    return (bits & (TID | TIME | ID | STREAM | CPU | IDENTIFIER)).bit_count()


def _format_texts(plain: plainperf.Plain) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for ident, (key, fields) in plain.formats.items():
        system, _, name = key.partition(":")
        lines = "".join(
            f"\tfield:{decl};\toffset:{o};\tsize:{s};\tsigned:{int(g)};\n"
            for decl, o, s, g, _ in fields
        )
        out.setdefault(system, []).append(
            f'name: {name}\nID: {ident}\nformat:\n{lines}\nprint fmt: ""\n'
        )
    return out


# Compression and directories


def compressed(f: File, kind: int, cut: int, between: bytes = b"") -> list[bytes]:
    """The records of ``f`` as one zstd stream in records of at most ``cut`` plain bytes."""
    stream = zstd_module().ZstdCompressor()
    plain = b"".join(f.records)
    out = []
    for at in range(0, len(plain), cut):
        packed = stream.compress(plain[at : at + cut]) + stream.flush(stream.FLUSH_BLOCK)
        if kind == 83:
            packed = pad(f.words(len(packed)) + packed)
        out += [f.record(kind, packed), between]
    return out


@pytest.mark.parametrize("kind", [81, 83])
@pytest.mark.parametrize("cut", [13, 40, 100, 100_000])
@pytest.mark.parametrize("pipe", [False, True])
def test_compressed_records_straddle_chunks(kind: int, cut: int, pipe: bool) -> None:
    f = workload()
    f.records = compressed(f, kind, cut, between=f.record(68))
    f.features[27] = struct.pack("<5I", 1, 1, 1, 5, 1 << 20)
    data = f.build_pipe() if pipe else f.build()
    capture = read(data)
    check_workload(capture)
    name = "COMPRESSED" if kind == 81 else "COMPRESSED2"
    assert capture.provenance.extra["records"][name] == len(f.records) // 2


def test_directory_with_a_stream_per_thread(tmp_path: Path) -> None:
    f = workload()
    streams = [compressed(f, 83, 50), f.records[3:5]]
    f.records = f.records[:2]
    streams[0] = compressed(File(records=workload().records[5:]), 83, 50)
    (tmp_path / "data").write_bytes(f.build())
    (tmp_path / "data.0").write_bytes(b"".join(streams[0]))
    (tmp_path / "data.1").write_bytes(
        b"".join(compressed(File(records=workload().records[2:5]), 83, 60))
    )
    (tmp_path / "other").write_bytes(b"x")
    capture = read_directory(tmp_path)
    check_workload(capture)
    assert capture.provenance.container == "perf.data directory"
    assert capture.provenance.path == str(tmp_path)


def test_damage_in_a_directory_names_the_file(tmp_path: Path) -> None:
    f = workload()
    (tmp_path / "data").write_bytes(f.build())
    (tmp_path / "data.3").write_bytes(f.record(68) + b"\x09\0\0\0\0\0\x30\0half")
    capture = read_directory(tmp_path)
    assert codes(capture) == ["truncated-data"]
    assert "data.3" in capture.diagnostics["message"][0]
    assert capture.diagnostics["offset"][0] == 8


# Attributes and samples

EVERYTHING = (
    IDENTIFIER | IP | TID | TIME | ADDR | ID | STREAM | CPU | PERIOD | READ | CALLCHAIN | RAW
)


@pytest.mark.parametrize("e", ["<", ">"])
@pytest.mark.parametrize("branch", [0, 1 << 17, 1 << 17 | 1 << 19])
@pytest.mark.parametrize(
    ("read_format", "values"),
    [
        (0, [5]),
        (1 | 2 | 4 | 16, [5, 6, 7, 8, 9]),
        (1 | 4 | 8 | 16, [2, 50, 5, 1, 0, 6, 2, 0]),
    ],
)
def test_every_sample_field(e: str, branch: int, read_format: int, values: list[int]) -> None:
    """Fields are parsed past in their order on disk, which is not that of their bits."""
    bits = EVERYTHING | sum(1 << b for b in (11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23))
    attr = Attr(
        sample_type=bits,
        read_format=read_format,
        branch=branch,
        regs_user=0b1011,
        regs_intr=0b110,
        period=4000,
    )
    f = File(e, [attr])
    tail = f.words(2)  # branch stack
    tail += f.words(99) * bool(branch & 1 << 17) + f.words(1, 2, 3, 4, 5, 6)
    tail += f.words(8, 9) * bool(branch & 1 << 19)
    tail += f.words(2, 21, 22, 23)  # user registers: three are in the mask
    tail += f.words(16) + b"stack bytes 16 b" + f.words(11)
    tail += f.words(31, 32, 33)  # weight, data source, transaction
    tail += f.words(0)  # no interrupt registers
    tail += f.words(41, 42, 43, 44)  # physical address, cgroup, page sizes
    tail += f.words(3) + b"aux\0\0\0\0\0"
    f.add_sample(
        0,
        alloc(e, 7, HIGH),
        ip=HIGH,
        time=5,
        pid=7,
        tid=8,
        addr=HIGH + 1,
        cpu=3,
        period=9,
        read=values,
        callchain=[2**64 - 128, HIGH, HIGH + 8],
        tail=tail,
    )
    capture = read(f.build())
    assert codes(capture) == []
    row = capture.events["mm:alloc"].row(0, named=True)
    assert (row["ts"], row["cpu"], row["pid"], row["tid"], row["pfn"]) == (5, 3, 7, 8, HIGH)
    assert row["callchain"] == [2**64 - 128, HIGH, HIGH + 8]
    assert row["sample_addr"] == HIGH + 1
    assert row["sample_period"] == 9
    assert row["sample_read"] == values
    assert row["sample_branch_stack"] == [1, 2, 3, 4, 5, 6]
    assert row["sample_regs_user"] == [21, 22, 23]
    assert row["sample_regs_intr"] == []
    assert row["sample_stack_user"] == b"stack bytes"
    assert row["sample_aux"] == b"aux"
    words = ("weight", "data_src", "transaction", "phys_addr", "cgroup")
    assert [row[f"sample_{w}"] for w in words] == [31, 32, 33, 41, 42]
    assert (row["sample_data_page_size"], row["sample_code_page_size"]) == (43, 44)


def test_tracepoints_show_no_fields_without_meaning() -> None:
    f = workload()
    frame = read(f.build()).events["mm:alloc"]
    assert not [c for c in frame.columns if c.startswith("sample_")]


def test_other_events_than_tracepoints() -> None:
    bits = IDENTIFIER | IP | TID | TIME | PERIOD
    attrs = [
        Attr(0, 0, bits, (1,), "cycles:u", flags=SAMPLE_ID_ALL_FREQ),
        Attr(1, 3, bits, (2,), ""),
        Attr(9, 7, bits | RAW, (3,), "x/y/"),
    ]
    f = File(attrs=attrs)
    f.features[16] = struct.pack("<II", 1, 9) + f.text("ibs/op")
    for i in range(3):
        f.add_sample(i, b"rawr", ip=HIGH + i, time=i, tid=1, pid=1)
    capture = read(f.build())
    assert list(capture.events) == ["hardware:cycles:u", "software:context-switches", "ibs_op:x_y_"]
    assert [f["sample_ip"][0] for f in capture.events.values()] == [HIGH, HIGH + 1, HIGH + 2]
    assert capture.events["hardware:cycles:u"]["cpu"].to_list() == [None]
    assert capture.events["ibs_op:x_y_"]["raw"].to_list() == [b"rawr"]
    assert capture.formats == {}


SAMPLE_ID_ALL_FREQ = 1 << 18 | 1 << 10


def test_newer_attribute_is_read_and_named() -> None:
    f = workload()
    for attr in f.attrs:
        attr.size, attr.tail = 168, b"\1" * 8 + b"\2" * 20
    capture = read(f.build())
    assert codes(capture) == ["newer-attr"]
    capture.diagnostics = capture.diagnostics.clear()
    check_workload(capture)
    for attr in f.attrs:
        attr.tail = b""
    check_workload(read(f.build()))


@pytest.mark.parametrize("size", [64, 72, 80, 96, 104, 112, 120, 128, 136, 144])
def test_published_attribute_sizes(size: int) -> None:
    f = workload()
    for attr in f.attrs:
        attr.size = size
    check_workload(read(f.build()))
    check_workload(read(f.build_pipe()))


def test_clock() -> None:
    f = workload()
    for attr in f.attrs:
        attr.flags |= 1 << 25
        attr.clockid = 7
    assert read(f.build()).provenance.clock == "boottime"


def test_ids_without_identifier() -> None:
    """ID at one place in all events does as well."""
    bits = IP | TID | TIME | ID | CPU | RAW
    f = File(attrs=[Attr(sample_type=bits), Attr(config=401, ids=(2,), sample_type=bits | PERIOD)])
    f.add_sample(1, free("<", 1, b"y"), time=2)
    f.add_sample(0, alloc("<", 1, 5), time=1)
    capture = read(f.build())
    assert rows(capture, "ts") == [("mm:alloc", 1), ("mm:free", 2)]
    assert codes(capture) == []


@pytest.mark.parametrize("e", ["<", ">"])
def test_no_ids_but_equal_layout(e: str) -> None:
    """Recordings of the first perfs: told apart by common_type."""
    bits = IP | TID | TIME | CPU | RAW
    f = File(e, [Attr(sample_type=bits, ids=()), Attr(config=401, sample_type=bits, ids=())])
    f.add_sample(1, free(e, 1, b"y"), time=2)
    f.add_sample(0, alloc(e, 1, 5), time=1)
    f.add_sample(0, alloc(e, 1, 5, ident=999), time=3)
    capture = read(f.build())
    assert rows(capture, "ts") == [("mm:alloc", 1), ("mm:free", 2)]
    assert codes(capture) == ["unknown-id"]


def test_mixed_layouts_without_ids_are_refused() -> None:
    bits = IP | TID | TIME | RAW
    f = File(
        attrs=[Attr(sample_type=bits, ids=()), Attr(config=401, sample_type=bits | PERIOD, ids=())]
    )
    f.add_sample(0, alloc("<", 1, 5), time=1)
    capture = read(f.build())
    assert capture.events == {}
    assert codes(capture) == ["ambiguous-samples", "refused-sample"]
    assert capture.loss.row(0, named=True)["known"] == 1


def test_unknown_sample_bits_leave_out_that_event_only() -> None:
    f = workload()
    f.attrs[1].sample_type |= 1 << 30
    capture = read(f.build())
    assert list(capture.events) == ["mm:alloc"]
    assert codes(capture) == ["unknown-sample-bits", "refused-sample"]


def test_unknown_id_and_id_0() -> None:
    f = workload()
    f.add_alloc(50, 3, id=77)
    f.add_alloc(60, 4, id=0)  # made up by perf: belongs to the first event
    capture = read(f.build())
    assert capture.events["mm:alloc"]["ts"].to_list() == [10, 30, 60]
    assert codes(capture) == ["unknown-id"]
    assert capture.loss.select("known", "source").rows() == [(1, "unknown-id")]


def test_sample_whose_payload_is_another_event() -> None:
    f = workload()
    f.add_sample(1, alloc("<", 1, 5), time=50)
    capture = read(f.build())
    assert capture.events["mm:free"].height == 1
    assert codes(capture) == ["event-conflict"]


def test_two_attributes_of_one_event_share_a_frame() -> None:
    f = File(attrs=[Attr(), Attr(ids=(2,))])
    f.add_sample(1, alloc("<", 1, 5), time=2)
    f.add_sample(0, alloc("<", 1, 6), time=1)
    assert read(f.build()).events["mm:alloc"]["pfn"].to_list() == [6, 5]


def test_one_name_for_two_events() -> None:
    """A probe that was deleted and made anew has its name twice, with other fields."""
    f = workload()
    f.attrs[1].name = "mm:alloc"
    f.formats["mm"][1] = f.formats["mm"][1].replace("name: free", "name: alloc")
    capture = read(f.build())
    assert list(capture.events) == ["mm:alloc", "mm:alloc.401"]
    assert list(capture.formats) == ["mm:alloc", "mm:alloc.401"]
    assert capture.events["mm:alloc.401"]["why"].to_list() == ["done"]


def test_format_with_another_name_is_named() -> None:
    f = workload()
    f.attrs[0].name = "mm:other"
    capture = read(f.build())
    assert codes(capture) == ["name-conflict"]
    assert "mm:alloc" in capture.events


def test_attribute_that_differs_from_its_description() -> None:
    f = workload()
    f.features[12] = f.event_desc()
    f.attrs[0].type = 9
    assert codes(read(f.build())) == ["attr-conflict"]


# Order and names


def test_order_is_time_then_position() -> None:
    f = File()
    times = [5, 3, 3, 2**64 - 1, 0, 3]
    for i, time in enumerate(times):
        f.add_alloc(time, pfn=i)
        f.add_comm(time, 100 + i, b"x")
    capture = read(f.build())
    frame = capture.events["mm:alloc"]
    assert frame["pfn"].to_list() == [4, 1, 2, 5, 0, 3]
    assert frame["seq"].to_list() == [0, 2, 4, 6, 8, 10]
    assert capture.records["comm"]["seq"].to_list() == [1, 3, 5, 7, 9, 11]


def test_names_hold_from_their_record_on() -> None:
    f = File()
    for i, name in enumerate([b"first", b"second"]):
        f.add_comm(10 * i + 10, 7, name)
    for time in (9, 10, 19, 20, 25):
        f.add_alloc(time)
    f.add_alloc(26, tid=0)
    f.add_alloc(26, tid=99)
    assert read(f.build()).events["mm:alloc"]["comm"].to_list() == [
        *(None, "first", "first", "second", "second"),
        *("swapper", None),
    ]


def test_long_and_odd_names() -> None:
    f = File()
    f.add(3, f.ints(7, 7) + b"n" * 60_000 + f.sample_id(1, 7))  # no NUL
    f.add_comm(1, 8, b"\xff\x1b[31m")
    f.add_alloc(5)
    f.add_alloc(5, tid=8)
    comms = read(f.build()).events["mm:alloc"]["comm"].to_list()
    assert comms[0] == "n" * 60_000
    assert comms[1] == "\ufffd\x1b[31m"


# Side records


@pytest.mark.parametrize("e", ["<", ">"])
def test_side_records(e: str) -> None:
    f = File(e)
    end = f.sample_id(5, 3, 1)
    task, extent = f.ints(1, 2), f.words(HIGH, 4096, 7)
    f.add(1, task + extent + pad(b"old\0") + end, 1 << 13)
    f.add(10, task + extent + f.ints(8, 9) + f.words(10, 11) + f.ints(5, 2) + pad(b"lib\0") + end)
    ident = bytes([20, 0, 0, 0]) + bytes(range(20))
    f.add(10, task + extent + ident + f.ints(5, 2) + pad(b"id\0") + end, 1 << 14)
    f.add(4, f.ints(1, 0, 2, 0) + f.words(5) + end)
    f.add(14, end, 1 << 13 | 1 << 14)
    f.add(15, f.ints(4, 5) + end, 0)
    f.add(17, f.words(HIGH) + struct.pack(e + "IHH", 64, 1, 1) + pad(b"bpf_prog\0") + end)
    f.add(18, struct.pack(e + "HHI", 1, 0, 12) + bytes(range(8)) + end)
    f.add(19, f.words(77) + pad(b"/a/b\0") + end)
    f.add(20, f.words(HIGH) + struct.pack(e + "HH", 2, 1) + b"abc\0" + end)
    f.add(11, f.words(1, 2, 3) + end)
    f.add(5, f.words(5, 1, 1) + end)
    f.add(6, f.words(6, 1, 1) + end)
    f.add(12, task + end)
    f.add(16, task + f.words(1, 2, 3) + end)
    f.add(21, f.words(9) + end)
    f.add(22, f.words(5, 1, HIGH) + end)
    f.add(60, b"kernel record of the future" + end, 3)
    f.add(200, b"perf record of the future")
    f.add(70_000, b"somebody else's")
    capture = read(f.build())
    r = capture.records
    assert codes(capture) == ["unknown-records"]
    assert all(t["ts"].to_list() == [5] * t.height for k, t in r.items() if k != "unknown")
    maps = r["mmap"].select("addr", "filename", "data", "ino", "build_id", "prot").rows()
    assert maps == [
        (HIGH, "old", True, None, None, None),
        (HIGH, "lib", False, 10, None, 5),
        (HIGH, "id", False, None, bytes(range(20)), 5),
    ]
    assert r["switch"].select("out", "preempt", "next_prev_tid", "tid", "cpu").rows() == [
        (True, True, None, 3, 1),
        (False, False, 5, 3, 1),
    ]
    assert r["exit"].select("pid", "tid", "ptid").rows() == [(1, 2, 0)]
    ksymbol = r["ksymbol"].select("addr", "len", "ksym_type", "flags", "name").rows()
    assert ksymbol == [(HIGH, 64, 1, 1, "bpf_prog")]
    assert r["bpf_event"].select("type", "id", "tag").rows() == [(1, 12, bytes(range(8)))]
    assert r["cgroup"].select("id", "path").rows() == [(77, "/a/b")]
    assert r["text_poke"]["bytes"].to_list() == [b"abc\0"]
    assert r["aux"]["aux_size"].to_list() == [2]
    assert r["namespaces"]["namespaces"].to_list() == [f.words(2, 3)]
    assert r["callchain_deferred"]["callchain"].to_list() == [f.words(HIGH)]
    unknown = sorted(r["unknown"].select("type", "raw").rows())
    assert unknown == [
        (60, b"kernel record of the future"),
        (200, b"perf record of the future"),
        (70_000, b"somebody else's"),
    ]
    counts = capture.provenance.extra["records"]
    assert counts["MMAP2"] == 2
    assert counts["type 60"] == 1
    assert counts["type 255 and above"] == 1


def test_tables_name_every_type_once() -> None:
    kinds = [(r.type, r.misc) for r in layout.SIDE_RECORDS]
    assert len(kinds) == len(set(kinds))
    assert {r.type for r in layout.SIDE_RECORDS} <= set(layout.RECORDS)


# Loss


def losing(*lost: int) -> File:
    f = workload()
    for i, n in enumerate(lost):
        f.add(2, f.words(2, n) + f.sample_id(100 + i, 1, i))
    return f


def test_lost_records_have_time_and_cpu() -> None:
    capture = read(losing(5, 6).build())
    assert capture.loss.drop("event", "unknown").rows() == [
        (100, 0, 5, "PERF_RECORD_LOST"),
        (101, 1, 6, "PERF_RECORD_LOST"),
    ]
    schema.check(capture.loss, schema.LOSS_COLUMNS, "loss")


def test_lost_samples_alone_have_the_event() -> None:
    f = losing()
    f.add(13, f.words(4) + f.sample_id(attr=1))
    f.add(13, f.words(9) + f.sample_id(attr=1), 1 << 15)  # dropped by a filter: wanted
    capture = read(f.build())
    assert capture.loss.select("event", "known", "source").rows() == [
        ("mm:free", 4, "PERF_RECORD_LOST_SAMPLES")
    ]
    assert capture.records["lost_samples"]["filtered"].to_list() == [False, True]


def test_lost_samples_add_only_what_lost_does_not_have() -> None:
    f = losing(5)
    f.add(13, f.words(8) + f.sample_id(attr=1))
    assert read(f.build()).loss["known"].to_list() == [5, 3]


def test_throttled_event_loses_an_unknown_number() -> None:
    f = workload()
    f.add(5, f.words(50, 2, 2) + f.sample_id(50, 1, 1))
    row = read(f.build()).loss.row(0, named=True)
    assert (row["ts"], row["cpu"], row["event"], row["unknown"]) == (50, 1, "mm:free", True)


# Without the compiler


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="already without")
def test_same_without_the_compiler() -> None:
    """All of these tests again with the kernels as plain Python."""
    code = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", __file__),
            *(str(ROOT / f"tests/test_{n}.py") for n in ("decode", "perfdata_damage")),
        ],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=ROOT,
        check=False,
    )
    assert code.returncode == 0
