# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays with numbers chosen by hand, shared by the tests of ``reports``.

The workload: task ``mmwork`` faults in 64 folios of order 4 and 32 base pages,
swaps them out in one ``madvise(MADV_PAGEOUT)`` and unmaps them; a second task
``lorem`` unmaps two pages. ``BATCHED`` has fewer of most counters, more of
``tlbi_range``, and the same for everything on order 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from replay import counters, snapshot
from replay.cost import tables
from replay.cost.capture import MachinePrice
from replay.cost.price import Estimate
from replay.result import ROW_COLUMNS, Replay

SHA = "5f1c0de5" * 8
PROVENANCE: dict[str, Any] = {
    "path": "/home/alice/secret-product/pageout.perf.data",
    "container": "perf.data",
    "sha256": SHA,
    "size": 812_345,
    "hostname": "alice-laptop",
    "kernel_release": "7.3.4-arm64",
    "arch": "aarch64",
    "page_size": 4096,
    "nr_cpus": 1,
    "clock": "monotonic",
    "byte_order": "little",
    "long_size": 8,
    "cmdline": ["perf", "record", "-a", "/home/alice/mmwork"],
    "recorder": "perf 6.12.107",
    "mmtrace": "0.1.0",
    "probe_set": ["mmtrace:try_to_unmap_one", "contpte:contpte_convert"],
}
CPU = {
    "name": "qemu-max",
    "tlbi_range": True,
    "lpa2": True,
    "kpti": False,
    "bbm": False,
    "repeat_tlbi": False,
    "granule": "4k",
}

MAIN = {"pid": 100, "tid": 100, "comm": "mmwork"}
OTHER = {"pid": 7, "tid": 7, "comm": "lorem"}
ARGS = "start=0xffff9d000000, len_in=0x420000, behavior=21"

Counts = dict[str, int]


def row(seq: int, task: dict[str, Any], op: str, order: int, nr: int, **counts: int) -> Counts:
    """One finest row; ``syscall``, ``args`` and ``window`` are set by the caller."""
    made: dict[str, Any] = dict.fromkeys(counters.NAMES, 0)
    made |= {"seq": seq, "ts": 1_000_000 + seq * 2_500, **task, "op": op, "order": order}
    made |= {"syscall": None, "syscall_seq": None, "args": None, "window": 0, "whole_life": True}
    made |= {"nr_ops": nr, "nr_pages": nr * (1 << order if order != 255 else 1), **counts}
    for name, parts in counters.SUMS.items():
        made[name] = sum(made[p] for p in parts)
    return made


def during(made: dict[str, Any], syscall: str, seq: int, window: int, args: str = "") -> Counts:
    """Put a row inside a system call."""
    return made | {"syscall": syscall, "syscall_seq": seq, "args": args, "window": window}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """:return: rows as ``Replay.rows``"""
    values = [*counters.NAMES, *counters.SUMS]
    return pl.DataFrame(rows, schema={**dict(ROW_COLUMNS), **dict.fromkeys(values, pl.UInt64)})


def rows(batched: bool) -> list[dict[str, Any]]:
    """:return: the finest rows of the workload under one of two policies"""
    b = batched
    fault4 = row(10, MAIN, "fault_anon", 4, 64, st=1024, ptl=64, contpte_set_ptes=64)
    fault0 = row(20, MAIN, "fault_anon", 0, 32, st=32, ptl=32)
    out4 = row(
        101,
        MAIN,
        "try_to_unmap",
        4,
        64,
        ld=416 if b else 6528,
        xchg=1024,
        st=1024,
        ptep_get=256 if b else 4096,
        cp_get=192,
        tlbi_va=0 if b else 1024,
        tlbi_range=64,
        dsb_ishst=64 if b else 1024,
        dsb_ish=0 if b else 64,
        unfold=0 if b else 64,
        rmap_call=64 if b else 1024,
        folio_remove_rmap_ptes=64 if b else 1024,
        contpte_get_and_clear_full_ptes=64 if b else 0,
        page_line=70 if b else 64,
    )
    out0 = row(
        110, MAIN, "try_to_unmap", 0, 32, ld=64, xchg=32, st=32, ptep_get=64, tlbi_va=32, ptl=32
    )
    flush = row(120, MAIN, "tlb_flush", 255, 1, tlbi_asid=1, dsb_ish=1)
    unmap = row(210, MAIN, "zap", 255, 1, ld=1056, ptl=3)
    other = row(301, OTHER, "zap", 0, 2, ld=2, xchg=2, ptep_get=2, tlbi_va=2)
    call = ("madvise", 100, 1, ARGS)
    return [
        fault4,
        fault0,
        *[during(r, *call) for r in (out4, out0, flush)],
        during(unmap, "munmap", 200, 3, "addr=0xffff9d000000, len=0x420000"),
        during(other, "munmap", 300, 1, "addr=0xffff80001000, len=0x2000"),
    ]


def history(name: str = "unbatched") -> snapshot.History:
    """:return: 66 blocks of two tables: faulted in, swapped out with or without a repaint"""
    blocks = np.zeros((2, 32), np.uint8)
    full, gone = blocks.copy(), blocks.copy()
    full[:] = snapshot.FOLDED
    full[1, 30:] = snapshot.PARTIAL
    gone[:] = snapshot.SWAPPED
    tables = np.array([0x7FF, 0x800], np.int64)
    batched = name == "batched"
    if not batched:
        gone[1, 30] = snapshot.UNFOLDED
    states = [
        snapshot.State(np.zeros(0, np.int64), blocks[:0], {}, 0, 0, 0, 0),
        snapshot.State(tables, full, {0: 2, 4: 992}, 992, 994, 994, 994),
        snapshot.State(tables, gone, {}, 0, 0, 0, 0),
    ]
    call = {"syscall": "madvise", "args": ARGS, "op": "try_to_unmap"}
    labels: list[dict[str, object]] = [{"syscall": None, "args": None, "op": "fault_anon"}, call]
    steps = [snapshot.Step(0, 2), snapshot.Step(2, 9, 3)]
    repaints = [(0, 0), (0, 0 if batched else 62)]
    return snapshot.History(name, steps, states, repaints, 16, 4096, 32, labels)


def prices() -> list[MachinePrice]:
    """:return: a machine where the second policy wins, one where nobody can tell, one slower"""
    made = []
    ratios = {
        "ampere-altra": Estimate(1.5, 1.2, 1.9),
        "apple-m2-vm": Estimate(1.1, 0.9, 1.3),
        "kunpeng-920": Estimate(0.7, 0.6, 0.8),
    }
    for name, ratio in ratios.items():
        base = Estimate(3e5, 2e5, 4e5)
        new = Estimate(3e5 / ratio.median, 2e5 / ratio.median, 4e5 / ratio.median)
        made.append(MachinePrice(tables.machines()[name], (base, new), (ratio,)))
    return made


def replay(name: str = "unbatched", **kw: Any) -> Replay:
    """:return: one replay; ``kw`` replaces fields"""
    made = frame(rows(name == "batched"))
    fields: dict[str, Any] = {
        "policy": name,
        "policy_title": {"unbatched": "every PTE by itself", "batched": "all that is batched"}.get(
            name, ""
        ),
        "cpu": dict(CPU),
        "rows": made,
        "unmodelled": pl.DataFrame({"op": ["collapse"], "count": [3]}),
        "inferred": {"accessed": 5},
        "nr_ops": int(made["nr_ops"].sum()),
        "seconds": 0.25,
        "store": "/home/alice/secret-product/pageout.mmtrace",
        "provenance": dict(PROVENANCE),
        "history": history(name),
    }
    return Replay(**(fields | kw))


def pair() -> list[Replay]:
    """:return: the two replays of the workload, the base first"""
    return [replay("unbatched"), replay("batched")]


def test_rows_follow_the_schema() -> None:
    made = replay()
    assert made.rows.columns[: len(ROW_COLUMNS)] == [n for n, _ in ROW_COLUMNS]
    assert made.by("total")["tlbi"][0] == 1024 + 64 + 32 + 1 + 2
