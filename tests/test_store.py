# SPDX-License-Identifier: GPL-2.0-or-later
"""The store directory: complete or absent, deterministic, safe against names."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.tiny import event_frame, ops_frame, tiny
from tracer import store as store_module
from tracer.capture import Capture
from tracer.enums import KernelEnums, complete
from tracer.errors import MmtraceError, UsageError
from tracer.store import (
    Store,
    file_name,
    is_store,
    newest_store,
    open_store,
    write_store,
)

KEY = "mmtrace:folio_remove_rmap_ptes"


def write(path: Path, capture: Capture | None = None, force: bool = False) -> Store:
    capture = capture or tiny()
    return write_store(path, capture, ops_frame(capture), complete(KernelEnums(), []), force)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_everything_comes_back(tmp_path: Path) -> None:
    capture = tiny()
    write(tmp_path / "a.mmtrace", capture)
    store = open_store(tmp_path / "a.mmtrace")
    assert_frame_equal(store.event(KEY), capture.events[KEY])
    assert_frame_equal(store.ops, ops_frame(capture))
    assert_frame_equal(store.record("comm"), capture.records["comm"])
    assert_frame_equal(store.loss, capture.loss)
    assert_frame_equal(store.diagnostics, capture.diagnostics)
    assert store.provenance == capture.provenance
    assert store.formats == capture.formats
    assert store.counts == {KEY: 3}
    assert store.enums.vm_flag("VM_SHARED") == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mmtrace"]


def test_layout(tmp_path: Path) -> None:
    write(tmp_path / "a.mmtrace")
    assert sorted(tree(tmp_path / "a.mmtrace")) == [
        "diagnostics.parquet",
        "events/mmtrace.folio_remove_rmap_ptes.parquet",
        "loss.parquet",
        "meta.json",
        "ops.parquet",
        "records/comm.parquet",
    ]
    meta = json.loads((tmp_path / "a.mmtrace/meta.json").read_text())
    assert meta["schema"] == "mmtrace.store/1"
    assert meta["rows"] == {"ops": 3, "loss": 0, "diagnostics": 0}
    assert [f["name"] for f in meta["events"][KEY]["fields"]] == [
        "common_type",
        "folio",
        "nr_pages",
    ]
    assert {"mmtrace", "polars", "numpy", "python"} <= meta["versions"].keys()
    embedded = pl.read_parquet_metadata(tmp_path / "a.mmtrace/ops.parquet")
    assert embedded["mmtrace.capture_sha256"] == "00" * 32


def test_same_input_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    write(tmp_path / "a.mmtrace")
    write(tmp_path / "b.mmtrace")
    assert tree(tmp_path / "a.mmtrace") == tree(tmp_path / "b.mmtrace")
    assert open_store(tmp_path / "a.mmtrace").meta["created"] is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert write(tmp_path / "c.mmtrace").meta["created"] == 1700000000


def test_existing_store_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "a.mmtrace"
    write(path)
    (path / "old").touch()
    with pytest.raises(UsageError, match="--force"):
        write(path)
    write(path, force=True)
    assert not (path / "old").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mmtrace"]


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_force_never_replaces_what_is_not_a_store(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "home"
    if kind == "directory":
        path.mkdir()
        (path / "precious").write_text("x")
    elif kind == "file":
        path.write_text("x")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not an mmtrace store"):
        write(path, force=True)
    assert kind != "directory" or (path / "precious").read_text() == "x"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a.mmtrace"
    before = write(path).meta
    calls = []

    def fail(key: str) -> str:
        calls.append(key)
        raise error

    monkeypatch.setattr(store_module, "file_name", fail)
    with pytest.raises((KeyboardInterrupt, MmtraceError)):
        write(path, force=True)
    with pytest.raises((KeyboardInterrupt, MmtraceError)):
        write(tmp_path / "b.mmtrace")
    assert len(calls) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.mmtrace"]
    assert open_store(path).meta == before


def test_failed_rename_puts_the_old_store_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mmtrace"
    before = write(path).meta
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(MmtraceError, match="Input/output error"):
        write(path, force=True)
    assert open_store(path).meta == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MmtraceError, match="Cannot write"):
        write(tmp_path / "a.mmtrace")


NAMES = [
    "mmtrace:zap", "mmtrace:ZAP", "mmtrace:z/../../zap", "../../etc:passwd", "..:..", ":", "", "a",
    "a.b:c", "a:b.c", "a:b:c", "mmtrace:\0", "mmtrace:\n", "mmtrace:" + "x" * 500, "_:a", ":a",
    "mmtrace:zap ", "mmtrace:żap", "mmtrace:\udcff", "-o:x", ".hidden:x", "con:nul", "/abs:x",
    "%2f:x",
]  # fmt: skip


def test_file_names_stay_inside_and_differ() -> None:
    files = [file_name(name) for name in NAMES]
    assert len({f.lower() for f in files}) == len(NAMES)
    for file in files:
        assert "/" not in file
        assert file[0] not in ".-"
        assert len(file) < 200
        assert file.isascii()
        assert file.isprintable()
    assert file_name("mmtrace:zap") == "mmtrace.zap.parquet"


def test_hostile_event_names_round_trip(tmp_path: Path) -> None:
    names = [n for n in NAMES if "\udcff" not in n]
    store = write(tmp_path / "deep" / "a.mmtrace", tiny(*names))
    for name in names:
        assert_frame_equal(store.event(name), event_frame())
    assert sorted(p.name for p in tmp_path.rglob("*.parquet") if p.parent.name == "events") == (
        sorted(file_name(n) for n in names)
    )


def test_unknown_event_names_the_nearest(tmp_path: Path) -> None:
    store = write(tmp_path / "a.mmtrace")
    with pytest.raises(UsageError, match="Did you mean mmtrace:folio_remove_rmap_ptes"):
        store.event("mmtrace:folio_remove_rmap_pte")
    with pytest.raises(UsageError, match="has no mmap records"):
        store.record("mmap")


def test_what_is_not_a_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(MmtraceError, match=r"does not exist.*mmtrace ingest"):
        open_store(tmp_path / "absent")
    with pytest.raises(MmtraceError, match="not an mmtrace store"):
        open_store(tmp_path)
    (tmp_path / "perf.data").write_bytes(b"PERFILE2")
    with pytest.raises(MmtraceError, match=r"mmtrace ingest .*perf\.data"):
        open_store(tmp_path / "perf.data")


def edit(path: Path, change: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    assert isinstance(change, dict)
    (path / "meta.json").write_text(json.dumps({**meta, **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "mmtrace.store/9"}, "another version"),
        ({"events": []}, "wrong shape"),
        ({"events": {"a:b": 1}}, "wrong shape"),
        ({"records": {"comm": {}}}, "wrong shape"),
        ({"enums": None}, "wrong shape"),
    ],
)
def test_damaged_meta(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "a.mmtrace"
    write(path)
    edit(path, change)
    with pytest.raises(MmtraceError, match=message):
        open_store(path)


def test_truncated_meta(tmp_path: Path) -> None:
    path = tmp_path / "a.mmtrace"
    write(path)
    text = (path / "meta.json").read_text()
    (path / "meta.json").write_text(text[:300])
    with pytest.raises(MmtraceError, match="damaged"):
        open_store(path)
    (path / "meta.json").write_text('{"schema": "mmtrace.store/1", "events": ' + "[" * 100_000)
    with pytest.raises(MmtraceError, match="damaged"):
        open_store(path)


@pytest.mark.parametrize("file", ["../secret.parquet", "/etc/passwd", "events/../../s.parquet", 3])
def test_meta_cannot_point_outside(tmp_path: Path, file: object) -> None:
    path = tmp_path / "a.mmtrace"
    write(path)
    edit(path, {"events": {KEY: {"file": file, "rows": 1}}})
    with pytest.raises(MmtraceError, match="outside the store"):
        open_store(path).event(KEY)


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.mmtrace"
    write(path)
    (path / "ops.parquet").write_bytes(b"PAR1 no")
    (path / "loss.parquet").unlink()
    event_frame().write_parquet(path / "diagnostics.parquet")
    store = open_store(path)
    with pytest.raises(MmtraceError, match=r"damaged: ops\.parquet"):
        _ = store.ops
    with pytest.raises(MmtraceError, match=r"damaged: loss\.parquet"):
        _ = store.loss
    with pytest.raises(MmtraceError, match="column 0 should be code"):
        _ = store.diagnostics


def test_frames_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    capture = tiny()
    capture.events[KEY] = capture.events[KEY].drop("ts")
    with pytest.raises(MmtraceError, match="folio_remove_rmap_ptes: column 1 should be ts"):
        write_store(tmp_path / "a.mmtrace", capture, ops_frame(tiny()), KernelEnums())
    assert not list(tmp_path.iterdir())


def test_newest_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \*\.mmtrace store"):
        newest_store(tmp_path)
    for i, name in enumerate(["b.mmtrace", "a.mmtrace", "other"]):
        write(tmp_path / name)
        os.utime(tmp_path / name / "meta.json", ns=(i, i))
    (tmp_path / "z.mmtrace").mkdir()
    assert newest_store(tmp_path) == tmp_path / "a.mmtrace"
    assert not is_store(tmp_path / "z.mmtrace")


def test_two_writers_leave_one_whole_store(tmp_path: Path) -> None:
    path = tmp_path / "a.mmtrace"
    outcomes: list[str] = []

    def attempt() -> None:
        try:
            write(path)
            outcomes.append("wrote")
        except MmtraceError:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert outcomes.count("wrote") >= 1
    assert open_store(path).ops.height == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.mmtrace"]
