# SPDX-License-Identifier: GPL-2.0-or-later
"""From a scenario and a policy to work, replayed on a machine's CPU."""

from __future__ import annotations

from typing import Any

from replay import policies
from replay.cost.tables import Machine
from replay.cost.work import Setting, Work, work_of
from replay.engine import replay_stream
from replay.policies import Policy
from replay.result import Replay
from replay.scenarios import Scenario, build


def policy_for(machine: Machine, name: str) -> Policy:
    """A policy by name, under x86's rules on an x86 machine.

    ``NAME,fork=unbatched`` changes an operation or a feature of it.

    :raises UsageError: for an unknown policy
    """
    name, *changes = name.split(",")
    sets = dict(change.split("=", 1) for change in changes)
    policy = policies.get(name)
    if machine.is_x86 and policy.value("broadcast_tlbi"):
        policy = _x86(policy)
    return policies.with_sets(policy, sets) if sets else policy


def _x86(policy: Policy) -> Policy:
    """No contpte, flushes by request."""
    values = {
        "contpte": 0,
        "fold": 0,
        "broadcast_tlbi": 0,
        "deferred_flush": 1,
        "lpa2_alignment": 0,
    }
    return policy.with_features(
        f"x86:{policy.name}", f"{policy.title}, x86 rules", policy.source, **values
    )


def replayed(machine: Machine, scenario: Scenario, policy: Policy) -> Replay:
    """Replay a scenario on the machine's CPU."""
    return replay_stream(scenario.stream, policy, machine.cpu, scenario.geometry)


def setting_of(scenario: Scenario, *, kernel_6_8: bool = False) -> Setting:
    """What of a scenario's parameters the price depends on."""
    p = scenario.params
    freed = not p.shared and scenario.name != "page_fault3"
    return Setting(p.cpus, p.tasks if p.shared else 1, kernel_6_8, freed)


def work(
    machine: Machine,
    name: str,
    policy: str,
    *,
    phases: list[str] | None = None,
    kernel_6_8: bool = False,
    **params: Any,
) -> Work:
    """Build a scenario, replay it under a policy, count its work.

    :param name: scenario or preset
    :param phases: timed phases, the scenario's own by default
    """
    scenario = build(name, **params)
    chosen = policy_for(machine, policy)
    replay = replayed(machine, scenario, chosen)
    setting = setting_of(scenario, kernel_6_8=kernel_6_8)
    return work_of(replay, chosen.features, setting, phases or scenario.timed, machine.llc_mib)
