# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory that answers as tracefs does, for kernels and users without kprobes.

State lies in files only, so that a forked watchdog sees what its parent did.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from tests import rings
from tests.rings import Event
from tracer.record.tracefs import Tracefs

STATIC = "sched/sched_process_exit"
EVENTS = {c: [Event(5000 + 10 * i + c, 10 + c, i) for i in range(200)] for c in range(2)}


class FakeTracefs(Tracefs):
    """kprobe_events, instances and their buffers.

    :param refused: functions that the kernel does not let be probed
    """

    def __init__(self, root: Path, refused: tuple[str, ...] = ()) -> None:
        super().__init__(root)
        self.refused = refused
        (root / "instances").mkdir(parents=True)
        (root / "kprobe_events").touch()
        (root / "error_log").write_text("")
        (root / "saved_cmdlines").write_text("10 worker\n11 other\n")
        self._event(STATIC)
        header = rings.HEADER_PAGE.format(long=8, at=16, size=4080)
        (root / "events" / "header_page").write_text(header)

    def _event(self, name: str) -> None:
        at = self.root / "events" / name
        at.mkdir(parents=True)
        (at / "enable").write_text("0")
        event = name.partition("/")[2]
        known = rings.MARK_FORMAT.replace("name: mark", f"name: {event}")
        # Of the events only the static one is in the pages.
        (at / "format").write_text(known if name == STATIC else known.replace("701", "999"))

    def write(self, name: str, text: str) -> None:
        """A control file; the clock in use is printed among the others."""
        super().write(name, f"local [{text}]\n" if name.endswith("trace_clock") else text)

    def append(self, name: str, text: str) -> None:
        """Add or remove a probe, as kernel/trace/trace_kprobe.c does."""
        if (self.root / "busy").exists():
            raise OSError(errno.EBUSY, "Device or resource busy")
        path, line = self.root / name, text.strip()
        lines = path.read_text().splitlines()
        if line.startswith("-:"):
            kept = [k for k in lines if k.split()[0].partition(":")[2] != line[2:]]
            if kept == lines:
                raise OSError(errno.ENOENT, "No such file or directory")
            shutil.rmtree(self.root / "events" / line[2:])
            lines = kept
        else:
            if line.split()[1] in self.refused:
                (self.root / "error_log").write_text("[1.0] trace_kprobe: error: No such symbol\n")
                raise OSError(errno.ENOENT, "No such file or directory")
            self._event(line.split()[0].partition(":")[2])
            lines.append(line)
        path.write_text("".join(k + "\n" for k in lines))

    def make_instance(self, name: str) -> None:
        """An instance whose buffers are full already."""
        at = self.root / "instances" / name
        shutil.copytree(self.root / "events", at / "events")
        for file in ("tracing_on", "buffer_size_kb", "trace_clock", "events/enable"):
            (at / file).write_text("")
        for cpu, events in EVENTS.items():
            directory = at / "per_cpu" / f"cpu{cpu}"
            directory.mkdir(parents=True)
            (directory / "trace_pipe_raw").write_bytes(rings.pages(events, 4096, "<"))
            (directory / "stats").write_text(f"entries: 0\noverrun: {cpu}\ndropped events: 2\n")

    def remove_instance(self, name: str) -> None:
        """As rmdir."""
        shutil.rmtree(self.root / "instances" / name)

    @property
    def probes(self) -> list[str]:
        """The lines of kprobe_events."""
        return (self.root / "kprobe_events").read_text().splitlines()

    @property
    def instances(self) -> list[str]:
        """Names of instances."""
        return sorted(p.name for p in (self.root / "instances").iterdir())
