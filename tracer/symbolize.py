# SPDX-License-Identifier: GPL-2.0-or-later
"""Put function names beside the instruction addresses of a capture.

``ip`` gets ``ip_symbol`` (String) and ``ip_offset`` (bytes); a ``callchain`` gets
``callchain_symbol``, a list of ``name+0x1c``. User addresses and unknown ones
are null; the addresses stay.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from tracer.capture import Capture
from tracer.compression import unwrap
from tracer.errors import CaptureError
from tracer.symbols import Symbols, from_kallsyms, from_vmlinux

# Fields that hold an address of code. kernel/trace/trace_entries.h, trace_probe.h; call_site: kmem.
FIELDS: Final = frozenset({
    "ip", "parent_ip", "func", "retaddr", "__probe_ip", "__probe_func", "__probe_ret_ip",
    "sample_ip", "call_site", "caller_ip", "function",
})  # fmt: skip
_TELLING: Final = FIELDS - {"__probe_ip", "__probe_func", "__probe_ret_ip"}
CHAINS: Final = frozenset({"callchain", "caller"})
SYMBOL: Final = "_symbol"
OFFSET: Final = "_offset"
SIDECARS: Final = ("kallsyms", "kallsyms.txt", "kallsyms.zst", "kallsyms.txt.zst", "vmlinux")
RUNNING_KERNEL: Final = Path("/proc/kallsyms")
# Context markers of call chains, include/uapi/linux/perf_event.h, enum perf_callchain_context.
_MARKERS: Final = {
    -32: "[hypervisor]", -128: "[kernel]", -512: "[user]", -640: "[user deferred]",
    -2048: "[guest]", -2176: "[guest kernel]", -2560: "[guest user]",
}  # fmt: skip


def load_symbols(name: str, build_id: str | None = None) -> Symbols:
    """Read kallsyms text or a vmlinux, plain or compressed.

    :param name: the file
    :param build_id: the captured kernel's, checked against a vmlinux
    :raises CaptureError: when it is neither, or of another build
    """
    from tracer.ingest import read_bytes

    data = unwrap(read_bytes(name), name).data
    origin = os.path.basename(name)
    if data.startswith(b"\x7fELF"):
        return from_vmlinux(data, origin, build_id)
    return from_kallsyms(data, origin)


def find_symbols(
    path: str, capture: Capture, given: str | os.PathLike[str] | None = None
) -> Symbols | None:
    """The captured kernel's functions, in the places where it put them.

    They come from ``given``, else from the capture itself, from a file beside
    it, or from the running kernel. What does not fit the capture is named in its
    diagnostics and not used, except for a file that the user named.

    :param path: the capture's path, ``-`` for standard input
    :return: None when there are none
    :raises CaptureError: when the named file is unusable
    """
    from tracer.ingest import diagnose

    build_id = kernel_build_id(capture)
    if given is not None:
        found = load_symbols(os.fspath(given), build_id)
        problem = misfit(place(found, capture), capture)
        if problem:
            raise CaptureError(f"{found.origin} is of another kernel: {problem}.")
        return place(found, capture)
    for load in _candidates(path, capture, build_id) if wants_symbols(capture) else ():
        try:
            found = place(load(), capture)
        except CaptureError as e:
            diagnose(capture, "symbols", "warning", f"Symbols are not used: {e}")
            continue
        problem = misfit(found, capture)
        if not problem:
            return found
        diagnose(capture, "symbols", "warning", f"{found.origin} is not used: {problem}.")
    return None


def wants_symbols(capture: Capture) -> bool:
    """:return: whether there are addresses whose function the event's name does not tell."""
    for key, frame in capture.events.items():
        if key != "ftrace:print" and (_TELLING | CHAINS) & set(frame.columns):
            return True
    return False


def _candidates(
    path: str, capture: Capture, build_id: str | None
) -> Iterator[Callable[[], Symbols]]:
    if capture.kallsyms:
        yield lambda: from_kallsyms(capture.kallsyms, "the capture's kallsyms")
    directory = Path.cwd() if path == "-" else Path(path).absolute().parent
    for file in (directory / name for name in SIDECARS):
        if file.is_file():
            yield partial(load_symbols, str(file), build_id)
    release = capture.provenance.kernel_release
    if release and release == platform.release() and RUNNING_KERNEL.exists():
        yield partial(load_symbols, str(RUNNING_KERNEL))


def kernel_build_id(capture: Capture) -> str | None:
    """:return: build id of the captured kernel in hexadecimal, from a perf.data."""
    rows = capture.provenance.extra.get("features", {}).get("build_id", [])
    kernel = ("[kernel.kallsyms]", "[kernel.vmlinux]", "vmlinux")
    return next((r["build_id"] for r in rows if str(r["filename"]).endswith(kernel)), None)


def place(symbols: Symbols, capture: Capture) -> Symbols:
    """Move symbols of another boot, or unrelocated ones, to where this boot had the kernel.

    perf notes the address of ``_text`` or ``_stext`` as the pgoff of the kernel's MMAP
    record, see perf_event__synthesize_kernel_mmap() in tools/perf/util/synthetic-events.c.
    """
    mmap = capture.records.get("mmap")
    if mmap is None or not {"filename", "pgoff"} <= set(mmap.columns):
        return symbols
    kernel = mmap.filter(pl.col("filename").str.starts_with("[kernel.kallsyms]_")).head(1)
    for name, at in kernel.select("filename", "pgoff").iter_rows():
        own = symbols.address(name.removeprefix("[kernel.kallsyms]"))
        if own is not None and at and own != at:
            return symbols.moved(at - own)
    return symbols


def misfit(symbols: Symbols, capture: Capture) -> str | None:
    """Hold symbols against the capture's probes: a kprobe lies in the function it is named for.

    :return: what does not fit, None when all is well or nothing can be told
    """
    for key, frame in capture.events.items():
        name = key.partition(":")[2]
        if "__probe_ip" not in frame.columns or frame["__probe_ip"].dtype != pl.UInt64:
            continue
        at = symbols.address(name)
        ips = frame["__probe_ip"].drop_nulls()
        if at is None or not ips.len():
            continue
        found, _ = symbols.resolve(ips.head(1))
        if found[0] == name or abs(int(ips[0]) - at) < 1 << 12:
            return None
        return f"probe {name} hit at 0x{int(ips[0]):x}, where it has {found[0] or 'no function'}"
    return None


def symbolize_frame(frame: pl.DataFrame, symbols: Symbols) -> pl.DataFrame:
    """Add the names of every address column of an event's frame."""
    new: list[pl.Series] = []
    for name, dtype in frame.schema.items():
        if name + SYMBOL in frame.columns:
            continue
        if name in FIELDS and dtype == pl.UInt64:
            distinct = frame[name].unique()
            found, offset = symbols.resolve(distinct)
            if found.null_count() == found.len():
                continue
            keyed = pl.DataFrame({"v": distinct, "s": found, "o": offset})
            values = frame.select(v=pl.col(name))
            both = values.join(keyed, on="v", how="left", nulls_equal=True, maintain_order="left")
            new += [both["s"].alias(name + SYMBOL), both["o"].alias(name + OFFSET)]
        elif name in CHAINS and dtype == pl.List(pl.UInt64):
            new.append(_chain(frame[name], symbols).alias(name + SYMBOL))
    return frame.hstack(new) if new else frame


def _chain(chains: pl.Series, symbols: Symbols) -> pl.Series:
    """:return: List(String), the functions of each call chain, context markers by name."""
    named = {marker % (1 << 64): text for marker, text in _MARKERS.items()}
    markers = pl.Series("", list(named), dtype=pl.UInt64)
    distinct = chains.explode().drop_nulls().unique().alias("")
    distinct = distinct.filter(~distinct.is_in(markers.implode()))
    texts = symbols.texts(distinct)
    old = pl.concat([distinct, markers])
    new = pl.concat([texts, pl.Series("", list(named.values()), dtype=pl.String)])
    return chains.list.eval(
        pl.element().replace_strict(old, new, default=None, return_dtype=pl.String)
    )


def symbolize_capture(capture: Capture, symbols: Symbols) -> None:
    """Give every event of a capture its names, in place."""
    for key, frame in capture.events.items():
        capture.events[key] = symbolize_frame(frame, symbols)
    capture.provenance.extra["symbols"] = {
        "origin": symbols.origin,
        "functions": len(symbols.names),
        "build_id": symbols.build_id,
    }
