# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel addresses to names: kallsyms text, or a vmlinux's .symtab."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tracer.errors import CaptureError

U64 = NDArray[np.uint64]

# kallsyms has no sizes: a symbol ends where the next begins, or this far on.
MAX_FUNCTION: Final = 1 << 20
MAX_SYMBOLS: Final = 1 << 23
_LINE = re.compile(rb"^([0-9a-f]{8,16}) ([tTwW]) (\S{1,512})(?:\t\[(\S{1,64})\])?[ \t]*$", re.M)
# Mapping symbols of arm64 and labels of the assembler are no functions.
_LABEL = re.compile(rb"\$[xdt](?:\.|\Z)|\.L")
_RANK: Final = {b"T": 0, b"t": 1, b"W": 2, b"w": 2}
_ELF64_SYM: Final = [
    ("name", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2"), ("value", "u8"),
    ("size", "u8"),
]  # fmt: skip
_STT_FUNC: Final = 2
_STT_NOTYPE: Final = 0
_STB_GLOBAL: Final = 1


@dataclass(frozen=True)
class Symbols:
    """Functions of one kernel.

    :ivar start: uint64[n], first addresses, ascending and distinct
    :ivar end: uint64[n], one past the last address
    :ivar names: String[n]
    :ivar origin: where they are from, for messages
    :ivar build_id: of the kernel in hexadecimal, when the source holds it
    """

    start: U64
    end: U64
    names: pl.Series
    origin: str = ""
    build_id: str | None = None

    def address(self, name: str) -> int | None:
        """:return: first address of a function, or None."""
        at = self.names.index_of(name)
        return None if at is None else int(self.start[at])

    def moved(self, by: int) -> Symbols:
        """:return: the same functions ``by`` bytes higher (modulo 2**64), as KASLR puts them."""
        shift = np.uint64(by % (1 << 64))
        start, end = self.start + shift, self.end + shift
        order = np.argsort(start, kind="stable")
        names = self.names.gather(pl.Series(order))
        return Symbols(start[order], end[order], names, self.origin, self.build_id)

    def lookup(self, ips: U64) -> tuple[NDArray[np.int64], U64]:
        """Find the function that each address lies in.

        :param ips: uint64[n]
        :return: int64[n], positions in :attr:`names`, -1 for none; uint64[n], bytes
            from the function's start
        """
        if not self.start.size:
            return np.full(ips.size, -1, np.int64), np.zeros(ips.size, np.uint64)
        at = np.searchsorted(self.start, ips, side="right").astype(np.int64) - 1
        inside = at >= 0
        inside &= ips < self.end[at]  # at -1 is the last one, masked already
        offset = np.where(inside, ips - self.start[at], np.uint64(0))
        return np.where(inside, at, -1), offset

    def resolve(self, ips: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Name addresses.

        :param ips: UInt64[n], nulls allowed
        :return: String[n] function names, null where none; UInt64[n] offsets in bytes, ditto
        """
        at, offset = self.lookup(ips.fill_null(0).to_numpy())
        known = pl.Series(at >= 0)
        index = pl.Series(at).set(~known, None)
        return self.names.gather(index), pl.Series(offset).set(~known, None)

    def texts(self, ips: pl.Series) -> pl.Series:
        """:return: String[n], ``name+0x1c`` of each address, null where none."""
        name, offset = self.resolve(ips)
        pairs = zip(name.to_list(), offset.to_list(), strict=True)
        found = [None if n is None else f"{n}+0x{o:x}" for n, o in pairs]
        return pl.Series(ips.name, found, dtype=pl.String)


def from_kallsyms(text: bytes, origin: str = "kallsyms") -> Symbols:
    """Read the text of /proc/kallsyms; only functions are kept.

    :param text: the file's bytes
    :param origin: its name, for messages
    :raises CaptureError: when it names no function, or all at address 0
    """
    found: dict[bytes, tuple[int, int, bytes]] = {}
    for m in _LINE.finditer(text):
        name = m[3]
        if name[:1] in b"$." and _LABEL.match(name):
            continue
        # Of aliases the global and plainest name, as in choose_best_symbol() of tools/perf.
        rank = (_RANK[m[2]], len(name) - len(name.lstrip(b"_")), name)
        if m[1] not in found or rank < found[m[1]]:
            found[m[1]] = rank
        if len(found) > MAX_SYMBOLS:
            break
    if not found:
        raise CaptureError(f"{origin} is no kallsyms text: it names no function.")
    if len(found) == 1 and int(next(iter(found)), 16) == 0:
        raise CaptureError(
            f"{origin} has every symbol at address 0.", "Read /proc/kallsyms as root."
        )
    start = np.array([int(a, 16) for a in found], np.uint64)
    names = [rank[2].decode("utf-8", "replace") for rank in found.values()]
    return _table(start, np.zeros(start.size, np.uint64), names, origin, None)


def from_vmlinux(data: bytes, origin: str = "vmlinux", build_id: str | None = None) -> Symbols:
    """Read the .symtab of a kernel image.

    :param data: the ELF file
    :param origin: its name, for messages
    :param build_id: the captured kernel's, in hexadecimal; None when it is not known
    :raises CaptureError: when it is no ELF with symbols, or of another build
    """
    try:
        table, strings, own = _sections(data)
    except CaptureError:
        raise
    except Exception as e:  # pyelftools raises whatever it trips over in a damaged file
        raise CaptureError(f"{origin} is a damaged ELF file ({type(e).__name__}).") from None
    if build_id and own and build_id.rstrip("0") != own.rstrip("0"):
        raise CaptureError(
            f"{origin} is another build than the captured kernel "
            f"(build id {own[:12]}, not {build_id[:12]}).",
            "Take the vmlinux of the very package that was booted.",
        )
    if table is None:
        raise CaptureError(f"{origin} has no .symtab.", "Take the one with debug information.")
    kind = table["info"] & 0xF
    keep = (kind == _STT_FUNC) | ((kind == _STT_NOTYPE) & (table["info"] >> 4 == _STB_GLOBAL))
    table = table[keep & (table["shndx"] != 0) & (table["value"] != 0)][:MAX_SYMBOLS]
    # Of aliases the first global one.
    table = table[np.lexsort((table["name"], table["info"] >> 4 != _STB_GLOBAL, table["value"]))]
    _, first = np.unique(table["value"], return_index=True)
    table = table[first]
    names = [_string(strings, int(at)) for at in table["name"]]
    start = table["value"].astype(np.uint64)
    return _table(start, table["size"].astype(np.uint64), names, origin, own)


def _sections(data: bytes) -> tuple[Any, bytes, str | None]:
    """:return: Elf64_Sym[n] or None, its strings, and the build id in hexadecimal."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    if elf.elfclass != 64:
        raise CaptureError("Only 64-bit kernel images are read.")
    own = None
    for section in elf.iter_sections("SHT_NOTE"):
        for note in cast(Any, section).iter_notes():
            if note["n_type"] == "NT_GNU_BUILD_ID":
                own = str(note["n_desc"])
    symtab = elf.get_section_by_name(".symtab")
    if symtab is None:
        return None, b"", own
    order = "<" if elf.little_endian else ">"
    raw = symtab.data()
    dtype = np.dtype([(name, order + kind) for name, kind in _ELF64_SYM])
    table = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
    return table, elf.get_section(symtab["sh_link"]).data(), own


def _string(strings: bytes, at: int) -> str:
    return strings[at : strings.find(b"\0", at, at + 512)].decode("utf-8", "replace")


def _table(start: U64, size: U64, names: list[str], origin: str, build_id: str | None) -> Symbols:
    """Sort, and bound each function by its size, the next function and MAX_FUNCTION."""
    order = np.argsort(start, kind="stable")
    start, size = start[order], size[order]
    # Whatever the kind of file, the last bytes of the address space are error codes.
    top = np.uint64(0xFFFFFFFFFFFFF000)
    room = np.minimum(np.append(start[1:], top), top) - np.minimum(start, top)
    room = np.minimum(room, np.uint64(MAX_FUNCTION))
    length = np.where(size > 0, np.minimum(size, room), room)
    ordered = pl.Series("symbol", names, dtype=pl.String).gather(pl.Series(order))
    return Symbols(start, start + length, ordered, origin, build_id)
