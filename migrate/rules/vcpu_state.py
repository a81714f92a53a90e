"""What can be wrong with a vcpu's extended context, XSAVE state and MSRs."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {}


_AVX = 0x7  # x87, SSE, AVX
_AVX512 = _AVX | 0b111 << 5


def _xsave(
    xcr0: int, accum: int, size: int, *, xstate_bv: int = 0, xcomp_bv: int = 0, reserved: bytes = bytes(48)
) -> bytearray:
    """Content of a VCPU_XSAVE record, `size` bytes of it."""
    from streams.wire.vcpu import XSAVE_HEADER, XsaveHeader

    head = XSAVE_HEADER.pack(XsaveHeader(xcr0, accum, bytes(512), xstate_bv, xcomp_bv, reserved))
    return bytearray(head[:size].ljust(size, b"\0"))


def _promise_xsave(b: StreamBuilder) -> None:
    """Let the guest's CPU policy have XSAVE and AVX."""
    for leaf in b.cpuid_policy:
        if leaf["leaf"] == 1:
            leaf["c"] |= 1 << 26 | 1 << 28


def _msrs(*indices: int, reserved: int = 0) -> bytearray:
    """Content of a VCPU_MSRS record: these MSRs, all of value 0."""
    from streams.wire.vcpu import MSR_ENTRY, VcpuMsr

    return bytearray(b"".join(MSR_ENTRY.pack(VcpuMsr(index, reserved, 0)) for index in indices))


# -- VCPU_EXTENDED, judged by set_ext_vcpucontext ---------------------------------------------------


@rule("REC-70", "extended-vcpu-unknown", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_ext_vcpucontext", errno="ESRCH")
def extended_vcpu_unknown(b: StreamBuilder) -> None:
    """An extended context names a vcpu that the domain does not have.

    What: the vcpu number inside of a VCPU_EXTENDED record's content is that of no vcpu.
    Why: libxc goes by the id in the record's header and passes the content on unread, while Xen goes by the
        number inside, and answers ESRCH.
    Repair: write the id of the header there.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_ext_vcpucontext.
    """
    b.vcpus[0].extended.vcpu = 99


@rule("REC-71", "extended-vcpu-mismatch", Effect.CORRUPT, "nobody")
def extended_vcpu_mismatch(b: StreamBuilder) -> None:
    """An extended context is for another vcpu than its record says.

    What: the vcpu number inside of a VCPU_EXTENDED record's content differs from the one in its header, and
        both exist.
    Why: Xen programs the vcpu named inside. One vcpu gets another's system call entry points, and one none at
        all; nobody notices until a process makes a 32-bit system call there.
    Repair: write the id of the header there.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_ext_vcpucontext; libxc, process_vcpu_extended.
    """
    b.new_vcpu()
    b.vcpus[0].extended.vcpu = 1


@rule("REC-72", "extended-size-small", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_ext_vcpucontext", errno="EINVAL")
def extended_size_small(b: StreamBuilder) -> None:
    """An extended context says it is smaller than any that ever was.

    What: the size field inside of a VCPU_EXTENDED record's content is below 32.
    Why: the size tells Xen which edition of the structure it has; the oldest ends after 32 bytes. A smaller
        value is answered with EINVAL.
    Repair: write the length of the content; 64 today.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_ext_vcpucontext.
    """
    b.vcpus[0].extended.size = 16


@rule("REC-73", "extended-non-canonical", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_ext_vcpucontext", errno="EINVAL")
def extended_non_canonical(b: StreamBuilder) -> None:
    """A system call entry point is not a canonical address.

    What: syscall32_callback_eip or sysenter_callback_eip has bits 63 to 47 that differ.
    Why: entering the guest there would fault inside the hypervisor, so Xen answers EINVAL. A 32-bit guest's
        fields are 64 bits wide too.
    Repair: zero the entry point, if the guest can do without that kind of call; else take the record from a
        fresh save.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_ext_vcpucontext.
    """
    b.vcpus[0].extended.syscall32_callback_eip = 1 << 48


@rule("REC-74", "vmce-caps", Effect.HYPERCALL, "xen: vmce_restore_vcpu", errno="EINVAL/EPERM")
def vmce_caps(b: StreamBuilder) -> None:
    """The vcpu's machine check capabilities exceed those of a host.

    What: the caps word of a VCPU_EXTENDED record has bits beyond the number of banks and their control (bits 0
        to 8).
    Why: Xen refuses capabilities that its virtual machine checks do not have (EPERM up to 4.13.3, 4.14.2 and
        4.15.0, EINVAL since). A host with processors of Intel has bits 10 (CMCI), 11 (TES), 24 (SER) and, since
        Xen 4.10, 27 (LMCE) besides: a guest of such a host (0x1000c02) is told as info here, because only a host
        of Intel takes it back. No host has any other. Contents of fewer than 40 bytes carry no such word.
    Repair: restore on a host like the source, or clear the bits: the guest then expects what is absent.
    Source: xen, vmce_restore_vcpu.
    """
    b.vcpus[0].extended.mcg_cap = (1 << 64) - 1


@rule("REC-75", "extended-truncated", Effect.CORRUPT, "nobody")
def extended_truncated(b: StreamBuilder) -> None:
    """An extended context is shorter than it says.

    What: the size field inside of a VCPU_EXTENDED record is larger than the content.
    Why: libxc passes it in a buffer of zeros of full size, and Xen reads as far as the size field says: what is
        missing counts as 0, and replaces the vcpu's state without anyone noticing.
    Repair: set the size to the length of the content, or fetch the record again.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_ext_vcpucontext; libxc, process_vcpu_extended.
    """
    from streams.wire.framing import VCPU_HEADER, RecordType
    from streams.wire.vcpu import MIN_EXTENDED_SIZE

    del b.record(RecordType.X86_PV_VCPU_EXTENDED).body[VCPU_HEADER.size + MIN_EXTENDED_SIZE :]


# -- VCPU_XSAVE, judged by setvcpuextstate ----------------------------------------------------------


@rule("REC-80", "xsave-size-host", Effect.HOST, "xen: XEN_DOMCTL_setvcpuextstate", errno="EINVAL")
def xsave_size_host(b: StreamBuilder) -> None:
    """The XSAVE state needs a host whose CPUs have the same components.

    What: the state has components beyond x87, SSE and AVX, and the stream has no CPU policy that promises them,
        or its policy puts them elsewhere than the size of the state says.
    Why: Xen refuses (EINVAL) components that the guest's policy lacks and sizes that its CPUs do not have, and the
        places of the later components differ among vendors. The stream does not tell what the destination has.
    Repair: restore on a host with these components; or level them away in the guest's CPUID before it starts.
    Source: xen, arch_do_domctl, XEN_DOMCTL_setvcpuextstate; PV_XSAVE_SIZE.
    """
    _promise_xsave(b)
    b.vcpus[0].xsave = _xsave(_AVX512, _AVX512, 16 + 2432)


@rule("REC-81", "xsave-zero-accum", Effect.HYPERCALL, "xen: XEN_DOMCTL_setvcpuextstate", errno="EINVAL")
def xsave_zero_accum(b: StreamBuilder) -> None:
    """An XSAVE state claims never to have been used, and holds something.

    What: xcr0_accum is 0 while xcr0 is not, or while there is more content than the two words.
    Why: xcr0_accum collects all components that the vcpu ever enabled, so 0 says that there is no state at
        all. Xen takes that in its plain form of 16 zero bytes only and answers EINVAL to anything else.
    Repair: write 16 zero bytes, or the real xcr0_accum.
    Source: xen, arch_do_domctl, XEN_DOMCTL_setvcpuextstate.
    """
    b.vcpus[0].xsave = _xsave(1, 0, 16)


@rule("REC-82", "xsave-size", Effect.HYPERCALL, "xen: XEN_DOMCTL_setvcpuextstate", errno="EINVAL")
def xsave_size(b: StreamBuilder) -> None:
    """An XSAVE state is not as large as its components.

    What: xcr0_accum is not 0, and the content is not 16 bytes and the uncompressed size of these components: 592
        in all for x87 and SSE, 848 with AVX.
    Why: Xen compares the size with what it computes from xcr0_accum, and answers EINVAL if they differ (Xen 4.6
        and 4.7.0 took a shorter state, too). Two words alone fail, because there is no XSAVE header to validate.
    Repair: complete the state, or correct xcr0_accum.
    Source: xen, arch_do_domctl, XEN_DOMCTL_setvcpuextstate; xstate_uncompressed_size.
    """
    _promise_xsave(b)
    b.vcpus[0].xsave = _xsave(_AVX, _AVX, 16 + 576)  # that of x87 and SSE


@rule("REC-83", "xsave-components", Effect.HYPERCALL, "xen: validate_xstate", errno="EINVAL")
def xsave_components(b: StreamBuilder) -> None:
    """An XSAVE state has component masks that the guest cannot have.

    What: xcr0 or xstate_bv has a bit that xcr0_accum lacks, or a mask is no legal value of the register: x87
        missing, AVX without SSE, one part of AVX-512, MPX or AMX without the other; or xcr0_accum has a component
        that the guest's CPU policy lacks, or that no PV guest can have (MPX, PKU, AMX ...).
    Why: hardware would fault on loading such a state. Xen validates the masks first and answers EINVAL; against
        the policy since 4.9.3, 4.10.2, 4.11.1 and 4.12.
    Repair: correct the mask. xcr0_accum is the union, so with x87, SSE and AVX it is 7.
    Source: xen, validate_xstate and valid_xcr0.
    """
    b.vcpus[0].xsave = _xsave(_AVX & ~1, _AVX, 16 + 832)  # no x87


@rule("REC-84", "xsave-compressed", Effect.HYPERCALL, "xen: validate_xstate", errno="EOPNOTSUPP")
def xsave_compressed(b: StreamBuilder) -> None:
    """An XSAVE state is in compressed form.

    What: xcomp_bv in its header is not 0.
    Why: toolstack and Xen exchange this state uncompressed, and Xen answers EOPNOTSUPP to the other form. The
        same answer comes when xcr0_accum names a component that the host's CPUs lack.
    Repair: expand the state and clear xcomp_bv.
    Source: xen, validate_xstate.
    """
    _promise_xsave(b)
    b.vcpus[0].xsave = _xsave(_AVX, _AVX, 16 + 832, xcomp_bv=1 << 63)


@rule("REC-85", "xsave-reserved", Effect.HYPERCALL, "xen: validate_xstate", errno="EIO")
def xsave_reserved(b: StreamBuilder) -> None:
    """The XSAVE header has reserved bytes that are not zero.

    What: one of the 48 bytes after xcomp_bv is set.
    Why: hardware would fault on loading it; Xen looks first and answers EIO.
    Repair: zero them. If they look like register contents, the state has lost its alignment.
    Source: xen, validate_xstate.
    """
    _promise_xsave(b)
    b.vcpus[0].xsave = _xsave(_AVX, _AVX, 16 + 832, reserved=b"\1".ljust(48, b"\0"))


# -- VCPU_MSRS, judged by set_vcpu_msrs -------------------------------------------------------------


@rule("REC-90", "msrs-too-many", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_vcpu_msrs", errno="EINVAL")
def msrs_too_many(b: StreamBuilder) -> None:
    """A VCPU_MSRS record has more entries than Xen takes.

    What: there are more than 7 entries. Before Xen 4.12 there may be 2 (4.10.0: 1, earlier: none), and until
        4.18.3 and 4.19.0 four more, AMD's debug address masks, where the host has them.
    Why: Xen knows the MSRs that a PV guest can have and refuses, with EINVAL, a list longer than that.
    Repair: drop the entries that the destination does not know; those with value 0 need not be sent.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_vcpu_msrs.
    """
    from streams.wire.msrs import PV_MSRS, Msr

    b.vcpus[0].msrs = _msrs(*PV_MSRS, Msr.TSC_AUX)


@rule("REC-91", "msrs-reserved", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_vcpu_msrs", errno="EINVAL")
def msrs_reserved(b: StreamBuilder) -> None:
    """An MSR entry has a reserved word that is not zero.

    What: the word between index and value of a VCPU_MSRS entry holds something.
    Why: unlike most reserved fields of the stream this one is passed to Xen, which answers EINVAL.
    Repair: zero it.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_vcpu_msrs.
    """
    from streams.wire.msrs import Msr

    b.vcpus[0].msrs = _msrs(Msr.TSC_AUX, reserved=1)


@rule("REC-92", "msrs-unlisted", Effect.HYPERCALL, "xen: XEN_DOMCTL_set_vcpu_msrs", errno="ENXIO")
def msrs_unlisted(b: StreamBuilder) -> None:
    """A VCPU_MSRS entry has an MSR or a value that Xen does not take.

    What: the index is none of SPEC_CTRL, INTEL_MISC_FEATURES_ENABLES, TSC_AUX and the four AMD debug address
        masks, or is one that this release does not have yet; or the guest's CPU policy does not allow the value.
    Why: Xen takes these MSRs and no others, and lets no guest have what its policy lacks: ENXIO since Xen 4.20,
        EINVAL before. Without a policy in the stream that is the destination's to say, and told as a warning.
    Repair: drop the entry; the guest then finds the MSR at its default.
    Source: xen, arch_do_domctl, XEN_DOMCTL_set_vcpu_msrs; guest_wrmsr.
    """
    b.vcpus[0].msrs = _msrs(0x10)


@rule(
    "REC-93",
    "msrs-not-set",
    Effect.CORRUPT,
    "nobody",
    severity=Severity.WARNING,
    until=releases.msrs_restored,
)
def msrs_not_set(b: StreamBuilder) -> None:
    """A release does not set the MSRs that it is sent.

    What: the stream has a VCPU_MSRS record, and the destination is Xen 4.6, before 4.7.5, 4.8.4 or 4.9.2.
    Why: libxc there takes what is left over of the record's length for the number of entries, which is 0 for a
        whole record. Xen is asked to set nothing and succeeds. The vcpu goes on with the MSRs of a new domain.
    Repair: none in the stream; restore on a later release.
    Source: xg_sr_restore_x86_pv.c, process_vcpu_msrs.
    """
    from streams.wire.msrs import Msr

    b.image["version"], b.domain["xen_minor"] = 2, 9
    b.vcpus[0].msrs = _msrs(Msr.AMD64_DR0_ADDRESS_MASK)
