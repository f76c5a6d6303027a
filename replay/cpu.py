# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU features that change how many TLBI a flush takes, by profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from tracer.errors import UsageError


@dataclass(frozen=True)
class Cpu:
    """Features of one CPU as Linux uses them.

    :ivar tlbi_range: FEAT_TLBIRANGE
    :ivar lpa2: LPA2 in use: range operations start 64K aligned
    :ivar kpti: kernel unmapped at EL0: every TLBI is issued twice
    :ivar bbm: BBML2_NOABORT: contpte_convert() needs no TLBI
    :ivar repeat_tlbi: ARM64_WORKAROUND_REPEAT_TLBI
    """

    name: str
    source: str
    tlbi_range: int = 0
    lpa2: int = 0
    kpti: int = 0
    bbm: int = 0
    repeat_tlbi: int = 0

    def features(self) -> dict[str, bool]:
        """:return: the feature flags by name, without name and source."""
        return {k: bool(v) for k, v in asdict(self).items() if k not in ("name", "source")}


FEATURES: Final = ("tlbi_range", "lpa2", "kpti", "bbm", "repeat_tlbi")

CPUS: Final[dict[str, Cpu]] = {
    cpu.name: cpu
    for cpu in (
        Cpu("qemu-max", "QEMU -cpu max with LPA2 kernels; the captures' CPU", tlbi_range=1, lpa2=1),
        Cpu("neoverse-n1", "Arm Neoverse N1 TRM; repeat-TLBI erratum 1542419", repeat_tlbi=1),
        Cpu("cortex-a76", "Arm Cortex-A76 TRM; errata 1286807", repeat_tlbi=1),
        Cpu("cortex-a55", "Arm Cortex-A55 TRM"),
        Cpu("neoverse-v1", "Arm Neoverse V1 TRM, Armv8.4", tlbi_range=1),
        Cpu("neoverse-v2", "Arm Neoverse V2 TRM, Armv9.0", tlbi_range=1),
        Cpu("neoverse-v3", "Arm Neoverse V3 TRM; BBML2 allow list of 7.2", tlbi_range=1, bbm=1),
        Cpu("apple-m2", "assumed: Armv8.6 with range operations", tlbi_range=1),
        Cpu("apple-m3", "assumed: Armv8.6 with range operations", tlbi_range=1),
        Cpu("kunpeng-920", "Armv8.2 with KPTI off"),
    )
}
DEFAULT: Final = "qemu-max"


def get(name: str = DEFAULT, changes: Mapping[str, int] | None = None) -> Cpu:
    """A profile, with some features changed.

    :raises UsageError: for an unknown profile or feature
    """
    if name not in CPUS:
        raise UsageError(f"No CPU profile {name!r}.", f"Known: {', '.join(CPUS)}.")
    cpu = CPUS[name]
    for key, value in (changes or {}).items():
        if key not in FEATURES:
            raise UsageError(f"No CPU feature {key!r}.", f"Known: {', '.join(FEATURES)}.")
        cpu = Cpu(**{**asdict(cpu), key: int(bool(value))})
    return cpu
