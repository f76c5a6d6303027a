# SPDX-License-Identifier: GPL-2.0-or-later
"""Simulated counts against what really happened.

Without a truth file the replay of the capture's own kernel is held against
the events the capture itself recorded inside each system call of every
address space that began in the capture. With one, any policy is held against
a booted kernel's counts, phase by phase.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl

from replay import phases as phase_table
from replay import truth as truth_file
from replay.arm64.geometry import Granule
from replay.cpu import Cpu
from replay.engine import replay_stream
from replay.lower import lower
from replay.policies import Policy
from replay.result import Replay
from tracer.enums import KernelEnums
from tracer.errors import MmtraceError
from tracer.vocabulary import SYSCALL_ENTER, SYSCALL_SYSTEM

# Counter of the replay to the event that records it.
WITNESSES: dict[str, str] = {
    "convert": "contpte_convert",
    "__contpte_try_unfold": "__contpte_try_unfold",
    "fold_try": "__contpte_try_fold",
    "cp_get": "contpte_ptep_get",
    "contpte_set_ptes": "contpte_set_ptes",
    "contpte_wrprotect_ptes": "contpte_wrprotect_ptes",
    "contpte_clear_full_ptes": "contpte_clear_full_ptes",
    "contpte_get_and_clear_full_ptes": "contpte_get_and_clear_full_ptes",
    "contpte_clear_young_dirty_ptes": "contpte_clear_young_dirty_ptes",
    "contpte_ptep_set_access_flags": "contpte_ptep_set_access_flags",
    "set_tlb_ubc_flush_pending": "set_tlb_ubc_flush_pending",
    "folio_remove_rmap_ptes": "folio_remove_rmap_ptes",
}

TABLE_SCHEMA: dict[str, pl.DataType] = {
    "scope": pl.String(),
    "phase": pl.String(),
    "counter": pl.String(),
    "simulated": pl.UInt64(),
    "real": pl.UInt64(),
    "verdict": pl.String(),
}
EXACT = "exact"
DIFFERS = "differs"


@dataclass
class Verification:
    """Outcome of :func:`verify`.

    :ivar table: one row per phase and counter, see :data:`TABLE_SCHEMA`
    :ivar truth: what the real counts are from
    :ivar notes: what was left out and why
    """

    table: pl.DataFrame
    truth: str
    replay: Replay
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something was compared, and nothing differs."""
        return self.table.height > 0 and not self.table["verdict"].str.contains(DIFFERS).any()


# --- labels ----------------------------------------------------------------------------


def _label(frame: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """Add ``phase``: the label of the last mark of the same task at or before each row."""
    return frame.sort("seq", maintain_order=True).join_asof(
        marks.sort("seq"), on="seq", by="tid", strategy="backward", check_sortedness=False
    )


def _marks(rows: list[tuple[int, int, str | None]]) -> pl.DataFrame:
    schema = {"tid": pl.Int32, "seq": pl.UInt64, "phase": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _tasks(ops: pl.DataFrame) -> dict[int, int]:
    """Tasks to compare: tid to the seq from which all its mms have whole lives."""
    has_mm = ops.filter(pl.col("mm").is_not_null())
    whole = (
        has_mm.filter(pl.col("whole_life"))
        .group_by("tid", maintain_order=True)
        .agg(pl.col("seq").min().alias("first"))
    )
    partial = (
        has_mm.filter(~pl.col("whole_life")).group_by("tid").agg(pl.col("seq").max().alias("last"))
    )
    both = whole.join(partial, on="tid", how="left", maintain_order="left")
    return {
        int(tid): max(int(first), int(last) + 1 if last is not None else 0)
        for tid, first, last in both.select("tid", "first", "last").iter_rows()
    }


def _window_marks(ops: pl.DataFrame, calls: pl.DataFrame, tasks: dict[int, int]) -> pl.DataFrame:
    """One label per task and system call window: tid, running number, name."""
    rows: list[tuple[int, int, str | None]] = []
    for tid, start in tasks.items():
        rows.append((tid, start, f"{tid}:0:faults"))
        own = calls.filter((pl.col("tid") == tid) & (pl.col("seq") >= start)).sort("seq")
        for number, (seq, name) in enumerate(own.select("seq", "syscall").iter_rows(), 1):
            rows.append((tid, int(seq), f"{tid}:{number}:{name or 'faults'}"))
    return _marks(rows)


# --- against the capture ------------------------------------------------------------------


def _recorded(events: dict[str, pl.DataFrame], marks: pl.DataFrame) -> pl.DataFrame:
    """phase, counter, real: hits of every witness event that the capture has."""
    parts = []
    names = {name: counter for counter, name in WITNESSES.items()}
    for key, frame in sorted(events.items()):
        counter = names.get(key.partition(":")[2])
        if counter is None:
            continue
        hits = _label(frame.select("seq", "tid"), marks).filter(pl.col("phase").is_not_null())
        parts.append(
            hits.group_by("phase", maintain_order=True)
            .agg(pl.len().cast(pl.UInt64).alias("real"))
            .select("phase", pl.lit(counter).alias("counter"), "real")
        )
    if not parts:
        return pl.DataFrame(schema={"phase": pl.String, "counter": pl.String, "real": pl.UInt64})
    return pl.concat(parts)


def _simulated(replay: Replay, counters: list[str]) -> pl.DataFrame:
    """phase, counter, simulated."""
    rows = replay.rows.filter(pl.col("phase").is_not_null())
    return (
        rows.group_by("phase", maintain_order=True)
        .agg(pl.col(counters).sum())
        .unpivot(counters, index="phase", variable_name="counter", value_name="simulated")
        .sort("phase", "counter", maintain_order=True)
    )


def _by_call(table: pl.DataFrame, comms: dict[int, str]) -> pl.DataFrame:
    """Sum the windows of a task by system call; exact only when every window is."""
    parts = pl.col("phase").str.split(":")
    tid = parts.list.get(0).cast(pl.Int32)
    names = pl.DataFrame(
        {"tid": list(comms), "scope": list(comms.values())},
        schema={"tid": pl.Int32, "scope": pl.String},
    )
    return (
        table.with_columns(
            tid.alias("tid"),
            parts.list.get(2).alias("call"),
            parts.list.get(1).cast(pl.UInt64).alias("number"),
        )
        .sort("tid", "number", maintain_order=True)
        .group_by("tid", "call", "counter", maintain_order=True)
        .agg(
            pl.col("simulated").sum(),
            pl.col("real").sum(),
            (pl.col("simulated") != pl.col("real")).sum().alias("wrong"),
            pl.len().alias("windows"),
        )
        .filter((pl.col("simulated") > 0) | (pl.col("real") > 0))
        .join(names, on="tid", how="left", maintain_order="left")
        .select(
            "scope",
            pl.col("call").alias("phase"),
            "counter",
            "simulated",
            "real",
            pl.when(pl.col("wrong") == 0)
            .then(pl.lit(EXACT))
            .otherwise(pl.format("differs in {} of {}", "wrong", "windows"))
            .alias("verdict"),
        )
    )


def _system_calls(events: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """tid, seq, syscall (null at an exit) and a0 to a2 of every system call event."""
    parts = []
    for key, frame in sorted(events.items()):
        system, _, name = key.partition(":")
        if system != SYSCALL_SYSTEM:
            continue
        enter = name.startswith(SYSCALL_ENTER)
        fields = [c for c in frame.columns[6:] if not c.startswith("__syscall")] if enter else []
        arguments = [
            (
                pl.col(fields[i]).cast(pl.UInt64, wrap_numerical=True)
                if i < len(fields) and frame.schema[fields[i]].is_integer()
                else pl.lit(None, pl.UInt64)
            ).alias(f"a{i}")
            for i in range(3)
        ]
        call = name.removeprefix(SYSCALL_ENTER) if enter else None
        parts.append(
            frame.select("tid", "seq", pl.lit(call, pl.String).alias("syscall"), *arguments)
        )
    schema = {"tid": pl.Int32, "seq": pl.UInt64, "syscall": pl.String, "a0": pl.UInt64,
              "a1": pl.UInt64, "a2": pl.UInt64}  # fmt: skip
    return pl.concat(parts).sort("seq") if parts else pl.DataFrame(schema=schema)


def against_capture(
    ops: pl.DataFrame,
    events: dict[str, pl.DataFrame],
    enums: KernelEnums,
    policy: Policy,
    cpu: Cpu,
    granule: Granule,
    recorded: set[str] | None = None,
) -> Verification:
    """Replay under ``policy`` and compare with the capture's own probe hits.

    :param recorded: ``system:name`` of every event the recording had switched on, hit or not
    """
    calls = _system_calls(events)
    tasks = _tasks(ops)
    marks = _window_marks(ops, calls, tasks)
    replay = replay_stream(lower(_label(ops, marks), enums), policy, cpu, granule)
    recorded_names = {key.partition(":")[2] for key in recorded or events}
    present = [c for c, name in WITNESSES.items() if name in recorded_names]
    simulated = _simulated(replay, present)
    real = _recorded(events, marks)
    table = simulated.join(real, on=["phase", "counter"], how="full", coalesce=True).with_columns(
        pl.col("simulated", "real").fill_null(0)
    )
    comms = {
        int(t): f"{c or 'task'}-{t}"
        for t, c in ops.group_by("tid", maintain_order=True).agg(pl.col("comm").last()).iter_rows()
    }
    notes = []
    absent = sorted(set(WITNESSES) - set(present))
    if absent:
        notes.append(f"not recorded here: {', '.join(absent)}")
    left_out = ops.filter(pl.col("mm").is_not_null() & ~pl.col("whole_life"))
    if left_out.height:
        notes.append(
            f"{left_out.height} operations of address spaces that began before the capture "
            "are replayed but not compared"
        )
    return Verification(_by_call(table, comms), "the capture's own events", replay, notes)


# --- against a booted kernel ----------------------------------------------------------------


def guess_workload(name: str) -> tuple[str, int | None]:
    """``pageout-64k.perf.data`` is workload pageout with 64 KiB folios."""
    found = re.search(r"([a-z_][a-z_0-9]*)-(\d+)k\b", name)
    if found:
        return found[1], int(found[2])
    return name.partition(".")[0], None


def _main_task(ops: pl.DataFrame) -> int:
    """The workload: the whole-life task with the most operations."""
    tasks = (
        ops.filter(pl.col("whole_life"))
        .group_by("tid", maintain_order=True)
        .agg(pl.len().alias("n"), pl.col("window").max())
        .sort("window", "n", descending=True, maintain_order=True)
    )
    if tasks.is_empty():
        raise MmtraceError(
            "No address space begins in this capture.",
            "Start recording before the workload, then verify.",
        )
    return int(tasks["tid"][0])


def _label_phases(
    ops: pl.DataFrame, calls: pl.DataFrame, tid: int, names: list[str]
) -> tuple[pl.DataFrame, list[str]]:
    """Operations with their ``phase``, and the names of phases that were not found."""
    ranges = phase_table.match(names, phase_table.calls_of(calls, tid))
    own = pl.col("tid") == tid
    phase = pl.lit(None, pl.String)
    for name, where in ranges.items():
        inside = pl.col("seq").is_between(where.first, where.last)
        if not phase_table.PHASES[name].everyone:
            inside &= own
        if where.region is not None:
            inside &= (pl.col("va") >= where.region[0]) & (pl.col("va") < where.region[1])
        extra = phase_table.PHASES[name].and_first
        if extra is not None:
            after = ops.filter(own & (pl.col("seq") > where.last) & (pl.col("op") == extra[0]))
            if after.height:
                inside |= pl.col("seq") == after["seq"][0]
        phase = pl.when(inside).then(pl.lit(name)).otherwise(phase)
    return ops.with_columns(phase.alias("phase")), [n for n in names if n not in ranges]


def _verdict(counter: str, simulated: int, row: truth_file.TruthRow) -> tuple[int, str] | None:
    """Real count and verdict, or None when the truth file does not have the counter."""
    real = row.counter(counter)
    if real is None:
        return None
    if real == simulated:
        return real, EXACT
    if counter in truth_file.TOLERANCES and 0 <= real - simulated <= row.dsb_noise():
        return real, f"explained: {truth_file.TOLERANCES[counter]}"
    return real, DIFFERS


def against_truth(
    ops: pl.DataFrame,
    events: dict[str, pl.DataFrame],
    enums: KernelEnums,
    policy: Policy,
    cpu: Cpu,
    granule: Granule,
    rows: list[truth_file.TruthRow],
) -> Verification:
    """Replay under ``policy`` and compare phase by phase with a booted kernel.

    :param rows: one workload's rows, :func:`replay.truth.select`
    """
    calls = _system_calls(events)
    names = [row.phase for row in rows]
    labelled, lost = _label_phases(ops, calls, _main_task(ops), names)
    replay = replay_stream(lower(labelled, enums), policy, cpu, granule)
    wanted = [*truth_file.INSTRUCTIONS, "dsb", *truth_file.FUNCTIONS]
    table = []
    by_phase = {
        row["phase"]: row
        for row in replay.rows.filter(pl.col("phase").is_not_null())
        .group_by("phase")
        .agg(pl.col(wanted).sum())
        .iter_rows(named=True)
    }
    for row in rows:
        if row.phase in lost:
            continue
        counts = by_phase.get(row.phase, dict.fromkeys(wanted, 0))
        for counter in wanted:
            verdict = _verdict(counter, int(counts[counter]), row)
            if verdict and (verdict[0] or counts[counter]):
                scope = f"{row.workload}-{row.folio_kb}k"
                table.append((scope, row.phase, counter, counts[counter], *verdict))
    notes = [f"phase {name} was not found among the system calls" for name in lost]
    frame = pl.DataFrame(table, schema=TABLE_SCHEMA, orient="row")
    if lost:
        missing = [(rows[0].workload, n, "phase", 0, 0, f"{DIFFERS}: not found") for n in lost]
        frame = pl.concat([frame, pl.DataFrame(missing, schema=TABLE_SCHEMA, orient="row")])
    return Verification(frame, rows[0].kernel, replay, notes)
