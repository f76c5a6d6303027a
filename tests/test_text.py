# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace text: the three printers, names that imitate them, and what text loses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests import rings
from tests.conftest import content
from tracer import eventformat, schema
from tracer.capture import Capture
from tracer.errors import CaptureError
from tracer.text.printfmt import labels
from tracer.text.reader import read

RSS_STAT = eventformat.parse(
    "kmem",
    "name: rss_stat\nID: 9\nformat:\n" + rings.COMMON
    + "\tfield:unsigned int mm_id;\toffset:8;\tsize:4;\tsigned:0;\n"
    "\tfield:unsigned int curr;\toffset:12;\tsize:4;\tsigned:0;\n"
    "\tfield:int member;\toffset:16;\tsize:4;\tsigned:1;\n"
    "\tfield:long size;\toffset:24;\tsize:8;\tsigned:1;\n\n"
    'print fmt: "mm_id=%u curr=%d type=%s size=%ldB", REC->mm_id, REC->curr, '
    '__print_symbolic(REC->member, { 0, "MM_FILEPAGES" }, { 1, "MM_ANONPAGES" }), REC->size\n',
)  # fmt: skip
PAGE_ALLOC = eventformat.parse(
    "kmem",
    "name: mm_page_alloc\nID: 10\nformat:\n" + rings.COMMON
    + "\tfield:unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned int order;\toffset:16;\tsize:4;\tsigned:0;\n"
    "\tfield:unsigned long gfp_flags;\toffset:24;\tsize:8;\tsigned:0;\n\n"
    'print fmt: "page=%p pfn=0x%lx order=%d gfp_flags=%s", REC->pfn != -1UL ? (void *)(REC->pfn)'
    ' : ((void *)0), REC->pfn != -1UL ? REC->pfn : 0, REC->order, (REC->gfp_flags) ? '
    '__print_flags(REC->gfp_flags, "|", {(unsigned long)0x400, "GFP_X"}, { 0x8, "__GFP_Y" })'
    ' : "none"\n',
)  # fmt: skip
FORMATS = {f.key: f for f in (RSS_STAT, PAGE_ALLOC)}


def event(capture: Capture, key: str) -> list[dict[str, Any]]:
    return capture.events[key].drop("seq").to_dicts()


def one(line: str, formats: Any = None) -> tuple[str, dict[str, Any]]:
    """Read a single line."""
    capture = read((line + "\n").encode(), "x", formats)
    (key,) = capture.events
    (row,) = capture.events[key].drop("seq").to_dicts()
    schema.check(capture.events[key], schema.EVENT_COLUMNS, key)
    return key, row


def test_the_printers_agree() -> None:
    """One event as every printer has it."""
    row = {
        "ts": 12_345678000,
        "cpu": 3,
        "pid": None,
        "tid": 77,
        "comm": "my task",
        "mm": 0xFFFF8000,
    }
    for line in (
        "         my task-77      [003] d..1.    12.345678: probe: (f+0x0/0x20) mm=0xffff8000",
        "         my task-77      [003] d..1    12.345678: probe: (f+0x0/0x20) mm=0xffff8000",
        "         my task-77      [003]    12.345678: probe: (f+0x0/0x20) mm=0xffff8000",
        "my task-77 [003] 12.345678: probe:                (f+0x0/0x20) mm=0xffff8000  ",
    ):
        assert one(line) == ("kprobes:probe", row)
    perf = " [003]    12.345678:      mine:probe: (ffff800080393550) mm=0xffff8000"
    row["__probe_ip"] = 0xFFFF800080393550
    for task in ("         my task      77", "my task      77", "my task 77", "my task 77\r"[:-1]):
        assert one(task + perf) == ("mine:probe", row)
    assert one("my task 70/77" + perf) == ("mine:probe", row | {"pid": 70})
    assert one("my task 77  12.345678: mine:probe: (ffff800080393550) mm=0xffff8000\r") == (
        "mine:probe", row | {"cpu": None},
    )  # fmt: skip
    assert one("my task 77 [003] 12.345678901: 1 mine:probe: (ffff800080393550) mm=0xffff8000") == (
        "mine:probe", row | {"ts": 12_345678901},
    )  # fmt: skip


def test_thread_groups() -> None:
    body = " [001] .....     1.000001: e: a=1"
    assert one(f"          worker-12      (     10){body}")[1]["pid"] == 10
    assert one(f"          worker-12      (-------){body}")[1]["pid"] is None
    assert one(f"          worker-12      (-----){body}")[1]["tid"] == 12


@pytest.mark.parametrize(
    "comm", ["a-1 [0] 1.0: x", "a [b] c-9:", "(1)-2 [3] 4.5:", "x 1 [000] 1.0:", "é-ü"]
)
@pytest.mark.parametrize("perf", [False, True])
def test_names_that_imitate_a_line(comm: str, perf: bool) -> None:
    comm = comm[:15]
    pad = " " * (16 - len(comm.encode()))
    if perf:
        line = f"{pad}{comm}      12 [001]     1.500000:      a:e: v=5 w=a-1 [000] 9.0: z"
    else:
        line = f"{pad}{comm}-12      [001] .....     1.500000: e: v=5 w=a-1 [000] 9.0: z"
    key, row = one(line)
    assert key.endswith(":e")
    assert (row["comm"], row["tid"], row["cpu"], row["ts"]) == (comm, 12, 1, 1_500000000)
    assert (row["v"], row["w"]) == (5, "a-1 [000] 9.0: z")


def test_idle_and_unknown_tasks() -> None:
    assert one("          <idle>-0       [001] d....     1.0: e: a=1")[1]["comm"] == "swapper"
    assert one("           <...>-55      [001] d....     1.0: e: a=1")[1]["comm"] is None
    assert one("            :55      55 [001]     1.0: a:e: a=1")[1]["comm"] is None


def test_numbers() -> None:
    key, row = one(
        "               a-1       [000] .....     1.0: e: d=12 n=-3 h=0xffffffffffffffff "
        "p=00000000da9baf1f "
        "b=4096B s=two words l=18446744073709551615 o=99999999999999999999999 z=0x10,"
    )
    assert key == "unknown:e"
    assert [row[n] for n in "dnhpbslo"] == [
        12, -3, (1 << 64) - 1, 0xDA9BAF1F, 4096, "two words", (1 << 64) - 1, "9" * 23,
    ]  # fmt: skip
    assert row["z"] == 16


def test_a_column_is_hexadecimal_as_a_whole() -> None:
    text = "".join(
        f"  a-1 [000] .....     1.{i}: e: p=0000{v:x}\n" for i, v in enumerate([0x1234, 0xABCD])
    )
    capture = read(text.encode(), "x")
    assert capture.events["unknown:e"]["p"].to_list() == [0x1234, 0xABCD]
    assert capture.provenance.extra["precision"]["hexadecimal"] == ["unknown:e.p"]


def test_system_calls() -> None:
    head = "          worker-12      [001] .....     1.500000: "
    key, row = one(head + "sys_madvise(start: ffffb6e00000, len_in: 200000, behavior: 15)")
    assert key == "syscalls:sys_enter_madvise"
    assert (row["start"], row["len_in"], row["behavior"]) == (0xFFFFB6E00000, 0x200000, 0x15)
    assert one(head + "sys_madvise -> 0xfffffffffffffff4")[1]["ret"] == -12
    key, row = one(
        "a 1 [000] 1.5: syscalls:sys_enter_madvise: start: 0xffffb4800000, len_in: 0x00200000, "
        "behavior: 0x00000015"
    )
    assert (key, row["len_in"]) == ("syscalls:sys_enter_madvise", 0x200000)
    assert one("a 1 [000] 1.5: syscalls:sys_exit_madvise: 0x0")[1]["ret"] == 0


def test_print_formats_turn_names_back() -> None:
    line = "          worker-12      [001] .....     1.500000: rss_stat: "
    line += "mm_id=7 curr=1 type=MM_ANONPAGES size=-4096B"
    key, row = one(line, FORMATS)
    assert key == "kmem:rss_stat"
    assert [row[n] for n in ("mm_id", "curr", "member", "size")] == [7, 1, 1, -4096]
    frame = read((line + "\n").encode(), "x", FORMATS).events[key]
    assert [str(frame.schema[n]) for n in ("mm_id", "member", "size")] == [
        "UInt32",
        "Int32",
        "Int64",
    ]
    # Without the format the name stays.
    assert one(line)[1]["type"] == "MM_ANONPAGES"


def test_what_text_loses() -> None:
    head = "# tracer: nop\n          worker-12      [001] .....     1.500000: mm_page_alloc: "
    capture = read(
        (head + "page=00000000da9baf1f pfn=0x44ff order=0 gfp_flags=GFP_X|__GFP_Y\n").encode(),
        "x",
        FORMATS,
    )
    (row,) = event(capture, "kmem:mm_page_alloc")
    assert (row["pfn"], row["order"], row["gfp_flags"]) == (0x44FF, 0, 0x408)
    precision = capture.provenance.extra["precision"]
    assert precision["time"] == "us"
    assert precision["hashed"] == ["kmem:mm_page_alloc.page"]
    capture = read(
        (head + "page=00000000da9baf1f pfn=0x44ff order=0 gfp_flags=GFP_OTHER\n").encode(),
        "x",
        FORMATS,
    )
    assert event(capture, "kmem:mm_page_alloc")[0]["gfp_flags"] == "GFP_OTHER"
    assert capture.provenance.extra["precision"]["symbolic"] == ["kmem:mm_page_alloc.gfp_flags"]


def test_sched_switch() -> None:
    _, row = one(
        "          <idle>-0       [001] d..2.     1.5: sched_switch: "
        "prev_comm=swapper/1 prev_pid=0 prev_prio=120 "
        "prev_state=R ==> next_comm=a b=c d next_pid=5 next_prio=120"
    )
    assert (row["prev_state"], row["next_pid"], row["prev_comm"]) == ("R", 5, "swapper/1")


def test_markers_and_functions() -> None:
    head = "          worker-12      [001] .....     1.500000: "
    for text in (
        "tracing_mark_write: begin x",
        "print:                tracing_mark_write: begin x",
    ):
        assert one(head + text) == (
            "ftrace:print",
            {
                "ts": 1_500000000,
                "cpu": 1,
                "pid": None,
                "tid": 12,
                "comm": "worker",
                "buf": "begin x",
            },
        )
    for text, parent in (
        ("do_wp_page <-handle_mm_fault", "handle_mm_fault"),
        ("function:             do_wp_page", None),
    ):
        key, row = one(head + text)
        assert key == "ftrace:function"
        assert (row["ip_symbol"], row["parent_ip_symbol"]) == ("do_wp_page", parent)


def test_loss() -> None:
    line = "          worker-12      [001] .....     1.500000: e: a=1\n"
    text = "# entries-in-buffer/entries-written: 2/12   #P:4\n" + line
    text += (
        "CPU:1 [LOST 23 EVENTS]\nCPU:2 [LOST EVENTS]\nCPU:0 [7 EVENTS DROPPED]\n"
        "##### CPU 1 buffer started ####\n" + line
    )
    text += "CPU:0 [EVENTS DROPPED]\n"
    capture = read(text.encode(), "x")
    assert capture.loss.rows() == [
        (None, None, None, 10, False, "entries-written of the header"),
        (1_500000000, 1, None, 23, False, "LOST EVENTS line"),
        (1_500000000, 2, None, 0, True, "LOST EVENTS line"),
        (1_500000000, 0, None, 7, False, "LOST EVENTS line"),
        (None, 0, None, 0, True, "LOST EVENTS line"),
    ]
    assert capture.provenance.nr_cpus == 4
    text = "perf 1 [000] 1.0: PERF_RECORD_LOST lost 5\nperf 1 [000] 2.0: a:e: v=1\n"
    assert read(text.encode(), "x").loss["known"].to_list() == [5]


def test_stacks_and_cut_lines_are_reported() -> None:
    text = "a 1 [000] 1.0: a:e: v=1\n\tffff800080393550 f+0x10 ([kernel.kallsyms])\n\n"
    text += "a 1 [000] 2.0: a:e: v=2\n"
    capture = read(text.encode(), "x")
    assert capture.events["a:e"]["v"].to_list() == [1, 2]
    assert capture.diagnostics.select("code", "severity").rows() == [("unparsed-lines", "warning")]
    capture = read((text + "a 1 [000] 3.0: a:e: v=3").encode(), "x")
    assert capture.events["a:e"]["v"].to_list() == [1, 2]
    assert set(capture.diagnostics["code"]) == {"unparsed-lines", "truncated-data"}


def test_order_is_by_time_then_line() -> None:
    text = "".join(
        f"a 1 [000] {t}.0: a:{n}: v={i}\n"
        for i, (t, n) in enumerate([(3, "e"), (1, "f"), (2, "e"), (1, "e")])
    )
    capture = read(text.encode(), "x")
    assert capture.events["a:e"].select("seq", "v").rows() == [(1, 3), (2, 2), (3, 0)]
    assert capture.events["a:f"]["seq"].to_list() == [0]


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"\n\n", b"hello\n", b"\0" * 100 + b"\n", b"-1 [000] 1.0: e: a=1\n", b"[000]\n" * 9,
        b" 0)   1.234 us    |  do_wp_page();\n", b"x" * 1_000_000 + b"\n",
        b"a-99999999999 [000] 1.0: e:\n",
    ],
)  # fmt: skip
def test_what_is_no_trace(junk: bytes) -> None:
    with pytest.raises(CaptureError):
        read(junk, "x")


@pytest.mark.parametrize(
    "body",
    [
        "e:", "e: ", "e: =", "e: a=", "e: a= b=", "e: " + "x=1 " * 3000, "e: a=1 " + "y" * 200_000,
        "../../e: a=1", "e:f:g: a=1", ":: a=1", "e\x01: a=1", "sys_: a", "sys_(", "sys_ -> ",
        "f <-",
        "e: a=18446744073709551616", "e: seq=1 ts=2 cpu=3 comm=x", "e: a=0x",
        "e: a=-", "e: a=0x11111111111111111",
    ],
)  # fmt: skip
def test_odd_bodies(body: str) -> None:
    """They cost at most their own line."""
    text = f"a-1 [000] 1.0: ok: v=1\na-1 [000] 2.0: {body}\na-1 [000] 3.0: ok: v=2\n"
    capture = read(text.encode(), "x")
    assert capture.events["unknown:ok"]["v"].to_list() == [1, 2]
    assert all(len(f.columns) <= 80 for f in capture.events.values())


def test_many_names_are_bounded() -> None:
    text = "".join(f"a-1 [000] 1.0: e{i}: v=1\n" for i in range(5000))
    capture = read(text.encode(), "x")
    assert len(capture.events) == 4096
    assert capture.diagnostics.height == 904
    text = "".join(f"a-1 [000] 1.0: e{i}: v=1\n" for i in range(20_000))
    assert len(read(text.encode(), "x").events) == 4096


def parity(text: Capture, binary: Capture, absent: set[str], half: int = 0) -> None:
    """Both have the same rows, times in us; ``half`` is 500 where they are rounded."""
    assert set(text.events) == set(binary.events)
    for key, mine in text.events.items():
        other = binary.events[key]
        columns = [c for c in mine.columns if c in other.columns and c not in ("seq", "pid", "buf")]
        missing = {
            c for c in other.columns if c not in mine.columns and not c.startswith("common_")
        }
        assert missing <= absent, key
        other = other.with_columns(((pl.col("ts") + half) // 1000 * 1000).alias("ts"))
        assert mine["seq"].is_sorted()
        mine, other = (f.select(columns).sort(columns[:3]) for f in (mine, other))
        # perf forgets a thread's name when it exits.
        columns.remove("comm")
        assert mine.select(columns).sort(columns).equals(other.select(columns).sort(columns)), key
        named = mine["comm"].is_not_null()
        assert named.any()
        assert mine["comm"].filter(named).equals(other["comm"].filter(named)), key


@pytest.mark.parametrize("name", ["pageout.v6.dat", "pageout.v7.zstd.dat"])
def test_report_of_a_recording_equals_it(name: str, tmp_path: Path) -> None:
    """trace-cmd report's text of a trace.dat, and the trace.dat."""
    from tracer.tracedat.reader import read as read_dat

    if not shutil.which("trace-cmd"):
        pytest.skip("trace-cmd is not installed")
    (tmp_path / name).write_bytes(content(f"formats/{name}"))
    done = subprocess.run(
        ["trace-cmd", "report", "-N", str(tmp_path / name)], capture_output=True, check=True
    )
    binary = read_dat(content(f"formats/{name}"), name)
    capture = read(done.stdout, "x", binary.formats)
    assert capture.provenance.container == "trace-cmd report text"
    parity(capture, binary, {"__syscall_nr", "ip"}, half=500)
    assert capture.diagnostics.is_empty()


def test_perf_script_of_a_recording_equals_it() -> None:
    """perf script's text of a perf.data, and the perf.data."""
    perf = pytest.importorskip("tracer.perfdata.reader")
    binary = perf.read(content("formats/pageout.zstd.perf.data"), "x")
    capture = read(content("formats/pageout.perf-script.txt"), "x", binary.formats)
    assert capture.provenance.container == "perf script text"
    parity(capture, binary, {"__syscall_nr", "period"})


def test_real_tracefs_text() -> None:
    data = content("formats/pageout.ftrace.txt")
    capture = read(data, "x")
    assert sum(f.height for f in capture.events.values()) == 2135  # entries-in-buffer
    assert capture.diagnostics.is_empty()
    assert capture.events["kprobes:try_to_unmap_one"].height == 32
    assert capture.provenance.extra["precision"]["time"] == "us"
    assert data.count(b"set_pte_range: ") == capture.events["kprobes:set_pte_range"].height


def test_labels_of_print_formats() -> None:
    found = labels(PAGE_ALLOC)
    assert found["page"].hashed
    assert not found["pfn"].hashed
    assert (found["pfn"].member, found["pfn"].base) == ("pfn", 16)
    assert found["gfp_flags"].symbols == {"GFP_X": 0x400, "__GFP_Y": 8}
    for text in (
        '"',
        '"%d", ' + "(" * 100_000,
        '"' + "%s" * 10_000 + '"',
        '"a=%d"',
        "",
        '"x=%s", f(")")',
    ):
        assert isinstance(labels(eventformat.EventFormat("a", "b", 1, (), text)), dict)
