# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies: what each kernel batches, as one table row per kernel.

A policy is a value for every row of :data:`FEATURES`; the engine asks for
features, never for kernels. Adding a kernel is one entry of :data:`POLICIES`.
Sources name the release a feature was read in, or the series that brings it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tracer.errors import UsageError


@dataclass(frozen=True)
class Feature:
    """One switch of the model.

    :ivar batches: the operation whose PTEs it batches, "" when it batches nothing;
        ``unbatched`` turns these off and ``batched`` turns them on
    :ivar unbatched: value that makes the operation handle one entry at a time
    """

    name: str
    meaning: str
    source: str
    batches: str = ""
    unbatched: int = 0


# Fork, zap and the rest: 0 one PTE at a time, 1 runs of one folio.
FEATURES: Final[tuple[Feature, ...]] = (
    Feature("contpte", "transparent contpte mappings", "6.9, contpte series v6"),
    Feature("fork_batch", "fork copies runs of PTEs", "6.9, optimize fork() with PTE-mapped THP", "fork"),
    Feature("zap_batch", "zap clears runs of PTEs", "6.9, optimize unmap/zap with PTE-mapped THP", "zap"),
    Feature("gather_runs", "mmu_gather keeps a slot free for a run's second word", "6.9, same series"),
    Feature("swap_free_batch", "zap frees runs of swap entries", "6.10, swap-out mTHP without splitting", "zap"),
    Feature("madvise_batch", "MADV_FREE, COLD and PAGEOUT scan runs", "6.10, 6.11", "madvise"),
    Feature("swapin_batch", "swap-in maps runs", "6.11, 6.12", "swapin"),
    Feature("ttu_lazyfree_batch", "reclaim unmaps lazyfree folios in runs", "6.16, batched unmap lazyfree large folios", "lazyfree"),
    Feature("ttu_lazyfree_pmd", "reclaim drops a lazyfree PMD mapping whole", "6.12 and 7.2 source, gone in 7.3"),
    Feature("pte_dirty_folio", "a writable entry of a dirty folio is mapped dirty", "7.3 booted kernel, absent in 6.12"),
    Feature("wp_reuse_large", "a write fault reuses a large folio that one mm maps", "6.15, MM owner tracking for large folios"),
    Feature("ttu_file_batch", "reclaim unmaps file folios in runs", "7.0, batched unmapping for file large folios", "file-unmap"),
    Feature("ttu_uffd_batch", "the same in uffd-wp VMAs", "7.3, anon unmap v4 patch 5", "uffd-wp"),
    Feature("ttu_anon_batch", "reclaim unmaps swap-backed anon folios in runs", "anon unmap v4 patch 12, not in 7.3.4", "swapout"),
    Feature("mprotect_batch", "mprotect changes runs of PTEs", "6.17, optimize mprotect() for large folios", "mprotect"),
    Feature("mremap_batch", "mremap moves contpte runs", "6.17, optimize mremap() for large folios", "mremap"),
    Feature("aging_batch", "folio_referenced tests runs", "7.0, batch checking of references", "aging"),
    Feature("marker_batch", "uffd-wp markers are checked once per run", "7.3, anon unmap v4 patch 4", "uffd-wp"),
    Feature("deferred_flush", "reclaim defers the DSB of its TLBI", "6.6, arm64 batched tlb shootdown"),
    Feature("getter_early_exit", "contpte_ptep_get() stops at the first dirty and young", "6.17; 7.2 source"),
    Feature("pte_needs_flush", "mprotect skips flushes that software bits only need", "7.2 source"),
    Feature("bbml_elision", "no TLBI in contpte_convert() where the CPU has BBML2", "6.17; 7.2 source"),
    Feature("cont_valid_only", "set_ptes() never paints CONT on non-valid entries", "7.3, contpte_set_ptes()"),
    Feature("lpa2_alignment", "range TLBI starts 64K aligned under LPA2", "6.9, arm64 LPA2"),
    Feature("finish_fault_folio", "finish_fault() maps whole folios: 0 none, 1 shmem, 2 all files", "6.11 shmem, 6.18 all files", "fault"),
    Feature("faultaround_folio", "fault-around extends to the whole folio", "6.18", "fault"),
    Feature("saf_local", "ptep_set_access_flags() flushes this CPU only", "7.2 source"),
    Feature("pvmw_lockless", "page_vma_mapped_walk() reads the first PTE locklessly", "7.2"),
    Feature("pvmw_sync", "large folios are reclaimed with TTU_SYNC", "6.9"),
    Feature("marker_check", "TTU re-reads the cleared PTE for a uffd-wp marker", "6.12, PTE_MARKER_UFFD_WP"),
    Feature("pt_reclaim", "MADV_DONTNEED frees empty page tables", "6.14, PT_RECLAIM"),
    Feature("swap_table", "swap counts live in a table, folio_dup_swap()", "7.0"),
    Feature("mm_id", "large mapcount under a bit lock", "6.15, MM owner tracking for large folios"),
    Feature("delayed_rmap", "dirty file pages leave the rmap after the flush", "6.2"),
    Feature("mremap_flush", "page table moves flush: 0 each, 1 once at the end", "0 since 4.20; 1 proposed in 2018"),
    Feature("swp_store", "batched swap PTEs: 0 one store each, 1 set_ptes()", "anon unmap v4, open point"),
    Feature("broadcast_tlbi", "TLB maintenance by broadcast instructions; 0: by IPI, as on x86", "arch/arm64"),
    Feature("fold", "a single set_pte may fold its block", "6.9, contpte series"),
)  # fmt: skip

FEATURE_INDEX: Final[dict[str, int]] = {f.name: i for i, f in enumerate(FEATURES)}


@dataclass(frozen=True)
class Policy:
    """A named set of feature values."""

    name: str
    title: str
    source: str
    features: Mapping[str, int]

    def value(self, name: str) -> int:
        return self.features[name]

    def vector(self) -> list[int]:
        """:return: the values in the order of :data:`FEATURES`."""
        return [self.features[f.name] for f in FEATURES]

    def with_features(self, name: str, title: str, source: str, **values: int) -> Policy:
        """:return: a copy with other values; unknown features are refused."""
        for key in values:
            if key not in FEATURE_INDEX:
                raise UsageError(f"No feature {key!r}.", f"Known: {', '.join(FEATURE_INDEX)}.")
        return Policy(name, title, source, MappingProxyType({**self.features, **values}))


_NOTHING: Final = Policy("nothing", "", "", MappingProxyType({f.name: 0 for f in FEATURES}))

_ARM64: Final = _NOTHING.with_features("arm64", "", "", broadcast_tlbi=1)

LINUX_6_1: Final = _ARM64.with_features(
    "linux-6.1",
    "Linux 6.1: no contpte, no PTE batching, synchronous reclaim flush",
    "6.1.192 source",
)
LINUX_6_12: Final = LINUX_6_1.with_features(
    "linux-6.12",
    "Linux 6.12: contpte; fork, zap and madvise scans batched",
    "6.12.107 source and booted kernel",
    contpte=1, fold=1, fork_batch=1, zap_batch=1, gather_runs=1, swap_free_batch=1, madvise_batch=1,
    swapin_batch=1, deferred_flush=1, ttu_lazyfree_pmd=1, lpa2_alignment=1, finish_fault_folio=1, pvmw_sync=1,
    marker_check=1, delayed_rmap=1,
)  # fmt: skip
LINUX_7_2: Final = LINUX_6_12.with_features(
    "linux-7.2",
    "Linux 7.2: + lazyfree and file reclaim, mprotect, mremap, aging, whole-folio file faults",
    "7.2.13 source",
    ttu_lazyfree_batch=1, ttu_file_batch=1, mprotect_batch=1, mremap_batch=1, aging_batch=1,
    getter_early_exit=1, pte_needs_flush=1, bbml_elision=1, finish_fault_folio=2,
    faultaround_folio=1, saf_local=1, pvmw_lockless=1, pt_reclaim=1, swap_table=1, mm_id=1,
    pte_dirty_folio=1, wp_reuse_large=1,
)  # fmt: skip
LINUX_7_3: Final = LINUX_7_2.with_features(
    "linux-7.3",
    "Linux 7.3: + uffd-wp VMAs and markers in batches",
    "7.3.4 source and booted kernel",
    ttu_uffd_batch=1, marker_batch=1, cont_valid_only=1, ttu_lazyfree_pmd=0,
)  # fmt: skip
LINUX_7_3_ANON_BATCH: Final = LINUX_7_3.with_features(
    "linux-7.3+anon-batch",
    "Linux 7.3 with batched swap-out of anon folios",
    "Optimize anonymous large folio unmapping v4, booted build",
    ttu_anon_batch=1,
)

_BATCHING: Final = [f for f in FEATURES if f.batches]
_LISTED: Final = (LINUX_6_1, LINUX_6_12, LINUX_7_2, LINUX_7_3, LINUX_7_3_ANON_BATCH)

UNBATCHED: Final = LINUX_7_3.with_features(
    "unbatched",
    "the 7.3 contpte kernel handling every PTE by itself",
    "linux-7.3 with every batching off",
    **{f.name: f.unbatched for f in _BATCHING},
)
BATCHED: Final = LINUX_7_3.with_features(
    "batched",
    "everything batched that any listed kernel batches",
    "union of the listed kernels",
    **{f.name: max(p.features[f.name] for p in _LISTED) for f in _BATCHING},
)

POLICIES: Final[dict[str, Policy]] = {p.name: p for p in (*_LISTED, UNBATCHED, BATCHED)}

# The generic half of a kernel with x86's rules. Left out: which CPUs a flush has to
# reach, lazy TLB, PCID, INVLPGB, the invlpg loop against the full flush.
X86_LEAVES_OUT: Final = "CPU masks, lazy TLB, PCID, INVLPGB, invlpg against full flush"
_X86: Final = {
    "contpte": 0,
    "fold": 0,
    "broadcast_tlbi": 0,
    "deferred_flush": 1,
    "lpa2_alignment": 0,
}
POLICIES.update(
    {
        f"x86-{base.name.removeprefix('linux-')}": base.with_features(
            f"x86-{base.name.removeprefix('linux-')}",
            f"{base.title.partition(':')[0]} under x86 rules: no contpte, flushes by IPI",
            f"{base.source}; leaves out {X86_LEAVES_OUT}",
            **_X86,
        )
        for base in (LINUX_6_12, LINUX_7_3, LINUX_7_3_ANON_BATCH)
    }
)

# What-if switches, each relative to the 7.3 kernel.
WHAT_IF: Final[dict[str, tuple[str, dict[str, int]]]] = {
    "x-nocontpte": ("no contpte mappings", {"contpte": 0, "fold": 0}),
    "x-nofold": ("no automatic fold", {"fold": 0}),
    "x-zap-unbatched": ("zap one PTE at a time", {"zap_batch": 0}),
    "x-fork-unbatched": ("fork one PTE at a time", {"fork_batch": 0}),
    "x-mremap-flush-deferred": ("one flush at the end of mremap", {"mremap_flush": 1}),
    "x-finish-fault-page": ("finish_fault() maps one page", {"finish_fault_folio": 0}),
}
POLICIES.update(
    {
        name: LINUX_7_3.with_features(name, f"Linux 7.3, {title}", "what-if switch", **values)
        for name, (title, values) in WHAT_IF.items()
    }
)

# ``own`` picks the newest listed kernel that is not newer than the capture's.
_OWN: Final = ((6, 1, LINUX_6_1), (6, 12, LINUX_6_12), (7, 2, LINUX_7_2), (7, 3, LINUX_7_3))


def own(kernel_release: str | None) -> Policy:
    """The listed kernel that a capture's release behaves like.

    :param kernel_release: ``uname -r`` text such as ``6.12.107+deb13-cloud-arm64``
    :raises UsageError: when the release is unknown
    """
    try:
        major, minor = (int(part) for part in (kernel_release or "").split(".")[:2])
    except ValueError:
        raise UsageError(
            f"The capture does not name a kernel release ({kernel_release!r}).",
            "Name the policy with --policy.",
        ) from None
    fitting = [p for a, b, p in _OWN if (a, b) <= (major, minor)]
    return replace(fitting[-1] if fitting else LINUX_6_1, name="own")


def get(name: str, *, kernel_release: str | None = None) -> Policy:
    """Look a policy up; ``own`` needs the capture's kernel release.

    :param name: a key of :data:`POLICIES`, ``own``, or the path of a TOML file
    :raises UsageError: for an unknown name, with the known ones
    """
    if name == "own":
        return own(kernel_release)
    if name in POLICIES:
        return POLICIES[name]
    if name.endswith(".toml"):
        return from_toml(Path(name))
    raise UsageError(f"No policy {name!r}.", f"Known: own, {', '.join(POLICIES)}, FILE.toml.")


def from_toml(path: Path) -> Policy:
    """A user's policy: ``base = "linux-7.3"`` and a ``[features]`` table.

    :raises UsageError: when the file is missing, is not TOML, or names unknown features
    """
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"Policy file {path} cannot be read: {error}.") from None
    base = POLICIES.get(str(data.get("base", "linux-7.3")))
    if base is None:
        raise UsageError(f"{path}: unknown base {data['base']!r}.")
    values = data.get("features", {})
    if not isinstance(values, dict) or not all(type(v) in (int, bool) for v in values.values()):
        raise UsageError(f"{path}: [features] takes integers.")
    name = str(data.get("name", path.stem))
    title = str(data.get("title", f"{base.name} with {len(values)} changes"))
    return base.with_features(name, title, str(path), **{k: int(v) for k, v in values.items()})


def with_sets(policy: Policy, sets: Mapping[str, str]) -> Policy:
    """Apply ``--set fork=unbatched`` (an operation) or ``--set fold=0`` (a feature).

    :raises UsageError: for an unknown operation, feature or value
    """
    for key, value in sets.items():
        group = [f for f in FEATURES if f.batches == key]
        if group and value in ("batched", "unbatched"):
            on = {f.name: max(p.features[f.name] for p in _LISTED) for f in group}
            off = {f.name: f.unbatched for f in group}
            changes = on if value == "batched" else off
        elif key in FEATURE_INDEX and value.isdigit():
            changes = {key: int(value)}
        else:
            groups = sorted({f.batches for f in FEATURES if f.batches})
            raise UsageError(
                f"--set {key}={value} is not understood.",
                f"Use OPERATION=batched|unbatched with {', '.join(groups)}, or FEATURE=NUMBER.",
            )
        title = f"{policy.title}, {key}={value}"
        policy = policy.with_features(
            f"{policy.name},{key}={value}", title, policy.source, **changes
        )
    return policy
