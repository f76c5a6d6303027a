# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses to functions: kallsyms, vmlinux, relocation, the wrong kernel."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES, content
from tests.tiny import event_frame, tiny
from tracer.capture import Capture
from tracer.errors import CaptureError
from tracer.ingest import ingest, read_capture
from tracer.symbolize import find_symbols, kernel_build_id, place, symbolize_frame
from tracer.symbols import MAX_FUNCTION, Symbols, from_kallsyms, from_vmlinux

TEXT = b"""ffff800080000000 T _text
ffff800080010000 T _stext
ffff800080010000 t __pi__stext
ffff800080010100 t try_to_unmap_one
ffff800080010100 t $x.12
ffff800080010200 W weak
ffff800080010200 T strong
ffff800080010300 d data_is_no_function
ffff800080010400 t mod_fn\t[zram]
"""
BASE = 0xFFFF_8000_8000_0000


def resolve(symbols: Symbols, *ips: int | None) -> list[str | None]:
    return symbols.texts(pl.Series("ip", ips, dtype=pl.UInt64)).to_list()


def test_kallsyms() -> None:
    symbols = from_kallsyms(TEXT)
    assert symbols.names.to_list() == ["_text", "_stext", "try_to_unmap_one", "strong", "mod_fn"]
    assert symbols.address("try_to_unmap_one") == BASE + 0x10100
    assert symbols.address("nowhere") is None
    assert resolve(
        symbols, BASE + 0x10100, BASE + 0x101FF, BASE + 0x10200, BASE - 1, 0, None, (1 << 64) - 512,
        BASE + 0x10400 + MAX_FUNCTION - 1, BASE + 0x10400 + MAX_FUNCTION,
    ) == [
        "try_to_unmap_one+0x0", "try_to_unmap_one+0xff", "strong+0x0", None, None, None, None,
        f"mod_fn+0x{MAX_FUNCTION - 1:x}", None,
    ]  # fmt: skip


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=20), st.lists(st.integers(0, 1 << 64)))
def test_lookup_is_what_a_loop_finds(starts: list[int], ips: list[int]) -> None:
    starts = sorted({s & ~0xFFF for s in starts} or {4096})
    lines = "".join(f"{s:016x} t f{s:x}\n" for s in starts).encode()
    if starts == [0]:
        return
    symbols = from_kallsyms(lines)
    for ip in [i % (1 << 64) for i in ips] + starts:
        below = [s for s in starts if s <= ip]
        later = [s for s in starts if s > ip]
        want = None
        if below and ip - below[-1] < MAX_FUNCTION and ip < 0xFFFFFFFFFFFFF000:
            assert not later or ip < later[0]
            want = f"f{below[-1]:x}+0x{ip - below[-1]:x}"
        assert resolve(symbols, ip) == [want]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "names no function"),
        (b"hello\n", "names no function"),
        (b"\0" * 100_000, "names no function"),
        (b"0000000000000000 T _text\n0000000000000000 t x\n", "address 0"),
    ],
)
def test_what_is_no_kallsyms(text: bytes, why: str) -> None:
    with pytest.raises(CaptureError, match=why):
        from_kallsyms(text)


# --- vmlinux -----------------------------------------------------------------------------


def elf(symbols: list[tuple[str, int, int, int]], build_id: bytes = b"", order: str = "<") -> bytes:
    """An ELF64 file of .symtab, .strtab, .shstrtab and a build-id note.

    :param symbols: (name, value, size, info)
    """
    strings, table = b"\0", struct.pack(order + "IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value, size, info in symbols:
        table += struct.pack(order + "IBBHQQ", len(strings), info, 0, 1, value, size)
        strings += name.encode() + b"\0"
    note = struct.pack(order + "III", 4, len(build_id), 3) + b"GNU\0" + build_id
    names = b"\0.symtab\0.strtab\0.shstrtab\0.note.gnu.build-id\0"
    sections = [(b".symtab", 2, table, 2, 24), (b".strtab", 3, strings, 0, 0),
                (b".shstrtab", 3, names, 0, 0)]  # fmt: skip
    if build_id:
        sections.append((b".note.gnu.build-id", 7, note, 0, 0))
    body, headers = b"", struct.pack(order + "IIQQQQIIQQ", *[0] * 10)
    for name, kind, data, link, entry in sections:
        at = names.index(b"\0" + name + b"\0") + 1
        headers += struct.pack(
            order + "IIQQQQIIQQ", at, kind, 0, 0, 64 + len(body), len(data), link, 0, 4, entry
        )
        body += data + bytes(-len(data) % 8)
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    header = ident + struct.pack(
        order + "HHIQQQIHHHHHH", 2, 183, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
        len(sections) + 1, 3,
    )  # fmt: skip
    return header + body + headers


FUNCTIONS = [
    ("_text", BASE, 0, 0x10), ("local", BASE + 0x100, 0x10, 0x02), ("fn", BASE + 0x100, 0x10, 0x12),
    ("data", BASE + 0x180, 8, 0x11), ("last", BASE + 0x200, 0x40, 0x02),
]  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
def test_vmlinux(order: str) -> None:
    symbols = from_vmlinux(elf(FUNCTIONS, b"\xab" * 20, order))
    assert symbols.build_id == "ab" * 20
    assert symbols.names.to_list() == ["_text", "fn", "last"]
    assert resolve(symbols, BASE + 0x10F, BASE + 0x110, BASE + 0x23F, BASE + 0x240) == [
        "fn+0xf", None, "last+0x3f", None,
    ]  # fmt: skip


def test_another_build_is_refused() -> None:
    image = elf(FUNCTIONS, b"\xab" * 20)
    assert from_vmlinux(image, "vmlinux", "ab" * 20).names.len() == 3
    assert from_vmlinux(elf(FUNCTIONS), "vmlinux", "ab" * 20).names.len() == 3
    with pytest.raises(CaptureError, match="another build"):
        from_vmlinux(image, "vmlinux", "cd" * 20)


def test_damaged_images_are_capture_errors() -> None:
    image = bytearray(elf(FUNCTIONS, b"\xab" * 20))
    for cut in range(0, len(image), 7):
        try_vmlinux(bytes(image[:cut]))
    for at in range(len(image)):
        damaged = image.copy()
        damaged[at] ^= 0xFF
        try_vmlinux(bytes(damaged))


def try_vmlinux(data: bytes) -> None:
    try:
        from_vmlinux(data)
    except CaptureError:
        return


# --- captures ----------------------------------------------------------------------------


def test_kaslr_moves_the_symbols() -> None:
    capture = tiny()
    capture.records["mmap"] = pl.DataFrame(
        {"filename": ["[kernel.kallsyms]_text"], "pgoff": [BASE - 0x20000]},
        schema={"filename": pl.String, "pgoff": pl.UInt64},
    )
    moved = place(from_kallsyms(TEXT), capture)
    assert moved.address("strong") == BASE + 0x10200 - 0x20000
    assert np.all(np.diff(moved.start.astype(object)) > 0)
    up = from_kallsyms(TEXT).moved(1 << 63).moved(1 << 63)
    assert up.start.tolist() == from_kallsyms(TEXT).start.tolist()


def test_frames_get_names_and_keep_addresses() -> None:
    ips = pl.Series("ip", [BASE + 0x10104, None, 5], dtype=pl.UInt64)
    chain = pl.Series(
        "callchain", [[(1 << 64) - 128, BASE + 0x10204], [], None], dtype=pl.List(pl.UInt64)
    )
    frame = event_frame().hstack([ips, chain])
    out = symbolize_frame(frame, from_kallsyms(TEXT))
    assert out.select(frame.columns).equals(frame)
    assert out["ip_symbol"].to_list() == ["try_to_unmap_one", None, None]
    assert out["ip_offset"].to_list() == [4, None, None]
    assert out["callchain_symbol"].to_list() == [["[kernel]", "strong+0x4"], [], None]


def test_a_function_trace_names_itself(tmp_path: Path) -> None:
    store = ingest(FIXTURES / "formats/pageout.function.dat", tmp_path / "f.mmtrace")
    frame = store.event("ftrace:function")
    assert frame["ip_symbol"].null_count() == 0
    assert "folio_add_file_rmap_ptes" in frame["ip_symbol"].to_list()
    assert store.provenance.extra["symbols"]["origin"] == "the capture's kallsyms"


def kallsyms_of_612() -> bytes:
    return read_capture(FIXTURES / "formats/pageout.function.dat").kallsyms


def test_symbols_beside_a_capture(tmp_path: Path) -> None:
    perf = tmp_path / "perf.data"
    perf.write_bytes(content("formats/pageout.callgraph.perf.data"))
    (tmp_path / "kallsyms.txt.zst").write_bytes(zstd.compress(kallsyms_of_612()))
    frame = ingest(perf, tmp_path / "a.mmtrace").event("mmtrace:try_to_unmap_one")
    chain = frame["callchain_symbol"][0].to_list()
    assert chain[:3] == ["[kernel]", "try_to_unmap_one+0x0", "try_to_unmap+0x8c"]
    assert frame["callchain_symbol"].list.len().equals(frame["callchain"].list.len())


def test_symbols_of_another_kernel_are_refused(tmp_path: Path) -> None:
    capture = read_capture(FIXTURES / "formats/pageout.callgraph.perf.data.zst")
    shifted = b"\n".join(
        b"%016x" % (int(line[:16], 16) + 0x10000) + line[16:]
        for line in kallsyms_of_612().splitlines()
        if not line.endswith((b" _text", b" _stext"))
    )
    wrong = tmp_path / "wrong"
    wrong.write_bytes(shifted)
    with pytest.raises(CaptureError, match="another kernel"):
        find_symbols("x", capture, wrong)
    (tmp_path / "kallsyms").write_bytes(shifted)
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
    assert find_symbols(str(tmp_path / "x"), capture) is None
    assert capture.diagnostics["code"].to_list() == ["symbols", "symbols"]


def test_build_id_of_a_capture() -> None:
    capture = Capture({}, {}, tiny().provenance)
    assert kernel_build_id(capture) is None
    rows = [{"filename": "[kernel.kallsyms]", "build_id": "ab"}]
    capture.provenance.extra["features"] = {"build_id": rows}
    assert kernel_build_id(capture) == "ab"
