# SPDX-License-Identifier: GPL-2.0-or-later
"""Anonymous stores: the same counts, no kernel address, no name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from replay import api
from reports import anonymize
from reports.anonymize import Addresses, Names
from tracer.store import Store


def frames(store: Store) -> Iterator[pl.DataFrame]:
    """Every table of a store."""
    yield from (store.ops, store.loss, store.diagnostics)
    yield from map(store.event, store.counts)
    yield from map(store.record, store.meta["records"])


def kernel_words(store: Store) -> set[int]:
    """:return: kernel addresses in any column"""
    found: set[int] = set()
    for frame in frames(store):
        for name in anonymize._integers(frame):
            words = anonymize._words(frame[name])
            found |= set(words[anonymize._is_kernel(words)].tolist())
    return found


@pytest.mark.parametrize(
    "name", ["linux-7.3/fork-64k", "linux-7.3/pageout-64k", "linux-6.12/mremap-64k"]
)
def test_counts_are_identical(
    make_store: Callable[[str], Store], tmp_path: Path, name: str
) -> None:
    store = make_store(name)
    copy = anonymize.anonymize(store, tmp_path / "copy.mmtrace")
    policies = ["unbatched", "batched"]
    both = [api.replay(api.open_source(s), policies, detailed=True) for s in (store, copy)]
    for one, other in zip(*both, strict=True):
        assert one.rows.drop("comm", "args").equals(other.rows.drop("comm", "args"))
        assert one.inferred == other.inferred
    checks = [api.verify(api.open_source(s)).table.drop("scope") for s in (store, copy)]
    assert checks[0].equals(checks[1])


def test_no_name_and_no_address_is_left(store: Store, tmp_path: Path) -> None:
    copy = anonymize.anonymize(store, tmp_path / "copy.mmtrace")
    assert not kernel_words(store) & kernel_words(copy)
    for path in sorted(copy.path.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for secret in (b"mmwork", b"perf-exec", b"/usr/", b"/lib/"):
                assert secret not in content, path
    for table in frames(copy):
        for name, dtype in table.schema.items():
            if dtype == pl.String:
                assert "mmwork" not in "".join(table[name].drop_nulls().unique())
    about = copy.provenance
    assert (about.path, about.hostname, about.cmdline, about.extra) == (None, None, [], {})
    # What a reader needs to trust the numbers stays.
    assert about.sha256 == store.provenance.sha256
    assert about.kernel_release == store.provenance.kernel_release


def test_addresses_keep_identity_order_and_low_bits() -> None:
    words = np.array(
        [0xFFFF_8000_0012_3040, 0xFFFF_8000_0012_3080, 0xFFFF_0000_4321_0000, 0, 0x7F00_0000_1000,
         0xFFFF_FFFF_FFFF_FFF4], np.uint64)  # fmt: skip
    table = pl.DataFrame({"folio": words, "flags": words})
    made = Addresses([table]).map(words)
    assert made[3:].tolist() == words[3:].tolist()
    assert (made[:3] != words[:3]).all()
    low = np.uint64((1 << anonymize.SHIFT) - 1)
    assert ((made[:3] & low) == (words[:3] & low)).all()
    assert np.argsort(made[:3]).tolist() == np.argsort(words[:3]).tolist()
    assert int(made[1]) - int(made[0]) == 0x40
    # Flag words with high bits are not addresses.
    assert anonymize.frame(table, Addresses([table]), Names())["flags"].to_list() == words.tolist()


def test_addresses_in_text_are_the_same_pseudonyms() -> None:
    table = pl.DataFrame({"mm": [0xFFFF_8000_0012_3040], "syscall_args": ["p=0xffff800000123040"]})
    table = table.with_columns(pl.col("mm").cast(pl.UInt64))
    made = anonymize.frame(table, Addresses([table]), Names())
    assert made["syscall_args"][0] == f"p={made['mm'][0]:#x}"


def test_paths_and_strings_in_arguments_are_gone() -> None:
    table = pl.DataFrame({"syscall_args": ['filename="/home/alice/x", flags=1'], "comm": ["alice"]})
    made = anonymize.frame(table, Addresses([table]), Names())
    assert made.row(0) == ('filename="...", flags=1', "task-1")


def test_frames_of_large_folios_stay_together() -> None:
    table = pl.DataFrame({"pfn": np.array([0x8_0400, 0x8_07FF, 0x9_0000], np.uint64)})
    made = Addresses([table], order=10).frames(table["pfn"].to_numpy())
    assert made.tolist() == [0, 0x3FF, 0x400]
