# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations to exact counts on a simulated arm64 page table."""
