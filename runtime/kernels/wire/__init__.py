"""Rows as they travel in a composed sum: their records, device functions on them, and the kernels of such sums.

layout.py   where values and scales of a row stand in its record; no torch
encode.py   device functions: a row in fp32 to the parts of a record
decode.py   device functions: a record to a row in fp32
records.py  kernels: rows to records, records of all ranks to records of a sum, and to rows that are summed and normed
launch.py   how those are launched
plain.py    the same in plain torch

Rows that travel as they are have no records:

row_sum_kernel.py  kernel: rows of all ranks to rows that are summed and normed
row_sum_launch.py  how it is launched
row_sums.py        the same in plain torch
"""
