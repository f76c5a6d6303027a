# SPDX-License-Identifier: GPL-2.0-or-later
"""The on-disk layout of perf.data, declared once, with the source each row mirrors.

All integers are in the recording machine's byte order. Offsets and sizes are
bytes. Paths are in the kernel tree.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# tools/perf/util/header.c, __perf_magic2 and __perf_magic1.
MAGIC_LITTLE: Final = b"PERFILE2"
MAGIC_BIG: Final = b"2ELIFREP"
MAGIC_V1: Final = b"PERFFILE"  # either byte order: told by the attribute size
MAGIC_V1_SWAPPED: Final = b"ELIFFREP"

# struct perf_file_header, tools/perf/util/header.h: (field, offset, bytes).
# A section is {u64 offset, u64 size}.
HEADER: Final = (
    ("magic", 0, 8),
    ("size", 8, 8),
    ("attr_size", 16, 8),
    ("attrs", 24, 16),
    ("data", 40, 16),
    ("event_types", 56, 16),  # unused since 3.11
    ("features", 72, 32),  # bitmap
)
HEADER_SIZE: Final = 104
HEADER_SIZE_NO_FEATURES: Final = 72
PIPE_HEADER_SIZE: Final = 16  # struct perf_pipe_file_header: magic, size

# Limits on numbers that come from the file, as read_header() in header.c has them.
MAX_ATTRS: Final = 1 << 16
MAX_IDS: Final = 1 << 24
MAX_ATTR_SIZE: Final = 1 << 12

# Published sizes of perf_event_attr, PERF_ATTR_SIZE_VER0..9.
ATTR_SIZES: Final = (64, 72, 80, 96, 104, 112, 120, 128, 136, 144)

# struct perf_event_attr, include/uapi/linux/perf_event.h: (field, offset, bytes, since version).
ATTR: Final = (
    ("type", 0, 4, 0),
    ("size", 4, 4, 0),  # bytes that are real; 0 means version 0
    ("config", 8, 8, 0),
    ("sample_period", 16, 8, 0),  # or the frequency
    ("sample_type", 24, 8, 0),
    ("read_format", 32, 8, 0),
    ("flags", 40, 8, 0),  # bit field
    ("wakeup_events", 48, 4, 0),
    ("bp_type", 52, 4, 0),
    ("config1", 56, 8, 0),
    ("config2", 64, 8, 1),
    ("branch_sample_type", 72, 8, 2),
    ("sample_regs_user", 80, 8, 3),
    ("sample_stack_user", 88, 4, 3),
    ("clockid", 92, 4, 3),
    ("sample_regs_intr", 96, 8, 4),
    ("aux_watermark", 104, 4, 5),
    ("sample_max_stack", 108, 2, 5),
    ("aux_sample_size", 112, 4, 6),
    ("aux_action", 116, 4, 6),
    ("sig_data", 120, 8, 7),
    ("config3", 128, 8, 8),
    ("config4", 136, 8, 9),
)
ATTR_SIZE: Final = ATTR_SIZES[-1]

# Bits of perf_event_attr.flags that a reader needs.
FLAG_FREQ: Final = 1 << 10
FLAG_SAMPLE_ID_ALL: Final = 1 << 18
FLAG_USE_CLOCKID: Final = 1 << 25

# enum perf_type_id: system of the frames of events that are no tracepoints.
TYPE_TRACEPOINT: Final = 2
ATTR_TYPES: Final = {
    0: "hardware",
    1: "software",
    2: "tracepoint",
    3: "hw-cache",
    4: "raw",
    5: "breakpoint",
}
# enum perf_hw_id and enum perf_sw_ids: names where the capture has none.
HARDWARE_NAMES: Final = (
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
)
SOFTWARE_NAMES: Final = (
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
    "dummy",
    "bpf-output",
    "cgroup-switches",
)

# include/uapi/linux/time.h; perf uses sched_clock() unless told otherwise.
CLOCKS: Final = {
    0: "realtime",
    1: "monotonic",
    4: "monotonic_raw",
    7: "boottime",
    11: "tai",
}
DEFAULT_CLOCK: Final = "local_clock"

# enum perf_event_sample_format. The order of the values is not their order on
# disk: SAMPLE_FIELDS is, as evsel__parse_sample() in tools/perf/util/evsel.c
# reads them.
IP: Final = 1 << 0
TID: Final = 1 << 1
TIME: Final = 1 << 2
ADDR: Final = 1 << 3
READ: Final = 1 << 4
CALLCHAIN: Final = 1 << 5
ID: Final = 1 << 6
CPU: Final = 1 << 7
PERIOD: Final = 1 << 8
STREAM_ID: Final = 1 << 9
RAW: Final = 1 << 10
BRANCH_STACK: Final = 1 << 11
REGS_USER: Final = 1 << 12
STACK_USER: Final = 1 << 13
WEIGHT: Final = 1 << 14
DATA_SRC: Final = 1 << 15
IDENTIFIER: Final = 1 << 16
TRANSACTION: Final = 1 << 17
REGS_INTR: Final = 1 << 18
PHYS_ADDR: Final = 1 << 19
AUX: Final = 1 << 20
CGROUP: Final = 1 << 21
DATA_PAGE_SIZE: Final = 1 << 22
CODE_PAGE_SIZE: Final = 1 << 23
WEIGHT_STRUCT: Final = 1 << 24
SAMPLE_BITS: Final = (1 << 25) - 1

# Fields of 8 bytes at a fixed place, in disk order.
SAMPLE_HEAD: Final = (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD)
# Fields behind them, in disk order: (column, bits, shape). Shapes: word is a
# u64; words are u64s, their number in the word before; raw, stack and aux are
# bytes; read is the group of counter values.
SAMPLE_TAIL: Final = (
    ("read", READ, "words"),
    ("callchain", CALLCHAIN, "words"),
    ("raw", RAW, "bytes"),
    ("branch_stack", BRANCH_STACK, "words"),
    ("regs_user", REGS_USER, "words"),
    ("stack_user", STACK_USER, "bytes"),
    ("weight", WEIGHT | WEIGHT_STRUCT, "word"),
    ("data_src", DATA_SRC, "word"),
    ("transaction", TRANSACTION, "word"),
    ("regs_intr", REGS_INTR, "words"),
    ("phys_addr", PHYS_ADDR, "word"),
    ("cgroup", CGROUP, "word"),
    ("data_page_size", DATA_PAGE_SIZE, "word"),
    ("code_page_size", CODE_PAGE_SIZE, "word"),
    ("aux", AUX, "bytes"),
)
# sample_id behind other kernel records, in disk order; perf_evsel__parse_id_sample().
SAMPLE_ID: Final = (TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER)

# perf_event_attr.read_format
READ_ENABLED: Final = 1
READ_RUNNING: Final = 2
READ_ID: Final = 4
READ_GROUP: Final = 8
READ_LOST: Final = 16
# perf_event_attr.branch_sample_type
BRANCH_HW_INDEX: Final = 1 << 17
BRANCH_COUNTERS: Final = 1 << 19

# struct perf_event_header: u32 type, u16 misc, u16 size (this header included).
RECORD_HEADER: Final = 8
MISC_MMAP_DATA: Final = 1 << 13
MISC_COMM_EXEC: Final = 1 << 13
MISC_SWITCH_OUT: Final = 1 << 13
MISC_SWITCH_OUT_PREEMPT: Final = 1 << 14
MISC_MMAP_BUILD_ID: Final = 1 << 14
MISC_LOST_SAMPLES_BPF: Final = 1 << 15  # dropped by a filter on purpose: no loss
MISC_BUILD_ID_SIZE: Final = 1 << 15

# Record types by number: (name, smallest size). Kernel types: enum
# perf_event_type, include/uapi/linux/perf_event.h; from 64 on enum
# perf_user_event_type, tools/lib/perf/include/perf/event.h.
RECORDS: Final = {
    1: ("MMAP", 40),
    2: ("LOST", 24),
    3: ("COMM", 16),
    4: ("EXIT", 32),
    5: ("THROTTLE", 32),
    6: ("UNTHROTTLE", 32),
    7: ("FORK", 32),
    8: ("READ", 16),
    9: ("SAMPLE", 8),
    10: ("MMAP2", 72),
    11: ("AUX", 32),
    12: ("ITRACE_START", 16),
    13: ("LOST_SAMPLES", 16),
    14: ("SWITCH", 8),
    15: ("SWITCH_CPU_WIDE", 16),
    16: ("NAMESPACES", 24),
    17: ("KSYMBOL", 24),
    18: ("BPF_EVENT", 24),
    19: ("CGROUP", 16),
    20: ("TEXT_POKE", 20),
    21: ("AUX_OUTPUT_HW_ID", 16),
    22: ("CALLCHAIN_DEFERRED", 24),
    64: ("HEADER_ATTR", 72),
    65: ("HEADER_EVENT_TYPE", 16),
    66: ("HEADER_TRACING_DATA", 12),
    67: ("HEADER_BUILD_ID", 32),
    68: ("FINISHED_ROUND", 8),
    69: ("ID_INDEX", 16),
    70: ("AUXTRACE_INFO", 16),
    71: ("AUXTRACE", 48),
    72: ("AUXTRACE_ERROR", 16),
    73: ("THREAD_MAP", 16),
    74: ("CPU_MAP", 10),
    75: ("STAT_CONFIG", 16),
    76: ("STAT", 16),
    77: ("STAT_ROUND", 16),
    78: ("EVENT_UPDATE", 24),
    79: ("TIME_CONV", 32),
    80: ("HEADER_FEATURE", 16),
    81: ("COMPRESSED", 8),
    82: ("FINISHED_INIT", 8),
    83: ("COMPRESSED2", 16),
    84: ("BPF_METADATA", 8),
    85: ("SCHEDSTAT_CPU", 8),
    86: ("SCHEDSTAT_DOMAIN", 8),
}
USER_TYPE_START: Final = 64
SAMPLE: Final = 9
HEADER_ATTR: Final = 64
HEADER_EVENT_TYPE: Final = 65
HEADER_TRACING_DATA: Final = 66
HEADER_BUILD_ID: Final = 67
ID_INDEX: Final = 69
AUXTRACE: Final = 71
EVENT_UPDATE: Final = 78
HEADER_FEATURE: Final = 80
COMPRESSED: Final = 81
COMPRESSED2: Final = 83
EVENT_UPDATE_NAME: Final = 2  # PERF_EVENT_UPDATE__NAME


class Part(NamedTuple):
    """One field of a side record. Codes: s32, u8..u64, str (to the end), bytes (to the end)."""

    name: str
    offset: int
    code: str


class SideRecord(NamedTuple):
    """A record type that becomes a side table.

    :ivar misc: value of the header's misc under ``mask`` that selects this layout
    """

    table: str
    type: int
    parts: tuple[Part, ...]
    mask: int = 0
    misc: int = 0


_TASK: Final = (Part("pid", 8, "s32"), Part("tid", 12, "s32"))
_EXTENT: Final = (Part("addr", 16, "u64"), Part("len", 24, "u64"), Part("pgoff", 32, "u64"))
_MMAP2_END: Final = (
    Part("prot", 64, "u32"),
    Part("flags", 68, "u32"),
    Part("filename", 72, "str"),
)
_LIFE: Final = (
    Part("pid", 8, "s32"),
    Part("ppid", 12, "s32"),
    Part("tid", 16, "s32"),
    Part("ptid", 20, "s32"),
)
_THROTTLE: Final = (Part("id", 16, "u64"), Part("stream_id", 24, "u64"))

# Layouts from the comments of enum perf_event_type, include/uapi/linux/perf_event.h.
SIDE_RECORDS: Final = (
    SideRecord("mmap", 1, (*_TASK, *_EXTENT, Part("filename", 40, "str"))),
    SideRecord(
        "mmap",
        10,
        (
            *_TASK,
            *_EXTENT,
            Part("maj", 40, "u32"),
            Part("min", 44, "u32"),
            Part("ino", 48, "u64"),
            Part("ino_generation", 56, "u64"),
            *_MMAP2_END,
        ),
        MISC_MMAP_BUILD_ID,
        0,
    ),
    SideRecord(
        "mmap",
        10,
        (*_TASK, *_EXTENT, Part("build_id", 44, "id20"), *_MMAP2_END),
        MISC_MMAP_BUILD_ID,
        MISC_MMAP_BUILD_ID,
    ),
    SideRecord("lost", 2, (Part("id", 8, "u64"), Part("lost", 16, "u64"))),
    SideRecord("comm", 3, (*_TASK, Part("comm", 16, "str"))),
    SideRecord("exit", 4, _LIFE),
    SideRecord("fork", 7, _LIFE),
    SideRecord("throttle", 5, _THROTTLE),
    SideRecord("unthrottle", 6, _THROTTLE),
    SideRecord(
        "aux",
        11,
        (Part("aux_offset", 8, "u64"), Part("aux_size", 16, "u64"), Part("flags", 24, "u64")),
    ),
    SideRecord("itrace_start", 12, _TASK),
    SideRecord("lost_samples", 13, (Part("lost", 8, "u64"),)),
    SideRecord("switch", 14, ()),
    SideRecord("switch", 15, (Part("next_prev_pid", 8, "s32"), Part("next_prev_tid", 12, "s32"))),
    SideRecord("namespaces", 16, (*_TASK, Part("namespaces", 24, "bytes"))),
    SideRecord(
        "ksymbol",
        17,
        (
            Part("addr", 8, "u64"),
            Part("len", 16, "u32"),
            Part("ksym_type", 20, "u16"),
            Part("flags", 22, "u16"),
            Part("name", 24, "str"),
        ),
    ),
    SideRecord(
        "bpf_event",
        18,
        (
            Part("type", 8, "u16"),
            Part("flags", 10, "u16"),
            Part("id", 12, "u32"),
            Part("tag", 16, "id8"),
        ),
    ),
    SideRecord("cgroup", 19, (Part("id", 8, "u64"), Part("path", 16, "str"))),
    SideRecord(
        "text_poke",
        20,
        (
            Part("addr", 8, "u64"),
            Part("old_len", 16, "u16"),
            Part("new_len", 18, "u16"),
            Part("bytes", 20, "bytes"),
        ),
    ),
    SideRecord("aux_output_hw_id", 21, (Part("hw_id", 8, "u64"),)),
    SideRecord(
        "callchain_deferred", 22, (Part("cookie", 8, "u64"), Part("callchain", 24, "bytes"))
    ),
)

# Feature bits: enum in tools/perf/util/header.h. Name is the function of
# tracer.perfdata.features that reads it, where there is one.
FEATURES: Final = {
    1: "TRACING_DATA",
    2: "BUILD_ID",
    3: "HOSTNAME",
    4: "OSRELEASE",
    5: "VERSION",
    6: "ARCH",
    7: "NRCPUS",
    8: "CPUDESC",
    9: "CPUID",
    10: "TOTAL_MEM",
    11: "CMDLINE",
    12: "EVENT_DESC",
    13: "CPU_TOPOLOGY",
    14: "NUMA_TOPOLOGY",
    15: "BRANCH_STACK",
    16: "PMU_MAPPINGS",
    17: "GROUP_DESC",
    18: "AUXTRACE",
    19: "STAT",
    20: "CACHE",
    21: "SAMPLE_TIME",
    22: "MEM_TOPOLOGY",
    23: "CLOCKID",
    24: "DIR_FORMAT",
    25: "BPF_PROG_INFO",
    26: "BPF_BTF",
    27: "COMPRESSED",
    28: "CPU_PMU_CAPS",
    29: "CLOCK_DATA",
    30: "HYBRID_TOPOLOGY",
    31: "PMU_CAPS",
    32: "CPU_DOMAIN_INFO",
    33: "E_MACHINE",
    34: "CLN_SIZE",
}
FEATURE_TRACING_DATA: Final = 1
FEATURE_BUILD_ID: Final = 2
FEATURE_HOSTNAME: Final = 3
FEATURE_BITS: Final = 256
