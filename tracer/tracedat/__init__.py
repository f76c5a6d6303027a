# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat, versions 6 and 7: the file trace-cmd writes."""
