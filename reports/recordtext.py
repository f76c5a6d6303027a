# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``mmtrace record`` and ``mmtrace doctor`` print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tracer.doctor import Finding
from tracer.output import printable, size
from tracer.record.run import Outcome


def outcome_text(done: Outcome) -> str:
    """What was recorded, what was lost, and what to do next."""
    out = [
        f"Recorded {done.seconds:.1f} s with {done.probes} probes and "
        f"{len(done.events) - done.probes} tracepoints: {printable(done.path)}, {size(done.size)}."
    ]
    if done.interrupted:
        out.append("Interrupted; the capture is complete up to then.")
    if done.status:
        out.append(f"The command ended with {_status(done.status)}.")
    out.append(_losses(done))
    for line, reason in done.refused.items():
        out.append(f"The kernel refused {printable(line.split()[0])}: {printable(reason)}.")
    if done.left:
        out.append(
            f"Still in use and not removed: {', '.join(done.left)}. End what uses them, "
            "then run mmtrace doctor."
        )
    out += [printable(note) for note in done.notes]
    return "\n".join([*out, f"Next: mmtrace ingest {shlex.quote(str(done.path))}", ""])


def _status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _losses(done: Outcome) -> str:
    if done.lost is None:
        text = "Losses are in the capture: mmtrace info shows them."
    elif done.lost:
        text = f"{done.lost:,} events were lost: record again with a larger --buffer."
    else:
        text = "No event was lost."
    return text + (f" Probes missed {done.missed:,} hits." if done.missed else "")


def doctor_text(findings: Sequence[Finding]) -> str:
    """One line for each finding, with its remedy below when something is missing."""
    out = []
    for f in findings:
        out.append(f"{'yes' if f.good else 'no ':3}  {f.what}: {printable(f.state)}")
        if f.remedy:
            out.append(f"     -> {f.remedy}")
    return "\n".join([*out, ""])
