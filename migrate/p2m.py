"""The list of the guest's own p2m pages, as X86_PV_P2M_FRAMES carries it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.wire.framing import P2M_HEADER

UNSET = -1


def read_p2m_frames(body: bytes, known: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """Store a record's pfns in slots start..end-1 of the list, growing it where needed.

    Parameters
    ----------
    known:
        the list so far: pfns, int64, `UNSET` where nothing was said.

    Returns
    -------
    The new list. A pfn of 2^63 or more reads as `UNSET`: no guest has it.
    """
    frames = np.full(max(len(known), end), UNSET, np.int64)
    frames[: len(known)] = known
    frames[start:end] = np.frombuffer(body, "<i8", offset=P2M_HEADER.size)
    return np.maximum(frames, UNSET)
