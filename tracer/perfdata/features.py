# SPDX-License-Identifier: GPL-2.0-or-later
"""Feature sections: what perf record knew about the machine and the recording.

One function per feature, each from a bounded cursor to plain values that go to
``meta.json``. A damaged section fails alone. Layouts: the ``write_*`` functions
of tools/perf/util/header.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracer.capture import Provenance
from tracer.decode import Diagnostic
from tracer.errors import CaptureError
from tracer.perfdata import format as layout
from tracer.perfdata.header import Attr, parse_attr, parse_ids
from tracer.tracedat.cursor import Cursor

_BUILD_ID_BYTES: Final = 20
_MAX_CPUS: Final = 1 << 20
# Build id records of early perf have no pid; the kernel's name then reads as if
# it had lost four characters.
_OLD_BUILD_ID: Final = "nel.kallsyms]"


@dataclass
class EventDesc:
    """One row of EVENT_DESC."""

    name: str
    attr: Attr
    ids: NDArray[np.uint64]


@dataclass
class Features:
    """All features of a capture.

    :ivar values: lower-case feature name to its value
    :ivar tracing: the TRACING_DATA section's bytes and file offset
    :ivar skipped: feature name to size, of those that are known but not decoded or not known
    """

    values: dict[str, Any] = field(default_factory=dict)
    events: list[EventDesc] = field(default_factory=list)
    tracing: tuple[memoryview, int] | None = None
    skipped: dict[str, int] = field(default_factory=dict)


def text(cur: Cursor) -> str:
    """u32 length, characters, NUL padding. See do_read_string()."""
    return cur.sized(4, "a string").split(b"\0", 1)[0].decode("utf-8", "replace")


def count(cur: Cursor, least: int, width: int = 4) -> int:
    """A number of entries, compared with the room that is left for them.

    :param least: smallest size of an entry
    :param width: bytes of the number
    :raises CaptureError: when they cannot all be there
    """
    n = cur.uint(width, "a count")
    if n * least > cur.left:
        raise CaptureError(f"{n} entries of {least} bytes or more do not fit into {cur.left}.")
    return n


def texts(cur: Cursor) -> list[str]:
    """u32 number, strings."""
    return [text(cur) for _ in range(count(cur, 4))]


def pairs(cur: Cursor) -> dict[str, str]:
    """u32 number, then a name and a value each."""
    return {text(cur): text(cur) for _ in range(count(cur, 8))}


def nrcpus(cur: Cursor) -> dict[str, int]:
    available, online = cur.u32(), cur.u32()
    if available > _MAX_CPUS or online > available:
        raise CaptureError(f"{online} of {available} CPUs online is not possible.")
    return {"available": available, "online": online}


def cpu_topology(cur: Cursor, cpus: int) -> dict[str, Any]:
    """Sibling lists, then core and socket of every CPU, then dies; later parts are optional.

    See process_cpu_topology().

    :param cpus: available ones, from NRCPUS
    """
    out: dict[str, Any] = {"cores": texts(cur), "threads": texts(cur)}
    if cur.left >= 8 * cpus:
        ids = [(cur.u32(), cur.u32()) for _ in range(cpus)]
        out["core_ids"], out["socket_ids"] = [c for c, _ in ids], [s for _, s in ids]
    if cur.left:
        out["dies"] = texts(cur)
        if cur.left >= 4 * cpus:
            out["die_ids"] = [cur.u32() for _ in range(cpus)]
    return out


def numa_topology(cur: Cursor) -> list[dict[str, Any]]:
    return [
        {"node": cur.u32(), "total_kb": cur.u64(), "free_kb": cur.u64(), "cpus": text(cur)}
        for _ in range(count(cur, 24))
    ]


def pmu_mappings(cur: Cursor) -> dict[int, str]:
    return {cur.u32(): text(cur) for _ in range(count(cur, 8))}


def group_desc(cur: Cursor) -> list[dict[str, Any]]:
    return [
        {"name": text(cur), "leader": cur.u32(), "members": cur.u32()}
        for _ in range(count(cur, 12))
    ]


def cache(cur: Cursor) -> list[dict[str, Any]]:
    if cur.u32() != 1:
        raise CaptureError("The version is not 1.")
    out = []
    for _ in range(count(cur, 28)):
        numbers = {key: cur.u32() for key in ("level", "line_size", "sets", "ways")}
        out.append({**numbers, "type": text(cur), "size": text(cur), "map": text(cur)})
    return out


def sample_time(cur: Cursor) -> dict[str, int]:
    return {"first": cur.u64(), "last": cur.u64()}


def mem_topology(cur: Cursor) -> dict[str, Any]:
    """Which blocks of physical memory each node has, as runs of block numbers."""
    if cur.u64() != 1:
        raise CaptureError("The version is not 1.")
    block = cur.u64()
    nodes = []
    for _ in range(count(cur, 24, 8)):
        node, size, bits = cur.u64(), cur.u64(), cur.u64()
        if (bits + 63) // 64 * 8 > cur.left:
            raise CaptureError(f"A bitmap of {bits} blocks does not fit into {cur.left} bytes.")
        words = parse_ids(cur.take((bits + 63) // 64 * 8), cur.big_endian)
        nodes.append({"node": node, "size": size, "blocks": _runs(words)})
    return {"block_size": block, "nodes": nodes}


def _runs(words: NDArray[np.uint64]) -> list[list[int]]:
    """:return: [first, last] of each run of set bits."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], bits, [0])).astype(np.int8)))
    return [[int(a), int(b) - 1] for a, b in edges.reshape(-1, 2)]


def clockid(cur: Cursor) -> int:
    return cur.u64()


def dir_format(cur: Cursor) -> int:
    return cur.u64()


def compressed(cur: Cursor) -> dict[str, int]:
    return {key: cur.u32() for key in ("version", "type", "level", "ratio", "mmap_len")}


def clock_data(cur: Cursor) -> dict[str, int]:
    """Wall time is ``wall_ns + (ts - clockid_ns)``."""
    if cur.u32() != 1:
        raise CaptureError("The version is not 1.")
    return {"clockid": cur.u32(), "wall_ns": cur.u64(), "clockid_ns": cur.u64()}


def hybrid_topology(cur: Cursor) -> dict[str, str]:
    return pairs(cur)


def pmu_caps(cur: Cursor) -> list[dict[str, Any]]:
    return [{"caps": pairs(cur), "pmu": text(cur)} for _ in range(count(cur, 8))]


def e_machine(cur: Cursor) -> dict[str, int]:
    return {"e_machine": cur.u32(), "e_flags": cur.u32()}


def auxtrace(cur: Cursor) -> dict[str, int]:
    """How much hardware trace there is, which is not decoded."""
    n = count(cur, 16, 8)
    return {"blobs": n, "bytes": sum((cur.u64(), cur.u64())[1] for _ in range(n))}


def bpf_count(cur: Cursor) -> int:
    """Number of BPF programs or types; their contents are not decoded."""
    return count(cur, 8)


def build_id(cur: Cursor) -> list[dict[str, Any]]:
    """Records as in the data, back to back. See perf_header__read_build_ids()."""
    start = cur.pos
    out = _build_ids(cur, False)
    if any(row["filename"] == _OLD_BUILD_ID for row in out):
        cur.pos = start
        out = _build_ids(cur, True)
    return out


def _build_ids(cur: Cursor, old: bool) -> list[dict[str, Any]]:
    out = []
    while cur.left >= layout.RECORD_HEADER:
        start = cur.pos
        _, misc, size = cur.u32(), cur.u16(), cur.u16()
        if size < 32 or start + size > cur.end:
            raise CaptureError(f"A build id record of {size} bytes at {start} does not fit.")
        out.append(build_id_record(cur, misc, start + size, old))
        cur.pos = start + size
    return out


def build_id_record(cur: Cursor, misc: int, end: int, old: bool = False) -> dict[str, Any]:
    """The body of one HEADER_BUILD_ID record, the cursor behind its header."""
    pid = -1 if old else int.from_bytes(cur.u32().to_bytes(4, "big"), "big", signed=True)
    ident = cur.take(_BUILD_ID_BYTES)
    size = _BUILD_ID_BYTES
    tail = cur.take(min(4, end - cur.pos))
    if misc & layout.MISC_BUILD_ID_SIZE:
        size = min(tail[0] if tail else size, _BUILD_ID_BYTES)
    name = cur.take(max(0, end - cur.pos)).split(b"\0", 1)[0]
    return {
        "pid": pid,
        "build_id": ident[:size].hex(),
        "filename": name.decode("utf-8", "replace"),
    }


def event_desc(cur: Cursor) -> list[EventDesc]:
    """Name, attribute and ids of every event. See read_event_desc()."""
    n = cur.u32()
    stride = cur.u32()
    if stride < layout.ATTR_SIZES[0] or n * (stride + 8) > cur.left:
        raise CaptureError(f"{n} events of {stride} bytes do not fit into {cur.left}.")
    out = []
    for _ in range(n):
        attr = parse_attr(cur.take(stride), cur.big_endian)
        nr_ids = cur.u32()
        name = text(cur)
        if nr_ids * 8 > cur.left:
            raise CaptureError(f"{nr_ids} ids of {name[:40]!r} do not fit into {cur.left} bytes.")
        out.append(EventDesc(name, attr, parse_ids(cur.take(nr_ids * 8), cur.big_endian)))
    return out


_DECODERS: Final[dict[str, Callable[[Cursor], Any]]] = {
    "BUILD_ID": build_id,
    "HOSTNAME": text,
    "OSRELEASE": text,
    "VERSION": text,
    "ARCH": text,
    "NRCPUS": nrcpus,
    "CPUDESC": text,
    "CPUID": text,
    "TOTAL_MEM": lambda cur: cur.u64(),
    "CMDLINE": texts,
    "NUMA_TOPOLOGY": numa_topology,
    "BRANCH_STACK": lambda cur: True,
    "PMU_MAPPINGS": pmu_mappings,
    "GROUP_DESC": group_desc,
    "AUXTRACE": auxtrace,
    "STAT": lambda cur: True,
    "CACHE": cache,
    "SAMPLE_TIME": sample_time,
    "MEM_TOPOLOGY": mem_topology,
    "CLOCKID": clockid,
    "DIR_FORMAT": dir_format,
    "BPF_PROG_INFO": bpf_count,
    "BPF_BTF": bpf_count,
    "COMPRESSED": compressed,
    "CPU_PMU_CAPS": pairs,
    "CLOCK_DATA": clock_data,
    "HYBRID_TOPOLOGY": hybrid_topology,
    "PMU_CAPS": pmu_caps,
    "E_MACHINE": e_machine,
    "CLN_SIZE": lambda cur: cur.u32(),
}


def read_feature(
    out: Features,
    bit: int,
    data: memoryview,
    offset: int,
    size: int,
    big_endian: bool,
    diagnostics: list[Diagnostic],
) -> None:
    """Decode one section into ``out``; a damaged one becomes a diagnostic.

    :param offset: byte of ``data`` where the payload starts; checked, like ``size``
    """
    name = layout.FEATURES.get(bit, f"feature {bit}")
    if name == "TRACING_DATA":
        out.tracing = (data[offset : offset + size], offset)
        return
    cur = Cursor(data, offset, offset + size, big_endian=big_endian)
    try:
        if name == "EVENT_DESC":
            out.events = event_desc(cur)
        elif name == "CPU_TOPOLOGY":
            cpus = out.values.get("nrcpus", {}).get("available", 0)
            out.values["cpu_topology"] = cpu_topology(cur, cpus)
        elif name in _DECODERS:
            out.values[name.lower()] = _DECODERS[name](cur)
        else:
            out.skipped[name.lower()] = size
    except CaptureError as err:
        diagnostics.append(
            Diagnostic(
                "bad-feature",
                "warning",
                offset,
                size,
                f"Feature section {name} is damaged: {err.message}",
            )
        )


def fill_provenance(about: Provenance, features: Features) -> None:
    """Put what the features say where a reader of ``meta.json`` looks for it."""
    values = features.values
    about.hostname = values.get("hostname")
    about.kernel_release = values.get("osrelease")
    about.arch = values.get("arch")
    about.nr_cpus = values.get("nrcpus", {}).get("online")
    about.cmdline = values.get("cmdline", [])
    if "version" in values:
        about.recorder = f"perf {values['version']}"
    taken = ("hostname", "osrelease", "arch", "cmdline", "version")
    about.extra["features"] = {k: v for k, v in values.items() if k not in taken}
    if features.skipped:
        about.extra["features_skipped"] = features.skipped
