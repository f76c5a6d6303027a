# SPDX-License-Identifier: GPL-2.0-or-later
"""Detection by content, unwrapping, kernel numbers and whole ingests."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import platform
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import FIXTURES, KERNELS, ROOT, content
from tests.test_btf import sample
from tests.tiny import tiny
from tracer import compression, detect
from tracer import ingest as module
from tracer.capture import Capture
from tracer.compression import unwrap, zstd_module
from tracer.errors import CaptureError, MmtraceError, UsageError
from tracer.ingest import default_store, find_enums, ingest, read_bytes, read_capture
from tracer.store import Store

PERF = b"PERFILE2" + bytes(96)
zstd = zstd_module()


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every container reader, so that only what lies around them is tested."""
    for kind in module.READERS:
        name = "read_directory" if "directory" in kind else "read"
        monkeypatch.setitem(module.READERS, kind, ("tests.tiny", name))


# --- detection ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("linux-6.12/zap-4k.perf.data", detect.PERF),
        ("formats/pageout.pipe.perf.data", detect.PERF),
        ("formats/pageout.zstd.perf.data", detect.PERF),
        ("formats/pageout.v6.dat", detect.TRACE_DAT),
        ("formats/pageout.v7.zstd.dat", detect.TRACE_DAT),
        ("formats/pageout.v7.zlib.dat", detect.TRACE_DAT),
        ("formats/pageout.fgraph.dat", detect.TRACE_DAT),
        ("formats/pageout.cpu0.trace_pipe_raw", detect.RAW),
        ("formats/pageout.cpu1.trace_pipe_raw", detect.RAW),
        ("formats/pageout.ftrace.txt", detect.TEXT),
        ("formats/pageout.perf-script.txt", detect.TEXT),
    ],
)
def test_fixtures_are_told_by_content(name: str, kind: str) -> None:
    data = content(name)
    assert detect.kind_of(data[: detect.HEAD], len(data), name) == kind


def test_big_endian_and_overrun_pages() -> None:
    page = struct.pack(">QQ", 1 << 40, 64) + bytes(4080)
    lost = struct.pack(">QQ", 2 << 40, 0xFFFFFFFFC0000FE0) + bytes(4080)
    assert detect.kind_of(page + lost, 8192, "x") == detect.RAW
    assert detect.kind_of(b"2ELIFREP" + bytes(96), 104, "x") == detect.PERF
    with pytest.raises(CaptureError, match="no capture that mmtrace knows"):
        detect.kind_of(struct.pack("<QQ", 1, 5000) + bytes(4080), 4096, "x")


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        t.addfile(tarfile.TarInfo("perf.data"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), r"an ELF file.*--btf"),
        (sample(), r"is BTF.*--btf"),
        (sample(">"), r"is BTF.*--btf"),
        (b"PAR1" + bytes(60), "parquet"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"BZh91AY" + bytes(60), "bunzip2"),
        (tar(), "tar archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'{"schema": "mmtrace.replay/1"}', "is JSON"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (bytes(4096), "no capture that mmtrace knows"),
        (bytes(range(256)) * 17, "no capture that mmtrace knows"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=message):
        read_capture(path)


def test_directories(tmp_path: Path, stubs: None) -> None:
    with pytest.raises(CaptureError, match="without a capture in it"):
        read_capture(tmp_path)
    (tmp_path / "notes").write_text("x")
    (tmp_path / "b.perf.data").write_bytes(PERF)
    with pytest.raises(CaptureError, match=r"Name one of the captures in it, such as b\.perf"):
        read_capture(tmp_path)
    threads = tmp_path / "threads"
    threads.mkdir()
    (threads / "data").write_bytes(PERF)
    (threads / "data.0").write_bytes(b"1")
    assert read_capture(threads).provenance.extra["head"] == "threads"
    first = read_capture(threads).provenance
    assert first.size == len(PERF) + 1
    (threads / "data.0").rename(threads / "data.1")
    assert read_capture(threads).provenance.sha256 != first.sha256
    raw = tmp_path / "raw"
    (raw / "per_cpu").mkdir(parents=True)
    assert detect.kind_of_directory(raw) == detect.RAW_DIR


def test_a_store_is_not_a_capture(tmp_path: Path, stubs: None) -> None:
    (tmp_path / "perf.data").write_bytes(PERF)
    store = ingest(tmp_path / "perf.data", tmp_path / "a.mmtrace")
    with pytest.raises(CaptureError, match=r"is an mmtrace store already.*mmtrace replay"):
        read_capture(store.path)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        read_capture(tmp_path / "absent")
    with pytest.raises(CaptureError, match="is a device"):
        read_capture("/dev/zero")


def test_a_file_larger_than_memory_is_refused_unread(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as f:
        f.truncate(1 << 43)
    with pytest.raises(CaptureError, match="larger than this machine's memory"):
        read_bytes(str(sparse))


def test_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f'printf abc > "{fifo}"; sleep 0.1; exit']):
        assert read_bytes(str(fifo)) == b"abc"


# --- wrappers ----------------------------------------------------------------------------

COMPRESS = {"zstd": zstd.compress, "gzip": gzip.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", COMPRESS)
def test_wrapped_captures(tmp_path: Path, stubs: None, kind: str) -> None:
    path = tmp_path / "name-says-nothing"
    wrapped = COMPRESS[kind](PERF)
    path.write_bytes(wrapped)
    about = read_capture(path).provenance
    assert about.sha256 == hashlib.sha256(PERF).hexdigest()
    assert about.size == len(PERF)
    assert about.extra["head"] == "PERFILE2"
    assert about.extra["wrapper"] == {
        "kind": kind,
        "sha256": hashlib.sha256(wrapped).hexdigest(),
        "size": len(wrapped),
    }


@pytest.mark.parametrize("kind", COMPRESS)
def test_frames_after_frames(kind: str) -> None:
    compress = COMPRESS[kind]
    assert unwrap(compress(b"a" * 10) + compress(b"b"), "x").data == b"a" * 10 + b"b"
    late = unwrap(compress(os.urandom(300_000)) + compress(b"b"), "x")
    assert (len(late.data), late.note) == (300_001, "")
    assert unwrap(compress(b"a") + b"junk", "x").note == "bytes follow the compressed data"


@pytest.mark.parametrize("kind", COMPRESS)
def test_truncated_wrapper_keeps_what_there_is(tmp_path: Path, stubs: None, kind: str) -> None:
    data = PERF + os.urandom(1 << 20)
    cut = COMPRESS[kind](data)[: 3 << 18]
    inner = unwrap(cut, "x")
    assert data.startswith(inner.data)
    assert len(inner.data) > 1 << 18
    (tmp_path / "x").write_bytes(cut)
    rows = read_capture(tmp_path / "x").diagnostics.rows(named=True)
    assert [(r["code"], r["severity"]) for r in rows] == [("wrapper", "loss")]
    assert "truncated" in rows[0]["message"]


@pytest.mark.parametrize("kind", COMPRESS)
def test_bombs_are_refused_within_bounds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MIN_OUTPUT", 1 << 20)
    bomb = COMPRESS[kind](bytes(64 << 20))
    assert compression.limit(len(bomb)) < 16 << 20
    with pytest.raises(CaptureError, match="more than 64 times"):
        unwrap(bomb, "bomb")


def test_limits() -> None:
    assert compression.limit(1) == compression.MIN_OUTPUT
    assert compression.limit(1 << 20) == 64 << 20
    assert compression.limit(1 << 40) == 4 << 30


def test_nested_and_empty_wrappers() -> None:
    with pytest.raises(CaptureError, match="compressed twice"):
        unwrap(gzip.compress(zstd.compress(PERF)), "x")
    with pytest.raises(CaptureError, match="damaged or empty zstd"):
        unwrap(zstd.compress(b""), "x")
    with pytest.raises(CaptureError, match="damaged or empty xz"):
        unwrap(lzma.compress(PERF)[:20], "x")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(COMPRESS)), st.integers(0, 200), st.integers(0, 255))
def test_damaged_wrappers_never_fail_otherwise(kind: str, at: int, value: int) -> None:
    data = bytearray(COMPRESS[kind](PERF))
    data[at % len(data)] = value
    with contextlib.suppress(MmtraceError):
        unwrap(bytes(data), "x")


# --- kernel numbers ----------------------------------------------------------------------


def codes(capture: Capture) -> list[str]:
    return capture.diagnostics["code"].to_list()


def test_numbers_named_by_the_user_come_first(tmp_path: Path) -> None:
    (tmp_path / "kernel.enums.json").write_text(
        (FIXTURES / "linux-7.3/kernel.enums.json").read_text()
    )
    (tmp_path / "btf").write_bytes(sample())
    capture = tiny()
    enums = find_enums(str(tmp_path / "perf.data"), capture, tmp_path / "btf")
    assert (enums.origin, enums.release) == ("btf", "6.12.0")
    assert enums.vm_flag("VM_SHARED") == 8
    assert not codes(capture)
    with pytest.raises(CaptureError, match="Not BTF"):
        find_enums("x", tiny(), tmp_path / "kernel.enums.json" / ".." / __file__)
    with pytest.raises(CaptureError, match="No such file"):
        find_enums("x", tiny(), tmp_path / "absent")


def test_numbers_beside_the_capture(tmp_path: Path) -> None:
    at = str(tmp_path / "perf.data")
    table = json.loads((FIXTURES / "linux-6.12/kernel.enums.json").read_text())
    (tmp_path / "kernel.enums.json").write_text(json.dumps({**table, "release": "6.12.0"}))
    assert find_enums(at, tiny()).page_flag("PG_mlocked") == 1 << 19
    (tmp_path / "vmlinux.btf.zst").write_bytes(zstd.compress(sample()))
    assert find_enums(at, tiny()).origin == "vmlinux.btf.zst"
    (tmp_path / "vmlinux.btf").write_bytes(b"damaged")
    capture = tiny()
    assert find_enums(at, capture).origin == "vmlinux.btf.zst"
    assert codes(capture) == ["kernel-numbers"]


def test_numbers_of_another_kernel_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "kernel.enums.json").write_text(
        (FIXTURES / "linux-7.3/kernel.enums.json").read_text()
    )
    capture = tiny()
    enums = find_enums(str(tmp_path / "perf.data"), capture)
    assert enums.page_flag("PG_head") is None
    assert enums.sources == {"vm_flags": "documented"}
    assert codes(capture) == ["kernel-numbers", "no-kernel-numbers"]
    assert "7.3.4+deb13-cloud-arm64, not 6.12.0" in capture.diagnostics["message"][0]


def test_numbers_of_the_running_kernel_only_for_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "btf").write_bytes(sample())
    monkeypatch.setattr(module, "RUNNING_KERNEL", tmp_path / "btf")
    capture = tiny()
    capture.provenance.kernel_release = platform.release()
    assert find_enums(str(tmp_path / "perf.data"), capture).page_flag("PG_head") == 64
    assert find_enums(str(tmp_path / "perf.data"), tiny()).page_flag("PG_head") is None


# --- whole ingests -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "store"),
    [
        ("perf.data", "perf.mmtrace"),
        ("a/b/pageout-64k.perf.data.zst", "pageout-64k.mmtrace"),
        ("trace.dat", "trace.mmtrace"),
        ("x.trace.txt.gz", "x.mmtrace"),
        ("-", "stdin.mmtrace"),
        ("dir/", "dir.mmtrace"),
        ("plain", "plain.mmtrace"),
    ],
)
def test_default_store(path: str, store: str) -> None:
    assert default_store(path) == Path(store)


def test_formats_from_another_capture(tmp_path: Path, stubs: None) -> None:
    (tmp_path / "a").write_bytes(PERF)
    (tmp_path / "b").write_bytes(PERF)
    capture = read_capture(tmp_path / "a", tmp_path / "b")
    assert capture.provenance.extra["formats"] == ["mmtrace:folio_remove_rmap_ptes"]


def test_existing_output_is_refused_before_reading(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError):
        ingest("/dev/zero", tmp_path / "out", force=True)


def test_standard_input(tmp_path: Path) -> None:
    raw = (FIXTURES / "linux-7.3/pageout-64k.perf.data.zst").read_bytes()
    run = subprocess.run(
        [sys.executable, "-m", "mmtrace", "info", "--format", "json", "-"],
        cwd=ROOT, input=raw, capture_output=True, check=True,
    )  # fmt: skip
    about = json.loads(run.stdout)["provenance"]
    assert about["path"] == "-"
    assert about["extra"]["wrapper"]["sha256"] == hashlib.sha256(raw).hexdigest()


def test_the_demo_capture(store: Store) -> None:
    about = store.provenance
    assert about.kernel_release == "7.3.4+deb13-cloud-arm64"
    assert about.sha256 == hashlib.sha256(content("linux-7.3/pageout-64k.perf.data")).hexdigest()
    assert (about.arch, about.nr_cpus) == ("aarch64", 1)
    # Every -e event, also those that were never hit.
    assert set(store.counts) < set(about.probe_set)
    assert "contpte:__contpte_try_fold" in about.probe_set
    assert store.enums.origin == "vmlinux.btf.zst"
    assert store.enums.release == about.kernel_release
    folios = store.event("mmtrace:folio_remove_rmap_ptes")
    assert folios["folio"].max() > 1 << 63
    # 4 MiB of 64 KiB folios, each swapped out once.
    swapped = store.event("mmtrace:try_to_unmap_one")
    assert swapped.filter(comm="mmwork").height >= 64
    assert store.ops["seq"].is_sorted()


CAPTURES = sorted(
    f"{kernel}/{p.name.removesuffix('.perf.data.zst')}"
    for kernel in KERNELS
    for p in (FIXTURES / kernel).glob("*.perf.data.zst")
)


@pytest.mark.parametrize("name", CAPTURES)
def test_every_kernel_capture(name: str, make_store: Callable[[str], Store]) -> None:
    store = make_store(name)
    assert store.diagnostics.is_empty()
    assert store.loss.is_empty()
    assert store.provenance.kernel_release == store.enums.release
    assert store.ops.filter(comm="mmwork").height > 50
    for key, rows in store.counts.items():
        frame = store.event(key)
        assert frame.height == rows
        assert frame["seq"].is_sorted()
        fields = [f.name for f in store.formats[key].fields]
        have = set(frame.columns)
        assert [f for f in fields if f not in have and not f.startswith("common_")] == []


def test_addresses_are_unsigned(store: Store) -> None:
    frame = store.event("mmtrace:folio_remove_rmap_ptes")
    assert {frame.schema[c] for c in ("folio", "page", "vma", "mm")} == {pl.UInt64()}
    assert frame["folio"].min() > 1 << 63


# File to folios of 64 KiB that it swaps out.
FORMATS = {
    "pageout.zstd.perf.data.zst": 32,
    "pageout.pipe.perf.data.zst": 32,
    "pageout.pipe.zstd.perf.data.zst": 32,
    "pageout.callgraph.perf.data.zst": 32,
    "pageout.v6.dat.zst": 32,
    "pageout.v7.zlib.dat": 32,
    "pageout.v7.zstd.dat": 32,
    "pageout.fgraph.dat": 16,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_container(name: str, tmp_path: Path) -> None:
    store = ingest(FIXTURES / "formats" / name, tmp_path / "a.mmtrace")
    assert store.provenance.kernel_release == "6.12.107+deb13-cloud-arm64"
    assert store.loss.is_empty()
    assert store.event("mmtrace:try_to_unmap_one").filter(comm="mmwork").height == FORMATS[name]


def test_lossy_capture_says_so(tmp_path: Path) -> None:
    store = ingest(FIXTURES / "formats/pageout.lost.perf.data.zst", tmp_path / "a.mmtrace")
    assert store.loss["known"].sum() > 0


def test_killed_recording_with_formats_of_another(tmp_path: Path) -> None:
    whole = content("linux-7.3/zap-64k.perf.data")
    path = tmp_path / "perf.data"
    # Event formats and features lie behind the data, so that a killed recorder never writes them.
    start, length = struct.unpack_from("<QQ", whole, 40)
    path.write_bytes(whole[: start + length - 1000])
    store = ingest(
        path,
        tmp_path / "a.mmtrace",
        formats_from=FIXTURES / "linux-7.3/pageout-64k.perf.data.zst",
        btf=FIXTURES / "linux-7.3/kernel.enums.json",
    )
    assert store.counts["mmtrace:folio_add_new_anon_rmap"] > 50
    assert store.ops.height > 50
    assert not store.diagnostics.is_empty()


def test_same_capture_same_bytes(tmp_path: Path) -> None:
    path = FIXTURES / "linux-6.12/zap-64k.perf.data.zst"
    first, second = ingest(path, tmp_path / "a.mmtrace"), ingest(path, tmp_path / "b.mmtrace")
    for p in first.path.rglob("*"):
        if p.is_file():
            other = second.path / p.relative_to(first.path)
            assert p.read_bytes() == other.read_bytes(), p.name
