# SPDX-License-Identifier: GPL-2.0-or-later
"""What must not leave the machine by accident.

Reports are made to be shared. Kernel addresses defeat KASLR, so they are never
shown. Task names, command lines, host names and paths identify people and
products; they are replaced unless the user asks for them with ``--raw``.
Pseudonyms are numbered by first appearance, so equal inputs give equal reports.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final

import polars as pl

from replay.result import Replay
from reports import names

# TTBR1 addresses: the top 16 bits set, whatever VA_BITS (36 to 52) is.
_KERNEL_ADDRESS = re.compile(r"\b(?:0x)?ffff[0-9a-f]{12}\b", re.IGNORECASE)
_USER_ADDRESS = re.compile(r"\b0x[0-9a-f]{5,16}\b", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w<.])(?:~|\.{1,2})?/[^\s,;:'\"<>()]+")
_CAPTURE_SUFFIX: Final = (".mmtrace", ".data", ".dat", ".perf", ".trace", ".txt", ".zst")

# Provenance that says something about the machine, not about its owner, and what it is called.
_PUBLIC: Final = {
    "container": "container",
    "sha256": "sha256",
    "size": "bytes",
    "kernel_release": "kernel",
    "arch": "architecture",
    "page_size": "page size",
    "nr_cpus": "CPUs",
    "clock": "clock",
    "byte_order": "byte order",
    "long_size": "bytes per long",
    "recorder": "recorded by",
    "mmtrace": "ingested by",
}
_PRIVATE: Final = {"path": "file", "hostname": "host", "cmdline": "recorded with"}


class Redactor:
    """Replaces names consistently.

    :param comms: task names in order of first appearance
    :param raw: keep everything except kernel addresses
    """

    def __init__(self, comms: Iterable[str | None] = (), raw: bool = False) -> None:
        self.raw = raw
        known = dict.fromkeys(c for c in comms if c)
        self._comms = {comm: f"task-{i}" for i, comm in enumerate(known, 1)}

    @classmethod
    def of(cls, replays: Sequence[Replay], raw: bool = False) -> Redactor:
        """:return: one that numbers the tasks of these replays."""
        comms: list[str | None] = []
        for replay in replays:
            comms += replay.rows.sort("seq")["comm"].unique(maintain_order=True).to_list()
        return cls(comms, raw)

    def comm(self, comm: str | None) -> str:
        """:return: the name to show for a task."""
        if self.raw or not comm:
            return names.task_name(comm)
        return self._comms.setdefault(comm, f"task-{len(self._comms) + 1}")

    def text(self, text: str) -> str:
        """:return: free text without addresses, paths and task names."""
        text = _KERNEL_ADDRESS.sub("(kernel address)", text)
        if self.raw:
            return text
        text = _PATH.sub("(path)", text)
        # Longest first: "foo" must not eat the start of "foo-worker".
        for comm in sorted(self._comms, key=lambda c: (-len(c), c)):
            # A thread id may follow, "mmwork-123"; another word may not.
            text = re.sub(rf"(?<![\w-]){re.escape(comm)}(?!\w|-\D)", self._comms[comm], text)
        return text

    def args(self, args: str | None) -> str:
        """:return: system call arguments; addresses only with ``raw``."""
        text = _KERNEL_ADDRESS.sub("(kernel address)", args or "")
        return text if self.raw else _PATH.sub("(path)", _USER_ADDRESS.sub("(address)", text))

    def command(self, command: str) -> str:
        """:return: the command line with files named by their role."""
        if self.raw:
            return _KERNEL_ADDRESS.sub("(kernel address)", command)
        try:
            words = shlex.split(command)
        except ValueError:  # unbalanced quotes: nothing of it can be trusted
            return "(command line withheld)"
        shown = " ".join(_word(w) for w in words)
        # Whoever has the capture does not have the store yet; without a name it is the newest.
        files = {w.rpartition("=")[2] for w in shown.split()}
        if "STORE" in files:
            return f"mmtrace ingest CAPTURE -o STORE\n{shown}"
        return shown if "CAPTURE" in files else f"mmtrace ingest CAPTURE\n{shown}"

    def frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """:return: the frame with every string column passed through :meth:`text`."""
        columns = [n for n, t in frame.schema.items() if t == pl.String]
        return frame.with_columns(
            pl.Series(n, [None if v is None else self.text(v) for v in frame[n]], pl.String)
            for n in columns
        )

    def provenance(self, have: dict[str, Any]) -> dict[str, str]:
        """:return: provenance in reading order, values as text, unknown ones left out."""
        out: dict[str, str] = {}
        for key, name in (_PUBLIC | _PRIVATE).items():
            value = have.get(key)
            if value in (None, "", []):
                continue
            if key in _PRIVATE and not self.raw:
                out[name] = "withheld (--raw shows it)"
            else:
                words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
                prefix = "mmtrace " if key == "mmtrace" else ""
                out[name] = prefix + _KERNEL_ADDRESS.sub("(kernel address)", words)
        return out


def _word(word: str) -> str:
    """:return: an argument as it may be shown: ``--flag``, a label, or a file's role."""
    label, equals, value = word.partition("=")
    if equals:
        return f"{label}={_word(value)}"
    if word.endswith((".html", ".json", ".csv", ".parquet", ".toml")):
        return "FILE" + word[word.rindex(".") :]
    if word.rstrip("/").endswith(_CAPTURE_SUFFIX) or "/" in word:
        return "STORE" if ".mmtrace" in word else "CAPTURE"
    return word if re.fullmatch(r"[\w.+,:%<>-]+", word) else shlex.quote(word)
