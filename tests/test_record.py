# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording with tracefs: a fake one for kprobes, the real one for tracepoints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mmtrace
from reports.recordtext import doctor_text, outcome_text
from tests.conftest import ROOT
from tests.faketracefs import EVENTS, FakeTracefs
from tests.test_probes import PROTOTYPES, old_btf
from tracer import doctor
from tracer.errors import MmtraceError, UsageError
from tracer.ingest import read_capture
from tracer.probes import OK, Functions, ProbeDefinition, resolve
from tracer.record import preflight, run
from tracer.record.run import Request, check, record_with
from tracer.record.tracefs import ROOTS, Probes, Tracefs, stale

KEY = "sched:sched_process_exit"


def definitions() -> list[ProbeDefinition]:
    found = resolve(old_btf(), Functions.from_names(list(PROTOTYPES)))
    return [d for d in found if d.status == OK]


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def real_tracefs() -> Tracefs | None:
    """The machine's own, when an instance may be made in it."""
    fs, name = Tracefs(ROOTS[0]), f"probe_{os.getpid()}"
    with suppress(OSError):
        fs.make_instance(name)
        fs.remove_instance(name)
        return fs
    return None


@pytest.fixture
def fake(tmp_path: Path) -> FakeTracefs:
    return FakeTracefs(tmp_path / "tracing", refused=("exit_mmap",))


def test_probes_are_set_recorded_and_removed(fake: FakeTracefs, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    out = tmp_path / "cap.raw"
    command = ["cp", str(fake.root / "kprobe_events"), str(seen)]
    done = record_with(Request(out=out, command=command), fake, definitions())
    group = f"mmtrace_{os.getpid()}"
    during = seen.read_text().splitlines()
    # All but the refused one, in the recorder's own group.
    assert len(during) == done.probes == len(definitions()) - 1
    assert all(re.match(rf"[pr]\d*:{group}/", line) for line in during)
    assert fake.probes == fake.instances == done.left == []
    ((line, reason),) = done.refused.items()
    assert line.split()[1] == "exit_mmap"
    assert reason.endswith("No such symbol")
    assert (done.status, done.lost, done.interrupted) == (0, 5, False)
    capture = read_capture(out)
    assert capture.events[KEY].height == sum(map(len, EVENTS.values()))
    assert set(capture.events[KEY]["comm"]) == {"worker", "other"}
    about = capture.provenance
    assert (about.clock, about.page_size) == ("mono", os.sysconf("SC_PAGE_SIZE"))
    # Probes without a hit were recorded too.
    assert f"{group}:try_to_unmap_one" in about.probe_set
    assert (out / "events" / group / "try_to_unmap_one" / "format").is_file()
    text = outcome_text(done)
    assert "5 events were lost" in text
    assert f"Next: mmtrace ingest {out}" in text
    assert "refused" in text


def test_events_of_others_stay(fake: FakeTracefs, tmp_path: Path) -> None:
    fake.append("kprobe_events", "p:mine/x do_exit\n")
    record_with(Request(out=tmp_path / "c", command=["true"]), fake, definitions())
    assert fake.probes == ["p:mine/x do_exit"]


def test_command_that_fails_or_cannot_run(fake: FakeTracefs, tmp_path: Path) -> None:
    done = record_with(Request(out=tmp_path / "c", command=["false"]), fake, definitions())
    assert "The command ended with status 1." in outcome_text(done)
    with pytest.raises(MmtraceError, match="Cannot run"):
        record_with(Request(out=tmp_path / "d", command=["/nonexistent"]), fake, definitions())
    assert fake.probes == fake.instances == []


def test_duration_ends_a_command(fake: FakeTracefs, tmp_path: Path) -> None:
    began = time.monotonic()
    request = Request(out=tmp_path / "c", command=["sleep", "60"], duration=0.2)
    done = record_with(request, fake, definitions())
    assert time.monotonic() - began < 20
    assert done.status == -signal.SIGINT


def test_busy_probe_is_told(fake: FakeTracefs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.record.tracefs.BUSY_SECONDS", 0.1)
    probes = Probes(fake, "g")
    probes.define(["p:g/x do_exit"])
    (fake.root / "busy").touch()
    assert probes.remove() == ["x"]
    (fake.root / "busy").unlink()
    assert probes.remove() == []


# Records until it is ended; argv: tracing directory, capture.
CHILD = """
import sys
from pathlib import Path
from tests.faketracefs import FakeTracefs
from tests.test_record import definitions
from tracer.record.run import Request, record_with
record_with(Request(out=Path(sys.argv[2]), everything=True), FakeTracefs(Path(sys.argv[1])),
            definitions())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_the_recorder_ends_nothing_is_left(tmp_path: Path, number: int) -> None:
    root, out = tmp_path / "tracing", tmp_path / "c"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(out)], cwd=ROOT)
    page = out / "per_cpu" / "cpu1" / "trace_pipe_raw"
    assert eventually(lambda: page.exists() and page.stat().st_size > 0)
    assert (root / "kprobe_events").read_text()
    child.send_signal(number)
    child.wait(20)
    assert eventually(lambda: not (root / "kprobe_events").read_text())
    assert eventually(lambda: not list((root / "instances").iterdir()))
    capture = read_capture(out)
    # The fake's buffers do not empty by being read: the watchdog finds everything again.
    times = 2 if number == signal.SIGKILL else 1
    assert capture.events[KEY].height == times * sum(map(len, EVENTS.values()))
    assert set(capture.events[KEY]["comm"]) == {"worker", "other"}


REAL = """
import sys
from pathlib import Path
from tracer.record.run import Request, record_with
from tracer.record.tracefs import ROOTS, Tracefs
record_with(Request(out=Path(sys.argv[1]), everything=True, buffer=256), Tracefs(ROOTS[0]), [])
"""


@pytest.mark.skipif(real_tracefs() is None, reason="no tracefs in which to make an instance")
def test_tracepoints_of_this_machine(tmp_path: Path) -> None:
    fs = real_tracefs()
    assert fs is not None
    request = Request(out=tmp_path / "c", command=["sh", "-c", "true; true"], buffer=1024)
    done = record_with(request, fs, [])
    assert done.lost == 0
    capture = read_capture(tmp_path / "c")
    # Two shells' worth of process life; the recorder's own system calls are there too.
    assert capture.events["sched:sched_process_exec"].height >= 1
    calls = capture.events["syscalls:sys_enter_mmap"]
    assert "sh" in set(calls["comm"])
    assert capture.loss.is_empty()
    assert not (fs.root / "instances" / f"mmtrace_{os.getpid()}").exists()


@pytest.mark.skipif(real_tracefs() is None, reason="no tracefs in which to make an instance")
def test_killed_on_this_machine(tmp_path: Path) -> None:
    out = tmp_path / "c"
    child = subprocess.Popen([sys.executable, "-c", REAL, str(out)], cwd=ROOT)
    instance = ROOTS[0] / "instances" / f"mmtrace_{child.pid}"
    assert eventually(lambda: any(p.stat().st_size for p in out.rglob("trace_pipe_raw")))
    subprocess.run(["true"], check=True)
    child.kill()
    child.wait()
    assert eventually(lambda: not instance.exists())
    assert "syscalls:sys_enter_mmap" in read_capture(out).events


def test_requests_that_say_nothing_or_too_much(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing says what to record"):
        check(Request())
    with pytest.raises(UsageError, match="exclude"):
        check(Request(command=["true"], pid=1))
    with pytest.raises(UsageError, match="no process"):
        check(Request(pid=1 << 30))
    (tmp_path / "c").touch()
    with pytest.raises(MmtraceError, match="exists"):
        check(Request(out=tmp_path / "c", command=["true"]))


@pytest.mark.parametrize(
    ("text", "kb"), [("16M", 16384), ("512k", 512), ("1G", 1 << 20), ("65536", 64), ("2MiB", 2048)]
)
def test_sizes(text: str, kb: int) -> None:
    assert preflight.parse_size(text) == kb


@pytest.mark.parametrize("text", ["", "M", "1T", "-5M", "1000"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        preflight.parse_size(text)


def test_buffers_leave_half_of_the_memory() -> None:
    assert preflight.buffer_kb(None, 1 << 24, 2) == preflight.DEFAULT_KB
    assert preflight.buffer_kb(None, 64 << 10, 4) == 4096
    with pytest.raises(MmtraceError, match=r"--buffer 8192K"):
        preflight.buffer_kb(1 << 20, 64 << 10, 4)
    assert preflight.available_kb("MemTotal: 9 kB\nMemAvailable:   77 kB\n") == 77


def test_refusals_have_a_remedy(fake: FakeTracefs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_tracefs", lambda: fake)
    assert preflight.usable_tracefs() is fake
    monkeypatch.setattr(preflight, "lockdown", lambda: "confidentiality")
    with pytest.raises(MmtraceError, match="lockdown"):
        preflight.usable_tracefs()
    monkeypatch.setattr(preflight, "lockdown", lambda: "none")
    (fake.root / "kprobe_events").unlink()
    with pytest.raises(MmtraceError, match="CONFIG_KPROBE_EVENTS") as e:
        preflight.usable_tracefs()
    assert e.value.hint
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MmtraceError, match="perf is not installed"):
        preflight.program("perf")


@pytest.mark.parametrize("tool", ["perf", "trace-cmd"])
def test_command_lines_of_recording_programs(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "program", lambda name: name)
    request = Request(out=Path("x"), tool=tool, command=["ls", "-l"])
    words = run.arguments(request, 3000, ["g:a", "sched:b"])
    assert words[:2] == [tool, "record"]
    assert words[-7:] == ["-e", "g:a", "-e", "sched:b", "--", "ls", "-l"]
    assert ("2048K" in words) == (tool == "perf")
    forever = run.arguments(Request(out=Path("x"), tool=tool, everything=True), 3000, [])
    assert forever[-2:] == ["sleep", "infinity"]


def test_numbers_beside_the_capture_are_not_replaced(tmp_path: Path) -> None:
    assert run.write_enums(tmp_path / "c", "one") == ""
    assert run.write_enums(tmp_path / "d", "one") == ""
    assert "of another kernel" in run.write_enums(tmp_path / "e", "two")
    assert (tmp_path / run.ENUMS).read_text() == "one"


def test_leftovers_of_the_dead_are_found(fake: FakeTracefs) -> None:
    fake.append("kprobe_events", f"p:mmtrace_{1 << 30}/x do_exit")
    fake.append("kprobe_events", f"p:mmtrace_{os.getpid()}/x do_exit")
    assert stale(fake) == [f"mmtrace_{1 << 30}"]


def test_doctor_has_a_remedy_for_all_that_is_missing() -> None:
    found = doctor.examine()
    assert {"kernel", "memory", "replay"} <= {f.what for f in found}
    assert all(f.good or f.remedy for f in found)
    assert doctor_text(found).count("\n") >= len(found)


def test_the_recorder_needs_python_alone() -> None:
    """A test machine or a guest has no wheels: copying tracer/ there is enough."""
    code = "import sys, tracer.record.run; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"numpy", "polars", "numba", "typer", "elftools"} & set(done.stdout.split())


def test_verbs() -> None:
    runner = CliRunner()
    for verb in ("probes", "record", "doctor"):
        assert runner.invoke(mmtrace.app, [verb, "--help"]).exit_code == 0
    assert runner.invoke(mmtrace.app, ["record"]).exit_code == 2
    result = runner.invoke(mmtrace.app, ["doctor"])
    assert result.exit_code == 0
    assert "This machine can" in result.stdout
