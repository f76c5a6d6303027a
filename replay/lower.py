# SPDX-License-Identifier: GPL-2.0-or-later
"""The ops table to the engine's flat stream: dense numbers instead of kernel pointers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from replay import result, state, stream
from replay.mm import memory
from tracer import vocabulary
from tracer.enums import KernelEnums

Int64 = npt.NDArray[np.int64]

# Operations of the vocabulary that the engine does not replay.
UNMODELLED = frozenset({"folio_split", "move_page_tables_end"})

# VMA flag of the kernel to flag of the engine.
_VM_FLAGS = (
    ("VM_READ", stream.VMF_READ),
    ("VM_WRITE", stream.VMF_WRITE),
    ("VM_EXEC", stream.VMF_EXEC),
    ("VM_SHARED", stream.VMF_SHARED),
    ("VM_LOCKED", stream.VMF_LOCKED),
    ("VM_UFFD_WP", stream.VMF_UFFD_WP),
    ("VM_PFNMAP", stream.VMF_PFNMAP),
    ("VM_MIXEDMAP", stream.VMF_PFNMAP),
)
_NO_ORDER = 255


@dataclass
class Stream:
    """What one replay reads, the same for every policy.

    :ivar ops: int64[n, NR_FIELDS]
    :ivar groups: one row per result row, :data:`replay.result.ROW_COLUMNS`
    :ivar unmodelled: op and count of operations left out
    :ivar pages: page frames to simulate
    """

    ops: Int64
    groups: pl.DataFrame
    unmodelled: pl.DataFrame
    pages: int
    mms: int
    contexts: int
    tables: int


def _vmf(ops: pl.DataFrame, enums: KernelEnums) -> Int64:
    """VMF_* of every operation; 0 where the VMA is unknown."""
    raw = ops["vm_flags"].fill_null(0).to_numpy()
    out = np.zeros(len(raw), np.int64)
    for name, flag in _VM_FLAGS:
        mask = enums.vm_flag(name)
        if mask is not None:
            out[(raw & np.uint64(mask)) != 0] |= flag
    rwx = stream.VMF_READ | stream.VMF_WRITE | stream.VMF_EXEC
    known = ops["vm_flags"].is_not_null().to_numpy()
    out[known & ((out & rwx) == 0)] |= stream.VMF_PROT_NONE
    out[known & ((out & stream.VMF_SHARED) == 0)] |= stream.VMF_ANON
    out[known] |= stream.VMF_KNOWN
    return out


def _info(ops: pl.DataFrame, enums: KernelEnums, vmf: Int64) -> Int64:
    """INFO_* of the folio from its page flags; -1 where they were not recorded."""
    raw = ops["page_flags"].fill_null(0).to_numpy()
    out = np.zeros(len(raw), np.int64)
    swapbacked = enums.page_flag("PG_swapbacked")
    swapcache = enums.page_flag("PG_swapcache")
    if swapbacked is None or swapcache is None:
        return np.full(len(raw), -1, np.int64)
    backed = (raw & np.uint64(swapbacked)) != 0
    # PG_swapcache is an alias that only means the swap cache on swap-backed folios.
    cached = backed & ((raw & np.uint64(swapcache)) != 0)
    private = (vmf & stream.VMF_SHARED) == 0
    out[backed] |= state.INFO_SWAPBACKED
    out[cached] |= state.INFO_SWAPCACHE
    anon_op = ops["op"].is_in(["try_to_unmap_one", "try_to_migrate_one", "remove_migration_pte",
                               "folio_referenced_one", "infer_map"]).to_numpy()  # fmt: skip
    out[anon_op & backed & private] |= state.INFO_ANON
    out[backed & ~private] |= state.INFO_SHMEM
    out[ops["page_flags"].is_null().to_numpy()] = -1
    return out


def _flags(ops: pl.DataFrame) -> pl.Series:
    """The operation's own flags; zap's come from the system call."""
    drop = pl.col("syscall").is_null() | pl.col("syscall").is_in(["munmap", "mremap", "mmap"])
    dontneed = pl.col("syscall").is_in(["madvise", "process_madvise"]) & (
        pl.col("syscall_a2") == vocabulary.MADV_DONTNEED
    )
    zap = (
        pl.when(drop).then(memory.ZAP_DROP_MARKER).otherwise(0)
        + pl.when(dontneed).then(memory.ZAP_RECLAIM_PT).otherwise(0)
    ).cast(pl.UInt64)
    return ops.select(
        pl.when(pl.col("op") == "zap_page_range")
        .then(zap)
        .otherwise(pl.col("flags").fill_null(0))
        .alias("flags")
    )["flags"]


_SCANS = ("madvise_cold", "madvise_pageout", "madvise_free")


def _scan_goes_on(ops: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Of the scans: whether more of the VMA is scanned in the same system call.

    Splits of folios, and what is inferred, may come in between.
    """
    same = [pl.col(c).shift(-1).over("tid") == pl.col(c) for c in ("op", "vma", "window")]
    following = ops.filter(pl.col("op").is_in(_SCANS)).select(
        pl.all_horizontal(same).fill_null(False)
    )
    return following.to_series().to_numpy()


def _frames(ops: pl.DataFrame) -> tuple[Int64, int]:
    """Dense frame numbers that keep the alignment of the real ones.

    :return: int64[n] frames, and how many frames that makes
    """
    shift = max(9, int(ops["order"].fill_null(0).max() or 0))  # type: ignore[arg-type]
    pfn = ops["pfn"].fill_null(0).to_numpy().astype(np.int64)
    blocks, dense = np.unique(pfn >> shift, return_inverse=True)
    frames = (dense.astype(np.int64) << shift) | (pfn & ((1 << shift) - 1))
    return frames, (len(blocks) + 1) << shift


def _generation(ops: pl.DataFrame, column: str) -> Int64:
    """Generation of the mm a column points to, at each operation."""
    ends = (
        ops.filter((pl.col("op") == "tlb_finish_mmu") & ((pl.col("flags").fill_null(0) & 1) != 0))
        .select(pl.col("mm").alias(column), (pl.col("seq") + 1).alias("seq"))
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(column).alias("gen"))
    )
    joined = ops.select("seq", column).join_asof(
        ends, on="seq", by=column, strategy="backward", check_sortedness=False
    )
    return joined["gen"].fill_null(0).to_numpy().astype(np.int64)


def _address_spaces(ops: pl.DataFrame) -> tuple[Int64, Int64, int]:
    """Dense numbers of the operation's mm and of fork's child mm."""
    pairs = []
    for column in ("mm", "arg"):
        values = ops[column].fill_null(0).to_numpy()
        pairs.append(np.stack([values, _generation(ops, column).astype(np.uint64)], axis=1))
    fork = (ops["op"] == "copy_page_range").to_numpy()
    pairs[1][~fork] = 0
    unique, dense = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    dense = dense.reshape(-1).astype(np.int64)
    return dense[: ops.height], dense[ops.height :], len(unique)


def _groups(ops: pl.DataFrame) -> tuple[pl.DataFrame, Int64]:
    """Result rows, and the row of each operation."""
    has_folio = pl.col("folio").is_not_null()
    keyed = ops.with_columns(
        pl.when(has_folio).then(pl.col("order")).otherwise(_NO_ORDER).cast(pl.UInt8).alias("order")
    )
    keys = ["pid", "tid", "comm", "window", "syscall", "syscall_seq", "syscall_args", "op", "order",
            "whole_life"]  # fmt: skip
    extra = ["phase"] if "phase" in ops.columns else []
    keys += extra
    rows = (
        keyed.group_by(keys, maintain_order=True)
        .agg(
            pl.col("seq").first(),
            pl.col("ts").first(),
            pl.len().cast(pl.UInt64).alias("nr_ops"),
            pl.col("nr_pages").fill_null(0).sum(),
        )
        .with_row_index("group")
    )
    index = keyed.select(keys).join(
        rows.select("group", *keys), on=keys, how="left", nulls_equal=True, maintain_order="left"
    )["group"]
    columns = [name for name, _ in result.ROW_COLUMNS] + extra
    groups = rows.rename({"syscall_args": "args"}).select(columns)
    return groups, index.to_numpy().astype(np.int64)


def _signed(series: pl.Series) -> Int64:
    """User addresses and flags as int64; kernel pointers never get here."""
    return series.fill_null(0).to_numpy().astype(np.uint64).view(np.int64).copy()


def lower(ops: pl.DataFrame, enums: KernelEnums) -> Stream:
    """Make the engine's stream.

    :param ops: :data:`tracer.schema.OP_COLUMNS`, in order; a ``phase`` column, if there is
        one, splits the result rows too
    :param enums: the kernel's numbers for page and VMA flags
    """
    known = pl.col("op").is_in(list(stream.CODES)) & ~pl.col("op").is_in(list(UNMODELLED))
    unmodelled = (
        ops.filter(~known)
        .group_by("op", maintain_order=True)
        .agg(pl.len().cast(pl.UInt64).alias("count"))
    )
    ops = ops.filter(known)
    out = np.zeros((ops.height, stream.NR_FIELDS), np.int64)
    groups, index = _groups(ops)
    if ops.is_empty():
        return Stream(out, groups, unmodelled, 2, 1, 1, 16)
    vmf = _vmf(ops, enums)
    frames, pages = _frames(ops)
    mm, child, mms = _address_spaces(ops)
    tids, contexts = np.unique(ops["tid"].fill_null(-1).to_numpy(), return_inverse=True)
    fork = (ops["op"] == "copy_page_range").to_numpy()
    out[:, stream.F_CODE] = ops["op"].replace_strict(stream.CODES, return_dtype=pl.Int64).to_numpy()
    out[:, stream.F_GROUP] = index
    out[:, stream.F_CTX] = contexts
    out[:, stream.F_MM] = mm
    out[:, stream.F_VA] = _signed(ops["va"])
    out[:, stream.F_END] = _signed(ops["end"])
    out[:, stream.F_PFN] = frames
    out[:, stream.F_NR] = _signed(ops["nr_pages"])
    out[:, stream.F_ORDER] = _signed(ops["order"])
    out[:, stream.F_FLAGS] = _signed(_flags(ops))
    out[:, stream.F_ARG] = np.where(fork, child, _signed(ops["arg"]))
    out[:, stream.F_VMF] = vmf
    out[:, stream.F_VMSTART] = _signed(ops["vm_start"])
    out[:, stream.F_VMEND] = np.where(
        ops["vm_end"].is_null().to_numpy(), np.int64(1 << 56), _signed(ops["vm_end"])
    )
    out[:, stream.F_INFO] = _info(ops, enums, vmf)
    out[:, stream.F_LIMIT] = ops["outcome"].cast(pl.Int64).fill_null(-1).to_numpy()
    scans = ops["op"].is_in(_SCANS).to_numpy()
    out[scans, stream.F_NR] = _scan_goes_on(ops)
    return Stream(out, groups, unmodelled, pages, mms, len(tids), max(64, mms * 8))
