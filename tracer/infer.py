# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings that are older than the capture, from what is seen of their end.

An address space that began before the recording is torn down inside it: each
folio_remove_rmap_ptes() of the tear-down names pages that nothing in the
capture mapped. They become ``infer_map`` operations in front of that zap, so
that its PTE work is counted. Their addresses inside the zapped range are not
known; they are laid out in the order of removal, contpte aligned where the
folio could be.

And accesses: hardware sets the accessed bit of a mapped page without an event.
MADV_COLD and MADV_FREE clear it only where it is set, so that each
contpte_clear_young_dirty_ptes() inside them tells of an access since it was
last cleared, an ``infer_access`` operation in front of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from tracer import schema

OP = "infer_map"
ACCESS = "infer_access"
_SCANS = ("madvise_cold", "madvise_free")
# The alignment that decides contpte on 4K pages; larger granules ask for more.
_BLOCK = 16
_MAPPING = ("do_anonymous_page", "set_pte_range", "wp_page_copy", "do_swap_page",
            "remove_migration_pte", "folio_add_new_anon_rmap")  # fmt: skip


def _known_pages(ops: pl.DataFrame) -> pl.DataFrame:
    """(mm, pfn) that an operation of the capture mapped."""
    return (
        ops.filter(pl.col("op").is_in(_MAPPING) & (pl.col("nr_pages") <= 1 << 13))
        .select("mm", pl.int_ranges("pfn", pl.col("pfn") + pl.col("nr_pages")).alias("pfn"))
        .explode("pfn")
        .with_columns(pl.col("pfn").cast(pl.UInt64))
        .unique()
    )


def _older(ops: pl.DataFrame, removed: pl.DataFrame) -> pl.DataFrame:
    """Removals of unknown pages inside a zap of an address space that began earlier.

    :param removed: seq, tid, mm, page, pfn, nr_pages, order, page_flags
    :return: the removals with ``zap``, the seq of their zap
    """
    has_mm = ops.filter(pl.col("mm").is_not_null())
    doing = has_mm.select("tid", "seq", "mm", pl.col("seq").alias("zap"), "op", "whole_life")
    inside = removed.join_asof(
        doing, on="seq", by=["tid", "mm"], strategy="backward", check_sortedness=False
    ).filter((pl.col("op") == "zap_page_range") & ~pl.col("whole_life"))
    return inside.join(_known_pages(ops), on=["mm", "pfn"], how="anti", maintain_order="left").sort(
        "seq"
    )


def _place(
    zap: dict[str, Any], rows: list[dict[str, Any]], page_size: int
) -> Iterator[dict[str, Any]]:
    """Addresses for the pages of one zap, rising from its start."""
    if zap["va"] is None or zap["end"] is None:
        return
    at = zap["va"] // page_size
    end = zap["end"] // page_size
    for row in rows:
        if None in (row["nr_pages"], row["pfn"], row["order"]):
            continue  # a damaged line of a text
        nr = int(row["nr_pages"])
        if (1 << row["order"]) >= _BLOCK:
            at += (row["pfn"] - at) % _BLOCK
        if at + nr > end:
            return
        yield {
            **zap,
            "op": OP,
            "va": at * page_size,
            "end": (at + nr) * page_size,
            "nr_pages": nr,
            "folio": row["page"],
            "page": row["page"],
            "pfn": row["pfn"],
            "order": row["order"],
            "page_flags": row["page_flags"],
        }
        at += nr


def with_older_mappings(ops: pl.DataFrame, removed: pl.DataFrame, page_size: int) -> pl.DataFrame:
    """Put ``infer_map`` operations in front of the zaps that need them.

    :param ops: :data:`tracer.schema.OP_COLUMNS`
    :param removed: the folio_remove_rmap_ptes() events with pfn and order
    :return: ops; inferred rows carry the ``seq`` of their zap
    """
    older = _older(ops, removed)
    if older.is_empty():
        return ops
    zaps = {
        row["seq"]: row
        for row in ops.filter(pl.col("seq").is_in(older["zap"].unique().to_list())).iter_rows(
            named=True
        )
        if row["op"] == "zap_page_range"
    }
    made: list[dict[str, Any]] = []
    for (seq,), rows in older.group_by("zap", maintain_order=True):
        if seq in zaps:
            made += _place(zaps[seq], rows.to_dicts(), page_size)
    inferred = pl.DataFrame(made, schema=schema.polars_schema(schema.OP_COLUMNS), orient="row")
    both = pl.concat(
        [inferred.with_columns(pl.lit(0).alias("rank")), ops.with_columns(pl.lit(1).alias("rank"))]
    )
    return both.sort("seq", "rank", maintain_order=True).drop("rank")


def with_accesses(ops: pl.DataFrame, cleared: pl.DataFrame, page_size: int) -> pl.DataFrame:
    """Put ``infer_access`` operations in front of the scans that found young entries.

    :param ops: :data:`tracer.schema.OP_COLUMNS`
    :param cleared: tid, seq, at, count of the contpte_clear_young_dirty_ptes() events
    :return: ops; inferred rows carry the ``seq`` of their scan
    """
    scans = ops.filter(pl.col("op").is_in(_SCANS))
    if scans.is_empty() or cleared.is_empty():
        return ops
    last = ops.select("tid", "seq", pl.col("seq").alias("scan"), "op")
    hits = (
        cleared.join_asof(last, on="seq", by="tid", strategy="backward", check_sortedness=False)
        .filter(pl.col("op").is_in(_SCANS))
        .select("scan", "at", "count")
    )
    inferred = (
        scans.join(hits, left_on="seq", right_on="scan", maintain_order="left")
        .with_columns(
            pl.lit(ACCESS).alias("op"),
            pl.col("at").alias("va"),
            (pl.col("at") + pl.col("count") * page_size).alias("end"),
            pl.col("count").alias("nr_pages"),
            pl.lit(None, pl.UInt64).alias("flags"),
        )
        .select(ops.columns)
    )
    both = pl.concat(
        [inferred.with_columns(pl.lit(0).alias("rank")), ops.with_columns(pl.lit(1).alias("rank"))]
    )
    return both.sort("seq", "rank", maintain_order=True).drop("rank")
