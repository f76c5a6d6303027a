# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive the fuzzer: ``python -m tests.fuzz.run --minutes 60``.

Each mutant is named by fixture and seed; ``--only FIXTURE --seed N --count 1`` runs
one again, and ``--save FILE`` keeps its bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tests.conftest import ROOT
from tests.fuzz.contract import Verdict
from tests.fuzz.corpus import NAMES, subject
from tests.fuzz.mutate import mutate

TIMEOUT: Final = 20.0  # seconds for one mutant; they take 0.05 as a rule
FIRST_TIMEOUT: Final = 180.0  # the first compiles
MAX_GROWTH_KIB: Final = 512 << 10  # resident memory one mutant of a 5 MB file may need


class Worker:
    """A subprocess of tests.fuzz.worker; a new one takes the place of a dead one."""

    def __init__(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=ROOT,
            bufsize=0,
        )
        self.timeout = FIRST_TIMEOUT

    def judge(self, fixture: str, seed: int) -> dict[str, Any]:
        """:return: the worker's answer, or a ``hang`` or ``crash`` in its place."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = {"fixture": fixture, "seed": seed, "kind": "", "detail": "", "seconds": 0.0}
        try:
            process.stdin.write(f"{fixture} {seed}\n".encode())
        except BrokenPipeError:
            return {**answer, "outcome": "crash", "detail": "died before"}
        deadline, line = time.monotonic() + self.timeout, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                self.close()
                return {**answer, "outcome": "hang", "seconds": self.timeout}
            piece = process.stdout.read(1 << 16)
            if not piece:
                return {**answer, "outcome": "crash", "detail": f"exit {process.wait()}"}
            line += piece
        self.timeout = TIMEOUT
        got: dict[str, Any] = json.loads(line)
        return got

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def run(tasks: Iterable[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Judge mutants one by one.

    :param tasks: (fixture, seed)
    """
    worker = Worker()
    warm = True  # the first mutant of a fixture loads it
    seen: set[str] = set()
    try:
        for fixture, seed in tasks:
            answer = worker.judge(fixture, seed)
            warm = fixture in seen
            seen.add(fixture)
            if warm and answer.get("grown_kib", 0) > MAX_GROWTH_KIB:
                answer |= {"outcome": "memory", "detail": f"grew by {answer['grown_kib']} KiB"}
            yield answer
            if answer["outcome"] in ("hang", "crash"):
                worker.close()
                worker = Worker()
    finally:
        worker.close()


def is_finding(answer: dict[str, Any]) -> bool:
    return Verdict(answer["outcome"]).is_finding


def schedule(seed: int, only: str | None = None) -> Iterator[tuple[str, int]]:
    """Endless (fixture, seed) pairs, every fixture in turn."""
    names = [n for n in NAMES if only is None or fnmatchcase(n, only)]
    while True:
        for name in names:
            yield name, seed
        seed += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--count", type=int, default=1 << 62)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default=None)
    parser.add_argument("--save", type=Path, default=None)
    given = parser.parse_args()
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    if given.save:
        intact = subject(given.only)
        given.save.write_bytes(mutate(intact.data, seed, intact.hot).data)
    stop = time.monotonic() + 60 * given.minutes
    outcomes: Counter[str] = Counter()
    findings = 0
    for answer in run(schedule(seed, given.only)):
        outcomes[answer["outcome"]] += 1
        if is_finding(answer):
            findings += 1
            print(json.dumps(answer), flush=True)
        if time.monotonic() > stop or outcomes.total() >= given.count:
            break
    print(f"{outcomes.total()} mutants from seed {seed}: {dict(outcomes)}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
