# SPDX-License-Identifier: GPL-2.0-or-later
"""What mm/ does, one module per kernel source file."""
