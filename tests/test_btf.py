# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF parsing and the kernel numbers taken from it."""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import FIXTURES, KERNELS
from tracer.btf import Btf, load
from tracer.compression import zstd_module
from tracer.enums import KernelEnums, complete, from_btf, vm_flags_of
from tracer.errors import CaptureError, MmtraceError
from tracer.eventformat import EventFormat

INT, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, FUNC, PROTO, ENUM64 = 1, 3, 4, 5, 6, 8, 12, 13, 19
RUNNING = Path("/sys/kernel/btf/vmlinux")


class Maker:
    """Writes BTF as include/uapi/linux/btf.h lays it out, in either byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order, self.strings, self.types, self.count = order, b"\0", b"", 0

    def name(self, text: str) -> int:
        at = len(self.strings) if text else 0
        self.strings += text.encode() + b"\0" if text else b""
        return at

    def add(
        self, kind: int, name: str, size: int, words: tuple[int, ...] = (), vlen: int = 0,
        flag: bool = False,
    ) -> int:  # fmt: skip
        info = kind << 24 | vlen | flag << 31
        head = struct.pack(self.order + "III", self.name(name), info, size)
        body = b"".join(struct.pack(self.order + "I", w & 0xFFFFFFFF) for w in words)
        self.types += head + body
        self.count += 1
        return self.count

    def enum(self, name: str, values: dict[str, int], flag: bool = False) -> int:
        words = tuple(w for n, v in values.items() for w in (self.name(n), v))
        return self.add(ENUM, name, 4, words, len(values), flag)

    def struct(
        self, name: str, size: int, members: list[tuple[str, int, int]], kind: int = STRUCT,
        flag: bool = False,
    ) -> int:  # fmt: skip
        words = tuple(w for n, t, at in members for w in (self.name(n), t, at))
        return self.add(kind, name, size, words, len(members), flag)

    def bytes(self) -> bytes:
        n = len(self.types)
        head = (0xEB9F, 1, 0, 24, 0, n, n, len(self.strings))
        return struct.pack(self.order + "HBBIIIII", *head) + self.types + self.strings


def sample(order: str = "<") -> bytes:
    m = Maker(order)
    u64 = m.add(INT, "unsigned long", 8, (64,))
    m.enum("pageflags", {"PG_locked": 0, "PG_head": 6, "PG_alias": 6, "__NR_PAGEFLAGS": 7})
    m.enum("", {"VMA_READ_BIT": 0, "VMA_SHARED_BIT": 3, "VMA_PKEY_BIT0_BIT": 32})
    m.enum("ttu_flags", {"TTU_SYNC": -16}, flag=True)
    words = (m.name("BIG"), 1, 0x80000000)
    m.add(ENUM64, "signed64", 8, words, 1, flag=True)
    m.add(ENUM64, "unsigned64", 8, words, 1)
    inner = m.struct("", 16, [("flags", u64, 0), ("_flags_1", u64, 64)])
    either = m.struct("", 16, [("", inner, 0), ("raw", u64, 0)], UNION)
    m.struct("folio", 80, [("head", u64, 0), ("", either, 64)])
    m.struct("bits", 8, [("low", u64, 3 << 24), ("high", u64, 5 << 24 | 3)], flag=True)
    alias = m.add(TYPEDEF, "folio_t", m.count - 1)
    m.struct("box", 88, [("f", alias, 64)])
    args = (m.name("folio"), u64, m.name("nr"), u64)
    m.add(FUNC, "folio_remove_rmap_ptes", m.add(PROTO, "", 0, args, 2))
    return m.bytes()


def minimal_elf(section: str, data: bytes) -> bytes:
    """An ELF64 file with one named section and its string table."""
    names = b"\0" + section.encode() + b"\0.shstrtab\0"
    at = 64
    names_at = at + len(data)
    table_at = names_at + len(names)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 1, 183, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    rows = [
        struct.pack("<IIQQQQIIQQ", *([0] * 10)),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at, len(data), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 2 + len(section), 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    return ident + head + data + names + b"".join(rows)


@pytest.mark.parametrize("order", ["<", ">"])
def test_types_in_both_byte_orders(order: str) -> None:
    btf = Btf(sample(order))
    assert not btf.damage
    assert btf.enum("pageflags").values["PG_head"] == 6
    assert btf.enum("ttu_flags").values == {"TTU_SYNC": -16}
    assert btf.enum("signed64").values == {"BIG": 0x8000000000000001 - (1 << 64)}
    assert btf.enum("unsigned64").values == {"BIG": 0x8000000000000001}
    assert btf.enum("absent") is None
    assert btf.function("folio_remove_rmap_ptes") == ("folio", "nr")
    assert btf.function("folio") is None


def test_offsets_through_anonymous_members_and_typedefs() -> None:
    btf = Btf(sample())
    assert btf.size("folio") == 80
    assert btf.offset_of("folio", "flags") == 8
    assert btf.offset_of("folio", "_flags_1") == 16
    assert btf.offset_of("folio", "raw") == 8
    assert btf.offset_of("box", "f._flags_1") == 24
    assert btf.offset_of("folio", "absent") is None
    assert btf.offset_of("absent", "flags") is None
    low, high = btf.members(btf.struct_id("bits"))
    assert (low.bits, high.bits, high.offset) == (3, 5, 3)


@pytest.mark.parametrize("wrap", ["raw", "zstd", "gzip", "elf"])
def test_load_finds_btf_in_its_wrappers(wrap: str) -> None:
    data = sample()
    wrapped = {
        "raw": data,
        "zstd": zstd_module().compress(data),
        "gzip": gzip.compress(data),
        "elf": minimal_elf(".BTF", data),
    }[wrap]
    assert load(wrapped, "vmlinux").size("folio") == 80


def test_load_says_what_is_wrong() -> None:
    with pytest.raises(CaptureError, match=r"without a \.BTF section"):
        load(minimal_elf(".text", b"x" * 16), "vmlinux")
    with pytest.raises(CaptureError, match=r"damaged ELF|without a"):
        load(minimal_elf(".BTF", sample())[:100], "vmlinux")
    with pytest.raises(CaptureError, match="magic number"):
        load(b"x" * 100, "vmlinux")
    with pytest.raises(CaptureError, match="truncated"):
        load(sample()[:-1], "vmlinux")


def test_structure_inside_itself_ends() -> None:
    m = Maker()
    m.struct("loop", 8, [("", 1, 0)] * 50)
    m.add(TYPEDEF, "t", 2)
    m.struct("via", 8, [("x", 2, 0)])
    btf = Btf(m.bytes())
    assert btf.offset_of("loop", "x") is None
    assert btf.offset_of("via", "x.y") is None


def test_type_of_unknown_kind_ends_the_list_and_is_told() -> None:
    m = Maker()
    m.enum("first", {"A": 1})
    m.add(31, "future", 0)
    m.enum("second", {"B": 1})
    btf = Btf(m.bytes())
    assert btf.enum("first")
    assert not btf.enum("second")
    assert "unknown kind 31" in btf.damage


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_btf_never_fails_otherwise(data: st.DataObject) -> None:
    good = bytearray(sample())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        btf = Btf(bytes(good[: cut or None]))
    except CaptureError:
        return
    from_btf(btf)
    btf.offset_of("folio", "_flags_1")
    btf.function("folio_remove_rmap_ptes")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 255))
def test_damaged_elf_never_fails_otherwise(at: int, value: int) -> None:
    data = bytearray(minimal_elf(".BTF", sample()))
    data[min(at, 63)] = value
    with contextlib.suppress(MmtraceError):
        load(bytes(data), "vmlinux")


def test_numbers_of_the_sample() -> None:
    enums = from_btf(Btf(sample()), "x", "6.0")
    assert enums.page_flag("PG_head") == 64
    assert enums.page_flag("PG_absent") is None
    assert enums.vm_flags == {"VM_READ": 1, "VM_SHARED": 8, "VM_PKEY_BIT0": 1 << 32}
    assert enums.value("ttu_flags", "TTU_SYNC") == -16
    assert enums.sizes == {"folio": 80}
    assert enums.offsets == {"folio.flags": 8, "folio._flags_1": 16}
    # Bits above __NR_PAGEFLAGS are the node and zone; an alias shows its first name.
    assert enums.page_flag_names(1 << 63 | 0x45) == ["PG_locked", "0x4", "PG_head"]
    assert enums.vm_flag_names(0x19) == ["VM_READ", "VM_SHARED", "0x10"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_of_the_measured_kernels(kernel: str) -> None:
    path = FIXTURES / kernel / "kernel.enums.json"
    enums = KernelEnums.from_json(json.loads(path.read_text()))
    assert path.read_text() == enums.dumps()
    assert enums.release.startswith(kernel.removeprefix("linux-"))
    assert enums.page_flag("PG_head") == 1 << 6
    assert enums.page_flag("PG_anon_exclusive") == 1 << 11
    assert enums.page_flag("PG_swapbacked") == 1 << 17
    assert enums.page_flag("PG_mlocked") == 1 << (20 if kernel == "linux-7.3" else 19)
    assert enums.value("ttu_flags", "TTU_BATCH_FLUSH") == 0x40
    assert enums.sizes["page"] == 64
    assert enums.offsets["folio._flags_1"] == 64


def test_vma_flags_come_from_the_best_source_there_is() -> None:
    def of(kernel: str) -> KernelEnums:
        path = FIXTURES / kernel / "kernel.enums.json"
        return KernelEnums.from_json(json.loads(path.read_text()))

    new = complete(of("linux-7.3"), [])
    assert (new.sources["vm_flags"], new.vm_flag("VM_SHARED")) == ("btf", 8)
    assert new.vm_flag("VM_MAYSHARE") == 0x80
    # 6.12 has macros only.
    old = complete(of("linux-6.12"), [])
    assert (old.sources["vm_flags"], old.vm_flag("VM_SHARED")) == ("documented", 8)
    assert old.vm_flag("VM_HUGETLB") is None
    fmt = EventFormat("mm", "e", 1, (), PRINTED)
    printed = complete(of("linux-6.12"), [fmt])
    assert (printed.sources["vm_flags"], printed.vm_flag("VM_HUGETLB")) == ("print_fmt", 0x400000)


# As show_vma_flags() of include/trace/events/mmflags.h comes out in a format file.
PRINTED = (
    '"%s flags=%s other=%s", REC->name, (REC->vm_flags) ? __print_flags(REC->vm_flags, "|", '
    '{0x00000001, "read" }, {((((1UL))) << (3)), "shared" }, {0x00008000UL, "seqread" }, '
    '{VM_UFFD_MINOR, "uffd_minor" }, {(1UL << (22)), "hugetlb" }) : "none", '
    '__print_flags(REC->gfp, "|", {0x4, "GFP_X"})'
)


def test_vma_flags_of_a_print_fmt() -> None:
    assert vm_flags_of(PRINTED) == {
        "VM_READ": 1,
        "VM_SHARED": 8,
        "VM_SEQ_READ": 0x8000,
        "VM_HUGETLB": 1 << 22,
    }
    assert vm_flags_of('__print_flags(REC->flags, "|", {0x1, "read"})') == {}
    assert vm_flags_of('__print_flags(REC->vm_flags, "|", ' + "{0x1," * 5000) == {}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"schema": "other"},
        {"schema": "mmtrace.enums/1", "vm_flags": {"VM_READ": "1"}},
        {"schema": "mmtrace.enums/1", "enums": {"pageflags": [1]}},
        {"schema": "mmtrace.enums/1", "enums": 3},
        {"schema": "mmtrace.enums/1", "sizes": {"page": True}},
    ],
)
def test_other_json_is_refused(data: object) -> None:
    with pytest.raises(CaptureError):
        KernelEnums.from_json(data)


@pytest.mark.skipif(not RUNNING.exists(), reason="the running kernel has no BTF")
def test_running_kernel() -> None:
    btf = load(RUNNING.read_bytes(), str(RUNNING))
    assert not btf.damage
    assert btf.size("page") in (56, 64, 80)
    assert btf.offset_of("vm_area_struct", "vm_start") == 0
    assert btf.function("handle_mm_fault")[:2] == ("vma", "address")
    assert from_btf(btf).page_flag("PG_locked") == 1
