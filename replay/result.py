# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from replay import counters

if TYPE_CHECKING:
    from replay.snapshot import History

# Leading columns of Replay.rows; one UInt64 column per counter and sum follows.
ROW_COLUMNS: tuple[tuple[str, pl.DataType], ...] = (
    ("seq", pl.UInt64()),  # seq of the row's first operation
    ("ts", pl.UInt64()),  # its time, ns
    ("pid", pl.Int32()),
    ("tid", pl.Int32()),
    ("comm", pl.String()),
    ("syscall", pl.String()),  # null: outside any system call
    ("syscall_seq", pl.UInt64()),
    ("args", pl.String()),  # name=value list of the system call
    ("window", pl.UInt64()),  # the task's running count of system call entries and exits
    ("op", pl.String()),
    ("order", pl.UInt8()),  # folio order of the operation, 255 when it has none
    ("whole_life", pl.Boolean()),  # the mm's first mapping is in the capture
    ("nr_ops", pl.UInt64()),
    ("nr_pages", pl.UInt64()),
)

BY = {
    "total": (),
    "op": ("op",),
    "syscall": ("pid", "tid", "comm", "window", "syscall", "syscall_seq", "args"),
    "task": ("pid", "tid", "comm"),
}


# Replay.rows.order of an operation without a folio, such as one on a range of addresses.
NO_ORDER = 255
# The same where replay.coverage looked: folios of several orders, or swap entries only.
MIXED = 254
SWAP_ENTRIES = 253


def folio_pages() -> pl.Expr:
    """``nr_pages`` of folios only.

    An operation on a range (exit_mmap covers the whole address space) says
    nothing about how many pages are mapped there.
    """
    return (
        pl.when(pl.col("order") != NO_ORDER).then(pl.col("nr_pages")).otherwise(0).alias("nr_pages")
    )


@dataclass
class Replay:
    """Counts of one policy over one op stream.

    :ivar rows: finest rows: one per (task, system call window, op, order)
    :ivar unmodelled: op name and count of operations that were not replayed
    :ivar inferred: counts of state the capture does not show, by kind
    :ivar history: states of the main address space; None when not asked for
    """

    policy: str
    policy_title: str
    cpu: dict[str, Any]
    rows: pl.DataFrame
    unmodelled: pl.DataFrame
    inferred: dict[str, int]
    nr_ops: int
    seconds: float  # time in the engine
    store: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    history: History | None = None

    def by(self, what: str = "total") -> pl.DataFrame:
        """Sum the rows.

        :param what: a key of :data:`BY`
        :return: the key columns, ``nr_ops``, ``nr_pages`` of folios and every counter
            and sum, in order of first appearance
        """
        keys = list(BY[what])
        values = ["nr_ops", "nr_pages", *counters.NAMES, *counters.SUMS]
        rows = self.rows.with_columns(folio_pages())
        if not keys:
            return rows.select(pl.col(values).sum())
        return (
            rows.group_by(keys, maintain_order=True)
            .agg(pl.col("seq").min(), *[pl.col(v).sum() for v in values])
            .sort("seq")
        )
