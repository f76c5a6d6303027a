# SPDX-License-Identifier: GPL-2.0-or-later
"""Self-checks of the model, section 10: conservation of blocks, and numbers to hold.

Property tests over the same streams as test_oracle; the engine alone is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from replay import counters, state
from replay.arm64 import pte as bits
from replay.counters import INDEX
from replay.cpu import Cpu
from replay.stream import CODES, F_CODE
from tests.oracle.script import ANON, RANGE, Script
from tests.streams import Case, cases
from tests.test_oracle import EXAMPLES, run_engine

PROPERTY = settings(
    max_examples=max(20, EXAMPLES // 4),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def row(out: state.Int64, i: int) -> dict[str, int]:
    return dict(zip(counters.NAMES, (int(v) for v in out[i]), strict=True))


@PROPERTY
@given(cases())
def test_converts_cost_what_a_convert_costs(case: Case) -> None:
    """C exchanges and C stores each; without elision a flush that waits."""
    out, _ = run_engine(case)
    cont = case.granule.cont_ptes
    elided = case.policy.value("bbml_elision") and case.cpu.bbm
    waits = "dsb_ish" if case.policy.value("broadcast_tlbi") else "flush_ipi"
    for i in range(len(case.ops)):
        found = row(out, i)
        convert = found["unfold"] + found["fold"]
        assert found["xchg"] >= convert * cont
        assert found["st"] >= convert * cont
        assert found["fold"] <= found["fold_try"]
        assert found["__contpte_try_unfold"] <= found["unfold"]
        if not elided:
            assert found[waits] >= convert


@PROPERTY
@given(cases())
def test_blocks_are_conserved(case: Case) -> None:
    """A block begins by a fold or set_ptes(), and ends by an unfold or a clear of all of it."""
    out, st = run_engine(case)
    cont = case.granule.cont_ptes
    entries = st.pte[: int(st.s[state.NR_TABLES]) * case.granule.ptrs_per_pte]
    painted = (entries & (bits.VALID | bits.CONT)) == (bits.VALID | bits.CONT)
    blocks = painted.reshape(-1, cont)
    assert (blocks.all(axis=1) == blocks.any(axis=1)).all()
    if not case.policy.value("contpte"):
        assert not painted.any()
    multi = out[:, INDEX["contpte_set_ptes"]].sum()
    inferred = {CODES[n] for n in ("infer_map", "try_to_unmap_one", "folio_referenced_one")}
    if not multi and not any(op[F_CODE] in inferred for op in case.ops):
        left = int(blocks.all(axis=1).sum())
        folded = int(out[:, INDEX["fold"]].sum())
        unfolded = int(out[:, INDEX["unfold"]].sum())
        assert folded - unfolded >= left


@PROPERTY
@given(cases())
def test_without_fold_nothing_folds(case: Case) -> None:
    case.policy = case.policy.with_features("x", "", "", fold=0)
    out, _ = run_engine(case)
    assert not out[:, [INDEX["fold"], INDEX["fold_try"]]].any()


def step_counts(steps: list[tuple[str, Any]], policy: str, cpu: Cpu = RANGE) -> dict[str, int]:
    """Blocks that begin and end in a script of whole 64K folios."""
    script = Script(policy, cpu)
    for name, act in steps:
        act(script.step(name))
    found = script.run()
    total = {name: sum(f[name] for f in found.values()) for name in ("fold", "unfold")}
    pte = script.state.pte.reshape(-1, 16)
    total["left"] = int(((pte & bits.CONT) != 0).all(axis=1).sum())
    return total


@pytest.mark.parametrize("policy", ["linux-6.12", "linux-7.3"])
def test_blocks_painted_split_and_dropped(policy: str) -> None:
    """10 painted; 2 dropped whole, 3 split by partial zaps, 5 stay."""
    found = step_counts(
        [
            ("map", lambda s: s.anon(0, 4, 10)),
            ("drop", lambda s: s.ranged("zap_page_range", 0, 32)),
            ("split", lambda s: [s.ranged("zap_page_range", 32 + 16 * k, 4) for k in range(3)]),
        ],
        policy,
    )
    assert found == {"fold": 0, "unfold": 3, "left": 5}
    assert found["fold"] - found["unfold"] == found["left"] - 0 - 10 + 2


def test_ping_pong_of_a_block_on_6_12() -> None:
    """Protected page by page and back: an unfold and a fold each way."""
    read_only = ANON & ~2
    script = Script("linux-6.12").step("map").anon(0, 4)
    for vmf in (read_only, ANON):
        script.vmf = vmf
        for page in range(16):
            script.step("change").ranged("change_protection", page, 1, flags=int(vmf == ANON))
    found = script.run()["change"]
    assert (found["unfold"], found["fold"]) == (2, 2)


@pytest.mark.parametrize(("policy", "lg"), [("linux-6.12", 17), ("linux-7.3", 3)])
def test_partial_zap(policy: str, lg: int) -> None:
    script = Script(policy).step("map").anon(0, 4)
    found = script.step("zap").ranged("zap_page_range", 4, 4).run()["zap"]
    assert found.pick("ld", "xchg", "st", "unfold", "dsplit") == {
        "ld": lg + 2, "xchg": 20, "st": 16, "unfold": 1, "dsplit": 1,
    }  # fmt: skip


def test_page_counts_of_base_pages() -> None:
    """With THP off nothing is ever a block."""
    script = Script("linux-7.3").step("map").anon(0, 0, 64)
    script.step("zap").ranged("zap_page_range", 0, 64)
    found = script.run()
    assert all(f["convert"] == 0 and f["fold"] == 0 for f in found.values())
    assert not (script.state.pte & np.int64(bits.CONT)).any()
