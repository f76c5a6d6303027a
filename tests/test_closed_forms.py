# SPDX-License-Identifier: GPL-2.0-or-later
"""The closed forms of the model, on the engine: primitives, operations, worked examples.

Section numbers are those of the model's specification.
"""

from __future__ import annotations

import os

import pytest

from replay import policies, state
from replay.cpu import Cpu
from tests.oracle.script import ANON, MAPPED_ANON, PLAIN, RANGE, SHARED, SHMEM, Counts, Script

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
FOLIOS = 4096 if JIT else 128  # 64K folios of the worked examples
LG = {"linux-6.12": 17, "linux-7.2": 3, "linux-7.3": 3, "linux-7.3+anon-batch": 3}  # young, dirty
V4 = "linux-7.3+anon-batch"
CONTPTE = list(LG)


def expect(found: Counts, wanted: dict[str, int]) -> None:
    """The named counters, and no word on others."""
    assert found.pick(*wanted) == wanted


# --- 2.3: TLBI and DSB ------------------------------------------------------------------


def flushed(pages: int, cpu: Cpu, first: int = 0, policy: str = "linux-7.3") -> Counts:
    """One leaf flush: the range between two zapped pages."""
    script = Script(policy, cpu).step("map").anon(first, 0)
    if pages > 1:
        script.anon(first + pages - 1, 0)
    script.step("zap").ranged("zap_page_range", first, pages)
    return script.run()["zap"]


T_RANGE = {
    1: 1, 2: 1, 15: 2, 16: 1, 32: 1, 63: 2, 64: 1, 66: 2, 512: 1, 8192: 1, 65535: 4, 65536: 1,
    262144: 1,
}  # fmt: skip


@pytest.mark.parametrize(("pages", "tlbi"), T_RANGE.items())
def test_range_operations(pages: int, tlbi: int) -> None:
    found = flushed(pages, RANGE)
    assert found["tlbi"] == tlbi
    assert found["tlbi_va"] == pages % 2
    assert found.pick("dsb_ishst", "dsb_ish") == {"dsb_ishst": 1, "dsb_ish": 1}


@pytest.mark.parametrize("pages", T_RANGE)
def test_single_operations(pages: int) -> None:
    found = flushed(pages, PLAIN)
    wanted = {"tlbi_va": pages, "tlbi_asid": 0} if pages < 512 else {"tlbi_va": 0, "tlbi_asid": 1}
    assert found.pick("tlbi_va", "tlbi_asid") == wanted
    assert found["tlbi_range"] == 0


@pytest.mark.parametrize(("pages", "limit"), [(2**21, 0), (2**21 + 1, 1)])
def test_range_limit(pages: int, limit: int) -> None:
    """2^21 pages are one operation of 32 units at scale 3; one more is an ASID."""
    assert flushed(pages, RANGE).pick("tlbi_asid", "tlbi_range") == {
        "tlbi_asid": limit,
        "tlbi_range": 1 - limit,
    }


@pytest.mark.parametrize("pages", [1, 63, 512, 65535])
def test_kpti_doubles(pages: int) -> None:
    both = Cpu("", "", tlbi_range=1, kpti=1)
    assert flushed(pages, both)["tlbi"] == 2 * flushed(pages, RANGE)["tlbi"]


def test_repeat_tlbi_adds_one_of_each() -> None:
    found, plain = flushed(3, Cpu("", "", repeat_tlbi=1)), flushed(3, PLAIN)
    assert found["tlbi"] == plain["tlbi"] + 1
    assert found["dsb_ish"] == plain["dsb_ish"] + 1


@pytest.mark.parametrize("first", [0, 1, 5, 15])
@pytest.mark.parametrize("pages", [1, 2, 15, 16, 31, 64])
def test_lpa2_starts_aligned(first: int, pages: int) -> None:
    """Single pages up to a 64K boundary, the range form behind it."""
    alone = min(pages, -first % 16)
    rest = pages - alone
    found = flushed(pages, Cpu("", "", tlbi_range=1, lpa2=1), first)
    tail = flushed(rest, RANGE) if rest else Counts()
    assert found["tlbi_va"] == alone + tail["tlbi_va"]
    assert found["tlbi_range"] == tail["tlbi_range"]


# --- 2.1: getters ------------------------------------------------------------------------


def loads_of_getter(policy: str, dirty: int | None, young: int | None) -> int:
    """Loads of one ptep_get() on a block whose first dirty and young slots are these."""
    script = Script(policy).step("prepare").anon(0, 4).ranged("madvise_free", 0, 16)
    if dirty is not None:
        script.access(dirty, write=1).ranged("madvise_cold", 0, 16)
    if young is not None:
        script.access(young, write=0)
    return script.step("get").ranged("madvise_pageout", 0, 16).run()["get"]["ld"]


def early_exit(dirty: int | None, young: int | None, size: int = 16) -> int:
    if dirty is None and young is None:
        return size
    if young is None:
        assert dirty is not None
        return dirty + 1 + size - dirty
    if dirty is None:
        return young + 1 + size - 1 - young
    return dirty + 1 + young - dirty + 1 if dirty <= young else young + 1 + dirty - young


SLOTS = [None, 0, 1, 7, 15]


@pytest.mark.parametrize("dirty", SLOTS)
@pytest.mark.parametrize("young", SLOTS)
def test_getter_of_a_block(dirty: int | None, young: int | None) -> None:
    assert loads_of_getter("linux-7.3", dirty, young) == 1 + early_exit(dirty, young)
    assert loads_of_getter("linux-6.12", dirty, young) == 17


def test_getter_of_named_states() -> None:
    fresh = Script("linux-7.3").step("a").anon(0, 4).step("b").ranged("madvise_pageout", 0, 16)
    assert fresh.run()["b"]["ld"] == 3
    read = Script("linux-7.3", vmf=SHARED).step("a").file(0, 4, write=0)
    read.step("b").ranged("madvise_pageout", 0, 16)
    assert read.run()["b"]["ld"] == 17
    aged = Script("linux-7.3").step("a").anon(0, 4).ranged("madvise_cold", 0, 16)
    assert aged.step("b").ranged("madvise_pageout", 0, 16).run()["b"]["ld"] == 18


# --- 2.4: batches --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", CONTPTE)
@pytest.mark.parametrize("order", [4, 5, 8, 9])
def test_batch_steps_by_blocks(policy: str, order: int) -> None:
    script = Script(policy).step("map").mapped(0, order)
    found = script.step("zap").ranged("zap_page_range", 0, 1 << order).run()["zap"]
    assert found["ld"] == LG[policy] * (1 + (1 << order) // 16 - 1)


@pytest.mark.parametrize("order", [1, 3, 4, 6])
def test_batch_without_contpte_reads_every_entry(order: int) -> None:
    nr = 1 << order
    script = Script("x-nocontpte").step("map").anon(0, order)
    assert script.step("zap").ranged("zap_page_range", 0, nr).run()["zap"]["ld"] == nr


def test_batch_that_ends_on_a_mismatch_has_read_it() -> None:
    script = Script("x-nocontpte").step("map").anon(0, 4).ranged("zap_page_range", 5, 1)
    found = script.step("zap").ranged("zap_page_range", 0, 5).run()["zap"]
    assert found["ld"] == 5
    script = Script("x-nocontpte").step("map").anon(0, 4).ranged("zap_page_range", 5, 1)
    found = script.step("zap").ranged("zap_page_range", 0, 6).run()["zap"]
    assert found["ld"] == 1 + 5 + 1  # five pages, the hole as terminator, the hole itself


# --- 1.6: mmu_gather --------------------------------------------------------------------


def forced(policy: str, order: int, count: int) -> int:
    script = Script(policy).step("map").anon(0, order, count)
    return script.step("zap").ranged("zap_page_range", 0, count << order).run()["zap"]["gforce"]


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="ten thousand faults")
@pytest.mark.parametrize(
    ("policy", "order", "capacity"),
    [("linux-7.3", 1, 4849), ("linux-7.3", 0, 9678), ("linux-6.12", 0, 9678),
     ("linux-6.1", 0, 9698)],
)  # fmt: skip
def test_runs_before_the_first_forced_flush(policy: str, order: int, capacity: int) -> None:
    """The flush comes with the run that fills the last batch."""
    assert forced(policy, order, capacity - 1) == 0
    assert forced(policy, order, capacity) == 1


def test_bundle_takes_four_runs_or_seven_pages() -> None:
    for order, fits in ((4, 4), (0, 7)):
        for count, pages in ((fits - 1, 0), (fits, 1)):
            script = Script("linux-7.3").step("map").anon(0, order, count)
            found = script.step("zap").ranged("zap_page_range", 0, count << order).run()["zap"]
            assert found["gpage"] == pages, (order, count)


# --- 3a: swap-out ------------------------------------------------------------------------


def swapped_out(policy: str, order: int, cpu: Cpu = RANGE) -> Counts:
    script = Script(policy, cpu).step("map").mapped(0, order)
    script.step("ttu").unmap(0, 0, order).op("try_to_unmap_flush_dirty")
    return script.run()["ttu"]


@pytest.mark.parametrize("policy", ["linux-6.12", "linux-7.2", "linux-7.3"])
@pytest.mark.parametrize("order", [4, 5, 7, 9])
def test_swap_out_page_by_page(policy: str, order: int) -> None:
    n, blocks, lg = 1 << order, (1 << order) // 16, LG[policy]
    found = swapped_out(policy, order)
    expect(found, {
        "ld": 6 * n - 1 + (lg - 1) * (3 * blocks - 1), "cp_get": 3 * blocks - 1,
        "xchg": n + 16 * blocks, "st": n + 16 * blocks, "unfold": blocks,
        "tlbi_va": n, "tlbi_range": blocks, "dsb_ishst": n + blocks, "dsb_ish": blocks + 1,
        "ubc": n, "rmap_call": n, "rmw_map": 3 * n, "dsplit": n - 1, "rmw_ref": n, "swp_op": n,
        "swp_lock": n, "mb": 2 * n, "aex": n, "mmc": 2 * n, "walk": n + 1,
        "check_pte": n, "ptl": 1,
    })  # fmt: skip


@pytest.mark.parametrize("order", [4, 5, 7, 9])
@pytest.mark.parametrize("store", [0, 1])
def test_swap_out_in_one_batch(order: int, store: int) -> None:
    """Swap entries by a loop of set_pte_at(), or by set_ptes()."""
    n, lg = 1 << order, 3
    policy = policies.POLICIES[V4].with_features("", "", "", swp_store=store)
    script = Script(policy).step("map").mapped(0, order)
    script.step("ttu").unmap(0, 0, order).op("try_to_unmap_flush_dirty")
    found = script.run()["ttu"]
    batch = (n // 16 - 1) * lg
    expect(found, {
        "ld": 2 * lg + batch + 1 + (0 if store else n), "cp_get": 2 + n // 16 - 1, "xchg": n,
        "st": n, "unfold": 0, "fold": 0, "tlbi": 1, "dsb_ishst": 1, "dsb_ish": 1, "ubc": 1,
        "rmap_call": 1, "rmw_map": n + 2, "dsplit": 0, "rmw_ref": 1, "swp_op": 1, "swp_lock": 1,
        "mb": 2, "aex": n, "mmc": 2, "walk": 1, "check_pte": 1, "ptl": 1,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("order", "unbatched", "batched"), [(4, 99, 23), (5, 201, 42), (9, 3261, 612)]
)
def test_swap_out_checks(order: int, unbatched: int, batched: int) -> None:
    assert swapped_out("linux-7.3", order)["ld"] == unbatched
    assert swapped_out(V4, order)["ld"] == batched


def test_swap_out_of_a_block_on_6_12() -> None:
    assert swapped_out("linux-6.12", 4)["ld"] == 127


@pytest.mark.parametrize("policy", CONTPTE)
def test_swap_out_of_a_page(policy: str) -> None:
    found = swapped_out(policy, 0)
    wanted = {"ld": 6, "xchg": 1, "st": 1, "tlbi": 1, "dsb_ishst": 1, "dsb_ish": 1}
    assert found.pick(*wanted) == wanted


def test_swap_out_of_a_page_waits_on_6_1() -> None:
    found = swapped_out("linux-6.1", 0)
    wanted = {"ld": 3, "xchg": 1, "st": 1, "tlbi_va": 1, "dsb_ishst": 1, "dsb_ish": 1, "ubc": 0}
    assert found.pick(*wanted) == wanted


def test_bbml_takes_the_flush_out_of_the_unfold() -> None:
    found = swapped_out("linux-7.3", 4, Cpu("", "", tlbi_range=1, bbm=1))
    wanted = {"unfold": 1, "tlbi": 16, "dsb_ishst": 16, "dsb_ish": 1, "xchg": 32}
    assert found.pick(*wanted) == wanted


# --- 3b, 3c, 3d: lazyfree, file, uffd-wp ---------------------------------------------------


@pytest.mark.parametrize("policy", ["linux-7.2", "linux-7.3", V4])
@pytest.mark.parametrize("order", [4, 6])
def test_lazyfree_folio(policy: str, order: int) -> None:
    """MADV_FREE left it clean and old, so that a getter takes 17 loads."""
    n = 1 << order
    script = Script(policy).step("map").anon(0, order).ranged("madvise_free", 0, n)
    script.step("ttu").unmap(0, 0, order, info=state.INFO_ANON)
    found = script.run()["ttu"]
    expect(found, {
        "ld": 17 + 17 + (n // 16 - 1) * 17 + 1, "xchg": n, "st": 0, "tlbi": 1, "dsb_ishst": 1,
        "mb": 1, "mmc": 1, "rmw_map": n + 2, "rmw_ref": 1, "swp_op": 0, "walk": 1,
    })  # fmt: skip


@pytest.mark.parametrize(("policy", "calls"), [("linux-6.12", 16), ("linux-7.3", 1)])
def test_clean_file_folio(policy: str, calls: int) -> None:
    script = Script(policy, vmf=SHARED).step("map").file(0, 4, write=0, info=0)
    script.step("ttu").unmap(0, 0, 4, info=0)
    found = script.run()["ttu"]
    wanted = {"rmap_call": calls, "mmc": calls, "mb": 0, "unfold": int(calls > 1)}
    assert found.pick(*wanted) == wanted


@pytest.mark.parametrize(
    ("policy", "unfold", "calls"),
    [("linux-6.12", 1, 16), ("linux-7.2", 1, 16), ("linux-7.3", 0, 1)],
)
def test_uffd_wp_file_folio_leaves_markers(policy: str, unfold: int, calls: int) -> None:
    vmf = SHARED | 32
    script = Script(policy, vmf=vmf).step("map").file(0, 4, write=0, info=0)
    script.ranged("change_protection", 0, 16, flags=4)
    found = script.step("ttu").unmap(0, 0, 4, info=0).run()["ttu"]
    wanted = {"rmap_call": calls, "unfold": unfold, "st": 16 + 16 * unfold}
    assert found.pick(*wanted) == wanted


# --- 3e: migration ------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "ld"), [("linux-6.12", 128), ("linux-7.3", 87)])
def test_migrate_a_block_out(policy: str, ld: int) -> None:
    script = Script(policy).step("map").anon(0, 4).step("out")
    script.op("try_to_migrate_one", va=script.at(0), pfn=0, order=4, flags=0x40)
    found = script.op("try_to_unmap_flush").run()["out"]
    expect(found, {
        "ld": ld, "xchg": 32, "st": 32, "unfold": 1, "tlbi": 17, "dsb_ishst": 17, "dsb_ish": 2,
        "rmw_map": 48, "rmw_ref": 16, "mb": 32,
    })  # fmt: skip


@pytest.mark.parametrize("order", [1, 3])
def test_migrate_without_contpte_and_with_waiting(order: int) -> None:
    n = 1 << order
    for flags, saved in ((0, 0), (0x10, 1)):
        script = Script("linux-6.12").step("map").anon(0, order).step("out")
        script.op("try_to_migrate_one", va=script.at(0), pfn=0, order=order, flags=flags)
        found = script.run()["out"]
        assert found.pick("ld", "xchg", "st", "dsb_ish") == {
            "ld": 5 * n - saved, "xchg": n, "st": n, "dsb_ish": n,
        }  # fmt: skip


@pytest.mark.parametrize(("order", "folds"), [(1, 0), (3, 0), (4, 1), (6, 4)])
def test_migrate_back_folds(order: int, folds: int) -> None:
    n = 1 << order
    script = Script("linux-7.3").step("map").anon(0, order).step("out")
    script.op("try_to_migrate_one", va=script.at(0), pfn=0, order=order, flags=0x40)
    script.step("in").op("remove_migration_pte", va=script.at(0), pfn=script.frame(order),
                         order=order, info=MAPPED_ANON)  # fmt: skip
    found = script.run()["in"]
    assert found.pick("ld", "st", "xchg", "fold", "tlbi_range", "dsb_ish") == {
        "ld": 4 * n - 1 + 16 * folds, "st": n + 16 * folds, "xchg": 16 * folds, "fold": folds,
        "tlbi_range": folds, "dsb_ish": folds,
    }  # fmt: skip


# --- 3g, 3h, 3i ----------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "ld"), [("linux-6.12", 33), ("linux-7.3", 19)])
def test_fork_of_a_block(policy: str, ld: int) -> None:
    script = Script(policy).step("map").anon(0, 4)
    found = script.step("fork").ranged("copy_page_range", 0, 16, arg=2).run()["fork"]
    expect(found, {
        "ld": ld, "cas": 16, "st": 16, "xchg": 0, "convert": 0, "rmw_ref": 1, "rmw_map": 17,
        "aex": 16, "mmc": 1, "ptl": 2,
    })  # fmt: skip


@pytest.mark.parametrize("getter", [0, 1])
def test_fork_page_by_page(getter: int) -> None:
    policy = policies.POLICIES["x-fork-unbatched"].with_features(
        "", "", "", getter_early_exit=getter
    )
    script = Script(policy).step("map").anon(0, 4)
    found = script.step("fork").ranged("copy_page_range", 0, 16, arg=2).run()["fork"]
    lg = 3 if getter else 17
    assert found.pick("ld", "cas", "st", "xchg", "unfold", "fold", "rmw_ref") == {
        "ld": lg + 15 + 16 + 16 + 16, "cas": 16, "st": 48, "xchg": 32, "unfold": 1, "fold": 1,
        "rmw_ref": 16,
    }  # fmt: skip


def test_second_fork_has_nothing_to_protect() -> None:
    script = Script("linux-7.3").step("map").anon(0, 4).ranged("copy_page_range", 0, 16, arg=2)
    found = script.step("fork").ranged("copy_page_range", 0, 16, arg=3).run()["fork"]
    assert found.pick("cas", "aex", "st") == {"cas": 0, "aex": 0, "st": 16}


def mprotected(policy: str, vmf: int, first: int = 0, nr: int = 16) -> Counts:
    script = Script(policy).step("map").anon(0, 4)
    script.vmf = vmf
    script.step("change").ranged("change_protection", first, nr, flags=0)
    return script.run()["change"]


READ_ONLY = ANON & ~2
PROT_NONE = (ANON & ~3) | 128


@pytest.mark.parametrize(
    ("policy", "vmf", "ld", "xchg", "unfold", "fold"),
    [
        ("linux-6.12", READ_ONLY, 80, 48, 1, 1),
        ("linux-6.12", PROT_NONE, 64, 32, 1, 0),
        ("linux-7.2", READ_ONLY, 3, 16, 0, 0),
        ("linux-7.3", READ_ONLY, 3, 16, 0, 0),
        ("linux-7.3", PROT_NONE, 3, 16, 0, 0),
    ],
)
def test_mprotect_of_a_block(
    policy: str, vmf: int, ld: int, xchg: int, unfold: int, fold: int
) -> None:
    found = mprotected(policy, vmf)
    wanted = {"ld": ld, "xchg": xchg, "st": xchg, "unfold": unfold, "fold": fold,
              "tlbi_range": 1 + unfold + fold, "ptl": 1}  # fmt: skip
    assert found.pick(*wanted) == wanted


def test_mprotect_of_a_part_never_folds_again() -> None:
    found = mprotected("linux-6.12", READ_ONLY, 4, 4)
    assert found.pick("unfold", "fold") == {"unfold": 1, "fold": 0}
    found = mprotected("linux-7.3", READ_ONLY, 4, 4)
    assert found.pick("ld", "unfold", "xchg", "st") == {"ld": 5, "unfold": 1, "xchg": 20, "st": 20}


@pytest.mark.parametrize(
    ("policy", "ld", "xchg", "convert"), [("linux-6.12", 80, 48, 2), ("linux-7.3", 3, 16, 0)]
)
def test_move_a_block(policy: str, ld: int, xchg: int, convert: int) -> None:
    """To an address with another offset in its PMD."""
    script = Script(policy).step("map").anon(0, 4)
    script.step("move").ranged("move_page_tables", 0, 16, arg=script.at(4096 + 32))
    found = script.run()["move"]
    wanted = {"ld": ld, "xchg": xchg, "st": xchg, "convert": convert,
              "tlbi_range": convert + 1, "ptl": 2}  # fmt: skip
    assert found.pick(*wanted) == wanted


def test_move_to_a_misaligned_place_paints_nothing() -> None:
    script = Script("linux-7.3").step("map").anon(0, 4)
    script.step("move").ranged("move_page_tables", 0, 16, arg=script.at(4096 + 3))
    script.step("zap").op("zap_page_range", va=script.at(4096 + 3), end=script.at(4096 + 19))
    found = script.run()
    assert found["move"].pick("st", "xchg", "convert") == {"st": 16, "xchg": 16, "convert": 0}
    assert found["zap"]["cp_get"] == 0


# --- 3j, 3k, 3l, 3n, 3o, 3p -------------------------------------------------------------------


@pytest.mark.parametrize("policy", CONTPTE)
@pytest.mark.parametrize("order", [2, 4, 7])
def test_anon_fault(policy: str, order: int) -> None:
    n = 1 << order
    script = Script(policy).step("table").anon(511, 0).step("fault").anon(0, order)
    assert script.run()["fault"].pick("ld", "st", "rmw_ref", "rmw_map", "aex", "mmc", "ptl") == {
        "ld": 1 + 2 * n, "st": n, "rmw_ref": 1, "rmw_map": 0, "aex": n, "mmc": 1, "ptl": 1,
    }  # fmt: skip


def test_anon_fault_of_a_page() -> None:
    script = Script("linux-7.3").step("table").anon(511, 0).step("fault").anon(0, 0)
    wanted = {"ld": 3, "st": 1, "rmw_ref": 0, "mmc": 1, "ptl": 1, "fold_try": 0}
    assert script.run()["fault"].pick(*wanted) == wanted


def test_fold_takes_the_last_slot_last() -> None:
    up = Script("linux-7.3", vmf=SHARED).step("table").anon(511, 0).step("up")
    up.file(0, 4, write=1, nr=1)
    found = up.run()["up"]
    wanted = {"fold_try": 1, "fold": 1, "xchg": 16, "st": 32, "tlbi_range": 1, "dsb_ish": 1}
    assert found.pick(*wanted) == wanted
    assert found["ld"] == 16 * 3 + 16
    down = Script("linux-7.3", vmf=SHARED).step("down")
    for k in reversed(range(16)):
        down.op("set_pte_range", va=down.at(k), pfn=k, nr=1, order=4, flags=1, info=SHMEM)
    down.frame(4)
    assert down.run()["down"].pick("fold_try", "fold") == {"fold_try": 1, "fold": 0}


@pytest.mark.parametrize(
    ("policy", "info", "runs"),
    [("linux-6.1", SHMEM, 16), ("linux-6.12", 0, 16), ("linux-6.12", SHMEM, 1),
     ("linux-7.3", 0, 1), ("x-finish-fault-page", SHMEM, 16)],
)  # fmt: skip
def test_finish_fault_maps_pages_or_the_folio(policy: str, info: int, runs: int) -> None:
    script = Script(policy, vmf=SHARED).step("fault").file(0, 4, write=1, info=info)
    found = script.run()["fault"]
    assert found.pick("rmap_call", "mmc", "ptl") == dict.fromkeys(("rmap_call", "mmc", "ptl"), runs)
    assert found["rmw_map"] == (18 if runs == 1 else 48)


@pytest.mark.parametrize(
    ("policy", "ld", "cas"),
    [("linux-6.12", 816, 256), ("linux-7.2", 30, 16), ("linux-7.3", 30, 16)],
)
def test_aging_of_a_block(policy: str, ld: int, cas: int) -> None:
    script = Script(policy).step("map").anon(0, 4).step("age")
    script.op("folio_referenced_one", va=script.at(0), pfn=0, order=4)
    wanted = {"ld": ld, "cas": cas, "tlbi": 1, "dsb_ishst": 1, "dsb_ish": 0}
    assert script.run()["age"].pick(*wanted) == wanted


@pytest.mark.parametrize("order", [1, 3])
def test_aging_without_contpte(order: int) -> None:
    n = 1 << order
    for policy, ld, tlbi in (("linux-6.12", 4 * n, n), ("linux-7.3", 3 + n - 1 + 2 + n + 2, 1)):
        script = Script(policy).step("map").anon(0, order).step("age")
        script.op("folio_referenced_one", va=script.at(0), pfn=0, order=order)
        assert script.run()["age"].pick("ld", "cas", "tlbi") == {"ld": ld, "cas": n, "tlbi": tlbi}


def test_hwpoison_leaves_an_entry() -> None:
    script = Script("linux-7.3").step("map").anon(0, 0)
    script.step("ttu").unmap(0, 0, 0, flags=0x60)
    wanted = {"st": 1, "mmc": 1, "swp_op": 0, "rmap_call": 1, "xchg": 1}
    assert script.run()["ttu"].pick(*wanted) == wanted


@pytest.mark.parametrize(("what", "st", "cas"), [("madvise_free", 16, 0), ("madvise_cold", 0, 16)])
def test_madvise_clears_a_block(what: str, st: int, cas: int) -> None:
    script = Script("linux-7.3").step("map").anon(0, 4).step("scan").ranged(what, 0, 16)
    wanted = {"ld": 3 + 2 + 16, "st": st, "cas": cas, "tlbi": 1, "dsb_ish": 1, "ptl": 1}
    assert script.run()["scan"].pick(*wanted) == wanted


@pytest.mark.parametrize("policy", ["linux-6.12", "linux-7.3"])
def test_swap_in_of_a_folio(policy: str) -> None:
    script = Script(policy).step("map").anon(0, 4).unmap(0, 0, 4).step("in")
    script.op("do_swap_page", va=script.at(0), pfn=0, nr=16, order=4, flags=1)
    assert script.run()["in"].pick("ld", "st", "rmw_ref", "mmc", "rmw_map", "aex", "swp_op") == {
        "ld": 1 + 1 + 16, "st": 16, "rmw_ref": 1, "mmc": 2, "rmw_map": 18, "aex": 16, "swp_op": 1,
    }  # fmt: skip


def test_swap_in_page_by_page_folds() -> None:
    script = Script("linux-7.3").step("map").anon(0, 4).unmap(0, 0, 4).step("in")
    for k in range(16):
        script.op("do_swap_page", va=script.at(k), pfn=k, nr=1, order=4, flags=1)
    wanted = {"ld": 16 * 3 + 16, "st": 32, "fold": 1, "swp_op": 16}
    assert script.run()["in"].pick(*wanted) == wanted


# --- 7: worked examples, 64K folios ------------------------------------------------------------


def paged_out(policy: str) -> tuple[Counts, int, int]:
    """MADV_PAGEOUT as the kernel does it: a scan of each PMD, then its folios."""
    script = Script(policy).step("map").anon(0, 4, FOLIOS).step("pageout")
    pmds = FOLIOS // 32
    for pmd in range(pmds):
        script.ranged("madvise_pageout", pmd * 512, 512, more=pmd + 1 < pmds)
        for folio in range(pmd * 32, pmd * 32 + 32):
            script.unmap(folio * 16, folio * 16, 4).op("try_to_unmap_flush_dirty")
    return script.run()["pageout"], FOLIOS, pmds


@pytest.mark.parametrize("policy", ["linux-6.12", "linux-7.3", V4])
def test_table_7_1_pageout(policy: str) -> None:
    found, n, pmds = paged_out(policy)
    loads = {"linux-6.12": 144, "linux-7.3": 102, V4: 26}[policy]
    if policy == V4:
        per = {"xchg": 16, "st": 16, "unfold": 0, "ubc": 1, "walk": 1, "check_pte": 1,
               "rmap_call": 1, "rmw_map": 18, "dsplit": 0, "rmw_ref": 2, "swp_op": 1,
               "swp_lock": 1, "mb": 2, "aex": 16, "mmc": 2}  # fmt: skip
        tlbi, ishst, ish = 1, 1, 1
    else:
        per = {"xchg": 32, "st": 32, "unfold": 1, "ubc": 16, "walk": 17, "check_pte": 16,
               "rmap_call": 16, "rmw_map": 48, "dsplit": 15, "rmw_ref": 17, "swp_op": 16,
               "swp_lock": 16, "mb": 32, "aex": 16, "mmc": 32}  # fmt: skip
        tlbi, ishst, ish = 17, 17, 2
    assert found.pick("ld", "cp_get", *per) == {
        "ld": loads * n,
        "cp_get": 3 * n,
        **{name: value * n for name, value in per.items()},
    }
    assert found["tlbi"] == tlbi * n + pmds - 1
    assert found["tlbi_asid"] == pmds - 1
    assert found["dsb_ishst"] == ishst * n + pmds - 1
    assert found["dsb_ish"] == ish * n + pmds - 1
    assert found["ptl"] == n + pmds


def torn_down(policy: str, order: int, cpu: Cpu = RANGE) -> Counts:
    """munmap(): the VMA, then the page tables."""
    pages = 16 * FOLIOS
    script = Script(policy, cpu).step("map").anon(0, order, pages >> order)
    script.step("munmap").ranged("zap_page_range", 0, pages, flags=1)
    script.ranged("tlb_finish_mmu", 0, pages, flags=4 | 32)
    return script.run()["munmap"]


@pytest.mark.parametrize(("policy", "loads"), [("linux-6.12", 17), ("linux-7.3", 3)])
def test_table_7_2_munmap(policy: str, loads: int) -> None:
    found = torn_down(policy, 4)
    per = {"ld": loads, "xchg": 16, "st": 0, "convert": 0, "rmap_call": 1, "rmw_map": 18,
           "gslot": 2, "rmw_ref": 1, "dsplit": 0}  # fmt: skip
    assert found.pick(*per) == {name: value * FOLIOS for name, value in per.items()}
    assert found.pick("tlbi", "dsb_ish", "dsb_ishst", "gforce") == {
        "tlbi": 2, "dsb_ish": 2, "dsb_ishst": 2, "gforce": 0,
    }  # fmt: skip
    if JIT:
        assert found["gpage"] == 17
        plain = torn_down(policy, 4, PLAIN)
        assert plain.pick("tlbi_asid", "tlbi_va") == {"tlbi_asid": 1, "tlbi_va": 128}


@pytest.mark.parametrize(("getter", "loads"), [(0, 48), (1, 34)])
def test_table_7_2_munmap_page_by_page(getter: int, loads: int) -> None:
    policy = policies.POLICIES["x-zap-unbatched"].with_features(
        "", "", "", getter_early_exit=getter
    )
    pages = 16 * FOLIOS
    script = Script(policy).step("map").anon(0, 4, FOLIOS)
    script.step("munmap").ranged("zap_page_range", 0, pages, flags=1)
    found = script.ranged("tlb_finish_mmu", 0, pages, flags=4 | 32).run()["munmap"]
    per = {"ld": loads, "xchg": 32, "st": 16, "convert": 1, "rmap_call": 16, "rmw_map": 48,
           "gslot": 16, "rmw_ref": 16, "dsplit": 1}  # fmt: skip
    assert found.pick(*per) == {name: value * FOLIOS for name, value in per.items()}
    if JIT:
        assert found.pick("gforce", "gpage", "tlbi", "dsb_ish") == {
            "gforce": 6, "gpage": 19, "tlbi": 4096 + 22, "dsb_ish": 4096 + 8,
        }  # fmt: skip


@pytest.mark.skipif(not JIT, reason="65,536 faults")
def test_table_7_2_munmap_of_pages_on_6_1() -> None:
    found = torn_down("linux-6.1", 0)
    assert found.pick("ld", "xchg", "rmap_call", "rmw_map", "gslot", "rmw_ref") == dict.fromkeys(
        ("ld", "xchg", "rmap_call", "rmw_map", "gslot", "rmw_ref"), 65536
    )
    wanted = {"gforce": 6, "gpage": 19, "tlbi": 22, "dsb_ish": 8, "convert": 0}
    assert found.pick(*wanted) == wanted


def test_exit_flushes_once() -> None:
    script = Script("linux-7.3").step("map").anon(0, 4, 64).step("exit").op("exit_mmap")
    script.ranged("zap_page_range", 0, 1024, flags=1).op("tlb_finish_mmu", flags=1 | 4 | 32)
    wanted = {"tlbi": 1, "tlbi_asid": 1, "dsb_ish": 1, "dsb_ishst": 1, "xchg": 1024}
    assert script.run()["exit"].pick(*wanted) == wanted


@pytest.mark.parametrize(("policy", "loads"), [("linux-6.12", 33), ("linux-7.3", 19)])
def test_table_7_3_fork(policy: str, loads: int) -> None:
    script = Script(policy).step("map").anon(0, 4, FOLIOS)
    script.step("fork").ranged("copy_page_range", 0, 16 * FOLIOS, arg=2).op("dup_mmap_end")
    found = script.run()["fork"]
    per = {"ld": loads, "cas": 16, "xchg": 0, "st": 16, "convert": 0, "rmw_ref": 1, "rmw_map": 17,
           "aex": 16}  # fmt: skip
    assert found.pick(*per) == {name: value * FOLIOS for name, value in per.items()}
    wanted = {"tlbi": 1, "tlbi_asid": 1, "dsb_ish": 1, "mmc": FOLIOS // 32}
    assert found.pick(*wanted) == wanted


def test_table_7_3_fork_page_by_page() -> None:
    script = Script("x-fork-unbatched").step("map").anon(0, 4, FOLIOS)
    script.step("fork").ranged("copy_page_range", 0, 16 * FOLIOS, arg=2).op("dup_mmap_end")
    found = script.run()["fork"]
    per = {"ld": 66, "cas": 16, "xchg": 32, "st": 48, "convert": 2, "rmw_ref": 16, "rmw_map": 32,
           "aex": 16}  # fmt: skip
    assert found.pick(*per) == {name: value * FOLIOS for name, value in per.items()}
    assert found["tlbi"] == found["dsb_ish"] == 2 * FOLIOS + 1


PMDS = 512 if JIT else 8


def moved(policy: str, cpu: Cpu, *, aligned_to_pud: bool = False) -> Counts:
    """A page in every PMD, moved by page tables."""
    script = Script(policy, cpu).step("map")
    for pmd in range(512 if aligned_to_pud else PMDS):
        script.anon(pmd * 512, 0)
    pages = len(script.records) * 512
    target = (1 << 41) + (0 if aligned_to_pud else script.pmd)
    return script.step("move").ranged("move_page_tables", 0, pages, arg=target).run()["move"]


def test_table_7_4_page_tables_move_whole() -> None:
    ranged = moved("linux-7.3", RANGE)
    assert ranged.pick("tlbi_range", "dsb_ish", "xchg") == {
        "tlbi_range": PMDS, "dsb_ish": PMDS, "xchg": 0,
    }  # fmt: skip
    assert ranged["ptl"] <= 2 * PMDS
    assert moved("linux-7.3", PLAIN)["tlbi_asid"] == PMDS
    deferred = moved("x-mremap-flush-deferred", RANGE)
    assert deferred.pick("tlbi", "dsb_ish") == {"tlbi": 1, "dsb_ish": 1}


def test_table_7_4_whole_pud() -> None:
    for cpu, name in ((RANGE, "tlbi_range"), (PLAIN, "tlbi_asid")):
        found = moved("linux-7.3", cpu, aligned_to_pud=True)
        assert found.pick(name, "tlbi", "dsb_ish") == {name: 1, "tlbi": 1, "dsb_ish": 1}
        assert found["ptl"] <= 2


@pytest.mark.parametrize(
    ("policy", "loads", "xchg", "convert"), [("linux-6.12", 80, 48, 2), ("linux-7.3", 3, 16, 0)]
)
def test_table_7_4_by_entries(policy: str, loads: int, xchg: int, convert: int) -> None:
    script = Script(policy).step("map").anon(0, 4, FOLIOS)
    script.step("move").ranged("move_page_tables", 0, 16 * FOLIOS, arg=(1 << 41) + (16 << 12))
    found = script.run()["move"]
    assert found.pick("ld", "xchg", "st", "convert") == {
        "ld": loads * FOLIOS, "xchg": xchg * FOLIOS, "st": xchg * FOLIOS,
        "convert": convert * FOLIOS,
    }  # fmt: skip
    steps = 2 * (FOLIOS // 32)
    assert found["dsb_ish"] == convert * FOLIOS + steps


# C1 to C4: what maps the pages, and whether blocks fold.
CASES = {
    "C1": ("linux-6.12", 0, 0, 0, 1),
    "C2": ("linux-6.12", 4, 1, 1, 3),
    "C3": ("6.12 without contpte", 4, 0, 0, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_table_7_5_page_fault3(case: str) -> None:
    """A write fault a page in ascending order, then munmap."""
    name, order, tries, folds, rmw = CASES[case]
    policy = policies.POLICIES.get(name) or policies.LINUX_6_12.with_features(
        name, "", "", contpte=0, fold=0
    )
    script = Script(policy, vmf=SHARED).step("faults")
    blocks = FOLIOS // 2
    for block in range(blocks):
        for k in range(16 >> order):
            script.file(block * 16 + k, order, write=1, nr=1, info=0)
    script.step("munmap").ranged("zap_page_range", 0, blocks * 16, flags=1)
    found = script.run()
    faults = found["faults"]
    assert faults["st"] == (16 + 16 * folds) * blocks
    assert faults.pick("fold", "xchg", "tlbi", "dsb_ish") == {
        "fold": folds * blocks, "xchg": 16 * folds * blocks, "tlbi": folds * blocks,
        "dsb_ish": folds * blocks,
    }  # fmt: skip
    if case != "C1":
        assert faults["fold_try"] == tries * blocks
    assert faults["rmw_map"] == 16 * rmw * blocks
    runs = blocks if order else 16 * blocks
    assert found["munmap"]["rmap_call"] == runs


def test_table_7_5_whole_folio_faults() -> None:
    """C4: one fault a folio and no fold, on 7.3."""
    script = Script("linux-7.3", vmf=SHARED).step("faults")
    blocks = FOLIOS // 2
    for block in range(blocks):
        script.file(block * 16, 4, write=1, info=0)
    faults = script.run()["faults"]
    per = {"st": 16, "fold": 0, "convert": 0, "rmw_map": 18, "ptl": 1, "mmc": 1}
    assert faults.pick(*per) == {name: value * blocks for name, value in per.items()}
