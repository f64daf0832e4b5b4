"""The page of flags behind the two halves of a rank's segment: which word of 8 bytes is what. Only that rank writes it.

    told[half][piece]   uses of the half in which this rank has brought the piece, the running one among them
    read[half]          uses of the half in which it has read all that its peers brought
    token               two words by which peers know the segment

Every flag has a line of 64 bytes to itself. GIVEN_UP in place of a number: the rank sends and reads nothing any more.
Counts only grow, and a piece that a use does not have keeps an older one.

Imports no torch.
"""

from __future__ import annotations

PAGE_BYTES = 4096
PIECES = 8
"""The most of a message."""
STRIDE = 8
"""Words from a flag to the next."""
READ_AT = 2 * PIECES * STRIDE
FLAGS = 2 * PIECES + 2
TOKEN_AT = FLAGS * STRIDE
FROM_TOKEN = PAGE_BYTES - 8 * TOKEN_AT
"""Bytes from the token to the end of the segment."""
GIVEN_UP = -1
GIVEN_UP_AT = 2
"""In the words of a rank on its device, behind the uses of both halves: 1 from the first piece that has not come."""
WORDS = 3


def told_at(half: int, piece: int) -> int:
    """The word of a piece."""
    return (half * PIECES + piece) * STRIDE


def read_at(half: int) -> int:
    """The word that acknowledges a half."""
    return READ_AT + half * STRIDE
