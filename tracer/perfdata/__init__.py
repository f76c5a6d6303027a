# SPDX-License-Identifier: GPL-2.0-or-later
"""perf.data: the file, pipe stream or directory that perf record writes."""
