# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmtrace policies``: the policies and where each batching comes from."""

from __future__ import annotations

from replay import policies
from reports.text import Table, join, to_ascii, wrap

_INDENT = "    "
# Columns that the other columns leave to the last one.
_SOURCE = 36


def policies_text() -> str:
    """Every policy with its title and source, 75 columns."""
    blocks = []
    for policy in policies.POLICIES.values():
        lines = [policy.name, *wrap(policy.title, _INDENT, _INDENT)]
        lines += wrap(f"source: {policy.source}", _INDENT, _INDENT)
        blocks.append(lines)
    blocks.append(
        [
            "own",
            *wrap("the listed kernel that the capture's release behaves like", _INDENT, _INDENT),
        ]
    )
    blocks.append(wrap("mmtrace policies POLICY shows what it batches."))
    return to_ascii(join(blocks))


def policy_text(name: str) -> str:
    """One policy's features: value, name, what it is, where it came with.

    :raises UsageError: for an unknown policy
    """
    policy = policies.get(name)
    table = Table()
    table.row("feature", "is", "batches", "came with")
    table.rule()
    for feature in policies.FEATURES:
        first, *rest = wrap(feature.source, width=_SOURCE)
        value = str(policy.value(feature.name))
        table.row(feature.name, value, feature.batches or "-", first)
        for line in rest:
            table.row("", "", "", line)
    head = [policy.name, *wrap(policy.title, _INDENT, _INDENT)]
    meanings = [
        line
        for feature in policies.FEATURES
        for line in wrap(f"{feature.name}: {feature.meaning}", "", _INDENT)
    ]
    return to_ascii(join([head, table.lines(), meanings]))
