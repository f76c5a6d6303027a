# SPDX-License-Identifier: GPL-2.0-or-later
"""Were the compared page tables in the same state when a system call began?

A delta misleads when the sides did not start from the same folios, contiguous
bits and accessed and dirty bits. Steps of two captures are matched by what
they are, in order, because program start-up differs from boot to boot.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from replay.result import Replay
from replay.snapshot import History, State
from reports import names, numbers


@dataclass(frozen=True)
class Moment:
    """The states that the replays are in before one system call.

    :ivar name: the system call
    :ivar states: one per replay
    """

    name: str
    states: tuple[State, ...]

    @property
    def equal(self) -> bool:
        """:return: whether folio orders and entry bits are the same everywhere"""
        first = _facts(self.states[0])
        return all(_facts(s) == first for s in self.states[1:])


def _facts(state: State) -> tuple[object, ...]:
    return state.orders, state.cont, state.young, state.dirty


def moments(histories: Sequence[History]) -> list[Moment]:
    """:return: the system calls that every replay has, with the states before them"""
    calls = [_calls(h) for h in histories]
    common: list[tuple[str, tuple[int, ...]]] = [(name, (at,)) for at, name in calls[0]]
    for other in calls[1:]:
        match = difflib.SequenceMatcher(None, [n for n, _ in common], [n for _, n in other], False)
        common = [
            (common[a + k][0], (*common[a + k][1], other[b + k][0]))
            for a, b, size in match.get_matching_blocks()
            for k in range(size)
        ]
    return [
        Moment(name, tuple(h.states[i] for h, i in zip(histories, at, strict=True)))
        for name, at in common
    ]


def _calls(history: History) -> list[tuple[int, str]]:
    """:return: (step, name) of the steps that are system calls"""
    out = []
    for at, row in enumerate(history.labels):
        if row["syscall"] is not None:
            args = None if row["args"] is None else str(row["args"])
            out.append((at, names.syscall_kind(str(row["syscall"]), args)))
    return out


def warnings(replays: Sequence[Replay], labels: Sequence[str]) -> list[str]:
    """:return: a sentence when system calls of several captures began in different states"""
    histories = [r.history for r in replays if r.history is not None]
    captures = {str(r.provenance.get("sha256")) for r in replays}
    # Under two policies one capture may part, which is their effect and not a mistake.
    if len(histories) != len(replays) or len(captures) < 2:
        return []
    found = moments(histories)
    if not found:
        return ["No system call is in every capture: the states they began in cannot be compared."]
    unlike = [m for m in found if not m.equal]
    if not unlike:
        return []
    first = unlike[0]
    pairs = zip(labels, first.states, strict=True)
    told = "; ".join(f"{label}: {describe(state)}" for label, state in pairs)
    return [
        f"{numbers.plural(len(unlike), 'system call')} of {len(found)} did not begin in the same "
        f"page state. Before {first.name}, {told}."
    ]


def describe(state: State) -> str:
    """:return: the state in words: pages by order, contiguous, young, dirty"""
    orders = ", ".join(f"{n:,} of order {order}" for order, n in sorted(state.orders.items()))
    return (
        f"{orders or 'no'} pages, {state.cont:,} cont, {state.young:,} young, {state.dirty:,} dirty"
    )
