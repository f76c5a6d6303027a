# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures that are text: tracefs, trace-cmd report, perf script."""
