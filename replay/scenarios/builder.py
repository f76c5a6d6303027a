# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts op records together: whole columns at a time, one result row per phase and operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from replay import result, stream
from replay.lower import Stream

Int64 = npt.NDArray[np.int64]
Column = int | Int64

# Keyword of :func:`rows` to the field of the record.
FIELDS: Final[dict[str, int]] = {
    "ctx": stream.F_CTX,
    "mm": stream.F_MM,
    "va": stream.F_VA,
    "end": stream.F_END,
    "pfn": stream.F_PFN,
    "nr": stream.F_NR,
    "order": stream.F_ORDER,
    "flags": stream.F_FLAGS,
    "arg": stream.F_ARG,
    "vmf": stream.F_VMF,
    "vm_start": stream.F_VMSTART,
    "vm_end": stream.F_VMEND,
    "info": stream.F_INFO,
}
NO_ORDER: Final = 255
# Operations that name a folio; every other result row has no order.
_WITH_FOLIO: Final = frozenset(
    stream.CODES[name]
    for name in (
        "do_anonymous_page", "set_pte_range", "folio_add_new_anon_rmap", "wp_page_copy",
        "do_swap_page", "try_to_unmap_one", "folio_referenced_one", "try_to_migrate_one",
        "remove_migration_pte",
    )
)  # fmt: skip
_NAMES: Final = {code: name for name, code in stream.CODES.items()}
SETUP: Final = "setup"
COMM: Final = "scenario"


def rows(op: str, **columns: Column) -> Int64:
    """Records of one operation; scalars are repeated as often as the longest column is long.

    :param op: a key of :data:`replay.stream.CODES`
    :param columns: keys of :data:`FIELDS`, int64[n] or int
    :return: int64[n, NR_FIELDS]
    """
    n = max((len(c) for c in columns.values() if isinstance(c, np.ndarray)), default=1)
    out = np.zeros((n, stream.NR_FIELDS), np.int64)
    out[:, stream.F_CODE] = stream.CODES[op]
    out[:, stream.F_VMEND] = 1 << 56
    out[:, stream.F_INFO] = -1
    out[:, stream.F_LIMIT] = -1
    for name, column in columns.items():
        out[:, FIELDS[name]] = column
    return out


def interleave(*parts: Int64) -> Int64:
    """The first record of every part, the second of every part, and so on."""
    return np.stack(parts, axis=1).reshape(-1, stream.NR_FIELDS)


def merge(parts: Sequence[tuple[Int64, Int64]]) -> Int64:
    """Records in the order of their keys; equal keys keep the order of the parts.

    :param parts: int64[n, NR_FIELDS] and int64[n] keys
    """
    records = np.concatenate([part for part, _ in parts])
    keys = np.concatenate([key for _, key in parts])
    return records[np.argsort(keys, kind="stable")]


@dataclass
class Builder:
    """Collects the records of a scenario, phase by phase.

    :ivar phases: names in order of first use, ``setup`` left out
    :ivar timed: the phases that a measurement would time
    """

    phases: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    _parts: list[Int64] = field(default_factory=list)
    _labels: list[tuple[str, str | None, str]] = field(default_factory=list)
    _label: tuple[str, str | None, str] = (SETUP, None, "")

    def phase(
        self, name: str, syscall: str | None = None, args: str = "", *, timed: bool = True
    ) -> None:
        """What is added from here on belongs to phase ``name``.

        :param syscall: the system call it happens in, None for faults
        """
        if name != SETUP and name not in self.phases:
            self.phases.append(name)
            if timed:
                self.timed.append(name)
        self._label = (name, syscall, args)

    def setup(self) -> None:
        """What is added from here on is not part of any phase."""
        self._label = (SETUP, None, "")

    def add(self, records: Int64) -> None:
        """Append records to the current phase."""
        if len(records):
            self._parts.append(records)
            self._labels.append(self._label)

    def op(self, op: str, **columns: Column) -> None:
        """Append :func:`rows` of one operation."""
        self.add(rows(op, **columns))

    def stream(self) -> Stream:
        """The stream that the engine reads."""
        ops = np.concatenate(self._parts)
        labels = list(dict.fromkeys(self._labels))
        number = {label: i for i, label in enumerate(labels)}
        label = np.repeat([number[x] for x in self._labels], [len(p) for p in self._parts])
        groups, index = _groups(ops, label.astype(np.int64), labels)
        ops[:, stream.F_GROUP] = index
        shift = max(9, int(ops[:, stream.F_ORDER].max()))
        fork = ops[:, stream.F_CODE] == stream.CODES["copy_page_range"]
        mms = 1 + max(ops[:, stream.F_MM].max(), ops[fork, stream.F_ARG].max(initial=0))
        return Stream(
            ops=ops,
            groups=groups,
            unmodelled=pl.DataFrame(schema={"op": pl.String, "count": pl.UInt64}),
            pages=((int((ops[:, stream.F_PFN]).max()) >> shift) + 2) << shift,
            mms=int(mms),
            contexts=int(ops[:, stream.F_CTX].max()) + 1,
            tables=max(64, int(mms) * 8),
        )


def _groups(
    ops: Int64, label: Int64, labels: list[tuple[str, str | None, str]]
) -> tuple[pl.DataFrame, Int64]:
    """Result rows of (task, phase, operation, order), and the row of every record."""
    code = ops[:, stream.F_CODE]
    order = np.where(np.isin(code, list(_WITH_FOLIO)), ops[:, stream.F_ORDER], NO_ORDER)
    frame = pl.DataFrame(
        {
            "label": label, "ctx": ops[:, stream.F_CTX], "code": code, "order": order,
            "nr": ops[:, stream.F_NR],
        }
    ).with_row_index("seq")  # fmt: skip
    keys = ["ctx", "label", "code", "order"]
    found = (
        frame.group_by(keys, maintain_order=True)
        .agg(pl.col("seq").first(), pl.len().alias("nr_ops"), pl.col("nr").sum().alias("nr_pages"))
        .with_row_index("group")
    )
    index = frame.join(found.select("group", *keys), on=keys, how="left", maintain_order="left")
    named = found.with_columns(
        pl.col("label").replace_strict(dict(enumerate(x[i] for x in labels))).alias(name)
        if any(x[i] is not None for x in labels)
        else pl.lit(None, pl.String).alias(name)
        for i, name in enumerate(("phase", "syscall", "args"))
    )
    table = named.with_columns(
        pl.col("code").replace_strict(_NAMES, return_dtype=pl.String).alias("op"),
        pl.col("seq").alias("ts"),
        (pl.col("ctx") + 1).alias("pid"),
        (pl.col("ctx") + 1).alias("tid"),
        pl.lit(COMM).alias("comm"),
        pl.col("seq").min().over("ctx", "label").alias("syscall_seq"),
        pl.col("label").alias("window"),
        pl.lit(True).alias("whole_life"),
    )
    columns = [pl.col(name).cast(dtype) for name, dtype in result.ROW_COLUMNS]
    return table.select(*columns, "phase"), index["group"].to_numpy().astype(np.int64)
