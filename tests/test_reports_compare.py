# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparisons: alignment, the mail, other shapes, gates."""

from __future__ import annotations

import csv
import io
import json

import polars as pl
import pytest

from replay.result import Replay
from reports import gates
from reports.compare import BY, compare
from reports.styles import FORMATS, STYLES, render
from reports.verdict import growing, headline, verdict
from tests.test_reports_data import MAIN, PROVENANCE, frame, pair, replay, row, rows
from tracer.errors import UsageError

MAIL = """\
capture   5f1c0de55f1c, perf.data, 793.3 KiB
kernel    7.3.4-arm64, aarch64, 4K pages
cpu       qemu-max: tlbi_range lpa2; off: kpti bbm repeat_tlbi
workload  task-1 (99% of the pages); 2 tasks, 196 operations on 2,114 pages
base      unbatched: every PTE by itself
new       batched: all that is batched

Against unbatched, batched needs 91.18% fewer TLB invalidations (1,123 to
99); page_line grows by 6 (+9.38%).

                                 unbatched                  batched
counter                              count  count   delta   delta %
ld                                   7,650  1,538  -6,112   -79.90%
xchg                                 1,058  1,058       0        0%
st                                   2,112  2,112       0        0%
ptep_get                             4,162    322  -3,840   -92.26%
cp_get                                 192    192       0        0%
convert                                 64      0     -64  -100.00%
  unfold                                64      0     -64  -100.00%
tlbi                                 1,123     99  -1,024   -91.18%
  tlbi_va                            1,058     34  -1,024   -96.79%
  tlbi_range                            64     64       0        0%
  tlbi_asid                              1      1       0        0%
dsb                                  1,089     65  -1,024   -94.03%
  dsb_ishst                          1,024     64    -960   -93.75%
  dsb_ish                               65      1     -64   -98.46%
rmap_call                            1,024     64    -960   -93.75%
ptl                                    131    131       0        0%
page_line                               64     70      +6    +9.38%
folio_remove_rmap_ptes               1,024     64    -960   -93.75%
contpte_set_ptes                        64     64       0        0%
contpte_get_and_clear_full_ptes          0     64     +64       new

                                   tlbi              convert
folio          ops   base  new  delta %  base  new   delta %
order 0 (4K)    66     34   34       0%     0    0        0%
order 4 (64K)  128  1,088   64  -94.12%    64    0  -100.00%
no folio         2      1    1       0%     0    0        0%

                                  tlbi              convert
operation     ops   base  new  delta %  base  new   delta %
fault_anon     96      0    0       0%     0    0        0%
try_to_unmap   96  1,120   96  -91.43%    64    0  -100.00%
tlb_flush       1      1    1       0%     0    0        0%
zap             3      2    2       0%     0    0        0%

grows:  page_line +6 (+9.38%), contpte_get_and_clear_full_ptes +64 (new)
note:   Operations in the capture that are not modelled and count nothing:
        collapse (3).
note:   State the capture does not show was inferred: accessed (5).
legend: Exact counts of a deterministic replay on a simulated page table;
        no times. delta is new minus base: negative is fewer, positive is
        more, 0 is equal. Counters that are 0 everywhere are left out; rows
        that show 0 are negative controls. Indented counters are parts of
        the sum above them.

mmtrace: 0.1.0 5f1c0de55f1c
"""

ROBOT = """\
unbatched          batched
-----------------------------------------------------------
    count   %change  count
        \\         |      \\
     7650   -79.90%   1538  ld
     1058        0%   1058  xchg
"""

PIPE = """\
| counter                         | unbatched | batched |    delta |
|---------------------------------|----------:|--------:|---------:|
| ld                              |     7,650 |   1,538 |  -79.90% |
"""


def test_the_mail_is_golden() -> None:
    assert render(compare(pair()), tool="0.1.0") == MAIL


def test_robot_and_pipe() -> None:
    assert ROBOT in render(compare(pair()), style="robot")
    assert PIPE in render(compare(pair()), style="pipe")


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_every_text_is_ascii_and_fits_a_mail(by: str, style: str, number: int) -> None:
    policies = ["linux-6.12", "batched", "linux-7.3", "linux-7.3+anon-batch", "unbatched"]
    text = render(compare([replay(p) for p in policies[:number]], by=by), style=style)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 75
    assert text.rstrip().splitlines()[-1].startswith("mmtrace: ")


def test_order_0_is_first_even_when_the_capture_has_none() -> None:
    large = [r for r in rows(False) if r["order"] == 4]
    comparison = compare(
        [replay(rows=frame(large)), replay("batched", rows=frame(large))], by="order"
    )
    assert comparison.rows[0].label == "order 0 (4K)"
    assert comparison.rows[0].counts("tlbi") == (0, 0)
    assert "no operation of this order in the capture" in render(comparison)


def test_tasks_are_pseudonyms_unless_raw() -> None:
    assert [r.label for r in compare(pair(), by="task").rows] == ["task-1", "task-2"]
    assert [r.label for r in compare(pair(), by="task", raw=True).rows] == ["mmwork", "lorem"]
    assert "mmwork" not in render(compare(pair()))


def test_system_calls_are_told_apart_by_what_they_ask_for() -> None:
    labels = [r.label for r in compare(pair(), by="syscall").rows]
    assert labels == ["(no system call)", "madvise MADV_PAGEOUT", "munmap"]


def test_what_differs_besides_the_policy_is_printed_per_replay() -> None:
    other = replay("batched", provenance=PROVENANCE | {"kernel_release": "6.12.107-arm64"})
    text = render(compare([replay(), other]))
    assert "kernel    unbatched: 7.3.4-arm64, aarch64, 4K pages\n" in text
    assert "          batched: 6.12.107-arm64, aarch64, 4K pages\n" in text


def test_unequal_work_is_said() -> None:
    less = replay("batched", rows=frame(rows(True)[1:]))
    assert "did not do the same operations" in render(compare([replay(), less]))
    assert "did not do the same operations" not in MAIL


def test_a_row_only_one_replay_has_is_marked() -> None:
    less = replay("batched", rows=frame(rows(True)[:-3]))
    text = render(compare([replay(), less], by="op"))
    assert "zap[1]" in text
    assert "[1] not in every capture" in text


def test_equal_policies_get_labels_by_what_differs() -> None:
    old = replay(provenance=PROVENANCE | {"kernel_release": "6.12"})
    assert compare([old, replay()]).labels == ("6.12", "7.3.4-arm64")
    slow = replay(cpu={"name": "neoverse-n1"})
    assert compare([slow, replay()]).labels == ("neoverse-n1", "qemu-max")
    assert compare([replay(), replay()]).labels == ("A: unbatched", "B: unbatched")
    assert compare(pair(), labels=["O", "N"]).labels == ("O", "N")


def test_bad_requests() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([])
    with pytest.raises(UsageError, match="Cannot compare by 'cpu'"):
        compare(pair(), by="cpu")
    with pytest.raises(UsageError, match="label of its own"):
        compare(pair(), labels=["A"])
    with pytest.raises(UsageError, match="no style"):
        render(compare(pair()), style="fancy")
    with pytest.raises(UsageError, match="no format"):
        render(compare(pair()), fmt="xml")


def test_verdict_names_the_largest_loser() -> None:
    comparison = compare(pair())
    assert headline(comparison) == "tlbi"
    assert next(g.counter for g in growing(comparison, 1)) == "page_line"
    back = compare(pair()[::-1])
    assert "needs 1,034% more TLB invalidations (99 to 1,123)" in verdict(back)


def test_verdict_of_equals_and_of_one() -> None:
    same = compare([replay("a"), replay("b")])
    assert verdict(same) == "On this capture a and b cost the same: every counter is equal."
    assert verdict(compare([replay()])).startswith("unbatched needs 1,123 TLB invalidations")


def test_replays_that_are_alike_are_said_once() -> None:
    text = render(compare([*pair(), replay("batched", policy="b2"), replay("u2")]))
    assert "batched and b2 need 91.18% fewer TLB invalidations (1,123 to 99)" in unwrapped(text)
    assert "u2 needs as many TLB invalidations (1,123)" in unwrapped(text)
    assert "page_line grows by 6 (+9.38%) under batched and b2." in unwrapped(text)
    assert "\nb2: every count as under batched.\n" in text
    assert text.count("\n  tlbi_va ") == 2


def unwrapped(text: str) -> str:
    """:return: the text as one line"""
    return " ".join(text.split())


def test_nothing_to_count() -> None:
    none = frame([])
    comparison = compare([replay(rows=none, nr_ops=0), replay("batched", rows=none, nr_ops=0)])
    assert verdict(comparison).endswith("every counter is equal.")
    assert "no operations" in render(comparison)


def test_csv_has_plain_digits_in_long_form() -> None:
    table = list(csv.DictReader(io.StringIO(render(compare(pair()), fmt="csv"))))
    found = [r for r in table if r["counter"] == "tlbi"]
    assert [(r["label"], r["count"], r["base"], r["delta"]) for r in found] == [
        ("unbatched", "1123", "1123", "0"),
        ("batched", "99", "1123", "-1024"),
    ]


def test_json_is_one_document_with_a_schema() -> None:
    data = json.loads(render(compare(pair()), fmt="json", tool="0.1.0"))
    assert data["schema"] == "mmtrace.compare/1"
    assert data["rows"][0]["counters"]["tlbi"] == [1123, 99]
    assert data["grows"] == {"batched": ["page_line", "contpte_get_and_clear_full_ptes"]}
    assert data["trailer"] == "mmtrace: 0.1.0 5f1c0de55f1c"


def test_markdown_has_the_sign_convention() -> None:
    text = render(compare(pair(), by="op"), fmt="markdown")
    assert "negative is fewer" in text
    assert "| operation    | counter   | unbatched | batched |    delta |" in text


def test_sums_over_rows_equal_the_total() -> None:
    total = compare(pair()).total("tlbi")
    for by in BY:
        assert compare(pair(), by=by).total("tlbi") == total


@pytest.mark.parametrize(
    ("expression", "tripped"),
    [
        ("tlbi > +5%", []),
        ("page_line > +5%", ["page_line"]),
        ("page_line > +9.375%", []),  # exactly 9.375 %
        ("page_line >= +9.375%", ["page_line"]),
        ("page_line > +5", ["page_line"]),
        ("page_line > +6", []),
        ("tlbi > 98", ["tlbi"]),
        ("tlbi > 99", []),
        ("tlbi_* < -50%", ["tlbi_va"]),
        ("contpte_get_and_clear_full_ptes > 1000%", ["contpte_get_and_clear_full_ptes"]),
        ("tlbi > +5% or st != +0, page_line > 0%", ["page_line"]),
        ("any > +0", ["page_line", "contpte_get_and_clear_full_ptes"]),
        ("convert == 0", ["convert"]),
    ],
)
def test_gates(expression: str, tripped: list[str]) -> None:
    assert [t.counter for t in gates.tripped(compare(pair()), [expression])] == tripped


def test_a_tripped_gate_reads_as_a_sentence() -> None:
    (trip,) = gates.tripped(compare(pair(), by="op"), ["page_line > +5%"])
    assert str(trip) == (
        "page_line > +5%: page_line in try_to_unmap is 70 under batched, 64 in the base (+9.38%)"
    )


def test_unreadable_gates_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="Cannot read the gate 'tlbi'"):
        gates.parse("tlbi")
    with pytest.raises(UsageError, match="no counter 'tlbo'"):
        gates.parse("tlbo > 1")


def test_many_rows_keep_the_largest_and_the_losers() -> None:
    def made(batched: bool) -> Replay:
        many = [row(i, MAIN | {"comm": f"t{i}"}, "zap", 0, 1, tlbi_va=9000 - i) for i in range(90)]
        many[89]["tlbi_va"] = many[89]["tlbi"] = 5 if batched else 1
        return replay("batched" if batched else "unbatched", rows=frame(many))

    text = render(compare([made(False), made(True)], by="task"))
    assert "69 smaller rows are left out; --format csv has all of them." in text
    assert "\ntask-1 " in text
    assert "\ntask-90 " in text
    assert "\ntask-50 " not in text


def test_names_cannot_break_a_table() -> None:
    evil = [r | {"comm": "a|b\n\x1b[31m"} for r in rows(False)]
    made = [replay(rows=frame(evil)), replay("batched", rows=frame(evil))]
    for style in STYLES:
        text = render(compare(made, by="task", raw=True), style=style)
        assert "\x1b" not in text
        assert "a|b\n" not in text
    assert "| a/b\\x0a" in text


def test_formats_are_all_covered() -> None:
    assert FORMATS == ("text", "csv", "json", "markdown")
    assert isinstance(pair()[0].rows, pl.DataFrame)
