# SPDX-License-Identifier: GPL-2.0-or-later
"""The 16 MiB sweep on four booted kernels, reproduced from descriptions of the workloads."""

from __future__ import annotations

import polars as pl
import pytest

from replay.scenarios.exactness import (
    KERNELS,
    LISTED,
    compare_row,
    details,
    exactness_table,
    measured,
    share,
)
from replay.scenarios.tolerance import DIFFERS, EXACT, verdict
from replay.truth import TruthRow

ROWS = measured()


@pytest.mark.parametrize(
    ("kernel", "policy", "row"),
    [pytest.param(k, p, r, id=f"{k}-{r.workload}-{r.folio_kb}k-{r.phase}") for k, p, r in ROWS],
)
def test_generated_counts_equal_the_booted_kernel(kernel: str, policy: str, row: TruthRow) -> None:
    wrong = [line[5:8] for line in compare_row(kernel, policy, row) if line[-1] == DIFFERS]
    assert wrong == []


def test_sweep_is_complete() -> None:
    assert len(ROWS) == 826
    assert {kernel for kernel, _, _ in ROWS} == {kernel for kernel, _ in KERNELS}


def test_a_wrong_count_is_found() -> None:
    row = next(r for _, _, r in ROWS if r.phase == "pageout" and r.folio_kb == 64)
    real = row.counter("tlbi_va")
    assert real is not None
    assert verdict("tlbi_va", real, row) == EXACT
    assert verdict("tlbi_va", real + 1, row) == DIFFERS
    assert verdict("dsb", 10**9, row) == DIFFERS


def test_exactness_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = exactness_table()
    exact, known, cells = share(table)
    assert table.columns == ["operation", *LISTED]
    reasons = (
        details()
        .filter(~pl.col("verdict").is_in([EXACT, DIFFERS]))["verdict"]
        .value_counts(sort=True)
    )
    with (
        capsys.disabled(),
        pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=140, fmt_str_lengths=90,
                  tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True,
                  tbl_formatting="ASCII_MARKDOWN"),
    ):  # fmt: skip
        print(f"\n{table}\n* up to a reason below; dsb up to interrupts everywhere")
        print(f"exact: {exact} of {known} measured cells; {cells - known} unmeasured")
        print(f"{details().height} counts compared; not bit-equal, and why that may be:\n{reasons}")
    assert exact == known
