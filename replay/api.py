# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay and verify a store or a capture: what the command line does, as functions.

::

    from replay.api import open_source, replay, verify

    source = open_source("pageout.mmtrace")
    unbatched, batched = replay(source, ["unbatched", "batched"])
    assert verify(source).passed
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from replay import cpu as cpus
from replay import policies, truth
from replay import verify as verification
from replay.arm64.geometry import Granule, granule, granule_of
from replay.cost.capture import MachinePrice, prices
from replay.coverage import attribute
from replay.cpu import Cpu
from replay.engine import replay_stream
from replay.lower import lower
from replay.policies import Policy
from replay.result import Replay
from replay.snapshot import history
from replay.verify import Verification
from replay.whatif import AS_RECORDED, parse_order, relay
from tracer.capture import Capture
from tracer.enums import KernelEnums
from tracer.store import Store, is_store, newest_store, open_store
from tracer.vocabulary import BY_NAME, SYSCALL_SYSTEM

DEFAULT_POLICIES = ("unbatched", "batched")


@dataclass
class Source:
    """A store, or a capture that was read into memory, ready to replay.

    :ivar name: path, for messages
    :ivar ops: :data:`tracer.schema.OP_COLUMNS`
    :ivar provenance: fields of :class:`tracer.capture.Provenance`
    """

    name: str
    ops: pl.DataFrame
    enums: KernelEnums
    provenance: dict[str, Any]
    loss: pl.DataFrame
    diagnostics: pl.DataFrame
    recorded: set[str]
    _store: Store | None = None
    _capture: Capture | None = None
    _events: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def kernel_release(self) -> str | None:
        release: str | None = self.provenance.get("kernel_release")
        return release

    def events(self) -> dict[str, pl.DataFrame]:
        """Frames of system calls and of the vocabulary's probes, read on first use."""
        if not self._events:
            for key in sorted(self.recorded):
                system, _, name = key.partition(":")
                if system != SYSCALL_SYSTEM and name not in BY_NAME:
                    continue
                if self._capture is not None and key in self._capture.events:
                    self._events[key] = self._capture.events[key]
                elif self._store is not None and self._store.counts.get(key):
                    self._events[key] = self._store.event(key)
        return self._events

    def granule(self) -> Granule:
        """The capture's page size; x86's is the 4K granule."""
        return granule_of(int(self.provenance.get("page_size") or 4096))


def open_source(path: str | os.PathLike[str] | Store | None = None) -> Source:
    """Open a store, or read a capture.

    :param path: store or capture; None for the newest store in the current directory
    :raises MmtraceError: when it is neither
    """
    if path is None:
        path = newest_store()
    if isinstance(path, Store):
        return _from_store(path)
    if is_store(Path(path)):
        return _from_store(open_store(path))
    from tracer.ingest import find_enums, read_capture
    from tracer.normalize import normalize

    capture = read_capture(path)
    enums = find_enums(os.fspath(path), capture)
    return Source(
        name=os.fspath(path),
        ops=normalize(capture, enums),
        enums=enums,
        provenance=asdict(capture.provenance),
        loss=capture.loss,
        diagnostics=capture.diagnostics,
        recorded={*capture.events, *capture.formats, *capture.provenance.probe_set},
        _capture=capture,
    )


def _from_store(store: Store) -> Source:
    return Source(
        name=str(store.path),
        ops=store.ops,
        enums=store.enums,
        provenance=asdict(store.provenance),
        loss=store.loss,
        diagnostics=store.diagnostics,
        recorded={*store.counts, *store.provenance.probe_set},
        _store=store,
    )


def choose(
    names: Sequence[str], sets: Mapping[str, str] | None, kernel_release: str | None
) -> list[Policy]:
    """Policies by name, with ``--set`` changes applied to each."""
    found = [policies.get(name, kernel_release=kernel_release) for name in names]
    return [policies.with_sets(p, sets) for p in found] if sets else found


def replay(
    source: Source,
    names: Sequence[str] = DEFAULT_POLICIES,
    *,
    cpu: str = cpus.DEFAULT,
    cpu_features: Mapping[str, int] | None = None,
    sets: Mapping[str, str] | None = None,
    granule_name: str | None = None,
    folio_size: str = AS_RECORDED,
    checked: bool = False,
    detailed: bool = False,
) -> list[Replay]:
    """Replay a source under each policy.

    :param names: policy names, see :func:`replay.policies.get`
    :param cpu: CPU profile; ``cpu_features`` changes some of its flags
    :param sets: operation to ``batched`` or ``unbatched``, or feature to number
    :param granule_name: 4K, 16K or 64K; the capture's page size by default
    :param folio_size: lay the recorded anon faults on folios of this size, :mod:`replay.whatif`
    :param checked: check the model's invariants after every operation
    :param detailed: also split range operations by folio order (:mod:`replay.coverage`) and
        keep states of the main address space (:mod:`replay.snapshot`): three more passes
    :raises UsageError: for names that do not exist
    :raises MmtraceError: when a checked replay breaks an invariant
    """
    chosen = choose(names, sets, source.kernel_release)
    machine = cpus.get(cpu, cpu_features)
    grain = granule(granule_name) if granule_name else source.granule()
    order = parse_order(folio_size, grain.page_size)
    ops = source.ops if order is None else relay(source.ops, order, grain.page_size)
    stream = lower(ops, source.enums)
    name = source.name if order is None else f"{source.name} (folios of {folio_size})"
    split = attribute(stream, chosen[0], machine, grain) if detailed and chosen else stream
    done = [
        replay_stream(
            split,
            policy,
            machine,
            grain,
            provenance=source.provenance,
            store=name,
            checked=checked,
        )
        for policy in chosen
    ]
    if detailed:
        for one, policy in zip(done, chosen, strict=True):
            one.history = history(stream, policy, machine, grain)
    return done


def machine_prices(
    source: Source,
    names: Sequence[str] = DEFAULT_POLICIES,
    *,
    sets: Mapping[str, str] | None = None,
    granule_name: str | None = None,
) -> list[MachinePrice]:
    """What the policies cost on the listed machines; parameters as in :func:`replay`."""
    chosen = choose(names, sets, source.kernel_release)
    grain = granule(granule_name) if granule_name else source.granule()
    return prices(lower(source.ops, source.enums), chosen, grain)


def verify(
    source: Source,
    policy: str = "own",
    *,
    truth_path: str | os.PathLike[str] | None = None,
    workload: str | None = None,
    cpu: str = cpus.DEFAULT,
    cpu_features: Mapping[str, int] | None = None,
    sets: Mapping[str, str] | None = None,
) -> Verification:
    """Hold a replay against reality.

    :param truth_path: a truth file; None for the capture's own events
    :param workload: ``pageout-64k``; guessed from the source's name by default
    :raises UsageError: when the workload is not in the truth file
    """
    (chosen,) = choose([policy], sets, source.kernel_release)
    machine: Cpu = cpus.get(cpu, cpu_features)
    grain = source.granule()
    if truth_path is None:
        return verification.against_capture(
            source.ops, source.events(), source.enums, chosen, machine, grain, source.recorded
        )
    name = workload or Path(source.name).name
    kind, folio_kb = verification.guess_workload(name)
    rows = truth.select(truth.load(Path(truth_path)), kind, folio_kb)
    return verification.against_truth(
        source.ops, source.events(), source.enums, chosen, machine, grain, rows
    )
