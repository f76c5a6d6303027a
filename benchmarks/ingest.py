# SPDX-License-Identifier: GPL-2.0-or-later
"""mmtrace beside perf and trace-cmd, on the same files, in one run.

Records a perf.data and a trace.dat of memory-management events on this machine, or
repeats a shipped capture where recording is not allowed, then times, in turn and
several times over, what each tool needs to read them. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVENTS = ("kmem:mm_page_alloc", "kmem:mm_page_free", "kmem:rss_stat", "sched:sched_switch")
# Maps, touches and unmaps 64 MiB over and over.
WORKLOAD = (
    "import mmap, time; stop = time.monotonic() + float({seconds})\n"
    "while time.monotonic() < stop:\n"
    "    m = mmap.mmap(-1, 64 << 20); m.madvise(15)\n"
    "    for at in range(0, 64 << 20, 4096): m[at] = 1\n"
    "    m.close()\n"
)
# What is timed inside a process that is warm: typed, sorted frames in memory.
FRAMES = (
    "import json, sys, time; from tracer.ingest import read_bytes; from tracer import detect\n"
    "from tracer.ingest import READERS; import importlib\n"
    "name, runs = sys.argv[1], int(sys.argv[2]); data = read_bytes(name)\n"
    "module, function = READERS[detect.kind_of(data[:65536], len(data), name)]\n"
    "read = getattr(importlib.import_module(module), function); out = []\n"
    "for _ in range(runs + 1):\n"
    "    t = time.perf_counter(); c = read(data, name); out.append(time.perf_counter() - t)\n"
    "    n = sum(f.height for f in c.events.values()); del c\n"
    "print(json.dumps([n, out[1:]]))\n"
)
FIRST = (
    "import sys; from tracer.ingest import read_capture\n"
    "c = read_capture(sys.argv[1]); print(next(iter(c.events.values())).head(1).height)\n"
)


@dataclass(frozen=True)
class Row:
    """One tool on one file; times in seconds, memory in MiB.

    :ivar rss: largest resident set of the process, from wait4(2)
    """

    tool: str
    file: str
    events: int
    median: float
    fastest: float
    cpu: float
    rss: float

    @property
    def rate(self) -> float:
        return self.events / self.median / 1e6


def measure(command: list[str], env: dict[str, str] | None = None) -> tuple[float, float, float]:
    """Run a command, its output thrown away.

    :return: wall seconds, CPU seconds, MiB resident at most
    :raises subprocess.CalledProcessError: when it fails
    """
    start = time.perf_counter()
    with open(os.devnull, "wb") as null:
        process = subprocess.Popen(command, stdout=null, stderr=null, env=env, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall = time.perf_counter() - start
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def record_perf(out: Path, seconds: float) -> str:
    """:return: how the file was made."""
    command = ["perf", "record", "-q", "-a", "-m", "16384", "-o", str(out)]
    for event in EVENTS:
        command += ["-e", event]
    workload = [sys.executable, "-c", WORKLOAD.format(seconds=seconds)]
    run = subprocess.run([*command, "--", *workload], capture_output=True, check=False)
    if run.returncode == 0 and out.exists() and out.stat().st_size > 1 << 20:
        return f"perf record -a -m 16384 of {', '.join(EVENTS)}, {seconds:g} s of page faults"
    repeat_perf(ROOT / "fixtures/linux-7.3/zap-64k.perf.data.zst", out, 1800)
    return "fixtures/linux-7.3/zap-64k, its data section 1800 times (recording is not allowed here)"


def repeat_perf(source: Path, out: Path, times: int) -> None:
    """Write a perf.data whose data section is repeated, each time later than the last."""
    sys.path.insert(0, str(ROOT))
    from tracer.compression import unwrap
    from tracer.ingest import read_capture

    data = unwrap(source.read_bytes(), str(source)).data
    frames = read_capture(source).events.values()
    first, last = (int(f(e["ts"][i] for e in frames)) for f, i in ((min, 0), (max, -1)))
    at, size = struct.unpack_from("<QQ", data, 40)
    stamps = _stamps(data, at, at + size, first, last)
    with open(out, "wb") as f:
        head = bytearray(data[:at])
        struct.pack_into("<Q", head, 48, size * times)
        f.write(head)
        body = bytearray(data[at : at + size])
        for i in range(times):
            for where, value in stamps:
                struct.pack_into("<Q", body, where - at, value + i * (last - first + 1000))
            f.write(body)
        features = bytearray(data[at + size :])
        bits = bin(int.from_bytes(data[72:104], "little")).count("1")
        for i in range(bits):
            offset = struct.unpack_from("<Q", features, 16 * i)[0]
            struct.pack_into("<Q", features, 16 * i, offset + size * (times - 1))
        f.write(features)


def _stamps(data: bytes, at: int, end: int, first: int, last: int) -> list[tuple[int, int]]:
    """:return: offset and value of each sample's time, the first u64 that lies in the recording."""
    out = []
    while at < end:
        kind, _, length = struct.unpack_from("<IHH", data, at)
        if kind == 9:
            words = struct.unpack_from("<6Q", data, at + 8)
            i = next((i for i, w in enumerate(words) if first <= w <= last), None)
            if i is not None:
                out.append((at + 8 + 8 * i, words[i]))
        at += length
    return out


def record_trace_dat(out: Path, seconds: float) -> str | None:
    """:return: how the file was made; None where trace-cmd cannot record."""
    if not shutil.which("trace-cmd"):
        return None
    command = ["trace-cmd", "record", "-q", "-b", "200000", "-o", str(out)]
    for event in EVENTS:
        command += ["-e", event]
    workload = [sys.executable, "-c", WORKLOAD.format(seconds=seconds)]
    run = subprocess.run([*command, *workload], capture_output=True, check=False, cwd=out.parent)
    if run.returncode or not out.exists() or out.stat().st_size < 1 << 20:
        out.unlink(missing_ok=True)
        return None
    return f"trace-cmd record of the same events, {seconds:g} s"


def tools(file: Path, store: Path) -> dict[str, list[str]]:
    """:return: what to run on a file, by the name it has in the table."""
    mm = [sys.executable, "-m", "mmtrace"]
    out = {"mmtrace ingest": [*mm, "ingest", str(file), "-o", str(store), "--force"]}
    if file.suffix == ".data":
        out["perf script"] = ["perf", "script", "-i", str(file)]
        out["perf report --stats"] = ["perf", "report", "--stats", "-i", str(file)]
        out["perf data convert --to-json"] = [
            "perf", "data", "convert", "--force", "--to-json", os.devnull, "-i", str(file)
        ]  # fmt: skip
    else:
        out["trace-cmd report"] = ["trace-cmd", "report", "-i", str(file)]
    return {k: v for k, v in out.items() if shutil.which(v[0]) or v[0] == sys.executable}


def bench(file: Path, runs: int, work: Path) -> list[Row]:
    """Time every tool on a file, in turn, ``runs`` times over."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FRAMES, str(file), str(runs)]
    subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True)  # compiles
    frames = json.loads(
        subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True).stdout
    )
    events, times = frames
    *_, rss = measure([*command[:-1], "1"], env)
    rows = [
        Row(
            "mmtrace frames, warm",
            file.name,
            events,
            statistics.median(times),
            min(times),
            statistics.median(times),
            rss,
        )
    ]
    seen: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(runs):
        for name, what in tools(file, work / "bench.mmtrace").items():
            try:
                seen.setdefault(name, []).append(measure(what, env))
            except subprocess.CalledProcessError:
                seen.pop(name, None)
                print(f"{name} cannot read {file.name}", file=sys.stderr)
    for name, found in seen.items():
        walls, cpus, sizes = zip(*found, strict=True)
        rows.append(
            Row(
                name,
                file.name,
                events,
                statistics.median(walls),
                min(walls),
                statistics.median(cpus),
                max(sizes),
            )
        )
    return rows


def first_frame(work: Path, runs: int) -> Row:
    """A 10 MB perf.data from process start to the first typed row."""
    file = work / "ten.data"
    repeat_perf(ROOT / "fixtures/linux-7.3/zap-64k.perf.data.zst", file, 25)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FIRST, str(file)]
    found = [measure(command, env) for _ in range(runs + 1)][1:]
    walls, cpus, sizes = zip(*found, strict=True)
    name = f"first frame of {file.stat().st_size / 1e6:.1f} MB"
    return Row(
        name,
        file.name,
        1,
        statistics.median(walls),
        min(walls),
        statistics.median(cpus),
        max(sizes),
    )


def table(rows: list[Row], sizes: dict[str, int]) -> list[str]:
    """:return: the rows as text, 75 columns."""
    out = [f"{'':28}{'file':12}{'wall s':>8}{'cpu s':>8}{'M ev/s':>8}{'MiB':>7}"]
    for row in rows:
        rate = f"{row.rate:.2f}" if row.events > 1 else "-"
        out.append(
            f"{row.tool:28}{row.file:12}{row.median:8.2f}{row.cpu:8.2f}{rate:>8}{row.rss:7.0f}"
        )
    out += [f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="length of the recording")
    parser.add_argument("--runs", type=int, default=5, help="medians are of this many")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--work", type=Path, help="directory for the captures, kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(exist_ok=True)
        made = {"perf.data": record_perf(work / "perf.data", given.seconds)}
        dat = record_trace_dat(work / "trace.dat", given.seconds)
        if dat:
            made["trace.dat"] = dat
        rows = [row for name in made for row in bench(work / name, given.runs, work)]
        rows.append(first_frame(work, given.runs))
        sizes = {name: (work / name).stat().st_size for name in made}
    print(*table(rows, sizes), sep="\n")
    print(*(f"{name}: {how}" for name, how in made.items()), sep="\n")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()},",
        f"medians of {given.runs}",
    )
    if given.json:
        numbers = [{**asdict(r), "events_per_second": r.events / r.median} for r in rows]
        given.json.write_text(json.dumps({"made": made, "sizes": sizes, "rows": numbers}, indent=1))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
