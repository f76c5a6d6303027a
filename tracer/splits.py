# SPDX-License-Identifier: GPL-2.0-or-later
"""Folio splits: what they interrupt, and what they leave behind.

A madvise scan that covers a folio only in part unlocks the page table, splits
the folio and looks at the same entry again. The scan has one event at its
start; it becomes one operation in front of each split and one behind it.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from tracer import schema

SCANS = ("madvise_cold", "madvise_pageout", "madvise_free")
_SPLIT = ("try_to_migrate_one", "try_to_unmap_flush", "remove_migration_pte")


def _task(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations of one task, with its scans cut at splits."""
    out: list[dict[str, Any]] = []
    scan: dict[str, Any] | None = None
    at: int | None = None  # where the split that is going on began
    for row in rows:
        if at is not None and row["op"] not in _SPLIT:
            # Behind the last event of the split; ``seq`` orders it there.
            assert scan is not None
            scan = {**scan, "seq": out[-1]["seq"], "va": at, "nr_pages": 0, "arg": None}
            out.append(scan)
            at = None
        if row["op"] in SCANS:
            scan = row
        elif row["op"] not in _SPLIT and row["op"] != "infer_access":
            scan = None
        elif row["op"] == "try_to_migrate_one" and scan is not None and row["mm"] == scan["mm"]:
            if at is not None and any(o["op"] == "remove_migration_pte" for o in out[-1:]):
                scan = {**scan, "seq": out[-1]["seq"], "va": at, "nr_pages": 0, "arg": None}
                out.append(scan)
                at = None
            begins = max(scan["va"], row["va"])
            if at is None and begins < scan["end"]:
                at = begins
                scan["arg"] = at
        out.append(row)
    return out


def cut_scans(ops: pl.DataFrame) -> pl.DataFrame:
    """Cut madvise scans where the kernel split a folio.

    :param ops: :data:`tracer.schema.OP_COLUMNS`
    :return: ops; a scan that is cut has the address in ``arg``, and goes on there in a
        further row that carries the ``seq`` of the split's last event
    """
    scanning = ops.filter(pl.col("op").is_in(SCANS))["tid"].unique()
    splitting = ops.filter(pl.col("op") == "try_to_migrate_one")["tid"].unique()
    tids = [t for t in scanning.to_list() if t in set(splitting.to_list())]
    if not tids:
        return ops
    mine = pl.col("tid").is_in(tids).fill_null(False)
    parts = [ops.filter(~mine)]
    kinds = (*SCANS, *_SPLIT, "infer_access")
    columns = schema.polars_schema(schema.OP_COLUMNS)
    for tid in tids:
        rows = ops.filter(pl.col("tid") == tid)
        # Other operations only end a scan: they need not be taken apart.
        near = rows["op"].is_in(kinds)
        keep = near | near.shift(1, fill_value=False) | near.shift(-1, fill_value=False)
        cut = _task(rows.filter(keep).to_dicts())
        parts += [rows.filter(~keep), pl.DataFrame(cut, schema=columns, orient="row")]
    return pl.concat(parts).sort("seq", maintain_order=True)


def with_zero_pages(ops: pl.DataFrame, mapped: pl.DataFrame | None) -> pl.DataFrame:
    """Mark pages of a split that were not mapped again.

    A split gives pages that hold only zeros back, and maps the shared zero page
    instead, which no rmap event announces.

    :param mapped: tid, seq, mm of the folio_add_anon_rmap_ptes() events; None when they
        were not recorded
    :return: ops with ``outcome`` 0 for such a remove_migration_pte
    """
    if mapped is None:
        return ops
    events = pl.concat(
        [
            ops.filter(pl.col("op").is_not_null()).select("tid", "seq", "op"),
            mapped.select("tid", "seq", pl.lit("mapped").alias("op")),
        ]
    ).sort("seq")
    after = events.with_columns(pl.col("op").shift(-1).over("tid").alias("after"))
    zero = after.filter(
        (pl.col("op") == "remove_migration_pte") & (pl.col("after") != "mapped").fill_null(True)
    ).select("seq", pl.lit(True).alias("zero"))
    # The page has to be anonymous, and of a folio that was split.
    single = (pl.col("order") == 0) & (pl.col("vm_flags").fill_null(0) & _VM_SHARED == 0)
    return (
        ops.join(zero.unique("seq"), on="seq", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("zero") & single & (pl.col("op") == "remove_migration_pte"))
            .then(pl.lit(0, pl.UInt64))
            .otherwise(pl.col("outcome"))
            .alias("outcome")
        )
        .drop("zero")
    )


_VM_SHARED = 8
