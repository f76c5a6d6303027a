# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: the op streams of described workloads, without a capture.

::

    from replay.scenarios import build

    scenario = build("pageout", size="256M", folio_size="64K")
    replay_stream(scenario.stream, policy, cpu, scenario.geometry)

An op stream says what the kernel is asked to do, in the words of
:mod:`tracer.normalize`; which primitives that takes is the policy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from replay.arm64.geometry import Granule
from replay.lower import Stream
from replay.scenarios import anon, files, vmas
from replay.scenarios.builder import Builder
from replay.scenarios.params import Params, make
from replay.scenarios.presets import PRESETS, Preset
from tracer.errors import UsageError

Body = Callable[[Builder, Params], None]

SCENARIOS: Final[dict[str, Body]] = {
    "pageout": anon.pageout,
    "lazyfree": anon.lazyfree,
    "file-unmap": files.file_unmap,
    "aging": files.aging,
    "zap": anon.zap,
    "munmap": anon.munmap,
    "exit": anon.exit_,
    "dontneed-page": anon.dontneed_page,
    "partial": anon.partial,
    "fork": vmas.fork,
    "fork-all": vmas.fork_all,
    "mprotect": vmas.mprotect,
    "mprotect-page": vmas.mprotect_page,
    "mprotect-all": vmas.mprotect_all,
    "mremap": vmas.mremap,
    "mremap-all": vmas.mremap_all,
    "page_fault3": files.page_fault3,
    "swapin": anon.swapin,
    "uffdwp": anon.uffdwp,
    "filefault": files.filefault,
}


@dataclass(frozen=True)
class Scenario:
    """A workload, ready to replay.

    :ivar stream: one task's operations; groups have a ``phase`` column, ``setup`` for
        what no measurement would time
    :ivar phases: the named phases, in order
    :ivar timed: those of them that a measurement times
    :ivar preset: the publication it reproduces, if any
    """

    name: str
    params: Params
    stream: Stream
    phases: list[str]
    timed: list[str]
    title: str
    preset: Preset | None = field(default=None)

    @property
    def geometry(self) -> Granule:
        return self.params.geometry()

    def describe(self) -> dict[str, Any]:
        """Everything that makes the stream what it is, for reports and JSON."""
        return {
            "scenario": self.name,
            "title": self.title,
            "preset": self.preset.name if self.preset else None,
            "row": self.preset.row if self.preset else None,
            "phases": self.phases,
            "timed": self.timed,
            "operations": int(self.stream.ops.shape[0]),
            **asdict(self.params),
        }


def build(name: str, **params: Any) -> Scenario:
    """Generate a scenario, or the one a preset names.

    :param name: a key of :data:`SCENARIOS` or :data:`PRESETS`
    :param params: fields of :class:`replay.scenarios.params.Params`; sizes may be text
    :raises UsageError: for unknown names and impossible parameters
    """
    preset = PRESETS.get(name)
    kind = preset.scenario if preset else name
    if kind not in SCENARIOS:
        known = f"Known: {', '.join(SCENARIOS)}; presets: {', '.join(PRESETS)}."
        raise UsageError(f"No scenario {name!r}.", known)
    chosen = make(make(Params(), preset.params if preset else {}), params)
    builder = Builder()
    SCENARIOS[kind](builder, chosen)
    timed = [preset.timed] if preset and preset.timed else builder.timed
    title = preset.title if preset else (SCENARIOS[kind].__doc__ or "").splitlines()[0]
    return Scenario(
        kind, chosen, builder.stream(), builder.phases, timed, title.rstrip("."), preset
    )


__all__ = ["PRESETS", "SCENARIOS", "Params", "Preset", "Scenario", "build"]
