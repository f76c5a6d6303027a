# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that the lab made: each equals the counts of its own boot.

With ``MMTRACE_LAB=1`` one kernel is booted and recorded afresh, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import matrix
from replay.api import open_source, verify
from replay.verify import DIFFERS
from tests.conftest import FIXTURES, content

CAPTURES = FIXTURES / "lab-captures"
RUNS = [
    (manifest.parent.name, name)
    for manifest in sorted(CAPTURES.glob("*/manifest.json"))
    for name in sorted(json.loads(manifest.read_text())["runs"])
]
# Capture, phase or call, counter, and what the replay does not know of it.
EXPLAINED: set[tuple[str, str, str]] = set()


@cache
def manifest(where: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CAPTURES / where / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("against", ["counted", "recorded"])
@pytest.mark.parametrize(("where", "name"), RUNS)
def test_a_lab_capture_is_exact(where: str, name: str, against: str) -> None:
    truth = CAPTURES / where / "truth.json" if against == "counted" else None
    run = manifest(where)["runs"][name]
    source = open_source(CAPTURES / where / f"{name}.perf.data.zst")
    found = verify(source, truth_path=truth, cpu=run["cpu"])
    wrong = [row for row in found.table.rows() if str(row[-1]).startswith(DIFFERS)]
    assert [r for r in wrong if (name, r[1], r[2]) not in EXPLAINED] == []
    assert found.table.height


@pytest.mark.parametrize(("where", "name"), RUNS)
def test_the_manifest_names_the_capture(where: str, name: str) -> None:
    data = content(f"lab-captures/{where}/{name}.perf.data")
    assert hashlib.sha256(data).hexdigest() == manifest(where)["runs"][name]["sha256"]


def test_every_kernel_of_the_lab_has_a_policy_and_probes() -> None:
    from replay import policies

    for kernel in matrix.KERNELS.values():
        assert kernel.name in policies.POLICIES
        assert (FIXTURES / kernel.probes / "kprobe_events.txt").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("MMTRACE_LAB") != "1", reason="boots only with MMTRACE_LAB=1")
def test_a_fresh_boot_is_exact(tmp_path: Path) -> None:
    from fixtures.lab.__main__ import record
    from fixtures.lab.boot import Lab

    lab = Lab(Path(".lab"))
    lab.build()
    run = matrix.Run("pageout", "7.3", mib=2)
    record(lab, run, tmp_path)
    found = verify(
        open_source(tmp_path / run.where / f"{run.name}.perf.data.zst"),
        truth_path=tmp_path / run.where / "truth.json",
    )
    assert found.passed
