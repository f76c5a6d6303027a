# SPDX-License-Identifier: GPL-2.0-or-later
"""Truth files: what a booted kernel really executed, phase by phase.

One JSON list; a row is ``{kernel, workload, folio_kb, phase, ret, ops,
functions}``: ``ops`` counts executed instructions by class, ``functions``
entries into kernel functions (a number, or ``{calls, insns}``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tracer.errors import MmtraceError

# Counter of a replay to the function names it goes by. try_to_unmap_flush() is not here:
# whether try_to_unmap_flush_dirty() enters it or inlines it is the compiler's choice.
FUNCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "convert": ("contpte_convert",),
    "cp_get": ("contpte_ptep_get",),
    "fold_try": ("__contpte_try_fold",),
    "__contpte_try_unfold": ("__contpte_try_unfold",),
    "contpte_try_unfold_partial": ("contpte_try_unfold_partial",),
    "contpte_set_ptes": ("contpte_set_ptes",),
    "contpte_clear_full_ptes": ("contpte_clear_full_ptes",),
    "contpte_get_and_clear_full_ptes": ("contpte_get_and_clear_full_ptes",),
    "contpte_wrprotect_ptes": ("contpte_wrprotect_ptes",),
    "contpte_clear_young_dirty_ptes": ("contpte_clear_young_dirty_ptes",),
    "folio_remove_rmap_ptes": ("folio_remove_rmap_ptes",),
    "folio_add_new_anon_rmap": ("folio_add_new_anon_rmap",),
    "folio_add_file_rmap_ptes": ("folio_add_file_rmap_ptes",),
    "folio_dup_swap": ("folio_dup_swap", "folio_dup_swap_pages", "swap_duplicate"),
    "folio_put_swap": ("folio_put_swap", "swap_free_nr"),
    "set_tlb_ubc_flush_pending": ("set_tlb_ubc_flush_pending",),
    "walk": ("page_vma_mapped_walk",),
    "check_pte": ("check_pte",),
    "dsplit": ("deferred_split_folio",),
    "flush_tlb_batched_pending": ("flush_tlb_batched_pending",),
    "__tlb_remove_folio_pages": ("__tlb_remove_folio_pages",),
    "tlb_next_batch": ("tlb_next_batch",),
}
# The last is counted apart since the lab has its own plugin; older files have it in tlbi_va.
INSTRUCTIONS: Final = ("tlbi_va", "tlbi_range", "tlbi_asid", "tlbi_local")

# Counters that may differ, and the physical reason. The bound is on real - simulated.
TIMERS = ("__remove_hrtimer", "hrtimer_interrupt")
TOLERANCES: Final[dict[str, str]] = {
    "dsb": "timer interrupts and task switches execute DSB of their own",
}
# Without a count of timer interrupts: one in this many instructions, plus some.
INSNS_PER_TIMER = 250_000
DSB_SLACK = 3
FORK_DSB_SLACK = 24  # setting up and switching to a task


@dataclass(frozen=True)
class TruthRow:
    """One phase as counted on a booted kernel."""

    kernel: str
    workload: str
    folio_kb: int
    phase: str
    ops: dict[str, int]
    functions: dict[str, int]
    tracked: frozenset[str]  # functions the file knows for this kernel

    def counter(self, name: str) -> int | None:
        """Real count of a replay counter; None when the file does not have it."""
        if name in INSTRUCTIONS or name == "dsb":
            return self.ops.get(name)
        # Two names of one counter never run in one kernel, but a series may add one.
        known = [f for f in FUNCTIONS.get(name, ()) if f in self.tracked]
        return sum(self.functions.get(f, 0) for f in known) if known else None

    def dsb_noise(self) -> int:
        """Most DSB that interrupts may have added."""
        timers = max(self.functions.get(name, 0) for name in TIMERS)
        if not timers:  # not counted, or inlined
            timers = self.ops.get("kernel_insns", 0) // INSNS_PER_TIMER
        forks = self.functions.get("copy_process", 1 if self.phase == "fork" else 0)
        return timers + DSB_SLACK + forks * FORK_DSB_SLACK


def _calls(value: Any) -> int:
    return int(value["calls"]) if isinstance(value, dict) else int(value)


def load(path: Path) -> list[TruthRow]:
    """Read a truth file.

    :raises MmtraceError: when it is not one
    """
    try:
        rows = json.loads(path.read_text())
        kernels: dict[str, set[str]] = {}
        for row in rows:
            kernels.setdefault(row["kernel"], set()).update(row["functions"])
        return [
            TruthRow(
                kernel=row["kernel"],
                workload=row["workload"],
                folio_kb=int(row["folio_kb"]),
                phase=row["phase"],
                ops={k: int(v) for k, v in row["ops"].items()},
                functions={k: _calls(v) for k, v in row["functions"].items()},
                tracked=frozenset(kernels[row["kernel"]]),
            )
            for row in rows
        ]
    except OSError as error:
        raise MmtraceError(f"Truth file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MmtraceError(
            f"{path} is not a truth file.",
            "It is a JSON list of rows with kernel, workload, phase.",
        ) from None


def select(rows: list[TruthRow], workload: str, folio_kb: int | None) -> list[TruthRow]:
    """The rows of one workload, in order.

    :raises MmtraceError: naming the workloads there are
    """
    found = [
        r for r in rows if r.workload == workload and (folio_kb is None or r.folio_kb == folio_kb)
    ]
    if not found:
        known = sorted({f"{r.workload}-{r.folio_kb}k" for r in rows})
        raise MmtraceError(
            f"The truth file has no workload {workload}"
            + (f"-{folio_kb}k." if folio_kb is not None else "."),
            f"It has {', '.join(known)}; name one with --workload.",
        )
    return found
