# SPDX-License-Identifier: GPL-2.0-or-later
"""How long ``mmtrace --help`` takes: it must feel immediate (0.3 s at most)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 11
ROOT = Path(__file__).resolve().parent.parent


def once() -> float:
    begin = time.perf_counter()
    command = [sys.executable, str(ROOT / "mmtrace.py"), "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    once()
    times = [once() for _ in range(RUNS)]
    print(f"mmtrace --help: median {statistics.median(times):.3f} s, best {min(times):.3f} s")


if __name__ == "__main__":
    main()
