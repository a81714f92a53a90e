"""What Xen looks at in the CPU_XSAVE entries of an HVM context, and what becomes of the state in them.

Sources: hvm_load_cpu_xsave_states (`xen/arch/x86/hvm/hvm.c`), validate_xstate (`xen/arch/x86/xstate.c`).
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.destination import releases
from migrate.xen.hvm_entry import Loading
from migrate.xen.objection import Objection
from streams.counting import count
from streams.wire.hvm_cpu import XSAVE, Xsave
from streams.wire.xstate import XSAVE_AVX_SIZE, XSAVE_LEGACY_SIZE, XState, valid_xcr0

_LEGACY = int(XState.X87 | XState.SSE)
# The XSAVE area begins here.
_AREA = XSAVE.offset("fxsave")


def objections(one: Loading, state: Xsave) -> Iterator[Objection]:
    """What is to be said of a CPU_XSAVE entry: validate_xstate, then the size of the area."""
    release = one.domain.release
    xcr0, accum = state.xcr0, state.xcr0_accum
    what = f"xcr0 {xcr0:#x}, xcr0_accum {accum:#x}"
    tiles = release.has(releases.amx_pair_checked)
    beyond = state.xstate_bv & ~accum or xcr0 & ~accum
    if beyond or not valid_xcr0(xcr0, tiles=tiles) or not valid_xcr0(accum, tiles=tiles):
        message = f"{what}, xstate_bv {state.xstate_bv:#x}: not a state that a processor can have"
        yield one.refused("HVM-06", message, at=XSAVE.offset("xcr0"))
    yield from _components(one, accum, what)
    if release.has(releases.hvm_xsave_checked):
        if state.xcomp_bv:
            message = f"xcomp_bv {state.xcomp_bv:#x}: the area is compressed; expected 0"
            yield one.refused("HVM-06", message, "EOPNOTSUPP", at=XSAVE.offset("xcomp_bv"))
        if any(state.reserved):
            message = f"reserved bytes of the XSAVE header are not zero: {state.reserved.hex()}"
            yield one.refused("HVM-06", message, "EIO", at=XSAVE.offset("reserved"))
    yield from _size(one, accum)


def _components(one: Loading, accum: int, what: str) -> Iterator[Objection]:
    """HVM-05: components that the guest may not use; before there were policies to ask, those of the host count."""
    processor = one.domain.processor
    by_policy = one.domain.has(releases.xcr0_by_policy)
    if by_policy:
        have, most = processor.has_components(accum), processor.most.xcr0
    elif processor.offered is not None:
        most = processor.offered.xcr0
        have = not accum & ~most
    else:
        have, most = None, 0
    at = XSAVE.offset("xcr0_accum")
    if have is False:
        message = f"{what}; the guest gets {most:#x} at most{processor.components_not_offered(accum)}"
        yield one.refused("HVM-05", message, "EINVAL" if by_policy else "EOPNOTSUPP", at=at)
    elif have is None and accum & ~_LEGACY:
        message = f"{what}: the host has to have these components"
        yield one.left_to_host("HVM-05", message, "EINVAL" if by_policy else "EOPNOTSUPP", at=at)


def _size(one: Loading, accum: int) -> Iterator[Objection]:
    """HVM-07. Where components behind AVX lie the processor decides: the host's, else the one that saved them."""
    components = accum & ~_LEGACY
    if components in (0, XState.AVX):
        area = XSAVE_AVX_SIZE if components else XSAVE_LEGACY_SIZE
    else:
        area = (one.domain.host or one.domain.processor.promised).xsave_size(accum) or 0
    expected = _AREA + area
    length = one.entry.length
    if not area:
        return
    if length > expected and any(one.body[expected:]):
        message = f"xcr0_accum {accum:#x}: {count(length, 'byte')}, not all zero behind {expected}"
        yield one.refused("HVM-07", message, "EOPNOTSUPP", at=expected)
    elif length < expected and one.domain.has(releases.xsave_size_exact):
        yield one.refused("HVM-07", f"xcr0_accum {accum:#x}: {count(length, 'byte')}; expected {expected}")


class ExtendedStates:
    """The extended state of each vcpu, as entries bring it and take it away."""

    def __init__(self) -> None:
        self._components: dict[int, int] = {}  # xcr0_accum, by vcpu
        self._in_use: dict[int, int] = {}  # xstate_bv
        self._reset: dict[int, Loading] = {}  # a CPU entry that came later

    def components(self, vcpu: int) -> int:
        """The components that a vcpu may have used, as far as entries have come."""
        return self._components.get(vcpu, 0)

    def xsave(self, one: Loading) -> Iterator[Objection]:
        """Take a CPU_XSAVE entry."""
        state = XSAVE.read(one.body)
        yield from objections(one, state)
        vcpu = one.entry.instance
        self._components[vcpu], self._in_use[vcpu] = state.xcr0_accum, state.xstate_bv
        self._reset.pop(vcpu, None)

    def cpu(self, one: Loading) -> None:
        """Take a CPU entry, which brings x87 and SSE alone, and resets all else."""
        if self._in_use.get(one.entry.instance, 0) & ~_LEGACY:
            self._reset[one.entry.instance] = one

    def lost(self) -> Iterator[Objection]:
        """HVM-25: state that a later CPU entry has reset."""
        for vcpu, one in self._reset.items():
            message = f"it comes after the vcpu's CPU_XSAVE: Xen resets components {self._in_use[vcpu] & ~_LEGACY:#x}"
            yield one.noted("HVM-25", message)
