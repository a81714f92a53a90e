"""How much memory a stream's pfns are worth."""

from __future__ import annotations

# Arrays may be this large before the stream has named many pfns; after that, so many times as large as named.
FREE_PFNS = 1 << 20
PFNS_PER_NAMED = 16


def room_for(named: int) -> int:
    """How many pfns arrays may cover once a stream has named so many of them, one by one."""
    return max(FREE_PFNS, PFNS_PER_NAMED * named)
