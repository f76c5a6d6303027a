# SPDX-License-Identifier: GPL-2.0-or-later
"""Which folio orders the operations on ranges of addresses meet.

A zap, a fork or a write fault names addresses, not folios. Before each such
operation the replay is stopped and the page tables are asked what is mapped
there. Where all of it is of one order, every count of the operation belongs to
that order; where it is not, the counts cannot be split and the row says so.
Which folio is mapped where does not depend on the policy: one pass serves all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from replay import state
from replay.arm64 import pte as bits
from replay.arm64.geometry import Granule
from replay.cpu import Cpu
from replay.lower import Stream
from replay.policies import Policy
from replay.result import MIXED, NO_ORDER, SWAP_ENTRIES
from replay.snapshot import Walker
from replay.stream import CODES, F_CODE, F_CTX, F_END, F_GROUP, F_MM, F_VA

Int64 = npt.NDArray[np.int64]

# Operations to look up; each stops the replay for some 30 us.
MOST: Final = 100_000

# Operations that name addresses.
RANGES: Final = (
    "zap_page_range", "copy_page_range", "change_protection", "move_page_tables",
    "madvise_cold", "madvise_pageout", "madvise_free", "wp_page_reuse",
)  # fmt: skip
_CODES: Final = tuple(CODES[name] for name in RANGES)
# Operations that finish what the task began, to what they finish.
_CLOSES: Final = {
    CODES["tlb_finish_mmu"]: CODES["zap_page_range"],
    CODES["dup_mmap_end"]: CODES["copy_page_range"],
    CODES["try_to_unmap_flush"]: CODES["try_to_unmap_one"],
    CODES["try_to_unmap_flush_dirty"]: CODES["try_to_unmap_one"],
}
_PRESENT: Final = bits.VALID | bits.PRESENT_INVALID


def attribute(
    stream: Stream, policy: Policy, cpu: Cpu, granule: Granule, most: int = MOST
) -> Stream:
    """The stream with result rows split by the orders that range operations meet.

    ``order`` of a row is then also a range's: an order, :data:`replay.result.MIXED`,
    :data:`replay.result.SWAP_ENTRIES` or NO_ORDER where nothing was mapped, and
    ``nr_pages`` the pages that were. Range operations after the first ``most`` keep NO_ORDER.
    """
    where = np.flatnonzero(np.isin(stream.ops[:, F_CODE], _CODES))[:most]
    if not where.size:
        return stream
    orders = stream.groups["order"].to_numpy()[stream.ops[:, F_GROUP]].astype(np.int64)
    pages = np.zeros(stream.ops.shape[0], np.int64)
    walker = Walker(stream, policy, cpu, granule)
    for index in where.tolist():
        walker.to(index)
        op = stream.ops[index]
        orders[index], pages[index] = covered(
            walker.st, int(op[F_MM]), int(op[F_VA]), max(int(op[F_END]), int(op[F_VA]) + 1)
        )
    _close(stream.ops, orders)
    return _regroup(stream, orders, pages)


def covered(st: state.State, mm: int, va: int, end: int) -> tuple[int, int]:
    """What is mapped in a range.

    :return: order of the folios or one of the words for none and many, and present pages
    """
    s = st.s
    used, per, shift = (int(s[i]) for i in (state.NR_TABLES, state.PTRS_PER_PTE, state.PMD_SHIFT))
    table = st.table[:used]
    pmd = table[:, state.TABLE_PMD]
    inside = (table[:, state.TABLE_MM] == mm) & (pmd >= va >> shift) & (pmd <= (end - 1) >> shift)
    rows = np.flatnonzero(inside)
    entries = st.pte[: used * per].reshape(used, per)[rows]
    first = (pmd[rows] << shift)[:, None] + (np.arange(per) << int(s[state.PAGE_SHIFT]))
    entries = entries[(first + int(s[state.PAGE_SIZE]) > va) & (first < end)]
    present = entries[(entries & _PRESENT) != 0]
    if not present.size:
        swapped = ((entries & bits.KIND_MASK) == bits.SWAP).any()
        return (SWAP_ENTRIES if swapped else NO_ORDER), 0
    frames = (present & bits.PFN_MASK) >> bits.PFN_SHIFT
    found = np.unique(st.info[np.minimum(frames, st.info.size - 1)] & state.INFO_ORDER)
    return (int(found[0]) if found.size == 1 else MIXED), int(present.size)


def _close(ops: Int64, orders: Int64) -> None:
    """Give flushes the order of what they flush, in place."""
    seen: dict[tuple[int, int], set[int]] = {}
    openers = set(_CLOSES.values())
    codes, tasks = ops[:, F_CODE].tolist(), ops[:, F_CTX].tolist()
    for index, (code, task) in enumerate(zip(codes, tasks, strict=True)):
        if code in openers:
            seen.setdefault((task, code), set()).add(int(orders[index]))
        elif code in _CLOSES:
            met = seen.pop((task, _CLOSES[code]), set()) - {NO_ORDER}
            if met:
                orders[index] = met.pop() if len(met) == 1 else MIXED


def _regroup(stream: Stream, orders: Int64, pages: Int64) -> Stream:
    """Split the result rows by the new orders."""
    old = stream.ops[:, F_GROUP]
    pairs = pl.DataFrame({"group": old, "order": orders, "pages": pages}).with_row_index("at")
    rows = pairs.group_by("group", "order", maintain_order=True).agg(
        pl.len().cast(pl.UInt64).alias("nr_ops"), pl.col("pages").sum().cast(pl.UInt64)
    )
    number = rows.with_row_index("row").select("group", "order", "row")
    index = pairs.join(number, on=["group", "order"], how="left", maintain_order="left")["row"]
    was = stream.groups[rows["group"].to_numpy()]
    folios = was["order"] != NO_ORDER
    # Folio rows keep their pages; they are never split, their order is their own.
    groups = was.with_columns(
        pl.when(folios).then(pl.col("nr_pages")).otherwise(rows["pages"]).alias("nr_pages"),
        rows["nr_ops"],
        rows["order"].cast(pl.UInt8),
    ).select(stream.groups.columns)
    ops = stream.ops.copy()
    ops[:, F_GROUP] = index.to_numpy()
    return replace(stream, ops=ops, groups=groups)
