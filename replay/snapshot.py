# SPDX-License-Identifier: GPL-2.0-or-later
"""The page tables at points of a replay: which contpte blocks are folded, and what they map.

A replay is run in slices, one per system call window of the main address
space; after each slice the PTEs are sorted into :data:`CLASSES`, block by
block, in numpy. A block is what one contpte mapping can cover: 16 pages of 4K.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from replay import counters, state
from replay.arm64 import pte as bits
from replay.arm64.geometry import Granule
from replay.cpu import Cpu
from replay.engine import execute, machine
from replay.lower import Stream
from replay.policies import Policy
from replay.result import NO_ORDER
from replay.stream import F_END, F_GROUP, F_MM, F_VA

Int64 = npt.NDArray[np.int64]

# What a block can be, the number of a class is its place.
CLASSES: Final = ("none", "swapped", "partial", "full", "unfolded", "folded", "pmd")
NONE, SWAPPED, PARTIAL, FULL, UNFOLDED, FOLDED, PMD = range(len(CLASSES))

# Slices of a replay; longer captures have several windows in one.
MOST_STEPS: Final = 40

_PRESENT: Final = bits.VALID | bits.PRESENT_INVALID
# What entries of one folded block may differ in.
_SAME: Final = ~(bits.PFN_MASK | bits.BLOCK_IGNORES | bits.RDONLY)


class Walker:
    """A replay that stops where it is told to.

    :ivar st: the machine; its arrays are replaced when it grows
    :ivar at: index of the next operation
    """

    def __init__(self, stream: Stream, policy: Policy, cpu: Cpu, granule: Granule) -> None:
        self.st = machine(stream, policy, cpu, granule)
        self.at = 0
        ops = stream.ops.copy()
        ops[:, F_GROUP] = 0  # one result row: whose counts they are is known by the slice
        self._stream = replace(stream, ops=ops, groups=stream.groups.head(1))

    def to(self, stop: int) -> Int64:
        """Run up to an operation.

        :param stop: index one past the last operation to run
        :return: int64[counters], what this slice counted
        """
        if stop <= self.at:
            return np.zeros(len(counters.NAMES), np.int64)
        part = replace(self._stream, ops=self._stream.ops[self.at : stop])
        out, self.st = execute(part, self.st)
        self.at = stop
        total: Int64 = out.sum(axis=0)
        return total


@dataclass(frozen=True)
class Step:
    """A slice of the replay: one window of a task, or several in a row.

    :ivar group: result row of its largest operation; says task, system call, time
    :ivar stop: index one past its last operation
    :ivar windows: how many windows it has
    """

    group: int
    stop: int
    windows: int = 1


@dataclass
class State:
    """The main address space after a step.

    :ivar tables: int64[n], PMD index of each page table, ascending
    :ivar classes: uint8[n, blocks per table], index into :data:`CLASSES`
    :ivar orders: folio order to present pages
    :ivar cont, young, dirty, pages: present entries with the bit, and all
    """

    tables: Int64
    classes: npt.NDArray[np.uint8]
    orders: dict[int, int]
    cont: int
    young: int
    dirty: int
    pages: int

    def count(self, kind: int) -> int:
        """:return: blocks of a class."""
        return int((self.classes == kind).sum())


@dataclass
class History:
    """States of the main address space under one policy.

    :ivar states: one more than steps: the first is before the first step
    :ivar repaints: (folds, unfolds) of each step, all address spaces together
    :ivar block_pages: pages of a contpte block
    """

    policy: str
    steps: list[Step]
    states: list[State]
    repaints: list[tuple[int, int]]
    block_pages: int
    page_size: int
    blocks_per_table: int
    labels: list[dict[str, object]] = field(default_factory=list)


def main_mm(stream: Stream) -> int:
    """The address space to show: most pages of folios, those that begin in the capture first.

    :return: dense number, as in the stream
    """
    groups = stream.groups
    index = stream.ops[:, F_GROUP]
    folio = (groups["order"] != NO_ORDER).to_numpy()[index]
    whole = groups["whole_life"].fill_null(False).to_numpy()[index]
    pages = np.where(folio, 1 << np.minimum(groups["order"].to_numpy()[index], 16), 0)
    weight = np.bincount(stream.ops[:, F_MM], pages * np.where(whole, 1 << 20, 1))
    return int(weight.argmax()) if weight.size else 0


def steps(stream: Stream, mm: int, most: int = MOST_STEPS) -> list[Step]:
    """Where to stop: after each window that works on the address space.

    With more than ``most`` windows those that work on most pages stay by
    themselves, and the ones between them are joined.
    """
    mine = np.flatnonzero(stream.ops[:, F_MM] == mm)
    if not mine.size:
        return []
    groups = stream.ops[mine, F_GROUP]
    number = _windows(stream)[groups]
    first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
    each = _pages(stream, mine)
    pages = np.add.reduceat(each, first)
    ends = np.append(first[1:], mine.size)
    begin = np.ones(first.size, bool)
    if first.size > most:
        large = pages > np.sort(pages)[-(most // 2)]
        begin = large | np.append(True, large[:-1])
    kept = np.flatnonzero(begin)
    heads = np.append(kept, first.size)
    stops = np.append(mine[first[kept[1:]]], stream.ops.shape[0])
    found = []
    for left, right, stop in zip(heads, heads[1:], stops.tolist(), strict=False):
        window = int(left + pages[left:right].argmax())
        largest = first[window] + each[first[window] : ends[window]].argmax()
        found.append(Step(int(groups[largest]), stop, int(right - left)))
    return found


def _windows(stream: Stream) -> Int64:
    """:return: int64[groups], a number for each task's system call window"""
    keys = stream.groups.select(pl.struct("tid", "window", "syscall").alias("key"))
    return keys["key"].rank("dense").to_numpy().astype(np.int64)


def _pages(stream: Stream, where: Int64) -> Int64:
    """:return: int64, pages that each of these operations names, at least one"""
    span = stream.ops[where, F_END] - stream.ops[where, F_VA]
    pages: Int64 = np.maximum(span >> 12, 1)
    return pages


def observe(st: state.State, mm: int) -> State:
    """Sort the blocks of an address space into classes.

    :param mm: dense number
    """
    s = st.s
    used, per, cont = (int(s[i]) for i in (state.NR_TABLES, state.PTRS_PER_PTE, state.CONT_PTES))
    rows = np.flatnonzero(st.table[:used, state.TABLE_MM] == mm)
    rows = rows[np.argsort(st.table[rows, state.TABLE_PMD], kind="stable")]
    entries = st.pte[: used * per].reshape(used, per)[rows]
    present = (entries & _PRESENT) != 0
    frames = np.where(present, (entries & bits.PFN_MASK) >> bits.PFN_SHIFT, 0)
    order = np.where(present, st.info[np.minimum(frames, st.info.size - 1)] & state.INFO_ORDER, 0)
    classes = _classes(entries.reshape(-1, cont), present.reshape(-1, cont),
                       frames.reshape(-1, cont), order.reshape(-1, cont))  # fmt: skip
    classes = classes.reshape(len(rows), per // cont)
    block = st.table[rows, state.TABLE_BLOCK] != 0
    classes[block] = PMD
    numbers, counts = np.unique(order[present], return_counts=True)
    valid = entries[present]
    return State(
        tables=st.table[rows, state.TABLE_PMD].copy(),
        classes=classes,
        orders={int(n): int(c) for n, c in zip(numbers, counts, strict=True)},
        cont=int(((valid & bits.CONT) != 0).sum()),
        young=int(((valid & bits.AF) != 0).sum()),
        dirty=int(_dirty(valid).sum()),
        pages=int(present.sum()),
    )


def _dirty(entries: Int64) -> npt.NDArray[np.bool_]:
    """pte_dirty() of many: software dirty, or writable and not read-only."""
    hardware = (entries & (bits.WRITE | bits.RDONLY)) == bits.WRITE
    dirty: npt.NDArray[np.bool_] = hardware | ((entries & bits.DIRTY) != 0)
    return dirty


def _classes(
    entries: Int64, present: npt.NDArray[np.bool_], frames: Int64, order: Int64
) -> npt.NDArray[np.uint8]:
    """Classes of blocks.

    :param entries: int64[blocks, CONT_PTES], and the same shape for the others
    :return: uint8[blocks]
    """
    width = entries.shape[1]
    many, every = present.any(axis=1), present.all(axis=1)
    swapped = ~present & ((entries & bits.KIND_MASK) == bits.SWAP)
    kinds = np.zeros(entries.shape[0], np.uint8)
    kinds[~many & swapped.any(axis=1)] = SWAPPED
    kinds[many & ~every] = PARTIAL
    kinds[every] = FULL
    # What contpte_try_fold() asks for: one folio, in step with it, equal attributes.
    one = (frames == frames[:, :1] + np.arange(width)).all(axis=1) & (frames[:, 0] % width == 0)
    large = (order >= width.bit_length() - 1).all(axis=1)
    alike = ((entries & _SAME) == (entries[:, :1] & _SAME)).all(axis=1)
    kinds[every & one & large & alike] = UNFOLDED
    kinds[every & ((entries & bits.CONT) != 0).all(axis=1)] = FOLDED
    return kinds


def history(
    stream: Stream, policy: Policy, cpu: Cpu, granule: Granule, most: int = MOST_STEPS
) -> History:
    """Replay a stream in slices and look at the main address space after each.

    :param most: slices at most
    """
    mm = main_mm(stream)
    walker = Walker(stream, policy, cpu, granule)
    found = steps(stream, mm, most)
    states = [observe(walker.st, mm)]
    repaints = []
    for step in found:
        counted = walker.to(step.stop)
        folds, unfolds = (int(counted[counters.INDEX[n]]) for n in ("fold", "unfold"))
        repaints.append((folds, unfolds))
        states.append(observe(walker.st, mm))
    labels = [dict(stream.groups.row(step.group, named=True)) for step in found]
    return History(
        policy.name, found, states, repaints, granule.cont_ptes, granule.page_size,
        granule.ptrs_per_pte // granule.cont_ptes, labels,
    )  # fmt: skip
