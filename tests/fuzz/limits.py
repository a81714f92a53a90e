"""What any input may cost: so much processor time and so much address space, in terms of its size.

Both are enforced where they are exceeded, by an exception out of the code that does: a traceback then tells where.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from migrate.guest.memory import FREE_PFNS
from streams.bodies import P2mFrames
from streams.compression import CODECS, DECODER_MEMORY
from streams.decoder import drive
from streams.encoder import Recorder
from streams.transports import BytesTransport

MIB = 1 << 20
# Bytes of address space beyond what was taken before, and beside them a share of the input's size.
MEMORY = 64 * MIB
MEMORY_SHARE = 0.01
# A PV guest's list of p2m pages pays 8 bytes for 512 pfns or 1024. Arrays are as long as the highest pfn that is named
# (for up to FREE_PFNS pfns, whatever else has come), and cost at most so many bytes for each.
PFN_COST = 40
# Seconds of processor time: what is done once for any input, and per MiB of it.
SECONDS = 2.0
SECONDS_PER_MIB = 2.0

_STATM = Path("/proc/self/statm")
T = TypeVar("T")


class TooSlowError(Exception):
    """An input takes more processor time than inputs of its size may."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooSlowError


def compressed(data: bytes) -> bool:
    """Whether an input is taken for a compressed one."""
    return any(codec.fits(data) for codec in CODECS)


def bounded(function: Callable[..., T], data: bytes, *args: Any, **options: Any) -> T:
    """What a function returns for an input, if that costs no more than it may.

    For the main thread; the bound on memory is for Linux only. What an earlier call left behind is not counted.

    Raises
    ------
    TooSlowError, MemoryError
        where it costs more, from within the function.
    """
    spare = MEMORY + int(len(data) * MEMORY_SHARE) + (DECODER_MEMORY if compressed(data) else 0)
    try:
        return _within(spare, function, data, *args, **options)
    except MemoryError:
        listed = listed_pfns(data)
        if listed <= MEMORY // PFN_COST:
            raise
    return _within(spare + PFN_COST * listed, function, data, *args, **options)


def _within(spare: int, function: Callable[..., T], data: bytes, *args: Any, **options: Any) -> T:
    before = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGPROF, _stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS_PER_MIB * len(data) / MIB)
        if _STATM.exists():
            taken = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (taken + spare, before[1]))
        return function(data, *args, **options)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, former)


def listed_pfns(data: bytes) -> int:
    """How many pfns a PV guest has by its list of p2m pages, as far as arrays are made for them unseen."""
    recorder = Recorder()
    drive(recorder.run(), BytesTransport(data))
    ends = [item.end_pfn for item in recorder.items if isinstance(item, P2mFrames)]
    return min(FREE_PFNS, max(ends, default=-1) + 1)
