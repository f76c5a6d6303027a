# SPDX-License-Identifier: GPL-2.0-or-later
"""What arch/arm64 does to a page table entry and to the TLB."""
