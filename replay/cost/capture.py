# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture's operations priced on the listed machines, each replayed with that machine's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replay.arm64.geometry import Granule
from replay.cost import tables
from replay.cost.price import Estimate, draw, estimate, price, speedup
from replay.cost.tables import Machine
from replay.cost.work import Setting, work_of
from replay.engine import replay_stream
from replay.lower import Stream
from replay.policies import Policy
from replay.result import Replay


@dataclass(frozen=True)
class MachinePrice:
    """What the policies cost on one machine.

    :ivar times: ns of each policy
    :ivar faster: how many times faster than the first each other policy is
    """

    machine: Machine
    times: tuple[Estimate, ...]
    faster: tuple[Estimate, ...]


def prices(stream: Stream, policies: Sequence[Policy], granule: Granule) -> list[MachinePrice]:
    """Price a stream on every listed arm64 machine.

    Machines with equal CPU features share a replay.

    :return: in the tables' order; of one task on an idle machine
    """
    done: dict[tuple[tuple[str, bool], ...], list[Replay]] = {}
    out = []
    for machine in tables.machines().values():
        if machine.is_x86:
            continue
        key = tuple(machine.cpu.features().items())
        if key not in done:
            done[key] = [replay_stream(stream, p, machine.cpu, granule) for p in policies]
        out.append(_price(machine, policies, done[key]))
    return out


def _price(machine: Machine, policies: Sequence[Policy], replays: Sequence[Replay]) -> MachinePrice:
    draws = draw(machine)
    made = [
        price(draws, work_of(r, p.features, Setting(), llc_mib=machine.llc_mib))
        for p, r in zip(policies, replays, strict=True)
    ]
    names = [p.name for p in policies]
    faster = [speedup(made[0], m, names[0], n) for m, n in zip(made[1:], names[1:], strict=True)]
    return MachinePrice(machine, tuple(estimate(m.total) for m in made), tuple(faster))
