# SPDX-License-Identifier: GPL-2.0-or-later
"""A store that can be given away: the same counts, nobody's names, no kernel addresses.

Kernel addresses keep their low 21 bits and their order. What KASLR randomises
lies above: images and the linear map are placed at multiples of 2 MiB. So two
pointers into one struct, one folio's pages, and every alignment stay what they
were, and a replay counts the same; where anything was loaded is gone. Page
frames are renumbered the same way. User addresses stay: they are of a process
that is no more, and contpte blocks depend on them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.capture import Capture, Provenance
from tracer.enums import KernelEnums
from tracer.store import Store, write_store

UInt64 = npt.NDArray[np.uint64]

SHIFT: Final = 21
# Kernel addresses of every VA_BITS (52 at most); above the last page are error codes.
FIRST: Final = 0xFFF0_0000_0000_0000
LAST: Final = 0xFFFF_FFFF_FFFF_F000
# Words that look like addresses and are sets of flags.
_FLAGS: Final = frozenset({"page_flags", "vm_flags", "flags", "pte", "seq", "ts"})
# Text of this program or of the kernel's tables, not of the machine's owner.
_PUBLIC: Final = frozenset({"op", "probe", "syscall", "syscall_args", "event", "source", "code",
                            "severity", "message"})  # fmt: skip
# Numbers that tell a file system apart and that nothing here counts.
_DROPPED: Final = frozenset({"ino", "ino_generation"})
_ADDRESS = re.compile(r"\b(?:0x)?(fff[0-9a-f]{13})\b", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w<.])(?:~|\.{1,2})?/[^\s,;:'\"<>()]+")
_QUOTED = re.compile(r'"[^"]*"')


class Names:
    """Pseudonyms by first appearance, one series for each kind of name."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, kind: str, name: str) -> str:
        """:return: ``kind-1``, ``kind-2``, ...: the same for the same name"""
        known = self._known.setdefault(kind, {})
        return known.setdefault(name, f"{kind}-{len(known) + 1}")


class Addresses:
    """Pseudonyms of kernel addresses and page frames.

    :param frames: every frame of the store
    :param order: the largest folio order in it; its frames stay together
    """

    def __init__(self, frames: Iterable[pl.DataFrame], order: int = 9) -> None:
        self._shift = np.uint64(max(9, order))
        blocks: set[int] = set()
        pfns: set[int] = set()
        for frame in frames:
            for name in _integers(frame):
                words = _words(frame[name])
                blocks |= set(np.unique(words[_is_kernel(words)] >> np.uint64(SHIFT)).tolist())
            if "pfn" in frame.columns:
                pfns |= set((_words(frame["pfn"].drop_nulls()) >> self._shift).tolist())
            for name in _strings(frame):
                for text in frame[name].drop_nulls().unique().to_list():
                    blocks |= {int(a, 16) >> SHIFT for a in _ADDRESS.findall(text)}
        # Ranks keep the order, and the order is what dense renumbering depends on.
        self._blocks = np.array(sorted(blocks), np.uint64)
        self._pfns = np.array(sorted(pfns), np.uint64)

    def map(self, words: UInt64) -> UInt64:
        """:return: the words with kernel addresses replaced, others as they are"""
        kernel = _is_kernel(words)
        out = words.copy()
        rank = np.searchsorted(self._blocks, words[kernel] >> np.uint64(SHIFT)).astype(np.uint64)
        low = words[kernel] & np.uint64((1 << SHIFT) - 1)
        out[kernel] = np.uint64(0xFFFF_0000_0000_0000) + (rank << np.uint64(SHIFT)) + low
        return out

    def frames(self, pfns: UInt64) -> UInt64:
        """:return: page frame numbers with the same low 9 bits and order"""
        shift = self._shift
        rank = np.searchsorted(self._pfns, pfns >> shift).astype(np.uint64)
        made: UInt64 = (rank << shift) | (pfns & ((np.uint64(1) << shift) - np.uint64(1)))
        return made

    def text(self, text: str) -> str:
        """:return: text with the kernel addresses in it replaced"""

        def one(found: re.Match[str]) -> str:
            words = np.array([int(found[1], 16)], np.uint64)
            return found[0].replace(found[1], f"{int(self.map(words)[0]):x}")

        return _ADDRESS.sub(one, text)


def _is_kernel(words: UInt64) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (words >= np.uint64(FIRST)) & (words < np.uint64(LAST))
    return inside


def _words(column: pl.Series) -> UInt64:
    """:return: 64-bit integers as they lie in memory, nulls as 0"""
    return column.fill_null(0).to_numpy().view(np.uint64).copy()


def _column(have: pl.Series, words: UInt64) -> pl.Series:
    """:return: the words as a column like another one, null where that is"""
    numbers = words.view(np.int64 if have.dtype == pl.Int64 else np.uint64)
    made = pl.Series(have.name, numbers, have.dtype)
    return made.set(have.is_null(), None)


def _integers(frame: pl.DataFrame) -> list[str]:
    wide = (pl.UInt64, pl.Int64)
    other = {*_FLAGS, *_DROPPED, "pfn"}
    return [n for n, t in frame.schema.items() if t in wide and n not in other]


def _strings(frame: pl.DataFrame) -> list[str]:
    return [n for n, t in frame.schema.items() if t == pl.String]


def frame(have: pl.DataFrame, addresses: Addresses, names: Names) -> pl.DataFrame:
    """:return: a frame of the same shape and types without addresses and names"""
    columns = [_column(have[n], addresses.map(_words(have[n]))) for n in _integers(have)]
    if "pfn" in have.columns:
        columns.append(_column(have["pfn"], addresses.frames(_words(have["pfn"]))))
    columns += [_renamed(have[n], addresses, names) for n in _strings(have)]
    columns += [pl.Series(n, [0] * have.height, have[n].dtype) for n in _DROPPED & {*have.columns}]
    # Byte strings and lists (stacks, raw records) may hold anything; no count needs them.
    for name, dtype in have.schema.items():
        if dtype == pl.Binary or dtype.is_nested():
            columns.append(pl.Series(name, [None] * have.height, dtype))
    return have.with_columns(columns)


def _renamed(column: pl.Series, addresses: Addresses, names: Names) -> pl.Series:
    """:return: a column of strings: names as pseudonyms, other text without names"""
    kind = "task" if column.name.endswith("comm") else column.name
    known: dict[str, str] = {}
    for text in column.drop_nulls().unique(maintain_order=True).to_list():
        if column.name in _PUBLIC:
            known[text] = _QUOTED.sub('"..."', _PATH.sub("(path)", addresses.text(text)))
        else:
            known[text] = names.of(kind, text) if text else text
    return pl.Series(column.name, [None if v is None else known[v] for v in column], pl.String)


def provenance(have: Provenance) -> Provenance:
    """:return: what says something about the machine, nothing about its owner"""
    kept = asdict(have) | {"path": None, "hostname": None, "cmdline": [], "extra": {}}
    return Provenance(**kept)


def anonymize(store: Store, output: Path, force: bool = False) -> Store:
    """Write an anonymous copy of a store.

    :param force: replace a store that is there
    :return: the copy
    :raises MmtraceError: when the store is damaged or the copy cannot be written
    """
    events = {key: store.event(key) for key in sorted(store.counts)}
    records = {name: store.record(name) for name in sorted(store.meta["records"])}
    largest = store.ops["order"].max()
    tables = [store.ops, store.loss, store.diagnostics, *events.values(), *records.values()]
    addresses = Addresses(tables, largest if isinstance(largest, int) else 0)
    names = Names()

    def made(table: pl.DataFrame) -> pl.DataFrame:
        return frame(table, addresses, names)

    ops = made(store.ops)
    capture = Capture(
        events={key: made(table) for key, table in events.items()},
        formats={key: store.formats[key] for key in events if store.formats[key].fields},
        provenance=provenance(store.provenance),
        records={name: made(table) for name, table in records.items()},
        loss=made(store.loss),
        diagnostics=made(store.diagnostics),
    )
    return write_store(output, capture, ops, _enums(store.enums), force)


def _enums(have: KernelEnums) -> KernelEnums:
    """:return: the kernel's numbers without the file they were read from"""
    return replace(copy.deepcopy(have), origin=None)
