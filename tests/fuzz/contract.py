# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold for every mutant.

1. Nothing but CaptureError is raised, at any stage up to the store.
2. Without a diagnostic and without a loss row, no event has gone or come:
   there are as many rows as in the original. Two things no reader can know: a
   stream that lacks whole records (bytes taken out of a text, of a pipe between two
   records, of raw pages by the page) is the stream of a shorter recording; and
   a perf.data record whose type has changed is another record, which is counted as such.
3. Without either, and when the damage lies in the events' own bytes, only the
   events that it touches differ, in any column but the time, which a ring buffer
   page counts on from event to event, and the task name, which is its own record.

No container has a checksum over its events, so that a changed value is a value:
a flipped bit of an address is an address. What 2 and 3 rule out is that a reader
skips, doubles or misplaces records and says nothing. Damage to metadata, a field's
offset or an event's name, may change many values, never their number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from tests.fuzz.corpus import Subject, subject
from tests.fuzz.mutate import Mutant
from tracer.capture import Capture
from tracer.enums import KernelEnums, complete
from tracer.errors import CaptureError
from tracer.ingest import read_capture
from tracer.normalize import normalize
from tracer.printfmt import decode_capture

# A record has 8 bytes at least, and damage may reach into one more at either end.
SMALLEST: Final = 8
_FREE: Final = ("seq", "ts", "comm")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    :ivar outcome: ``refused``, ``diagnosed``, ``equal``, ``value``, or a finding:
        ``exception``, ``silent``, and from outside ``hang``, ``crash``, ``memory``
    """

    outcome: str
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        return self.outcome not in ("refused", "diagnosed", "equal", "value")


def judge(original: str, mutant: Mutant, file: Path) -> Verdict:
    """Read a mutant and hold it against the contract.

    :param original: name of the intact fixture
    :param file: where to put the mutant, with its proper surroundings
    """
    file.write_bytes(mutant.data)
    try:
        capture = read_capture(file)
    except CaptureError as e:
        return Verdict("refused", str(e))
    except MemoryError:
        return Verdict("memory")
    except Exception as e:
        return Verdict("exception", _where(e))
    said = _said(capture)
    records = sum(capture.provenance.extra.get("records", {}).values())
    rows = row_hashes(capture)
    try:
        enums = complete(KernelEnums(), capture.formats.values())
        normalize(capture, enums)
        decode_capture(capture, enums)
    except CaptureError as e:
        return Verdict("refused", str(e))
    except Exception as e:
        return Verdict("exception", _where(e))
    if said - reference(original, file.parent)[1]:
        return Verdict("diagnosed")
    before, _, of_all_kinds = reference(original, file.parent)
    return _compare(subject(original), mutant, before, rows, records == of_all_kinds)


def _where(error: Exception) -> str:
    trace = error.__traceback__
    places = []
    while trace:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:200]} at {' '.join(places[-4:])}"


@cache
def reference(name: str, directory: Path) -> tuple[Counter[int], Counter[Any], int]:
    """:return: row hashes of the intact capture, its diagnostics and losses, its perf records."""
    file = directory / ("intact." + Path(name).name)
    file.write_bytes(subject(name).data)
    capture = read_capture(file)
    records = sum(capture.provenance.extra.get("records", {}).values())
    return row_hashes(capture), _said(capture), records


def _said(capture: Capture) -> Counter[Any]:
    """:return: every diagnostic and loss row."""
    return Counter([*capture.diagnostics.iter_rows(), *capture.loss.iter_rows()])


def row_hashes(capture: Capture) -> Counter[int]:
    """:return: a multiset of rows of all events, without their times and task names."""
    out: Counter[int] = Counter()
    for key, frame in capture.events.items():
        own = frame.drop(_FREE).with_columns(pl.lit(key).alias("\0key"))
        lists = [n for n, d in own.schema.items() if isinstance(d, pl.List)]
        own = own.with_columns(pl.col(n).cast(pl.List(pl.String)).list.join(" ") for n in lists)
        out.update(own.hash_rows().to_list())
    return out


def _compare(
    intact: Subject, mutant: Mutant, before: Counter[int], after: Counter[int], same_records: bool
) -> Verdict:
    gone = sum((before - after).values())
    come = sum((after - before).values())
    if gone == come == 0:
        return Verdict("equal")
    where = f"{gone} rows gone, {come} come, damage at {mutant.at}"
    most = 2 + mutant.length // SMALLEST
    if gone != come and not _is_invisible(intact, mutant):
        retyped = bool(mutant.length) and intact.is_perf and same_records
        if not (retyped and abs(gone - come) <= most):
            return Verdict("silent", where)
    end = mutant.at + mutant.length
    if (
        mutant.length
        and any(mutant.at in r and end <= r.stop for r in intact.plain)
        and gone > most
    ):
        return Verdict("silent", f"{where}, which touches at most {most}")
    return Verdict("value")


def _is_invisible(intact: Subject, mutant: Mutant) -> bool:
    """Whole records may have been taken out of, or put into, a stream that counts none."""
    moved = abs(len(mutant.data) - len(intact.data))
    return bool(moved) and intact.grain > 0 and moved % intact.grain == 0
