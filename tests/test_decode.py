# SPDX-License-Identifier: GPL-2.0-or-later
"""Typed gathering of tracepoint payloads, against struct."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import polars as pl
import pytest

from tracer import decode, eventformat, kernels, schema

HIGH = 0xFFFF_8000_0012_3457

FORMAT = """name: sample
ID: 301
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long addr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:s16 small;\toffset:16;\tsize:2;\tsigned:1;
\tfield:u8 order;\toffset:18;\tsize:1;\tsigned:0;
\tfield:s8 delta;\toffset:19;\tsize:1;\tsigned:1;
\tfield:int pid;\toffset:20;\tsize:4;\tsigned:1;
\tfield:char comm[8];\toffset:24;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:0;
\tfield:__rel_loc char[] rel;\toffset:36;\tsize:4;\tsigned:0;
\tfield:u32 triple[3];\toffset:40;\tsize:12;\tsigned:0;
\tfield:u8 raw[4];\toffset:52;\tsize:4;\tsigned:0;
\tfield:__data_loc cpumask_t mask;\toffset:56;\tsize:4;\tsigned:0;

print fmt: "%lx", REC->addr
"""


def payload(e: str, i: int, name: bytes, rel: bytes) -> bytes:
    """One record of FORMAT in byte order ``e``."""
    at = 60
    head = struct.pack(
        e + "HBBiQhBbi8s",
        301,
        1,
        2,
        1000 + i,
        HIGH + i,
        -i,
        i % 256,
        -1,
        -7 - i,
        b"ab%d" % (i % 3),
    )
    tail = name + b"\0" + rel + b"\0" + b"\x05\x06\x07"
    n, r = len(name) + 1, len(rel) + 1
    head += struct.pack(e + "I", at | n << 16)
    head += struct.pack(e + "I", (at + n - 40) | r << 16)
    head += struct.pack(e + "III4sI", i, i + 1, 0xFFFFFFFF, b"\1\2\0\4", (at + n + r) | 3 << 16)
    return head + tail


def columns(blobs: list[bytes], gap: bytes = b"\xee") -> tuple[Any, Any, Any]:
    """Records at odd offsets: buffer, offsets, lengths."""
    buf, off = b"", []
    for blob in blobs:
        buf += gap
        off.append(len(buf))
        buf += blob
    return buf, np.array(off), np.array([len(b) for b in blobs])


def build(
    blobs: list[bytes], big: bool = False, text: str = FORMAT, ids: Any = None, **kw: Any
) -> tuple[dict[str, pl.DataFrame], list[decode.Diagnostic]]:
    buf, off, length = columns(blobs)
    n = len(blobs)
    fmt = eventformat.parse("mm", text)
    return decode.build_frames(
        buf,
        off,
        length,
        np.full(n, fmt.id) if ids is None else ids,
        np.arange(n, dtype=np.uint64) * 10,
        np.arange(n, dtype=np.uint32) % 2,
        kw.pop("pid", np.full(n, 5, np.int32)),
        np.arange(n, dtype=np.int32) + 100,
        kw.pop("comms", None),
        {fmt.id: fmt},
        big,
        np.arange(n, dtype=np.uint64),
        **kw,
    )


@pytest.mark.parametrize("big", [False, True])
def test_every_kind_of_field(big: bool) -> None:
    e = ">" if big else "<"
    n = 5
    frames, diagnostics = build([payload(e, i, b"n%d" % i, b"\xffrel") for i in range(n)], big)
    assert not diagnostics
    frame = frames["mm:sample"]
    schema.check(frame, schema.EVENT_COLUMNS, "frame")
    assert frame["addr"].to_list() == [HIGH + i for i in range(n)]
    assert frame["addr"].dtype == pl.UInt64
    assert frame["small"].to_list() == [-i for i in range(n)]
    assert frame["small"].dtype == pl.Int16
    assert frame["order"].dtype == pl.UInt8
    assert frame["delta"].to_list() == [-1] * n
    assert frame["pid"].to_list() == [5] * n
    assert frame["pid_"].to_list() == [-7 - i for i in range(n)]
    assert frame["comm_"].to_list() == [f"ab{i % 3}" for i in range(n)]
    assert frame["name"].to_list() == [f"n{i}" for i in range(n)]
    assert frame["rel"].to_list() == ["\ufffdrel"] * n
    assert frame["triple"].to_list() == [[i, i + 1, 0xFFFFFFFF] for i in range(n)]
    assert frame["triple"].dtype == pl.List(pl.UInt32)
    assert frame["raw"].to_list() == [b"\1\2\0\4"] * n
    assert frame["mask"].to_list() == [b"\5\6\7"] * n
    assert frame["common_flags"].to_list() == [1] * n
    assert "common_pid" not in frame.columns
    assert frame["comm"].to_list() == [None] * n


def test_short_records_are_null_and_named() -> None:
    whole = payload("<", 1, b"x", b"y")
    frames, diagnostics = build([whole, whole[:18], whole[:9], b""])
    frame = frames["mm:sample"]
    assert frame["addr"].to_list() == [HIGH + 1, HIGH + 1, None, None]
    assert frame["small"].to_list() == [-1, -1, None, None]
    assert frame["name"].to_list() == ["x", None, None, None]
    assert frame["triple"].to_list() == [[1, 2, 0xFFFFFFFF], None, None, None]
    assert [d.code for d in diagnostics] == ["short-record"]
    assert diagnostics[0].message.startswith("3 records")


def test_dynamic_field_outside_its_record_is_null() -> None:
    blob = bytearray(payload("<", 1, b"x", b"y"))
    struct.pack_into("<HH", blob, 32, len(blob) - 1, 2)
    struct.pack_into("<HH", blob, 36, 0xFFFF, 0xFFFF)
    frames, diagnostics = build([bytes(blob)])
    assert frames["mm:sample"]["name"].to_list() == [None]
    assert frames["mm:sample"]["rel"].to_list() == [None]
    assert [d.code for d in diagnostics] == ["short-record"]


def test_no_format_keeps_the_bytes() -> None:
    frames, diagnostics = build([b"abcd", b"efgh"], ids=np.array([7, 1 << 40]))
    assert frames["unknown:7"]["raw"].to_list() == [b"abcd"]
    assert frames[f"unknown:{1 << 40}"]["raw"].to_list() == [b"efgh"]
    assert {d.code for d in diagnostics} == {"no-format"}


def test_left_out_rows_and_missing_pid() -> None:
    blob = payload("<", 1, b"x", b"y")
    frames, _ = build([blob] * 3, ids=np.array([301, -1, 301]), pid=None)
    assert frames["mm:sample"]["seq"].to_list() == [0, 2]
    assert frames["mm:sample"]["pid"].to_list() == [None, None]


def test_wide_format_is_refused() -> None:
    fields = "".join(f"\tfield:u64 f{i};\toffset:0;\tsize:8;\tsigned:0;\n" for i in range(4000))
    text = f'name: bomb\nID: 9\nformat:\n{fields}\nprint fmt: ""'
    frames, diagnostics = build([b"12345678"] * 2, text=text)
    assert frames["mm:bomb"].width < 100
    assert [d.code for d in diagnostics] == ["format-too-wide"]


def test_record_outside_buffer_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        decode.build_frames(
            b"abc",
            np.array([1]),
            np.array([9]),
            np.array([1]),
            np.zeros(1, np.uint64),
            np.zeros(1, np.uint32),
            None,
            np.zeros(1, np.int32),
            None,
            {},
            False,
            np.zeros(1, np.uint64),
        )


def test_duplicate_names_and_odd_sizes() -> None:
    text = (
        "name: odd\nID: 3\nformat:\n"
        "\tfield:u8 a;\toffset:0;\tsize:1;\tsigned:0;\n"
        "\tfield:u8 a;\toffset:1;\tsize:1;\tsigned:0;\n"
        "\tfield:struct x a;\toffset:0;\tsize:3;\tsigned:0;\n"
        "\tfield:char buf[];\toffset:2;\tsize:0;\tsigned:0;\n"
        "\tfield:unsigned char mac[2];\toffset:0;\tsize:2;\tsigned:0;\n"
    )
    frames, _ = build([b"12tail\0x"], text=text)
    row = frames["mm:odd"].row(0, named=True)
    assert (row["a"], row["a_"], row["a__"]) == (49, 50, b"12t")
    assert row["buf"] == "tail"
    assert row["mac"] == b"12"


def test_kernel_stack_takes_its_length_from_the_record() -> None:
    text = (
        "name: kernel_stack\nID: 4\nformat:\n"
        "\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n"
        "\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n"
    )
    blobs = [
        struct.pack("<8xii3Q", 3, 0, HIGH, 2, 3),
        struct.pack("<8xii1Q", 9, 0, HIGH),
        struct.pack("<8xii1Q", -1, 0, HIGH),
    ]
    buf, off, length = columns(blobs)
    fmt = eventformat.parse("ftrace", text)
    zero = np.zeros(3, np.uint64)
    frames, _ = decode.build_frames(
        buf, off, length, np.full(3, 4), zero, zero, None, zero, None, {4: fmt}, False, zero
    )
    caller = frames["ftrace:kernel_stack"]["caller"]
    assert caller.to_list() == [[HIGH, 2, 3], [HIGH], []]


def test_extra_columns() -> None:
    def extra(ident: int, rows: Any) -> list[pl.Series]:
        return [pl.Series("addr", rows), pl.Series("weight", rows)]

    frames, _ = build([payload("<", i, b"x", b"y") for i in range(2)], extra=extra)
    assert frames["mm:sample"]["addr_"].to_list() == [0, 1]
    assert frames["mm:sample"]["weight"].to_list() == [0, 1]


def test_comm_follows_time_fork_and_reuse() -> None:
    table = decode.CommTable.from_records(
        comms=[(10, 1, "old"), (20, 1, "new"), (0, 7, "gone")],
        forks=[(15, 2, 1), (30, 7, 99)],
    )
    tid = np.array([1, 1, 1, 2, 2, 7, 7, 0, 5], np.int32)
    seq = np.array([9, 10, 25, 14, 16, 29, 30, 0, 99], np.uint64)
    assert table.lookup(tid, seq).to_list() == [
        None,
        "old",
        "new",
        None,
        "old",
        "gone",
        None,
        "swapper",
        None,
    ]


def test_static_comm() -> None:
    table = decode.CommTable.from_static({3: "a", -1: "b"})
    seq = np.array([0, 1 << 63, 5], np.uint64)
    assert table.lookup(np.array([3, -1, 4], np.int32), seq).to_list() == ["a", "b", None]
    assert decode.CommTable.from_static({}).lookup(
        np.array([3], np.int32), np.array([3], np.uint64)
    ).to_list() == [None]


def test_many_distinct_strings_keep_their_rows() -> None:
    words = [b"w%d" % (i * 7919 % 3000) for i in range(4000)]
    start = np.cumsum([0] + [len(w) for w in words[:-1]])
    length = np.array([len(w) for w in words])
    length[17] = -1
    buf = kernels.as_bytes(b"".join(words))
    code, reps = decode.distinct_slices(buf, start.astype(np.int64), length.astype(np.int64))
    assert len(reps) <= 3000
    assert code[17] == len(reps)
    for i, word in enumerate(words):
        if i != 17:
            rep = reps[code[i]]
            assert buf[start[rep] : start[rep] + length[rep]].tobytes() == word
