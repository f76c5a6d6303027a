# SPDX-License-Identifier: GPL-2.0-or-later
"""Print formats to names: the kernel's own tables, C constants, hostile text."""

from __future__ import annotations

import time
from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import event_format, event_frame, tiny
from tracer import printfmt
from tracer.cexpr import MAX_DEPTH, evaluate
from tracer.enums import KernelEnums
from tracer.eventformat import EventFormat, Field
from tracer.printfmt import Table, decode_capture, decode_column, decode_frame, tables
from tracer.store import Store

NO_ENUMS = KernelEnums()
# mm_page_alloc of Linux 6.18, shortened: what the preprocessor leaves of the gfp table.
GFP = """"page=%p gfp_flags=%s", REC->pfn, (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|",
{( unsigned long)((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)((((1UL))) << (6)))
 | (( gfp_t)((((1UL))) << (7)))), "GFP_KERNEL"},
{( unsigned long)(((( gfp_t)((((1UL))) << (10)))) & ~(( gfp_t)(((((1UL))) << (10))))), "NOTHING"},
{( unsigned long)(( gfp_t)((((1UL))) << (8))), "__GFP_ZERO"},
{ 0x40u, "__GFP_IO" } ) : "none" """
RSS = """"type=%s", __print_symbolic(REC->member, { 0, "MM_FILEPAGES" }, { 1, "MM_ANONPAGES" },
{ 2, "MM_SWAPENTS" }, { -1, "MM_NONE" }), REC->size"""


def fmt(print_fmt: str, *names: str) -> EventFormat:
    fields = tuple(Field(n, f"unsigned long {n}", 0, 8, False, False, "") for n in names)
    return EventFormat("kmem", "x", 1, fields, print_fmt)


def only(print_fmt: str, names: dict[str, int] | None = None) -> Table:
    (table,) = tables(fmt(print_fmt), names).values()
    return table


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0x10u", 16),
        ("010", 8),
        ("(1UL << 3)", 8),
        ("((1UL) << (3))", 8),
        ("1 | 2 & 3 ^ 4", 1 | 2 & 3 ^ 4),
        ("1 << 2 + 1", 8),
        ("7 - 2 - 1", 4),
        ("-1", (1 << 64) - 1),
        ("(u32)-1", 0xFFFFFFFF),
        ("(unsigned char)~0", 0xFF),
        ("( gfp_t)(((1UL)) << (4))", 16),
        ("~(( gfp_t)0) & 0xf0", 0xF0),
        ("'A'", 65),
        ("(VM_READ)", 1),
        ("(VM_READ) + 1", 2),
        ("VM_READ | VM_WRITE", 3),
        ("", None),
        ("VM_UNKNOWN", None),
        ("(VM_UNKNOWN)", None),
        ("sizeof(struct page)", None),
        ("1 ? 2 : 3", None),
        ("1 <<", None),
        ("1 << 64", None),
        ("(1", None),
        ("1)", None),
        ("0x", None),
        ("09", None),
        ("f(1)", None),
    ],
)
def test_constants(text: str, value: int | None) -> None:
    assert evaluate(text, {"VM_READ": 1, "VM_WRITE": 2}) == value


def test_nesting_has_a_limit() -> None:
    deep = MAX_DEPTH - 2
    assert evaluate("(" * deep + "1" + ")" * deep) == 1
    for text in ("(" * 10**5 + "1" + ")" * 10**5, "~" * 10**5 + "1", "1" + "|1" * 10**5):
        assert evaluate(text) is None


@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda e: st.tuples(e, st.sampled_from("|&^+-*"), e).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        max_leaves=12,
    )
)
def test_constants_are_pythons(text: str) -> None:
    assert evaluate(text) == eval(text) & ((1 << 64) - 1)


def test_flags_of_a_gfp_mask() -> None:
    table = only(GFP)
    assert table.flags
    assert {n: v for v, n in table.rows} == {
        "GFP_KERNEL": 0xCC0, "NOTHING": 0, "__GFP_ZERO": 0x100, "__GFP_IO": 0x40,
    }  # fmt: skip
    assert table.names(0xDC0) == ["GFP_KERNEL", "__GFP_ZERO"]
    assert table.names(0x41) == ["__GFP_IO", "0x1"]
    assert table.names(0) == []


def test_symbols() -> None:
    table = only(RSS)
    assert not table.flags
    column = decode_column(pl.Series("member", [1, 0, -1, 7, None], dtype=pl.Int32), table)
    assert column is not None
    assert column.name == "member_name"
    assert column.to_list() == ["MM_ANONPAGES", "MM_FILEPAGES", "MM_NONE", None, None]
    assert isinstance(column.dtype, pl.Enum)


def test_lists_keep_nulls_high_bits_and_order() -> None:
    column = decode_column(
        pl.Series("f", [1 << 63, None, 0x140, 0, 0x140], dtype=pl.UInt64), only(GFP)
    )
    assert column is not None
    assert column.to_list() == [
        [hex(1 << 63)], None, ["__GFP_ZERO", "__GFP_IO"], [], ["__GFP_ZERO", "__GFP_IO"],
    ]  # fmt: skip


def test_enumerators_come_from_the_kernels_enums() -> None:
    text = '"%s", __print_flags(REC->flags, "|", {FAULT_FLAG_WRITE, "WRITE"}, {OTHER, "OTHER"})'
    assert only(text, {"FAULT_FLAG_WRITE": 1}).rows == ((1, "WRITE"),)
    assert not tables(fmt(text))


@pytest.mark.parametrize(
    "text",
    [
        '"x", __print_flags(REC->a & 7, "|", {1, "A"})',
        '"x", __print_flags(REC->a + REC->b, "|", {1, "A"})',
        '"x", __print_symbolic((REC->a >> 13) & 3, {1, "A"})',
        '"x __print_symbolic(REC->a, {1, \\"A\\"})"',
        '"x", __print_symbolic(REC->a, {1, A})',
        '"x", __print_symbolic(REC->a, {1, ""})',
        '"x", __print_symbolic(REC->a',
        '"x", __print_symbolic(',
        "",
    ],
)
def test_what_names_no_field_is_ignored(text: str) -> None:
    assert not tables(fmt(text))


def test_casts_around_the_field() -> None:
    table = only('"x", __print_flags((unsigned long)(REC->flags), "|", {1, "A, (B)"})')
    assert (table.field, table.rows) == ("flags", ((1, "A, (B)"),))


@pytest.mark.parametrize(
    "text",
    [
        "__print_flags(" * 80_000,
        '"x", __print_flags(REC->a, "|", ' + '{1, "A"}, ' * 100_000 + ")",
        '"' * 10**6,
        "(" * 10**6,
        '"x", __print_symbolic(' + "(" * 10**5 + "REC->a" + ")" * 10**5 + ', {1, "A"})',
        '"x", __print_symbolic(REC->a, {' + "(" * 10**5 + ', "A"})',
        "{" * 10**5 + "__print_symbolic(REC->a, " * 10**4,
        '"x", ' + "__print_symbolic(REC->a" + " " * 10**6,
    ],
    ids=range(8),
)
def test_hostile_formats_cost_little(text: str) -> None:
    start = time.perf_counter()
    for table in tables(fmt(text)).values():
        assert len(table.rows) <= printfmt.MAX_ROWS
    assert time.perf_counter() - start < 3


def test_frames_keep_their_numbers() -> None:
    frame = event_frame().with_columns(pl.lit(0x100).cast(pl.UInt32).alias("gfp_flags"))
    out, notes = decode_frame("kmem:x", frame, fmt(GFP, "gfp_flags"), NO_ENUMS)
    assert out.columns == [*frame.columns, "gfp_flags_name"]
    assert out.drop("gfp_flags_name").equals(frame)
    assert not notes
    again, _ = decode_frame("kmem:x", out, fmt(GFP, "gfp_flags"), NO_ENUMS)
    assert again.columns == out.columns


def test_text_columns_and_missing_formats_are_left_alone() -> None:
    frame = event_frame().with_columns(gfp_flags=pl.lit("GFP_KERNEL"))
    assert decode_frame("k:x", frame, fmt(GFP), NO_ENUMS)[0].equals(frame)
    assert decode_frame("k:x", event_frame(), None, NO_ENUMS)[0].equals(event_frame())


def test_page_flags_leave_out_node_and_zone() -> None:
    enums = KernelEnums(enums={"pageflags": {"PG_locked": 0, "PG_lru": 5, "__NR_PAGEFLAGS": 24}})
    frame = event_frame().with_columns(page_flags=pl.lit(0x0FFF_0000_0000_0021, pl.UInt64))
    out, _ = decode_frame("k:x", frame, None, enums)
    assert out["page_flags_name"].to_list() == [["PG_locked", "PG_lru"]] * 3


def test_documented_vm_flags_do_not_pretend_to_be_all() -> None:
    frame = event_frame().with_columns(vm_flags=pl.lit(1, pl.UInt64))
    enums = KernelEnums(vm_flags={"VM_READ": 1}, sources={"vm_flags": "documented"})
    assert "vm_flags_name" not in decode_frame("k:x", frame, None, enums)[0].columns
    enums.sources["vm_flags"] = "btf"
    assert (
        decode_frame("k:x", frame, None, enums)[0]["vm_flags_name"].to_list() == [["VM_READ"]] * 3
    )


def test_too_many_values_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printfmt, "MAX_DISTINCT", 2)
    capture = tiny()
    key = next(iter(capture.events))
    capture.formats[key] = EventFormat(
        "mmtrace", "x", 1, event_format().fields, GFP.replace("gfp_flags", "folio")
    )
    decode_capture(capture, NO_ENUMS)
    assert "too-many-names" in capture.diagnostics["code"].to_list()
    assert "folio_name" not in capture.events[key].columns


def test_store_of_a_fixture_names_its_flags(make_store: Callable[[str], Store]) -> None:
    store = make_store("linux-7.3/pageout-64k")
    frame = store.event("mmtrace:try_to_unmap_one")
    row = frame.row(0, named=True)
    assert {"VM_READ", "VM_WRITE"} <= set(row["vm_flags_name"])
    assert {"PG_locked", "PG_head"} <= set(row["page_flags_name"])
    assert store.enums.vm_flag_names(row["vm_flags"]) == row["vm_flags_name"]
    assert store.enums.page_flag_names(row["page_flags"]) == row["page_flags_name"]
    head = pl.col("page_flags_name").list.contains("PG_head")
    assert frame.filter(head).height == frame.filter(pl.col("order_byte") > 0).height
