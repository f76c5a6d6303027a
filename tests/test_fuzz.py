# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged captures of every kind: a slice of ``make fuzz``, and damage made on purpose."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from backports import zstd

from tests.conftest import content
from tests.fuzz.contract import judge
from tests.fuzz.corpus import NAMES, lay_out, subject
from tests.fuzz.mutate import MUTATIONS, Mutant, mutate
from tests.fuzz.run import is_finding, run, schedule
from tracer.compression import limit
from tracer.errors import CaptureError
from tracer.ingest import read_capture

# Each takes about 40 ms. Another seed every day would make a red test of no one's change.
MUTANTS = int(os.environ.get("MMTRACE_FUZZ_MUTANTS", "2000"))
SEED = 7_000


@pytest.mark.slow
def test_mutants_keep_the_contract() -> None:
    answers = list(islice(run(schedule(SEED)), MUTANTS))
    findings = [a for a in answers if is_finding(a)]
    assert not findings, findings[:5]
    outcomes = Counter(a["outcome"] for a in answers)
    # A fuzzer whose mutants are all refused, or all harmless, tests nothing.
    assert outcomes["diagnosed"] > MUTANTS // 4
    assert outcomes["equal"] > MUTANTS // 20


def test_mutants_repeat() -> None:
    for name in NAMES[:3]:
        intact = subject(name)
        assert mutate(intact.data, 5, intact.hot) == mutate(intact.data, 5, intact.hot)
    kinds = {mutate(intact.data, s, intact.hot).kind for s in range(200)}
    assert len(kinds) == len(set(MUTATIONS))


# --- damage on purpose: the list that every reader of hostile files should stand -----------


def outcome(tmp_path: Path, name: str, data: bytes, at: int = 0, length: int = 0) -> str:
    lay_out(tmp_path)
    verdict = judge(name, Mutant(data, "crafted", at, length), tmp_path / ("m." + Path(name).name))
    assert not verdict.is_finding, verdict
    return verdict.outcome


def put(data: bytes, at: int, fmt: str, *values: int) -> bytes:
    new = struct.pack("<" + fmt, *values)
    return data[:at] + new + data[at + len(new) :]


PERF = "linux-7.3/zap-64k.perf.data"
DATA_AT = 40  # perf_file_header.data


def first_record(data: bytes) -> int:
    return int(struct.unpack_from("<Q", data, DATA_AT)[0])


def samples(data: bytes) -> list[int]:
    """:return: offsets of the SAMPLE records of a perf.data."""
    at, size = struct.unpack_from("<QQ", data, DATA_AT)
    out, end = [], at + size
    while at < end:
        kind, _, length = struct.unpack_from("<IHH", data, at)
        if kind == 9:
            out.append(at)
        at += length
    return out


@pytest.mark.parametrize("size", [0, 1, 7, 0xFFFF])
def test_record_sizes(tmp_path: Path, size: int) -> None:
    data = content(PERF)
    at = samples(data)[100]
    assert outcome(tmp_path, PERF, put(data, at + 6, "H", size)) == "diagnosed"


@pytest.mark.parametrize("field", range(24, 72, 8))
@pytest.mark.parametrize("value", [0, 1, 1 << 31, 1 << 61, (1 << 63) - 1, (1 << 64) - 1])
def test_header_sections(tmp_path: Path, field: int, value: int) -> None:
    outcome(tmp_path, PERF, put(content(PERF), field, "Q", value))


@pytest.mark.parametrize("field", [24, 32, 40, 56])
def test_feature_sections_beyond_the_end(tmp_path: Path, field: int) -> None:
    data = content(PERF)
    at, size = struct.unpack_from("<QQ", data, DATA_AT)
    for i in range(20):
        for value in (1 << 63, len(data) - 1, (1 << 64) - 1):
            section = at + size + 16 * i + field % 16
            outcome(tmp_path, PERF, put(data, section, "Q", value))


def test_a_killed_recording(tmp_path: Path) -> None:
    data = content(PERF)
    at, size = struct.unpack_from("<QQ", data, DATA_AT)
    killed = put(data, DATA_AT + 8, "Q", 0)[: at + size]
    assert outcome(tmp_path, PERF, killed) == "diagnosed"
    cut = samples(data)[1000] + 20
    assert outcome(tmp_path, PERF, data[:cut]) == "diagnosed"


def test_raw_sizes_and_chains(tmp_path: Path) -> None:
    name = "formats/pageout.callgraph.perf.data"
    data = content(name)
    for at in samples(data)[50:60]:
        length = struct.unpack_from("<H", data, at + 6)[0]
        for offset in range(at + 8, at + length - 8, 8):
            for value in (1 << 61, 0xFFFFFFFF, 0xFFFF):
                outcome(tmp_path, name, put(data, offset, "Q", value), offset, 8)


def test_compressed_bombs(tmp_path: Path) -> None:
    name = "formats/pageout.zstd.perf.data"
    data = content(name)
    bomb = zstd.compress(bytes(1 << 30), 19)
    at = first_record(data)
    while struct.unpack_from("<I", data, at)[0] != 81:
        at += struct.unpack_from("<H", data, at + 6)[0]
    length = struct.unpack_from("<H", data, at + 6)[0]
    body = bomb[: length - 8].ljust(length - 8, b"\0")
    assert outcome(tmp_path, name, data[: at + 8] + body + data[at + length :]) == "diagnosed"


@pytest.mark.parametrize("wrap", [zstd.compress])
def test_wrapped_bombs(tmp_path: Path, wrap: object) -> None:
    file = tmp_path / "bomb.zst"
    file.write_bytes(zstd.compress(b"PERFILE2" + bytes(limit(0) + (1 << 28)), 19))
    with pytest.raises(CaptureError, match="times its size"):
        read_capture(file)


def option_chain(data: bytes) -> list[int]:
    """:return: offsets of the u64 in each DONE option of a trace.dat 7, first the header's."""
    at = data.index(b"7\0") + 2 + 1 + 1 + 4
    for _ in range(2):  # name and version of the compression
        at = data.index(b"\0", at) + 1
    out = [at]
    while (section := struct.unpack_from("<Q", data, out[-1])[0]) and len(out) < 20:
        option = section + 16
        while (ident := struct.unpack_from("<H", data, option)[0]) != 0:
            assert ident < 64
            option += 6 + struct.unpack_from("<I", data, option + 2)[0]
        out.append(option + 6)
    return out


@pytest.mark.parametrize("name", ["formats/pageout.function.dat", "formats/pageout.v7.zlib.dat"])
def test_option_cycles(tmp_path: Path, name: str) -> None:
    data = content(name)
    chain = option_chain(data)
    first = struct.unpack_from("<Q", data, chain[0])[0]
    for at in chain:
        for target in (first, at - 6, 0, 1, len(data) - 1, len(data), (1 << 64) - 1):
            outcome(tmp_path, name, put(data, at, "Q", target))


@pytest.mark.parametrize("commit", [4, 0xFF0 + 1, 0x7FFFFFF, 0xFFFFFFFF, (1 << 64) - 1])
def test_page_lengths(tmp_path: Path, commit: int) -> None:
    name = "formats/pageout.cpu0.trace_pipe_raw"
    data = content(name)
    for page in (4096, 5 * 4096):
        outcome(tmp_path, name, put(data, page + 8, "Q", commit), page + 8, 8)


@pytest.mark.parametrize("word", [0, 29, 0x3D, 30, 31, 0xFFFFFFFF, 1 << 5])
def test_event_headers(tmp_path: Path, word: int) -> None:
    name = "formats/pageout.cpu0.trace_pipe_raw"
    data = content(name)
    for at in range(4096 + 16, 4096 + 80, 4):
        outcome(tmp_path, name, put(data, at, "I", word), at, 4)


FIELD = b"\tfield:u64 folio;\toffset:16;\tsize:8;\tsigned:0;\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"offset:16;", b"offset:99999;"),
        (b"size:8;", b"size:3;"),
        (b"u64 folio", b"u64 folio[2147483648]"),
        (b"u64 folio", b"__data_loc char[] folio"),
        (b"ID: ", b"ID: -"),
        (b"ID: ", b"NO: "),
        (b"name: ", b"name: ../../"),
        (b"name: ", b"name: \xff\x1b[2J"),
        (FIELD, FIELD * 2000),
        (b"print fmt: ", b"print fmt: " + b"(" * 100_000),
        (b"print fmt: ", b'print fmt: "%s", __print_flags(REC->folio, "|", ' + b"{" * 99_999),
    ],
    ids=range(11),
)
def test_event_formats(tmp_path: Path, old: bytes, new: bytes) -> None:
    name = "formats/pageout.cpu0.trace_pipe_raw"
    lay_out(tmp_path)
    for file in (tmp_path / "raw-format-files").glob("mmtrace.try_to*.format"):
        file.write_bytes(file.read_bytes().replace(old, new, 1))
    (tmp_path / "cpu0.trace_pipe_raw").write_bytes(content(name))
    with contextlib.suppress(CaptureError):
        read_capture(tmp_path / "cpu0.trace_pipe_raw")


def test_texts(tmp_path: Path) -> None:
    name = "formats/pageout.ftrace.txt"
    data = content(name)
    middle = data.index(b"\n", len(data) // 2) + 1
    for new in (
        b"x" * 10_000_000 + b"\n", b"\0" * 4096, b"a-1 [000] 1.0: x:\n", b"\xff\xfe\n",
        b"\n" * 10**6,
        b" a-1 [000] d.... 1.000000: b-2 [001] d.... 2.000000: x: y=1\n",
        b" a-1 [999999999999] d.... 99999999999999999999.000000: x: y=1\n",
    ):  # fmt: skip
        outcome(tmp_path, name, data[:middle] + new + data[middle:], middle, 0)
    outcome(tmp_path, name, data.replace(b"\n", b"\r\n"))
    assert outcome(tmp_path, name, data[:-30]) == "diagnosed"


def test_what_is_no_capture(tmp_path: Path) -> None:
    for i, data in enumerate(
        (b"", b"\0", b"PERFILE2", b"\x17\x08\x44tracing7\0", b"\x28\xb5\x2f\xfd")
    ):
        file = tmp_path / f"f{i}"
        file.write_bytes(data)
        with pytest.raises(CaptureError):
            read_capture(file)
    os.truncate(file, 1 << 42)
    with pytest.raises(CaptureError):
        read_capture(file)
