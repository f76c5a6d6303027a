# SPDX-License-Identifier: GPL-2.0-or-later
"""perf.data cut, damaged or made to do harm: what is intact comes out, the rest is named."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from typing import Any

import polars as pl
import pytest

from tests.conftest import content
from tests.perfwriter import RAW, TRACEPOINT, Attr, File, alloc
from tests.test_perfdata import JIT, check_workload, codes, compressed, workload
from tracer.capture import Capture
from tracer.compression import zstd_module
from tracer.errors import CaptureError
from tracer.perfdata.reader import read, read_directory

CALLCHAIN, READ, BRANCH, REGS, STACK, AUX = 1 << 5, 1 << 4, 1 << 11, 1 << 12, 1 << 13, 1 << 20
HUGE = 2**61


def messages(capture: Capture) -> str:
    return " ".join(capture.diagnostics["message"])


# Killed and cut recordings


def test_killed_recorder_leaves_every_sample() -> None:
    f = workload()
    capture = read(f.build(finished=False))
    assert codes(capture) == ["unfinished-recording", "no-format"]
    assert capture.events["unknown:400"]["ts"].to_list() == [10, 30]
    assert capture.events["unknown:400"]["comm"].to_list() == ["seven", "seven"]
    assert capture.events["unknown:400"]["raw"][0][:2] == b"\x90\x01"
    assert capture.loss.row(0, named=True)["unknown"]


def test_formats_of_another_capture_stand_in() -> None:
    whole = read(workload().build())
    capture = read(workload().build(finished=False), formats=whole.formats)
    assert codes(capture) == ["unfinished-recording", "borrowed-formats"]
    for key, frame in whole.events.items():
        assert capture.events[key].equals(frame)


def test_borrowed_formats_are_found_by_name_where_there_are_names() -> None:
    f = workload()
    f.features[1] = None  # type: ignore[assignment]
    f.attrs[0].config, f.attrs[0].name = 900, "mm:alloc"  # another boot, another id
    f.records = []
    f.add_sample(0, alloc("<", 1, 5, ident=900), time=1)
    capture = read(f.build(), formats=read(workload().build()).formats)
    assert capture.events["mm:alloc"]["pfn"].to_list() == [5]
    assert codes(capture) == ["borrowed-formats"]


def test_every_cut_keeps_all_records_in_front_of_it() -> None:
    f = workload()
    data = f.build()
    ends, at = [], 104 + sum(8 * len(a.ids) for a in f.attrs) + 152 * len(f.attrs)
    start = at
    for record in f.records:
        at += len(record)
        ends.append((at, record[0] == 9))
    for cut in range(0, len(data), 3 if JIT else 50):
        try:
            capture = read(data[:cut])
        except CaptureError:
            assert cut < start
            continue
        whole = sum(sample for end, sample in ends if end <= cut)
        assert sum(frame.height for frame in capture.events.values()) == whole
        assert capture.diagnostics.height > 0


def test_real_capture_cut_in_the_middle() -> None:
    data = content("linux-7.3/zap-64k.perf.data")
    whole = read(data)
    capture = read(data[: len(data) // 2], formats=whole.formats)
    assert "truncated-data" in codes(capture)
    assert set(capture.events) < set(whole.events)
    kept = sum(f.height for f in capture.events.values())
    assert kept > 1000
    for key, frame in capture.events.items():
        fields = frame.columns[1:]
        assert frame.select(fields).equals(whole.events[key].select(fields).head(frame.height))


def test_cut_pipe_stream() -> None:
    data = workload().build_pipe()
    capture = read(data[:-5])
    assert codes(capture) == ["truncated-data"]
    assert list(capture.events) == ["mm:alloc"]
    with pytest.raises(CaptureError, match="no event attributes"):
        read(data[:16])


# Records


@pytest.mark.parametrize("size", [0, 1, 7])
def test_impossible_record_size_stops_the_walk(size: int) -> None:
    """A size of 0 makes naive readers run for ever."""
    f = workload()
    f.records.insert(5, struct.pack("<IHH", 9, 0, size))
    capture = read(f.build())
    assert codes(capture) == ["bad-record-size"]
    assert f"size of {size} bytes" in messages(capture)
    assert capture.events["mm:alloc"].height == 2
    assert capture.diagnostics["bytes"][0] == sum(len(r) for r in f.records[5:])


def test_record_larger_than_what_is_left() -> None:
    f = workload()
    f.records.append(struct.pack("<IHH", 9, 0, 60_000) + b"\0" * 100)
    capture = read(f.build())
    assert codes(capture) == ["truncated-data"]
    assert capture.events["mm:free"].height == 1


TAILS: list[tuple[str, int, bytes]] = [
    ("raw size", 0, struct.pack("<I", 5000)),
    ("raw size of 4 GB", 0, struct.pack("<I", 2**32 - 1)),
    ("callchain", CALLCHAIN, struct.pack("<QQ", 2, 1)),
    ("callchain overflow", CALLCHAIN, struct.pack("<QQ", HUGE, 1)),
    ("callchain overflow to 0", CALLCHAIN, struct.pack("<QQ", 2**61 + 1, 1)),
    ("read group", READ, struct.pack("<QQ", 100, 1)),
    ("read group overflow", READ, struct.pack("<QQ", HUGE, 1)),
    ("branch stack", BRANCH, struct.pack("<IIQQ", 4, 0, 4, 1)),
    ("branch stack overflow", BRANCH, struct.pack("<IIQ", 4, 0, 2**64 // 24 + 1)),
    ("registers", REGS, struct.pack("<IIQQ", 4, 0, 1, 1)),
    ("stack", STACK, struct.pack("<IIQQ", 4, 0, 64, 1)),
    ("stack without its size", STACK, struct.pack("<IIQQ", 4, 0, 8, 1)),
    ("stack overflow", STACK, struct.pack("<IIQ", 4, 0, 2**64 - 1)),
    ("aux", AUX, struct.pack("<IIQ", 4, 0, 9)),
    ("nothing", AUX, b""),
]


@pytest.mark.parametrize(("what", "bits", "tail"), TAILS, ids=[t[0] for t in TAILS])
def test_field_that_does_not_fit_drops_that_sample(what: str, bits: int, tail: bytes) -> None:
    attr = Attr(sample_type=TRACEPOINT | bits, read_format=8 | 1, regs_user=2**64 - 1)
    f = File(attrs=[attr])
    fixed = f.words(1, 0) + f.ints(7, 7) + f.words(5, 0, 1)
    f.add(9, fixed + tail)
    f.add_comm(6, 7, b"x")
    capture = read(f.build())
    assert capture.events == {}
    assert codes(capture) == ["bad-sample"]
    assert capture.loss.select("known", "source").rows() == [(1, "bad-sample")]
    assert capture.records["comm"].height == 1


def test_dynamic_stack_size_beyond_the_stack() -> None:
    f = File(attrs=[Attr(sample_type=TRACEPOINT | STACK)])
    tail = f.words(8) + b"12345678" + f.words(2**63)
    f.add_sample(0, alloc("<", 1, 1), time=1, tail=tail)
    assert read(f.build()).events["mm:alloc"]["sample_stack_user"].to_list() == [b"12345678"]


def test_short_side_records_are_kept_without_what_they_lack() -> None:
    f = workload()
    f.add(3, b"")
    f.add(7, f.ints(1))
    f.add(17, b"abc")
    f.add(2, b"")
    f.add(13, b"")
    f.add(10, b"\0" * 20)
    capture = read(f.build())
    assert capture.events["mm:alloc"].height == 2
    assert capture.records["comm"].height == 3
    assert capture.records["ksymbol"]["addr"].to_list() == [None]
    assert set(codes(capture)) == {"short-record"}
    assert capture.loss.height == 0


def test_auxtrace_behind_its_record_is_skipped() -> None:
    f = workload()
    blob = b"\x09\0\0\0\0\0\x08\0" * 4
    f.records.insert(4, f.record(71, f.words(len(blob), 0, 0, 0, 0)) + blob)
    check_workload(read(f.build()))
    f.records.insert(4, f.record(71, f.words(2**64 - 8, 0, 0, 0, 0)))
    assert codes(read(f.build())) == ["truncated-data"]


# Header, attributes, features


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no perf.data"),
        (b"PERFILE2", "no perf.data"),
        (b"x" * 200, "no perf.data"),
        (b"PERFILE2" + b"\0" * 20, "ends inside its header"),
        (b"PERFILE2" + struct.pack("<QQQQ", 104, 0, 104, 144) + b"\0" * 80, "attributes"),
        (b"PERFILE2" + struct.pack("<QQQQ", 104, 152, 2**63, 152) + b"\0" * 80, "attributes"),
        (b"PERFILE2" + struct.pack("<QQQQ", 104, 2**40, 104, 2**41) + b"\0" * 80, "attributes"),
    ],
)
def test_hopeless_files_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(CaptureError, match=match):
        read(data)


def test_attributes_beyond_the_end() -> None:
    data = bytearray(workload().build())
    struct.pack_into("<Q", data, 32, 152 * 10**9)
    capture = read(bytes(data))
    assert "truncated-attrs" in codes(capture)
    assert capture.events["mm:alloc"].height == 2


def test_ids_beyond_the_end() -> None:
    f = workload()
    data = bytearray(f.build())
    (attrs,) = struct.unpack_from("<Q", data, 24)
    struct.pack_into("<QQ", data, attrs + 136, 2**63, 2**63 + 8)
    capture = read(bytes(data))
    assert codes(capture)[0] == "bad-ids"
    assert "unknown-id" in codes(capture)


def test_two_events_with_one_id() -> None:
    f = workload()
    f.attrs[1].ids = (1,)
    capture = read(f.build())  # the first keeps it
    assert capture.events["mm:alloc"].height == 2
    assert "unknown-id" in codes(capture)


@pytest.mark.parametrize("bit", [3, 7, 11, 12, 13, 14, 16, 17, 18, 20, 22, 25, 26, 28, 29, 31])
@pytest.mark.parametrize(
    "raw", [b"", b"\xff" * 3, b"\xff" * 8, b"\xff" * 64, b"\0" * 7, b"\1\0\0\0" * 9]
)
def test_damaged_feature_fails_alone(bit: int, raw: bytes) -> None:
    f = workload()
    f.features[bit] = raw
    capture = read(f.build())
    assert [c for c in codes(capture) if c != "bad-feature"] == []
    assert capture.events["mm:alloc"].height == 2


def test_feature_sections_beyond_the_end() -> None:
    f = workload()
    data = bytearray(f.build())
    start, size = struct.unpack_from("<QQ", data, 40)
    struct.pack_into("<QQ", data, start + size + 16, 2**63, 2**63)  # HOSTNAME
    capture = read(bytes(data))
    assert codes(capture) == ["missing-features"]
    assert "HOSTNAME" in messages(capture)
    assert capture.provenance.hostname is None
    assert capture.provenance.nr_cpus == 2


def test_unknown_features_are_counted() -> None:
    f = workload()
    f.features.update({40: b"xyz", 255: b"12345"})
    capture = read(f.build())
    assert capture.provenance.extra["features_skipped"] == {"feature 40": 3, "feature 255": 5}
    check_workload(capture)


def test_damaged_tracing_data() -> None:
    f = workload()
    blob = f.tracing_data()
    for cut in (0, 5, 30, len(blob) // 2, len(blob) - 20):
        f.features[1] = blob[:cut]
        capture = read(f.build())
        assert set(codes(capture)) & {"bad-feature", "damaged-metadata"}
        assert sum(frame.height for frame in capture.events.values()) == 3


@pytest.mark.parametrize("kind", [64, 65, 66, 67, 78, 80])
def test_damaged_metadata_records(kind: int) -> None:
    f = workload()
    for body in (b"", b"\xff" * 4, b"\xff" * 8, b"\xff" * 100, b"\0" * 24):
        f.records.insert(0, f.record(kind, body))
    data = f.build_pipe()
    if kind == 66:  # whose blob of 4 GB swallows the rest
        assert "truncated-data" in codes(read(data))
        return
    capture = read(data)
    assert capture.events["mm:alloc"].height >= 1


# Compression


def packed(f: File, body: bytes, level: int = 3) -> bytes:
    stream = zstd_module().ZstdCompressor(level)
    return f.record(81, stream.compress(body) + stream.flush(stream.FLUSH_BLOCK))


def test_bomb_stops_at_the_limit() -> None:
    f = workload()
    f.features[27] = struct.pack("<5I", 1, 1, 1, 5, 4096)
    f.records.append(packed(f, b"\0" * (200 << 20)))
    tracemalloc.start()
    capture = read(f.build())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    assert codes(capture) == ["compression-limit"]
    assert capture.events["mm:alloc"].height == 2


@pytest.mark.skipif(not JIT, reason="16 MB of records take a minute without the compiler")
def test_many_small_bombs_stop_at_the_budget() -> None:
    f = workload()
    filler = f.record(68) * (1 << 13)
    stream = zstd_module().ZstdCompressor()
    for _ in range(2000):
        f.add(81, stream.compress(filler * 8) + stream.flush(stream.FLUSH_BLOCK))
    data = f.build()
    assert 2000 * 8 * len(filler) > 100 * len(data)
    capture = read(data)
    assert codes(capture) == ["compression-limit"]
    total = sum(capture.provenance.extra["records"].values())
    assert 8 * total <= max(100 * len(data), 16 << 20) + len(data)


@pytest.mark.parametrize("kind", [81, 83])
def test_damaged_chunk_ends_the_compressed_records(kind: int) -> None:
    f = workload()
    f.records = compressed(f, kind, 100)
    broken = bytearray(f.records[4])
    broken[-12:] = b"\xff" * 12
    f.records[4] = bytes(broken)
    f.add_comm(99, 12, b"plain")
    capture = read(f.build())
    assert "bad-compression" in codes(capture)
    assert capture.records["comm"]["comm"].to_list()[-1] == "plain"


def test_compressed2_size_beyond_the_record() -> None:
    f = workload()
    records = compressed(f, 83, 100_000)
    whole = bytearray(records[0])
    struct.pack_into("<Q", whole, 8, 2**63)
    f.records = [bytes(whole)]
    check_workload(read(f.build()))


def test_recorder_that_did_not_flush_its_last_record() -> None:
    """perf 6.1 does so when its output buffer is full."""
    f = workload()
    f.records[-1] = f.records[-1][:-8]
    f.records = compressed(f, 81, 100)
    capture = read(f.build())
    assert codes(capture) == ["truncated-data"]
    assert list(capture.events) == ["mm:alloc"]


# Harm


def test_wide_formats_do_not_multiply_the_file() -> None:
    f = workload()
    fields = "".join(f"\tfield:u64 f{i};\toffset:8;\tsize:8;\tsigned:0;\n" for i in range(4000))
    f.formats = {"mm": [f'name: alloc\nID: 400\nformat:\n{fields}\nprint fmt: ""\n']}
    capture = read(f.build())
    assert "format-too-wide" in codes(capture)
    assert capture.events["mm:alloc"].width < 60


@pytest.mark.skipif(not JIT, reason="takes minutes without the compiler")
def test_many_events_and_updates_take_linear_time() -> None:
    f = File(attrs=[Attr(config=i, ids=(i + 1,), name="") for i in range(4000)])
    f.features[12] = None  # type: ignore[assignment]
    for i in range(4000):
        f.add(78, f.words(2, i + 1) + b"mm:e%d\0" % i)
        f.add(65, f.words(i) + b"mm:x\0")
        f.add(5, f.words(1, i + 1, 0) + f.sample_id())
    began = time.monotonic()
    capture = read(f.build_pipe("a"))
    assert time.monotonic() - began < 20
    assert capture.loss["event"][17] == "mm:x"
    assert capture.loss.height == 4000


@pytest.mark.skipif(not JIT, reason="takes minutes without the compiler")
def test_ids_made_to_collide() -> None:
    """All ids hash to one slot of the table of ids."""
    ids = tuple(i << 32 | i for i in range(1, 60_000))
    f = File(attrs=[Attr(ids=(1,)), Attr(config=401, ids=ids)])
    f.add_alloc(1)
    began = time.monotonic()
    capture = read(f.build())
    assert time.monotonic() - began < 20
    assert capture.events["mm:alloc"].height == 1


def test_names_from_the_file_are_safe_as_file_names() -> None:
    f = File(attrs=[Attr(0, 0, TRACEPOINT & ~RAW, (1,), "../../etc/passwd\n")])
    f.add_sample(0, time=1)
    assert list(read(f.build()).events) == ["hardware:.._.._etc_passwd_"]


def test_missing_directory(tmp_path: Any) -> None:
    with pytest.raises(CaptureError, match="cannot be read"):
        read_directory(tmp_path)


def mutants(data: bytes, rng: random.Random, count: int) -> Any:
    """Bit flips, ones, zeros, extreme numbers, cuts and gaps, most of them in the metadata."""
    numbers = (0, 1, 7, 8, 2**31, 2**32 - 1, 2**61, 2**63, 2**64 - 1, len(data))
    for _ in range(count):
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            near = rng.choice((len(out), 600, 600))
            at = rng.randrange(min(near, len(out)))
            at = at if rng.random() < 0.6 else max(0, len(out) - 1 - at)
            what = rng.randrange(6)
            if what == 0:
                out[at] ^= 1 << rng.randrange(8)
            elif what == 1:
                out[at : at + 8] = b"\xff" * 8
            elif what == 2:
                out[at : at + 4] = b"\0" * 4
            elif what == 3:
                out[at & ~7 : (at & ~7) + 8] = struct.pack("<Q", rng.choice(numbers))
            elif what == 4:
                del out[at : at + rng.randrange(1, 50)]
            else:
                del out[at:]
            if not out:
                break
        yield bytes(out)


def small_captures() -> dict[str, bytes]:
    packed_file = workload()
    packed_file.records = compressed(packed_file, 83, 60)
    return {
        "file": workload().build(),
        "big-endian": workload(">").build(),
        "pipe": workload().build_pipe(),
        "compressed": packed_file.build(),
        "killed": workload().build(finished=False),
    }


@pytest.mark.parametrize("kind", list(small_captures()))
def test_mutants_give_frames_or_one_clear_error(kind: str) -> None:
    rng = random.Random(kind)
    data = small_captures()[kind]
    began = time.monotonic()
    count = 400 if JIT else 20
    for mutant in mutants(data, rng, count):
        try:
            capture = read(mutant)
        except CaptureError:
            continue
        for frame in capture.events.values():
            assert frame["seq"].is_sorted()
            assert frame.height < len(mutant)
    assert time.monotonic() - began < 0.25 * count


def test_a_lost_sample_is_always_named() -> None:
    """Whatever byte changes: all samples are there, or a diagnostic is, or the counts differ."""
    f = workload()
    data = f.build()
    records = read(data).provenance.extra["records"]
    start, size = struct.unpack_from("<QQ", data, 40)
    for at in range(start, start + size, 1 if JIT else 37):
        mutant = bytearray(data)
        mutant[at] ^= 0x41
        capture = read(bytes(mutant))
        height = sum(frame.height for frame in capture.events.values())
        assert (
            height == 3
            or capture.diagnostics.height
            or capture.provenance.extra["records"] != records
        ), at


def test_numbers_of_any_size_fit_the_tables() -> None:
    f = workload()
    for _ in range(2):
        f.add(2, f.words(1, 2**64 - 1) + f.sample_id(2**64 - 1, -1, 2**32 - 2))
        f.add(13, f.words(2**64 - 1) + f.sample_id())
    capture = read(f.build())
    assert capture.loss["cpu"].to_list() == [None, None]
    assert capture.loss["known"].to_list() == [2**64 - 1] * 2
    data = bytearray(f.build())
    struct.pack_into("<Q", data, 48, 2**64 - 1)
    assert "truncated-data" in codes(read(bytes(data)))


def test_diagnostics_and_loss_keep_their_columns() -> None:
    capture = read(workload().build()[:-900])
    assert capture.diagnostics.schema["offset"] == pl.UInt64
    assert set(capture.diagnostics["severity"]) <= {"note", "warning", "loss"}
