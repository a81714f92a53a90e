"""What a record's body says: one frozen dataclass per libxc record type, read from bytes and built back.

Every byte of a body is in some field, reserved ones too, so that what was read builds back as it was. A body
that does not fit its type's layout, or whose type is unknown, is kept as it is in an `Opaque`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from streams.counting import count
from streams.records import Place, Record
from streams.values import dataclass, field, replace
from streams.wire.framing import (
    CPUID_LEAF,
    HVM_PARAM,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PARAMS_HEADER,
    POLICY_MSR,
    PV_INFO,
    SHARED_INFO_SIZE,
    TSC_INFO,
    VCPU_HEADER,
    CpuidLeaf,
    HvmParamEntry,
    PolicyMsr,
    PvInfoBody,
    RecordType,
    TscBody,
)
from streams.wire.layouts import Layout
from streams.wire.shared_info import SHARED_INFO
from streams.wire.vcpu import CONTEXT, EXTENDED, MSR_ENTRY, XSAVE_HEADER, XSAVE_WORDS

_PFN = np.dtype(f"<u{P2M_ENTRY_SIZE}")


class Misfit(ValueError):
    """A body's length is none that its type's layout can have."""


@dataclass(frozen=True, slots=True)
class Body:
    """A record body in its fields. `padding` is what follows it up to the next multiple of 8 bytes."""

    place: Place
    padding: bytes = field(default=b"", kw_only=True)

    @property
    def type(self) -> int:
        """Record type number."""
        return self.place.type

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the fields from a body's bytes. Raises Misfit for a length the layout cannot have."""
        raise NotImplementedError

    def pack(self) -> bytes:
        """The body's bytes, without padding."""
        raise NotImplementedError


# -- shapes that several types share ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Empty(Body):
    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        if raw:
            raise Misfit
        return cls(place)

    def pack(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class _Content(Body):
    content: bytes

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        return cls(place, raw)

    def pack(self) -> bytes:
        return self.content


@dataclass(frozen=True, slots=True)
class _Vcpu(Body):
    vcpu_id: int
    reserved: int
    content: bytes

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        head, rest = _split(raw, VCPU_HEADER.size)
        vcpu_id, reserved = VCPU_HEADER.unpack(head)
        return cls(place, vcpu_id, reserved, rest)

    def pack(self) -> bytes:
        return VCPU_HEADER.pack(self.vcpu_id, self.reserved) + self.content


def _split(raw: bytes, size: int) -> tuple[bytes, bytes]:
    if len(raw) < size:
        raise Misfit
    return raw[:size], raw[size:]


def _pfns(raw: bytes) -> tuple[int, ...]:
    if len(raw) % _PFN.itemsize:
        raise Misfit
    return tuple(np.frombuffer(raw, _PFN).tolist())


def _packed(pfns: tuple[int, ...]) -> bytes:
    return np.array(pfns, _PFN).tobytes()


def _parsed(layout: Layout[Any], content: bytes) -> Any:
    from streams.wire.constructs import construct_of

    if len(content) < layout.size:
        raise ValueError(f"{count(len(content), 'byte')} of content; the structure has {layout.size}")
    return construct_of(layout).parse(content)


# -- one per record type ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opaque(_Content):
    """Any body of an unknown type, or of a length its type's layout cannot have: `content` is all of it."""


@dataclass(frozen=True, slots=True)
class End(_Empty):
    """END: the image is complete."""


@dataclass(frozen=True, slots=True)
class PvInfo(Body):
    """X86_PV_INFO: the guest's word size in bytes and its levels of page tables."""

    guest_width: int
    pt_levels: int
    reserved: bytes

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the fields. Raises Misfit unless there are 8 bytes."""
        if len(raw) != PV_INFO.size:
            raise Misfit
        return cls(place, *PvInfoBody._make(PV_INFO.unpack(raw)))

    def pack(self) -> bytes:
        """The body's bytes."""
        return PV_INFO.pack(self.guest_width, self.pt_levels, self.reserved)


@dataclass(frozen=True, slots=True)
class P2mFrames(Body):
    """X86_PV_P2M_FRAMES: pfns of the pages that hold the guest's p2m for pfns start..end, end included."""

    start_pfn: int
    end_pfn: int
    pfns: tuple[int, ...]

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the fields. Raises Misfit unless a whole number of pfns follows the 8-byte header."""
        head, rest = _split(raw, P2M_HEADER.size)
        start_pfn, end_pfn = P2M_HEADER.unpack(head)
        return cls(place, start_pfn, end_pfn, _pfns(rest))

    def pack(self) -> bytes:
        """The body's bytes."""
        return P2M_HEADER.pack(self.start_pfn, self.end_pfn) + _packed(self.pfns)


@dataclass(frozen=True, slots=True)
class VcpuBasic(_Vcpu):
    """X86_PV_VCPU_BASIC: a vcpu_guest_context."""

    def parse(self, width: int) -> Any:
        """The context as a Container, for a guest of width 4 or 8. Raises ValueError where it is too short."""
        return _parsed(CONTEXT[width], self.content)


@dataclass(frozen=True, slots=True)
class VcpuExtended(_Vcpu):
    """X86_PV_VCPU_EXTENDED: an xen_domctl_ext_vcpucontext, of one of its several lengths."""

    def parse(self) -> Any:
        """The extended context as a Container; what a shorter form lacks is zero, as Xen reads it."""
        return _parsed(EXTENDED, self.content.ljust(EXTENDED.size, b"\0"))


@dataclass(frozen=True, slots=True)
class VcpuXsave(_Vcpu):
    """X86_PV_VCPU_XSAVE: two xcr0 words, then an uncompressed XSAVE area unless the vcpu has no state."""

    def parse(self) -> Any:
        """What comes before the extended components as a Container; of a content without area, the two words.

        Raises ValueError for less than two words.
        """
        whole = len(self.content) >= XSAVE_HEADER.size
        return _parsed(XSAVE_HEADER if whole else XSAVE_WORDS, self.content)


@dataclass(frozen=True, slots=True)
class VcpuMsrs(_Vcpu):
    """X86_PV_VCPU_MSRS: an array of MSR entries."""

    def parse(self) -> list[Any]:
        """The entries as Containers. Raises ValueError unless there is a whole number of them."""
        size = MSR_ENTRY.size
        if len(self.content) % size:
            raise ValueError(f"{count(len(self.content), 'byte')} of content; an entry has {size}")
        return [_parsed(MSR_ENTRY, self.content[at : at + size]) for at in range(0, len(self.content), size)]


@dataclass(frozen=True, slots=True)
class SharedInfo(_Content):
    """SHARED_INFO: the page a PV guest shares with Xen."""

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Keep the page. Raises Misfit unless it is one."""
        if len(raw) != SHARED_INFO_SIZE:
            raise Misfit
        return cls(place, raw)

    def parse(self, width: int) -> Any:
        """The structure at the start of the page as a Container, for a guest of width 4 or 8."""
        return _parsed(SHARED_INFO[width], self.content)


@dataclass(frozen=True, slots=True)
class TscInfo(Body):
    """X86_TSC_INFO: how the guest's time stamp counter goes on; `khz` its rate, `nsec` the time it ran."""

    mode: int
    khz: int
    nsec: int
    incarnation: int
    reserved: int

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the fields. Raises Misfit unless there are 24 bytes."""
        if len(raw) != TSC_INFO.size:
            raise Misfit
        return cls(place, *TscBody._make(TSC_INFO.unpack(raw)))

    def pack(self) -> bytes:
        """The body's bytes."""
        return TSC_INFO.pack(self.mode, self.khz, self.nsec, self.incarnation, self.reserved)


@dataclass(frozen=True, slots=True)
class HvmContext(_Content):
    """HVM_CONTEXT: Xen's own saved state of an HVM guest."""


@dataclass(frozen=True, slots=True)
class HvmParams(Body):
    """HVM_PARAMS: (index, value) pairs; `count` is how many the record claims to have."""

    count: int
    reserved: int
    pairs: tuple[HvmParamEntry, ...]

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the fields. Raises Misfit unless a whole number of pairs follows the 8-byte header."""
        head, rest = _split(raw, PARAMS_HEADER.size)
        count, reserved = PARAMS_HEADER.unpack(head)
        if len(rest) % HVM_PARAM.size:
            raise Misfit
        return cls(place, count, reserved, tuple(map(HvmParamEntry._make, HVM_PARAM.iter_unpack(rest))))

    def pack(self) -> bytes:
        """The body's bytes."""
        return PARAMS_HEADER.pack(self.count, self.reserved) + b"".join(HVM_PARAM.pack(*pair) for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Toolstack(_Content):
    """TOOLSTACK: deprecated before any release wrote it."""


@dataclass(frozen=True, slots=True)
class Verify(_Empty):
    """VERIFY: the pages that follow were sent before and should be the same."""


@dataclass(frozen=True, slots=True)
class Checkpoint(_Empty):
    """CHECKPOINT: all before it is one consistent state."""


@dataclass(frozen=True, slots=True)
class CheckpointDirtyPfnList(Body):
    """CHECKPOINT_DIRTY_PFN_LIST: pfns the secondary dirtied, in no order (COLO's back channel)."""

    pfns: tuple[int, ...]

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the pfns. Raises Misfit unless there is a whole number of them."""
        return cls(place, _pfns(raw))

    def pack(self) -> bytes:
        """The body's bytes."""
        return _packed(self.pfns)


@dataclass(frozen=True, slots=True)
class StaticDataEnd(_Empty):
    """STATIC_DATA_END: what stays the same however often memory is sent is complete."""


@dataclass(frozen=True, slots=True)
class CpuidPolicy(Body):
    """X86_CPUID_POLICY: the guest's CPUID leaves."""

    leaves: tuple[CpuidLeaf, ...]

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the leaves. Raises Misfit unless there is a whole number of them."""
        if len(raw) % CPUID_LEAF.size:
            raise Misfit
        return cls(place, tuple(map(CpuidLeaf._make, CPUID_LEAF.iter_unpack(raw))))

    def pack(self) -> bytes:
        """The body's bytes."""
        return b"".join(CPUID_LEAF.pack(*leaf) for leaf in self.leaves)


@dataclass(frozen=True, slots=True)
class MsrPolicy(Body):
    """X86_MSR_POLICY: the MSRs of the guest's CPU policy."""

    entries: tuple[PolicyMsr, ...]

    @classmethod
    def unpack(cls, place: Place, raw: bytes) -> Self:
        """Read the entries. Raises Misfit unless there is a whole number of them."""
        if len(raw) % POLICY_MSR.size:
            raise Misfit
        return cls(place, tuple(map(PolicyMsr._make, POLICY_MSR.iter_unpack(raw))))

    def pack(self) -> bytes:
        """The body's bytes."""
        return b"".join(POLICY_MSR.pack(*entry) for entry in self.entries)


BODIES: dict[int, type[Body]] = {
    RecordType.END: End,
    RecordType.X86_PV_INFO: PvInfo,
    RecordType.X86_PV_P2M_FRAMES: P2mFrames,
    RecordType.X86_PV_VCPU_BASIC: VcpuBasic,
    RecordType.X86_PV_VCPU_EXTENDED: VcpuExtended,
    RecordType.X86_PV_VCPU_XSAVE: VcpuXsave,
    RecordType.SHARED_INFO: SharedInfo,
    RecordType.X86_TSC_INFO: TscInfo,
    RecordType.HVM_CONTEXT: HvmContext,
    RecordType.HVM_PARAMS: HvmParams,
    RecordType.TOOLSTACK: Toolstack,
    RecordType.X86_PV_VCPU_MSRS: VcpuMsrs,
    RecordType.VERIFY: Verify,
    RecordType.CHECKPOINT: Checkpoint,
    RecordType.CHECKPOINT_DIRTY_PFN_LIST: CheckpointDirtyPfnList,
    RecordType.STATIC_DATA_END: StaticDataEnd,
    RecordType.X86_CPUID_POLICY: CpuidPolicy,
    RecordType.X86_MSR_POLICY: MsrPolicy,
}
"""The body of every libxc record type but PAGE_DATA, which is a `streams.records.PageData`."""


def decode_body(record: Record) -> Body:
    """The body of a record in its fields.

    Of an unknown type, a PAGE_DATA too short for its header, or a length that does not fit, an `Opaque`.
    Raises ValueError for a record whose body was not kept.
    """
    if record.body is None:
        raise ValueError(f"the body of record {record.place.index} {record.place.name} was not kept")
    try:
        body = BODIES.get(record.type, Opaque).unpack(record.place, record.body)
    except Misfit:
        body = Opaque(record.place, record.body)
    return replace(body, padding=record.padding) if record.padding else body


def encode_body(body: Body) -> bytes:
    """A body's bytes, without padding: the inverse of `decode_body`."""
    return body.pack()
