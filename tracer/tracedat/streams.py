# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bytes of a file are whose pages, after every range was checked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.kernels import as_bytes
from tracer.ringbuffer import PageLayout, Stream, check_page_size
from tracer.tracedat.chunks import Arena
from tracer.tracedat.cursor import note
from tracer.tracedat.model import Buffer, Contents, CpuData

MAX_STREAMS: Final = 1 << 14  # CPUs of all buffers together
MAX_CPU: Final = 1 << 16  # a larger id is damage; the kernel's NR_CPUS stops at 8192


class Plan:
    """The streams of a file and the buffer that they lie in.

    :ivar streams: in file order
    :ivar buf: uint8[bytes]: the file itself, or its unpacked CPU data
    :ivar problems: ranges that cannot be used

    :param data: the file
    """

    def __init__(self, data: bytes, contents: Contents, layout: PageLayout) -> None:
        self.problems: list[Diagnostic] = []
        self._file = as_bytes(data)
        self._arena: Arena | None = None
        pieces = self._pieces(contents, layout)
        if any(contents.buffers[i].compressed for i, _, _ in pieces):
            self._arena = Arena(data, contents.codec, contents.meta.big_endian)
        self.streams, plain = self._place(contents, pieces)
        self.buf: Any = self._file
        if self._arena is not None:
            self.buf = self._arena.fill()
            self.problems += self._arena.problems
            for stream, offset in plain:
                self.buf = np.concatenate([self.buf, self._file[offset : offset + stream.size]])

    def locate(self, at: int) -> int | None:
        """:return: the file offset of a byte of ``buf``, or of the chunk that holds it."""
        return at if self._arena is None else self._arena.locate(at)

    def _pieces(self, contents: Contents, layout: PageLayout) -> list[tuple[int, CpuData, int]]:
        """:return: (buffer number, CPU data, page size) in file order, none overlapping."""
        found = []
        for number, buffer in enumerate(contents.buffers):
            size = self._page_size(buffer, layout)
            found += [(number, cpu, size) for cpu in buffer.cpus if cpu.size and size]
        found.sort(key=lambda piece: (piece[1].offset, piece[1].size))
        kept: list[tuple[int, CpuData, int]] = []
        end = 0
        have: set[tuple[int, int]] = set()
        for number, cpu, size in found:
            what = f"CPU {cpu.cpu} of buffer {contents.buffers[number].name[:80]!r}"
            if cpu.cpu >= MAX_CPU:
                self._lose(cpu, "bad-cpu", f"{what} cannot be; its data is left out.")
            elif cpu.offset >= self._file.size:
                self._lose(cpu, "truncated-data", f"{what} lies behind the end of the file.")
            elif cpu.offset < end:
                self._lose(cpu, "overlap", f"{what} overlaps data before it and is left out.")
            elif (number, cpu.cpu) in have:
                self._lose(cpu, "bad-cpu", f"{what} comes twice; its second data is left out.")
            elif len(kept) >= MAX_STREAMS:
                self._lose(cpu, "bad-cpu", f"{what} is one too many; its data is left out.")
            else:
                have.add((number, cpu.cpu))
                kept.append((number, cpu, size))
                end = cpu.offset + cpu.size
        return kept

    def _page_size(self, buffer: Buffer, layout: PageLayout) -> int:
        """:return: the buffer's page size, 0 when there is no usable one."""
        for size in (buffer.page_size, layout.size):
            try:
                return check_page_size(size)
            except CaptureError as err:
                if buffer.page_size:
                    row = Diagnostic("bad-page-size", "warning", None, None, err.message)
                    note(self.problems, row)
        return 0

    def _place(
        self, contents: Contents, pieces: list[tuple[int, CpuData, int]]
    ) -> tuple[list[Stream], list[tuple[Stream, int]]]:
        """:return: the streams, and those to copy behind the arena with their file offset."""
        streams, plain = [], []
        for number, cpu, page_size in pieces:
            if contents.buffers[number].compressed and self._arena is not None:
                start, size = self._arena.add(cpu.offset, cpu.size, cpu.cpu)
                streams.append(Stream(cpu.cpu, start, size, page_size, number))
                continue
            size = min(cpu.size, self._file.size - cpu.offset)
            if size < cpu.size:
                text = f"The file ends inside the data of CPU {cpu.cpu}."
                self._lose(CpuData(cpu.cpu, cpu.offset + size, cpu.size - size),
                           "truncated-data", text)  # fmt: skip
            stream = Stream(cpu.cpu, cpu.offset, size, page_size, number)
            if self._arena is None:
                streams.append(stream)
            else:
                plain.append((stream, cpu.offset))
        tail = self._arena.size if self._arena is not None else 0
        for i, (stream, offset) in enumerate(plain):
            moved = Stream(stream.cpu, tail, stream.size, stream.page_size, stream.instance)
            plain[i] = (moved, offset)
            streams.append(moved)
            tail += stream.size
        return streams, plain

    def _lose(self, cpu: CpuData, code: str, text: str) -> None:
        note(self.problems, Diagnostic(code, "loss", cpu.offset, cpu.size, text))
