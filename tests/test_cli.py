# SPDX-License-Identifier: GPL-2.0-or-later
"""The front door: start-up, errors, exit codes, pipes, signals, hostile names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import mmtrace
from tests.conftest import FIXTURES, ROOT
from tests.test_store import write
from tests.tiny import tiny
from tracer import schema
from tracer.info import describe
from tracer.output import WIDTH, columns, printable, size
from tracer.store import Store

HEAVY = ("polars", "numba", "numpy", "plotly", "jinja2", "elftools", "llvmlite")
CAPTURE = FIXTURES / "linux-7.3/pageout-64k.perf.data.zst"


def mm(*args: object, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the front door in a process of its own."""
    command = [sys.executable, "-m", "mmtrace", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=cwd or ROOT, capture_output=True, text=True, env=env, timeout=120, **more
    )  # type: ignore[call-overload,no-any-return]


# --- start-up ----------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["ingest", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['mmtrace', *sys.argv[1:]]; import mmtrace\n"
        "try: mmtrace.main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stderr == "[]\n"
    assert "mmtrace" in run.stdout.lower()


def test_importing_the_api_imports_nothing_heavy() -> None:
    code = f"import sys, mmtrace; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "[]\n"


def test_help_is_plain_80_columns() -> None:
    out = mm("--help").stdout
    assert "Exit codes" in out
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


# --- public API --------------------------------------------------------------------------


def test_api_is_lazy_and_complete() -> None:
    for name in mmtrace.__all__:
        assert getattr(mmtrace, name) is not None
        assert name in dir(mmtrace)
    assert mmtrace.Store is Store
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = mmtrace.absent


# --- verbs -------------------------------------------------------------------------------


def test_version() -> None:
    run = mm("--version")
    assert run.returncode == 0
    assert not run.stderr
    assert re.fullmatch(r"mmtrace \S.* \(python [\d.]+, polars .*numba [^)]*\)\n", run.stdout)


def test_ingest_and_info(tmp_path: Path) -> None:
    run = mm("ingest", CAPTURE, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr.splitlines()[-1] == "Wrote pageout-64k.mmtrace"
    assert re.fullmatch(r"[\d,]+ events of \d+ kinds, [\d,]+ operations, lost: none\n", run.stdout)
    again = mm("ingest", CAPTURE, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "mmtrace: pageout-64k.mmtrace exists. Replace it with --force, or choose another -o.\n"
    )
    assert mm("ingest", CAPTURE, "--force", cwd=tmp_path).returncode == 0
    info = mm("info", cwd=tmp_path)
    assert "7.3.4+deb13-cloud-arm64" in info.stdout
    assert not info.stderr
    assert info.stdout == mm("info", "pageout-64k.mmtrace", cwd=tmp_path).stdout
    meta = json.loads(mm("info", "--format", "json", cwd=tmp_path).stdout)
    assert meta["schema"] == "mmtrace.store/1"
    assert [p.name for p in tmp_path.iterdir()] == ["pageout-64k.mmtrace"]


def test_info_of_a_capture_writes_nothing(tmp_path: Path) -> None:
    run = mm("info", CAPTURE, cwd=tmp_path)
    assert "mmtrace:try_to_unmap_one" in run.stdout, run.stderr
    assert "unpacked from zstd" in run.stdout
    assert not list(tmp_path.iterdir())


# --- errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["ingest", "absent"], 1, "Cannot read absent: No such file or directory."),
        (["info"], 2, "There is no *.mmtrace store in"),
        (["ingest", sys.executable], 1, "is an ELF file, not a capture."),
        (["ingest", str(FIXTURES)], 1, "without a capture in it"),
        (["ingest", str(FIXTURES / "linux-7.3")], 1, "Name one of the captures in it"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, args: list[str], code: int, message: str) -> None:
    run = mm(*args, cwd=tmp_path)
    assert run.returncode == code
    assert run.stderr.startswith("mmtrace: ")
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not run.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["nonsense"], ["ingest"], ["info", "--format", "xml"], []])
def test_wrong_usage_exits_2(args: list[str]) -> None:
    run = mm(*args)
    assert run.returncode == 2
    assert "Usage: " in run.stderr
    assert not run.stdout


def test_hostile_file_names_reach_the_terminal_escaped(tmp_path: Path) -> None:
    run = mm("ingest", "\x1b]0;owned\x07\n\u202e", cwd=tmp_path)
    assert run.returncode == 1
    assert "\x1b" not in run.stderr
    assert "\\x1b]0;owned\\x07\\x0a\\u202e" in run.stderr


def test_errors_of_a_verb_reach_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tracer.ingest.ingest", fail)
    run = CliRunner().invoke(mmtrace.app, ["ingest", "x"])
    assert run.exit_code == 1
    assert "Not enough memory" in run.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing(tmp_path: Path, number: int, code: int) -> None:
    # A fifo keeps the reader waiting until the signal arrives.
    os.mkfifo(tmp_path / "fifo")
    code_text = (
        "import mmtrace, tracer.store as s, tracer.ingest as i, sys, time\n"
        "from tests.tiny import tiny, ops_frame\n"
        "i.read_capture = lambda *a: tiny()\n"
        "i.find_enums = lambda *a: s.KernelEnums()\n"
        "import tracer.normalize as n; n.normalize = ops_frame\n"
        "real = s.file_name\n"
        "def slow(key): print('ready', flush=True); time.sleep(60)\n"
        "s.file_name = slow\n"
        "sys.argv = ['mmtrace', 'ingest', 'x', '-o', sys.argv[1]]\n"
        "mmtrace.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code_text, str(tmp_path / "a.mmtrace")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == code
        assert "Traceback" not in process.stderr.read()
    assert [p.name for p in tmp_path.iterdir()] == ["fifo"]


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    write(tmp_path / "a.mmtrace", tiny(*(f"mmtrace:probe{i}" for i in range(300))))
    process = subprocess.Popen(
        [sys.executable, "-m", "mmtrace", "info", "--format", "json", str(tmp_path / "a.mmtrace")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (128 + signal.SIGPIPE, b"")


# --- text --------------------------------------------------------------------------------


def test_describe_fits_and_is_printable(tmp_path: Path) -> None:
    capture = tiny("mmtrace:zap", "mmtrace:\x1b[2J\n")
    capture.provenance.cmdline = [
        "perf",
        "record",
        "-e",
        "mmtrace:*",
        "--",
        "sh",
        "-c",
        "\x07 " * 40,
    ]
    capture.provenance.page_size = 4096
    capture.provenance.nr_cpus = 2
    capture.loss = pl.DataFrame(
        [(1, 0, None, 5, False, "LOST"), (2, 1, None, None, True, "page")],
        schema=schema.polars_schema(schema.LOSS_COLUMNS), orient="row",
    )  # fmt: skip
    row = ("cut", "loss", 9, 1, "The file ends \x1b[31m early and this goes on " * 3)
    capture.diagnostics = pl.DataFrame(
        [row, row, ("n", "note", None, None, "Fine.")],
        schema=schema.polars_schema(schema.DIAGNOSTIC_COLUMNS), orient="row",
    )  # fmt: skip
    for source in (capture, write(tmp_path / "a.mmtrace", capture)):
        lines = describe(source)
        text = "\n".join(lines)
        assert all(len(line) <= WIDTH for line in lines)
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "4 KiB pages, 2 CPUs" in text
        assert "5 events in 2 places, and 1 times an unknown number" in text
        assert "  3  mmtrace:zap" in text
        assert "mmtrace:\\x1b[2J\\x0a" in text
        assert "(2 times)" in " ".join(text.split())
        assert text.index("loss: ") < text.index("note: Fine.")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("größe", "größe"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        (None, "None"),
    ],
)
def test_printable(raw: object, shown: str) -> None:
    assert printable(raw) == shown


def test_printable_limit() -> None:
    assert printable("x" * 20, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10


def test_size_and_columns() -> None:
    assert [size(n) for n in (None, 0, 1023, 1024, 3 << 19, 1 << 50)] == [
        "unknown", "0 B", "1023 B", "1 KiB", "1.5 MiB", "1024 TiB",
    ]  # fmt: skip
    assert columns([("a", "1"), ("bcd", "20")], right=frozenset({1})) == ["a     1", "bcd  20"]
