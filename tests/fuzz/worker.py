# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that judges mutants within bounds: ``FIXTURE SEED`` in, a JSON line out."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Final

from tests.fuzz.contract import judge
from tests.fuzz.corpus import lay_out, subject
from tests.fuzz.mutate import mutate

# What numba, polars and their threads map before the first mutant is about 3 GiB.
ROOM: Final = 2 << 30


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lay_out(directory)
        bounded = False
        for line in sys.stdin:
            fixture, seed = line.split()
            start = time.perf_counter()
            intact = subject(fixture)
            mutant = mutate(intact.data, int(seed), intact.hot)
            file = directory / ("mutant." + Path(fixture).name)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            verdict = judge(fixture, mutant, file)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {
                "fixture": fixture,
                "seed": int(seed),
                "kind": mutant.kind,
                "outcome": verdict.outcome,
                "detail": verdict.detail,
                "seconds": round(time.perf_counter() - start, 3),
                "grown_kib": after - before,
            }
            print(json.dumps(answer), flush=True)
            if not bounded:  # compiled kernels and libraries are loaded by now
                bounded = True
                limit = _mapped() + ROOM
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _mapped() -> int:
    """:return: bytes of address space in use."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    main()
