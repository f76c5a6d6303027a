# SPDX-License-Identifier: GPL-2.0-or-later
"""A second implementation of the model, slow and plain, to judge the engine by.

One file per kernel source file. Page tables are dicts of entry objects, a folio
is an object, nothing is packed into bits; where the model gives a closed form,
the form is used instead of the loop it describes. Only the numbers of the
stream's contract, the counters' names and the policies are the engine's.
"""
