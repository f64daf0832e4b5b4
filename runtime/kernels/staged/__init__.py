"""Messages through host memory that the ranks of a host share: the memory, its flags, and who tells and awaits them.

page.py      where flags stand
memory.py    a segment of every rank, mapped by all of them
fences.py    an order of what is stored there
kernels.py   kernels of a warp that tell, await and acknowledge pieces, and spoil what was not received
launch.py    how those are launched
plain.py     the same in Python, for ranks without a GPU
one_shot.py  a few rows summed by one kernel, with a flag behind each

What is told when, and why that is enough, is in collectives/host_staging.py and, of a few rows, in one_shot.py.
"""
