# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario as a report: exact counts of the policies, then their price on machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from replay.api import choose, open_source
from replay.cost.breakeven import by_order as orders_of
from replay.cost.price import draw, price
from replay.cost.run import policy_for, replayed, setting_of
from replay.cost.tables import Machine, get
from replay.cost.work import Setting, timed_rows, work_of
from replay.engine import replay_stream
from replay.lower import lower
from replay.scenarios import PRESETS, SCENARIOS, Scenario, build
from reports.compare import compare
from reports.costtext import orders_text, priced_text, seed_text
from reports.styles import render
from reports.text import Table, join, to_ascii

# Presets whose figures everybody knows: a prediction of them is shown beside the figure.
_KNOWN: Final = {"A1": "000", "A4": "000", "K1": "004", "K2": "004", "K3": "004", "K4": "004"}
DEFAULT_MACHINES: Final = ("generic-arm64",)


def listing() -> str:
    """Scenarios and presets, one a line."""
    kinds, presets = Table(), Table()
    for name, body in SCENARIOS.items():
        kinds.row(name, (body.__doc__ or "").splitlines()[0].rstrip("."))
    for preset in PRESETS.values():
        presets.row(preset.name, preset.title)
    return to_ascii(join([["scenarios", *kinds.lines()], ["presets", *presets.lines()]]))


def priced_source(
    path: str | None, names: Sequence[str], machine_name: str, sets: Mapping[str, str] | None = None
) -> str:
    """A capture's operations under policies, priced on a machine with that machine's CPU.

    :param path: store or capture; None for the newest store
    :raises UsageError: for unknown names
    """
    source, machine = open_source(path), get(machine_name)
    stream = lower(source.ops, source.enums)
    draws, found = draw(machine), []
    for policy in choose(names, sets, source.kernel_release):
        done = replay_stream(stream, policy, machine.cpu, source.granule())
        made = work_of(done, policy.features, Setting(), llc_mib=machine.llc_mib)
        found.append(price(draws, made))
    return priced_text("All operations of the capture", machine, names, found)


def _priced(scenario: Scenario, machine: Machine, names: Sequence[str]) -> str:
    draws, found = draw(machine), []
    for name in names:
        policy = policy_for(machine, name)
        done = replayed(machine, scenario, policy)
        setting = setting_of(scenario)
        made = work_of(done, policy.features, setting, scenario.timed, machine.llc_mib)
        found.append(price(draws, made))
    return priced_text(scenario.title, machine, names, found)


def _counts(scenario: Scenario, machine: Machine, names: Sequence[str]) -> str:
    done = [replayed(machine, scenario, policy_for(machine, name)) for name in names]
    timed = [replace(r, rows=timed_rows(r.rows, scenario.timed)) for r in done]
    return render(compare(timed))


def report(
    name: str,
    params: dict[str, Any],
    policies: Sequence[str] | None,
    machines: Sequence[str] | None,
    *,
    by_order: bool = False,
) -> str:
    """Counts and prices of a scenario.

    :param policies: the preset's own, or unbatched and batched, by default
    :param machines: names or files; :data:`DEFAULT_MACHINES` by default
    :raises UsageError: for unknown names and impossible parameters
    """
    scenario = build(name, **params)
    own = scenario.preset.policies if scenario.preset else ("unbatched", "batched")
    names = list(dict.fromkeys(policies or own))
    chosen = [get(m) for m in machines or DEFAULT_MACHINES]
    blocks = [_counts(scenario, chosen[0], names).rstrip("\n")]
    blocks += [_priced(scenario, m, names).rstrip("\n") for m in chosen]
    if scenario.preset and scenario.preset.name in _KNOWN:
        blocks.append(seed_text(_KNOWN[scenario.preset.name]).rstrip("\n"))
    if by_order and len(names) > 1:
        rest = {k: v for k, v in params.items() if k not in ("folio_size", "alignment")}
        rest["size"] = min(scenario.params.size, 64 << 20)
        for m in chosen:
            rows = orders_of(m, name, names[0], names[1], **rest)
            blocks.append(orders_text(m, rows).rstrip("\n"))
    return "\n\n".join(blocks) + "\n"
