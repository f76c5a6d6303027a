# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost model's limits: nothing costs nothing, more is never cheaper, equal is equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cost import price as pricing
from replay.cost.price import (
    Estimate,
    distinguishable,
    draw,
    draw_one,
    medians,
    price,
    queued,
    speedup,
)
from replay.cost.rows import by_hand
from replay.cost.run import work
from replay.cost.schema import PRIMITIVES, WAIT_GROUP
from replay.cost.tables import NAMES, Cost, get
from replay.cost.work import INDEX, Work, zero
from replay.cost.work import NAMES as COUNTED

MIB = 1 << 20
SMALL = {"size": MIB}


def on_cpus(made: Work, cpus: int) -> Work:
    return replace(made, cpus=cpus)


@pytest.mark.parametrize("name", NAMES)
def test_no_work_costs_nothing(name: str) -> None:
    assert not price(draw(get(name), 50), zero()).total.any()
    assert not price(draw(get(name), 50), on_cpus(by_hand(), 64)).total.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("primitive", COUNTED)
def test_more_of_anything_is_never_cheaper(name: str, primitive: str) -> None:
    draws = medians(get(name))
    some = {"ld": 10.0, "tlbi_issue": 3.0, "tlbi_sync": 2.0, "dsb": 2.0}
    less = price(draws, on_cpus(by_hand(**some), 8)).total[0]
    more = price(
        draws, on_cpus(by_hand(**{**some, primitive: some.get(primitive, 0) + 5}), 8)
    ).total[0]
    assert more >= less


@given(
    base=st.floats(0, 1e7),
    service=st.floats(0, 1e5),
    other=st.floats(0, 1e7),
    cpus=st.integers(1, 256),
)
@settings(deadline=None)
def test_more_cpus_never_make_a_broadcast_cheaper(
    base: float, service: float, other: float, cpus: int
) -> None:
    def at(n: int) -> float:
        return float(queued(np.array([base]), np.array([service]), np.array([other]), n)[0])

    assert at(1) == base
    assert at(cpus) >= base * (1 - 1e-9)
    assert at(cpus + 1) >= at(cpus) * (1 - 1e-9) - 1e-6
    # No queue is longer than all the others in it at once.
    assert at(cpus) <= base + service * (cpus - 1) + 1e-6 * (1 + base)


def test_without_a_second_broadcaster_there_is_no_queue() -> None:
    draws = medians(get("kunpeng-920"))
    made = by_hand(dsb=1, tlbi_issue=16, tlbi_sync=1)
    one, many = (price(draws, on_cpus(made, n)).parts[WAIT_GROUP][0] for n in (1, 128))
    costs = draws.machine.costs
    alone = sum(costs[n].value * k for n, k in (("dsb", 1), ("tlbi_issue", 16), ("tlbi_sync", 1)))
    assert one == pytest.approx(alone)
    assert many > 50 * one


@pytest.mark.parametrize("policies", [("linux-7.3", "linux-7.3+anon-batch")])
@pytest.mark.parametrize("machine", ["apple-m3-vm", "xeon-4210r", "ampere-altra"])
def test_a_batch_of_one_is_no_batch(machine: str, policies: tuple[str, str]) -> None:
    """Base pages: batched and unbatched are the same work, and nothing is made up between them."""
    base, new = (work(get(machine), "pageout", p, folio_size=4096, **SMALL) for p in policies)
    assert np.array_equal(base.counts, new.counts)
    draws = draw(get(machine), 100)
    assert speedup(price(draws, base), price(draws, new)) == Estimate(1.0, 1.0, 1.0)


@pytest.mark.parametrize("scenario", ["fork", "munmap", "lazyfree", "aging", "mremap"])
def test_base_pages_do_not_gain(scenario: str) -> None:
    one, many = (
        work(get("ampere-altra"), scenario, p, folio_size=4096, **SMALL)
        for p in ("unbatched", "batched")
    )
    draws = medians(get("ampere-altra"))
    assert price(draws, one).total[0] == pytest.approx(price(draws, many).total[0], rel=0.02)


def test_mprotect_batching_costs_base_pages_something() -> None:
    draws = medians(get("ampere-altra"))
    one, many = (
        work(get("ampere-altra"), "mprotect", p, folio_size=4096, **SMALL)
        for p in ("unbatched", "batched")
    )
    assert price(draws, one).total[0] < price(draws, many).total[0]


@pytest.mark.parametrize("scenario", ["pageout", "fork", "munmap", "mprotect", "lazyfree"])
def test_batching_64k_folios_pays_on_every_arm64_machine(scenario: str) -> None:
    for name in NAMES:
        if name == "xeon-4210r":
            continue
        draws = medians(get(name))
        base, new = (
            work(get(name), scenario, p, **SMALL) for p in ("unbatched", "linux-7.3+anon-batch")
        )
        assert price(draws, new).total[0] < price(draws, base).total[0]


@pytest.mark.parametrize("scenario", ["fork", "munmap", "pageout"])
def test_time_grows_with_size(scenario: str) -> None:
    draws = medians(get("apple-m3-vm"))
    times = [
        price(draws, work(get("apple-m3-vm"), scenario, "linux-7.3", size=n * MIB)).total[0]
        for n in (1, 2, 4, 8)
    ]
    assert times == sorted(times)
    assert times[3] / times[2] == pytest.approx(2, rel=0.1)


def test_waits_only_where_every_dsb_waits() -> None:
    """Unbatched swap-out: 15 of a folio's 16 DSB ISHST find a TLBI outstanding."""
    made = work(get("apple-m3-vm"), "pageout", "linux-7.3", **SMALL)
    assert made.waits.sum() == 15 * 16
    batched = work(get("apple-m3-vm"), "pageout", "linux-7.3+anon-batch", **SMALL)
    assert batched.waits.sum() == 0
    m3 = get("apple-m3-vm")
    light = replace(m3, dsb_waits=0)
    assert price(medians(m3), made).total[0] > price(medians(light), made).total[0]
    assert price(medians(m3), batched).total[0] == price(medians(light), batched).total[0]


def test_a_cold_line_costs_more_than_a_warm_one() -> None:
    machine = get("kunpeng-920")
    few = work(machine, "page_fault3", "linux-6.12", how="C1", size=MIB, tasks=1, cpus=1)
    many = work(machine, "page_fault3", "linux-6.12", how="C1", size=64 * MIB, tasks=128, cpus=128)
    assert few.total("page_line_cold") == 0
    assert many.total("page_line_cold") > 0
    assert many.total("page_line_cold") + many.total("page_line") == pytest.approx(
        64 * (few.total("page_line"))
    )


def test_x86_is_priced_without_contpte() -> None:
    made = work(get("xeon-4210r"), "pageout", "linux-7.3", **SMALL)
    assert made.total("convert") == 0
    assert made.total("tlbi_issue") == 0
    assert made.total("flush_ipi") > 0


# --- the sampler ---


costs = st.floats(0.01, 1e6).flatmap(
    lambda v: st.tuples(st.just(v), st.floats(0.1, 1.0), st.floats(1.0, 10.0))
)


@given(costs)
@settings(deadline=None, max_examples=50)
def test_samples_keep_their_interval(given_: tuple[float, float, float]) -> None:
    value, below, above = given_
    cost = Cost(value, value * below, value * above, "assumed", "a test")
    samples = draw_one("x", cost, 4000)
    assert samples[0] == pytest.approx(value)
    assert (samples > 0).all()
    assert np.mean(samples < cost.value * (1 - 1e-9)) <= 0.55
    assert np.mean(samples > cost.value * (1 + 1e-9)) <= 0.55
    assert np.mean(samples < cost.low * (1 - 1e-9)) <= 0.07
    assert np.mean(samples > cost.high * (1 + 1e-9)) <= 0.07


def test_a_cost_of_zero_stays_zero() -> None:
    assert not draw_one("x", Cost(0, 0, 0, "assumed", "none"), 100).any()


def test_draws_are_the_same_every_time_and_of_one_name() -> None:
    one, two = draw(get("apple-m3-vm"), 200), draw(get("apple-m3-vm"), 200)
    assert np.array_equal(one.costs, two.costs)
    other = draw_one("y", get("apple-m3-vm").costs["ld"], 200)
    assert not np.array_equal(one.cost("ld"), other)
    names = [n for n, _, _ in PRIMITIVES if get("apple-m3-vm").costs[n].value]
    z = [np.log(one.cost(n) / one.cost(n)[0])[1:] for n in names]
    worst = max(abs(np.corrcoef(a, b)[0, 1]) for i, a in enumerate(z) for b in z[:i])
    assert worst < 0.4


def test_common_costs_cancel_in_a_ratio() -> None:
    """Both times are uncertain; that one is half the other is not."""
    draws = draw(get("generic-arm64"))
    one, two = (price(draws, by_hand(ld=n, xchg=n)) for n in (2e6, 1e6))
    ratio = speedup(one, two)
    apart = pricing.estimate(one.total)
    assert ratio.median == pytest.approx(2, rel=0.01)
    assert ratio.high / ratio.low < 1.15 < apart.high / apart.low


def test_overlap_is_said() -> None:
    assert not distinguishable(Estimate(1.02, 0.98, 1.06))
    assert distinguishable(Estimate(1.05, 1.01, 1.1))
    draws = draw(get("generic-arm64"))
    close = speedup(price(draws, by_hand(ld=1000.0)), price(draws, by_hand(ld=1001.0)))
    assert not distinguishable(close)


def test_parts_add_up_and_primitives_too() -> None:
    found = price(
        draw(get("apple-m3-vm"), 50), work(get("apple-m3-vm"), "pageout", "linux-7.3", **SMALL)
    )
    assert np.allclose(sum(found.parts.values()), found.total)
    assert np.allclose(sum(found.primitives.values()), found.total)
    assert set(found.primitives) == set(INDEX)
