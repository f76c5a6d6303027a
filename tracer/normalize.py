# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw events to the ops table.

Reads frames of :data:`tracer.schema.EVENT_COLUMNS`, writes one of
:data:`tracer.schema.OP_COLUMNS`. Everything works on whole columns; the row
order is ``seq`` throughout.
"""

from __future__ import annotations

import polars as pl

from tracer import schema, vocabulary
from tracer.capture import Capture
from tracer.enums import KernelEnums
from tracer.infer import with_accesses, with_older_mappings
from tracer.splits import cut_scans, with_zero_pages
from tracer.vocabulary import BY_NAME, Probe

_U64 = pl.UInt64
_BASE = [name for name, _, _ in schema.EVENT_COLUMNS]
# struct page is 64 bytes on every 64-bit kernel with memcg; page pointers differ by pages.
_STRUCT_PAGE_SHIFT = 6

# Bits of struct mmu_gather's bit field.
_GATHER_FULLMM = 1


def probe_of(key: str) -> Probe | None:
    """The vocabulary's row for an event ``system:name``, or None."""
    system, _, name = key.partition(":")
    return None if system in vocabulary.STATIC_SYSTEMS else BY_NAME.get(name)


def missing_fields(probe: Probe, fields: set[str]) -> list[str]:
    """Columns the probe cannot do without and the event has no field for."""
    return [column for column in probe.requires if not _source(probe, column, fields)]


def _source(probe: Probe, column: str, fields: set[str]) -> str | None:
    """The event's field for an ops column."""
    names = probe.columns.get(column, (column,) if column in vocabulary.SAME_NAME else ())
    return next((name for name in names if name in fields), None)


def _select(key: str, frame: pl.DataFrame, probe: Probe) -> pl.DataFrame:
    """One event frame with the vocabulary's columns."""
    fields = set(frame.columns) - set(_BASE)
    wanted = [*vocabulary.SAME_NAME, "va", "end", "nr_pages", "arg", "nr_bytes", "index"]
    columns: list[pl.Expr] = [pl.col(name) for name in _BASE]
    for column in wanted:
        source = _source(probe, column, fields)
        value = pl.col(source) if source else pl.lit(None)
        columns.append(_unsigned(value, frame, source).alias(column))
    return frame.select(
        *columns,
        pl.lit(probe.op).alias("op"),
        pl.lit(key).alias("probe"),
        pl.lit(probe.role).alias("role"),
    )


def _unsigned(value: pl.Expr, frame: pl.DataFrame, source: str | None) -> pl.Expr:
    """Any integer column as UInt64, sign extended as the kernel would."""
    if source is not None and not frame.schema[source].is_integer():
        return pl.lit(None, _U64)  # a text that prints names or is damaged
    if source is None or not frame.schema[source].is_signed_integer():
        return value.cast(_U64)
    return value.cast(pl.Int64).reinterpret(signed=False)


def _collect(capture: Capture) -> pl.DataFrame:
    """Events that are operations or announce one, in order."""
    parts = []
    for key, frame in sorted(capture.events.items()):
        probe = probe_of(key)
        if probe is None or probe.role == "witness" or frame.is_empty():
            continue
        if missing_fields(probe, set(frame.columns)):
            continue
        parts.append(_select(key, frame, probe))
    if not parts:
        return schema.empty(schema.OP_COLUMNS)
    return pl.concat(parts).sort("seq")


# --- folio geometry ---------------------------------------------------------------


def _order(enums: KernelEnums) -> pl.Expr:
    """Folio order: the byte belongs to the folio only where PG_head is set."""
    head = enums.page_flag("PG_head")
    if head is None:
        large = pl.col("nr_pages").fill_null(1) > 1
    else:
        large = (pl.col("page_flags").fill_null(0) & pl.lit(head, _U64)) != 0
    known = large & (pl.col("order_byte") < 16)
    return pl.when(known).then(pl.col("order_byte")).otherwise(0).cast(pl.UInt8)


def _frame_number() -> list[pl.Expr]:
    """page and pfn; struct page pointers number the frames up to a constant."""
    page = pl.coalesce("page", "folio")
    return [page.alias("page"), (page // (1 << _STRUCT_PAGE_SHIFT)).alias("pfn")]


def _behind_vma_start(ops: pl.DataFrame) -> pl.DataFrame:
    """An rmap walk of a folio whose first pages lie in front of its VMA.

    The address of the event is that of the first page inside; the folio's index and the
    VMA's offset tell which one that is.
    """
    before = pl.col("vm_pgoff") - pl.col("index")
    cut = (
        pl.col("op").is_in(["try_to_unmap_one", "try_to_migrate_one"])
        & (pl.col("va") == pl.col("vm_start"))
        & (pl.col("vm_pgoff") > pl.col("index"))
        & (before < pl.col("nr_pages"))
    ).fill_null(False)
    skipped = pl.when(cut).then(before).otherwise(0)
    return ops.with_columns(
        pl.col("pfn") + skipped,
        (pl.col("nr_pages") - skipped).alias("nr_pages"),
    )


def _geometry(ops: pl.DataFrame, enums: KernelEnums, page_size: int) -> pl.DataFrame:
    """Order, pages, end address and frame number of every operation."""
    ops = ops.with_columns(
        _order(enums).alias("order"),
        *_frame_number(),
        # No address has bits set above 55; a tag byte does.
        (pl.col("va") & pl.lit((1 << 56) - 1, _U64)).alias("va"),
    )
    whole_folio = pl.lit(1, _U64) * (2 ** pl.col("order").cast(pl.UInt32)).cast(_U64)
    nr = (
        pl.when(pl.col("op") == "move_page_tables")
        .then(pl.col("nr_bytes") // page_size)
        .when(pl.col("folio").is_not_null())
        .then(pl.coalesce("nr_pages", whole_folio))
        .when(pl.col("end") > pl.col("va"))
        .then((pl.col("end") - pl.col("va")) // page_size)
        .otherwise(pl.col("nr_pages").fill_null(0))
    )
    ops = _behind_vma_start(ops.with_columns(nr.alias("nr_pages")))
    keeps_end = pl.col("end").is_not_null() | pl.col("va").is_null()
    return ops.with_columns(
        pl.when(keeps_end)
        .then(pl.col("end"))
        .otherwise(pl.col("va") + pl.col("nr_pages") * page_size)
        .alias("end")
    )


# --- faults -------------------------------------------------------------------------

_FAULT_OPS = ("do_anonymous_page", "set_pte_range", "wp_page_reuse", "do_swap_page")
_MIGRATE = "remove_migration_pte"


def _pair_faults(ops: pl.DataFrame, page_size: int) -> pl.DataFrame:
    """Give each mapping event its fault, and drop what only announced it.

    Within a task, faults do not nest: the event after do_wp_page() or
    do_swap_page() that maps the same page is that fault's outcome.
    """
    mask = pl.lit(~(page_size - 1) & ((1 << 64) - 1), _U64)
    faults = ops.filter(pl.col("op").is_in([*_FAULT_OPS, _MIGRATE, "split_huge_pmd"])).select(
        "seq", "tid", "op", "role", "probe", "mm", (pl.col("va") & mask).alias("at"), "nr_pages"
    )
    over = faults.with_columns(
        pl.col("op", "role", "at", "mm").shift(1).over("tid").name.prefix("before_"),
        pl.col("op", "role", "at", "mm", "nr_pages").shift(-1).over("tid").name.prefix("after_"),
    )
    same_before = (pl.col("before_mm") == pl.col("mm")) & (pl.col("before_at") == pl.col("at"))
    follower = (pl.col("after_mm") == pl.col("mm")) & (pl.col("after_role") == "op")
    # Swap-in may map a folio that starts below the fault address.
    covers = (
        follower
        & (pl.col("after_at") <= pl.col("at"))
        & (pl.col("at") < pl.col("after_at") + pl.col("after_nr_pages").fill_null(1) * page_size)
    )
    lead = pl.col("role") == "lead"
    wp_copied = (
        lead
        & (pl.col("op") == "wp_page_reuse")
        & covers
        & (pl.col("after_op") == "do_anonymous_page")
    )
    new_anon = (pl.col("role") == "op") & (pl.col("op") == "do_anonymous_page")
    after_lead = (pl.col("before_role") == "lead") & (pl.col("before_mm") == pl.col("mm"))
    anon_rmap = (pl.col("role") == "op") & (pl.col("op") == "do_swap_page")
    verdict = (
        pl.when(wp_copied | (lead & (pl.col("op") == "do_swap_page")))
        .then(pl.lit("drop"))
        .when(new_anon & after_lead & (pl.col("before_op") == "wp_page_reuse") & same_before)
        .then(pl.lit("wp_page_copy"))
        .when(new_anon & after_lead & (pl.col("before_op") == "do_swap_page"))
        .then(pl.lit("do_swap_page"))
        .when(new_anon & (pl.col("before_op") == "set_pte_range") & same_before)
        .then(pl.lit("folio_add_new_anon_rmap"))
        .when(anon_rmap & ~after_lead.fill_null(False))
        .then(pl.lit("drop"))
        .otherwise(pl.col("op"))
    )
    # A folio that swap-in maps for the first time is new to the rmap.
    fresh = new_anon & after_lead & (pl.col("before_op") == "do_swap_page")
    over = over.select("seq", verdict.alias("verdict"), fresh.fill_null(False).alias("fresh"))
    ops = ops.join(over, on="seq", how="left", maintain_order="left")
    return ops.with_columns(
        pl.coalesce("verdict", "op").alias("op"),
        pl.when(pl.col("fresh")).then(pl.lit(1, _U64)).otherwise(pl.col("arg")).alias("arg"),
    ).filter(pl.col("op") != "drop")


# --- context ---------------------------------------------------------------------------


def _syscall_frames(capture: Capture) -> pl.DataFrame:
    """Every system call entry and exit: tid, seq, name, arguments."""
    parts = []
    for key, frame in sorted(capture.events.items()):
        system, _, name = key.partition(":")
        if system != vocabulary.SYSCALL_SYSTEM or frame.is_empty():
            continue
        fields = [c for c in frame.columns if c not in _BASE and not c.startswith("__syscall")]
        if name.startswith(vocabulary.SYSCALL_ENTER):
            call: str | None = name.removeprefix(vocabulary.SYSCALL_ENTER)
            args = _argument_text(fields, frame)
            third = _unsigned(pl.col(fields[2]), frame, fields[2]) if len(fields) > 2 else None
        elif name.startswith(vocabulary.SYSCALL_EXIT):
            call, args, third = None, pl.lit(None, pl.String), None
        else:
            continue
        parts.append(
            frame.select(
                "seq",
                "tid",
                pl.lit(call, pl.String).alias("syscall"),
                args.alias("syscall_args"),
                (pl.lit(None, _U64) if third is None else third).alias("syscall_a2"),
            )
        )
    if not parts:
        return pl.DataFrame(
            schema={"seq": _U64, "tid": pl.Int32, "syscall": pl.String, "syscall_args": pl.String,
                    "syscall_a2": _U64, "window": _U64, "syscall_seq": _U64}
        )  # fmt: skip
    calls = pl.concat(parts).sort("seq")
    return calls.with_columns(
        pl.int_range(1, pl.len() + 1, dtype=_U64).over("tid").alias("window"),
        pl.when(pl.col("syscall").is_not_null()).then(pl.col("seq")).alias("syscall_seq"),
    )


def _argument_text(fields: list[str], frame: pl.DataFrame) -> pl.Expr:
    """``start=0xffff..., len_in=0x400000`` from the event's own field names."""
    parts: list[pl.Expr] = []
    for name in fields:
        if not frame.schema[name].is_integer():
            continue
        prefix = f"{', ' if parts else ''}{name}="
        value = _unsigned(pl.col(name), frame, name)
        parts.append(pl.format(prefix + "0x{}", _hex(value)))
    return pl.concat_str(parts) if parts else pl.lit("", pl.String)


def _hex(value: pl.Expr) -> pl.Expr:
    """Hexadecimal text of a UInt64 column; system calls are few."""
    return value.map_elements(lambda v: f"{v:x}", return_dtype=pl.String)


def _with_syscalls(ops: pl.DataFrame, capture: Capture) -> pl.DataFrame:
    calls = _syscall_frames(capture)
    return ops.join_asof(
        calls, on="seq", by="tid", strategy="backward", check_sortedness=False
    ).with_columns(pl.col("window").fill_null(0))


def _with_generations(ops: pl.DataFrame) -> pl.DataFrame:
    """Count the lives of each mm pointer: one ends with the fullmm gather after exit_mmap()."""
    full = (pl.col("flags").fill_null(0) & _GATHER_FULLMM) != 0
    ends = (
        ops.filter((pl.col("op") == "tlb_finish_mmu") & full)
        .select("mm", (pl.col("seq") + 1).alias("seq"))
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("mm").alias("mm_gen"))
    )
    by_source = ops.join_asof(
        ends, on="seq", by="mm", strategy="backward", check_sortedness=False
    ).with_columns(pl.col("mm_gen").fill_null(0))
    return by_source


def _whole_lives(ops: pl.DataFrame) -> pl.DataFrame:
    """Mark the operations of address spaces that began inside the capture.

    An mm is new when its pointer was freed before, when fork fills it, or when
    a task tears its old mm down and goes on with this one (exec).
    """
    lives = (
        ops.filter(pl.col("mm").is_not_null())
        .group_by("mm", "mm_gen", maintain_order=True)
        .agg(pl.col("seq").first().alias("first"), pl.col("tid").first().alias("first_tid"))
    )
    exits = ops.filter(pl.col("op") == "exit_mmap").select("seq", "tid", pl.col("mm").alias("old"))
    used = (
        ops.filter(pl.col("mm").is_not_null())
        .group_by("tid", "mm", "mm_gen", maintain_order=True)
        .agg(pl.col("seq").first().alias("from"), pl.col("seq").last().alias("to"))
    )
    execs = exits.join(used, on="tid").filter(
        (pl.col("to") > pl.col("seq")) & (pl.col("mm") != pl.col("old"))
    )
    execs = execs.join(lives, on=["mm", "mm_gen"]).filter(pl.col("first_tid") == pl.col("tid"))
    forked = ops.filter(pl.col("op") == "copy_page_range").select(
        pl.col("arg").alias("mm"), pl.col("seq").alias("fork")
    )
    born = lives.join(forked, on="mm").filter(pl.col("fork") <= pl.col("first"))
    whole = pl.concat(
        [
            lives.filter(pl.col("mm_gen") > 0).select("mm", "mm_gen"),
            execs.select("mm", "mm_gen"),
            born.select("mm", "mm_gen"),
        ]
    ).unique(maintain_order=True)
    return ops.join(
        whole.with_columns(pl.lit(True).alias("whole_life")),
        on=["mm", "mm_gen"],
        how="left",
        maintain_order="left",
    ).with_columns(pl.col("whole_life").fill_null(False))


def _by_advice(ops: pl.DataFrame) -> pl.DataFrame:
    """The page table scan is shared by MADV_COLD and MADV_PAGEOUT; the syscall tells."""
    cold = (
        (pl.col("op") == "madvise_pageout")
        & pl.col("syscall").is_in(["madvise", "process_madvise"])
        & (pl.col("syscall_a2") == vocabulary.MADV_COLD)
    )
    return ops.with_columns(
        pl.when(cold).then(pl.lit("madvise_cold")).otherwise(pl.col("op")).alias("op")
    )


# --- outcomes and closing steps -------------------------------------------------------------


def _frame(capture: Capture, name: str) -> pl.DataFrame | None:
    """The frame of a probe, whatever group it is in."""
    for key, frame in sorted(capture.events.items()):
        if probe_of(key) is not None and key.partition(":")[2] == name and not frame.is_empty():
            return frame
    return None


def _with_outcomes(ops: pl.DataFrame, capture: Capture) -> pl.DataFrame:
    """Pages that a failed try_to_unmap_one() had unmapped before it gave up."""
    returns = _frame(capture, "try_to_unmap_one_ret")
    if returns is None or "ret" not in returns.columns:
        return ops.with_columns(pl.lit(None, _U64).alias("outcome"))
    ret = pl.col("ret").cast(pl.Int64, wrap_numerical=True) & 0xFF
    after = returns.select("tid", "seq", pl.col("seq").alias("ret_seq"), ret.alias("ret"))
    calls = ops.filter(pl.col("op") == "try_to_unmap_one").select("tid", "seq", "mm", "folio")
    failed = calls.join_asof(
        after, on="seq", by="tid", strategy="forward", check_sortedness=False
    ).filter(pl.col("ret") == 0)
    removed = _frame(capture, "folio_remove_rmap_ptes")
    if failed.is_empty() or removed is None:
        pages = failed.select("seq", pl.lit(0, _U64).alias("outcome"))
    else:
        inside = removed.select("tid", "folio", pl.col("seq").alias("at"), "nr_pages")
        pages = (
            failed.join(inside, on=["tid", "folio"], how="left")
            .with_columns(
                pl.when((pl.col("at") > pl.col("seq")) & (pl.col("at") < pl.col("ret_seq")))
                .then(pl.col("nr_pages").cast(_U64))
                .otherwise(0)
                .alias("nr_pages")
            )
            .group_by("seq", maintain_order=True)
            .agg(pl.col("nr_pages").sum().alias("outcome"))
        )
    return ops.join(pages, on="seq", how="left", maintain_order="left")


def _with_dup_mmap_end(ops: pl.DataFrame) -> pl.DataFrame:
    """Fork flushes the parent once, after the last VMA; no event says so."""
    last = (
        ops.filter(pl.col("op") == "copy_page_range")
        .group_by("tid", "mm", "arg", "window", maintain_order=True)
        .last()
        .select(ops.columns)
        .with_columns(
            pl.lit("dup_mmap_end").alias("op"),
            pl.lit(None, _U64).alias("va"),
            pl.lit(None, _U64).alias("end"),
            pl.lit(0, _U64).alias("nr_pages"),
        )
    )
    both = pl.concat([ops.with_columns(pl.lit(0).alias("rank")),
                      last.with_columns(pl.lit(1).alias("rank"))])  # fmt: skip
    return both.sort("seq", "rank").drop("rank")


def _removals(capture: Capture, enums: KernelEnums) -> pl.DataFrame | None:
    """Every folio_remove_rmap_ptes() with frame number and order."""
    for key, frame in sorted(capture.events.items()):
        probe = probe_of(key)
        if probe is None or "folio_remove_rmap_ptes" not in probe.names or frame.is_empty():
            continue
        return (
            _select(key, frame, probe)
            .with_columns(_order(enums).alias("order"), *_frame_number())
            .select("seq", "tid", "mm", "page", "pfn", "nr_pages", "order", "page_flags")
        )
    return None


def _cleared(capture: Capture) -> pl.DataFrame | None:
    """Where contpte_clear_young_dirty_ptes() was entered."""
    frame = _frame(capture, "contpte_clear_young_dirty_ptes")
    if frame is None or not {"addr", "nr"} <= set(frame.columns):
        return None
    return frame.select(
        "tid",
        "seq",
        _unsigned(pl.col("addr"), frame, "addr").alias("at"),
        _unsigned(pl.col("nr"), frame, "nr").alias("count"),
    ).filter(pl.col("count") <= 1 << 13)


def normalize(capture: Capture, enums: KernelEnums) -> pl.DataFrame:
    """Turn a capture's events into mm operations.

    :param enums: the kernel's own numbers, for PG_head
    :return: :data:`tracer.schema.OP_COLUMNS`, in ``seq`` order
    """
    page_size = capture.provenance.page_size or 4096
    ops = _collect(capture)
    if ops.is_empty():
        return schema.empty(schema.OP_COLUMNS)
    ops = _geometry(ops, enums, page_size)
    ops = _pair_faults(ops, page_size)
    ops = _with_syscalls(ops, capture)
    ops = _by_advice(ops)
    ops = _with_generations(ops)
    ops = _whole_lives(ops)
    ops = _with_outcomes(ops, capture)
    ops = _with_dup_mmap_end(ops)
    columns = schema.polars_schema(schema.OP_COLUMNS)
    ops = ops.select([pl.col(name).cast(dtype) for name, dtype in columns.items()])
    ops = with_zero_pages(ops, _frame(capture, "folio_add_anon_rmap_ptes"))
    removed = _removals(capture, enums)
    if removed is not None:
        ops = with_older_mappings(ops, removed, page_size)
    cleared = _cleared(capture)
    if cleared is not None:
        ops = with_accesses(ops, cleared, page_size)
    return schema.check(cut_scans(ops), schema.OP_COLUMNS, "ops")
