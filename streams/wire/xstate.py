"""FPU state and the components of an XSAVE area, with the standard library alone.

Source: the FXSAVE and XSAVE chapters of the processor manuals; every PV and HVM guest's state has both.
"""

from __future__ import annotations

from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import U8, U16, U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated


class Fxsave(NamedTuple):
    """The 512 bytes of an FXSAVE image, the first part of every XSAVE area."""

    fcw: U16
    fsw: U16
    ftw: U8
    ftw_pad: U8
    fop: U16
    fip: U64
    fdp: U64
    mxcsr: U32
    mxcsr_mask: U32
    st: Annotated[tuple[bytes, ...], 8, "16s"]
    xmm: Annotated[tuple[bytes, ...], 16, "16s"]
    reserved: Annotated[bytes, "96s"]


FXSAVE = Layout(Fxsave)

XSAVE_LEGACY_SIZE = 576
"""Uncompressed area of x87 and SSE alone: the FXSAVE image and the header, without any words before it."""
XSAVE_AVX_SIZE = 832
"""Uncompressed area up to the end of AVX, the last component in the same place on every CPU."""


class XState(IntFlag):
    """Components of an XSAVE area: the bits of xcr0, xcr0_accum and xstate_bv."""

    X87 = 1 << 0
    SSE = 1 << 1
    AVX = 1 << 2
    BNDREGS = 1 << 3
    BNDCSR = 1 << 4
    OPMASK = 1 << 5
    ZMM = 1 << 6
    HI_ZMM = 1 << 7
    PKRU = 1 << 9
    TILECFG = 1 << 17
    TILEDATA = 1 << 18
    LWP = 1 << 62


def valid_xcr0(value: int, *, tiles: bool = True) -> bool:
    """Whether these components may be enabled together on any CPU (`valid_xcr0`).

    Parameters
    ----------
    tiles:
        whether those of AMX are looked at, too.
    """
    avx512 = XState.OPMASK | XState.ZMM | XState.HI_ZMM
    mpx = XState.BNDREGS | XState.BNDCSR
    amx = XState.TILECFG | XState.TILEDATA
    return bool(
        value & XState.X87
        and (not value & XState.AVX or value & XState.SSE)
        and (not value & avx512 or (value & XState.AVX and value & avx512 == avx512))
        and value & mpx in (0, mpx)
        and (value & amx in (0, amx) or not tiles)
    )
