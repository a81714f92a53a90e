"""HVM: what an HVM guest's context says of its processors."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder


@rule("HVM-04", "hvm-cpu-impossible", Effect.HYPERCALL, "xen: hvm_load_cpu_ctxt", errno="EINVAL")
def hvm_cpu_impossible(b: StreamBuilder) -> None:
    """A vcpu's registers are such as no processor can have.

    What: cr0 has undefined bits, lacks ET, or pages without protected mode; cr4 or EFER have bits that the release
        gives to no guest; EFER says that long mode is active without being enabled, or without paging; the flags or
        the reserved word of the entry hold anything unknown (from 4.7); dr6 or dr7 are wider than 32 bits (from
        4.18), TSC_AUX too (from 4.12), cr3 wider than 52 (from 4.14); the pending event is of no kind, or (from 4.9)
        its error code is wider than 16 bits, or its kind (5 and 6) is one that processors of AMD cannot inject.
    Why: entering the guest in such a state would fail, so Xen checks it as it loads it.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_ctxt, hvm_efer_valid, vmx_vmcs_restore, svm_vmcb_restore.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.CPU, cr0=0)


@rule("HVM-05", "hvm-cpu-beyond-policy", Effect.HYPERCALL, "xen: hvm_load_cpu_ctxt, validate_xstate", errno="EINVAL")
def hvm_cpu_beyond_policy(b: StreamBuilder) -> None:
    """A vcpu uses a feature that its guest does not have.

    What: a bit of cr4 or EFER, or a component of xcr0_accum, belongs to a feature that the stream's CPU policy lacks or
        that the release takes out of it; cr3 is wider than the policy's addresses (from 4.14).
    Why: Xen holds the registers against the policy of the new domain. On the destination features only fall out of
        the stream's policy, so what is missing there is missing everywhere. Where the stream has no policy the host
        decides (an info), and so it does up to 4.11, where its own features count.
    Repair: find out how the guest came to use it; `migrate policy` shows what it was promised.
    Source: xen, hvm_cr4_guest_valid_bits, hvm_efer_valid, cpuid_policy_xcr0_max.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType
    from streams.wire.registers import Cr4

    b.become_hvm()
    edit(b.hvm_context, SaveType.CPU, cr4=int(Cr4.PCIDE))


@rule("HVM-06", "hvm-xsave-impossible", Effect.HYPERCALL, "xen: validate_xstate", errno="EINVAL/EOPNOTSUPP/EIO")
def hvm_xsave_impossible(b: StreamBuilder) -> None:
    """An HVM vcpu's XSAVE state is such as no processor can have.

    What: xcr0 or xstate_bv go beyond xcr0_accum, or a combination of components is impossible: no x87, AVX without
        SSE, a part of AVX-512, MPX or (from 4.19) AMX alone (EINVAL); the area is compressed (EOPNOTSUPP); reserved
        bytes of its header are set (EIO; both from 4.7).
    Why: restoring such an area would fault in Xen itself, so it is checked first. The same checks as for the
        XSAVE records of PV guests.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_xsave_states, validate_xstate, valid_xcr0.
    """
    from migrate.building.hvm_contexts import Hardware, edit
    from streams.wire.hvm_names import SaveType
    from streams.wire.xstate import XState

    b.become_hvm(Hardware(xsave=True))
    edit(b.hvm_context, SaveType.CPU_XSAVE, xcr0=int(XState.X87 | XState.AVX))  # AVX without SSE


@rule("HVM-07", "hvm-xsave-size", Effect.HYPERCALL, "xen: hvm_load_cpu_xsave_states", errno="EINVAL/EOPNOTSUPP")
def hvm_xsave_size(b: StreamBuilder) -> None:
    """An HVM vcpu's XSAVE area does not have the size of its components.

    What: a CPU_XSAVE entry is shorter than the area of xcr0_accum takes (EINVAL; from 4.7.1), or longer and not zero
        there (EOPNOTSUPP).
    Why: x87 and SSE take 576 bytes, AVX 832, on every processor. Where later components lie the processor decides; the
        policy in the stream tells where they were on the source. On a host that has them elsewhere the guest could
        not go on in any case.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_xsave_states, xstate_ctxt_size.
    """
    from migrate.building.hvm_contexts import Hardware, resize
    from streams.wire.hvm_cpu import XSAVE
    from streams.wire.hvm_names import SaveType

    b.become_hvm(Hardware(xsave=True))
    resize(b.hvm_context, SaveType.CPU_XSAVE, XSAVE.size)  # no room for AVX


@rule("HVM-10", "hvm-msrs", Effect.HYPERCALL, "xen: hvm_load_cpu_msrs", errno="EOPNOTSUPP")
def hvm_msrs(b: StreamBuilder) -> None:
    """A CPU_MSR entry is not a list of MSRs.

    What: the length is not 8 bytes and 16 for each MSR counted, or the reserved word of an MSR is not zero.
    Why: Xen checks the whole list before it sets the first.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_msrs.
    """
    from migrate.building.hvm_contexts import Hardware, edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm(Hardware(msrs=True))
    edit(b.hvm_context, SaveType.CPU_MSR, count=2)


@rule("HVM-11", "hvm-msr-refused", Effect.HYPERCALL, "xen: hvm_load_cpu_msrs", errno="ENXIO/EDOM")
def hvm_msr_refused(b: StreamBuilder) -> None:
    """A CPU_MSR entry holds an MSR that Xen does not load.

    What: an index is none of those that the release loads: SPEC_CTRL, MISC_FEATURES_ENABLES, PKRS (4.18), BNDCFGS, XSS
        (4.7), VIRT_SPEC_CTRL (4.17) and AMD's debug address masks; or its value is one that the guest may not have,
        by the CPU policy in the stream. BNDCFGS needs a CPU_XSAVE entry with MPX before it, XSS has to be 0.
    Why: Xen sets one after the other, and stops at the first that fails. A zero is no better: savers leave it out.
        Where the stream has no policy the host decides (an info).
    Repair: restore on a release that is at least as new as the source.
    Source: xen, hvm_load_cpu_msrs, guest_wrmsr, msr_spec_ctrl_valid_bits.
    """
    from migrate.building.hvm_contexts import add
    from streams.wire.hvm_cpu import CPU_MSR, CPU_MSRS, CpuMsr
    from streams.wire.hvm_names import SaveType
    from streams.wire.msrs import Msr

    b.become_hvm()
    one = CPU_MSRS.pack(CPU_MSRS.read(b"")._replace(count=1))
    add(b.hvm_context, SaveType.CPU_MSR, one + CPU_MSR.pack(CpuMsr(Msr.TSC_AUX, 0, 1)))


@rule(
    "HVM-22",
    "hvm-segments-debug",
    Effect.DEBUG_HOST_DIES,
    "xen: hvm_set_segment_register",
    since=releases.hvm_segments_asserted,
)
def hvm_segments_debug(b: StreamBuilder) -> None:
    """A vcpu's segments are such as a debug build of Xen dies of.

    What: cs or tr is not present; a present segment is of the wrong kind (code or data, accessed, writable stack, a
        busy TSS, an LDT) or its base is too high (cs, ds, es, ss) or not canonical (fs, gs, tr, ldtr); tr or ldtr are
        in the LDT; gdtr or idtr are not canonical or have a limit above 16 bits.
    Why: a debug build asserts all this as it loads a CPU entry, and takes the host down, every guest with it. A
        release build writes the values unchecked; the guest may then fail to enter.
    Repair: fetch the context again, and send none of this to a host with a debug build.
    Source: xen, hvm_set_segment_register.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.CPU, cs_arbytes=0)


@rule("HVM-25", "hvm-extended-state-reset", Effect.CORRUPT, "nobody")
def hvm_extended_state_reset(b: StreamBuilder) -> None:
    """A vcpu's CPU entry comes after its CPU_XSAVE entry.

    What: a CPU entry follows the CPU_XSAVE entry of the same vcpu, whose xstate_bv has more than x87 and SSE.
    Why: loading a CPU entry resets all extended state, and brings x87 and SSE alone: what AVX and later components
        held is lost. Savers write types in ascending order.
    Repair: put the CPU entry first.
    Source: xen, hvm_load_cpu_ctxt.
    """
    from migrate.building.hvm_contexts import Hardware, add, drop
    from streams.hvm_context import decode_context
    from streams.wire.hvm_names import SaveType

    b.become_hvm(Hardware(xsave=True))
    cpu = decode_context(bytes(b.hvm_context)).of(SaveType.CPU)[0]
    drop(b.hvm_context, SaveType.CPU)
    add(b.hvm_context, SaveType.CPU, cpu.body)


@rule("HVM-28", "hvm-cache-without-write-through", Effect.HOST, "the processor")
def hvm_cache_without_write_through(b: StreamBuilder) -> None:
    """A vcpu's cr0 has NW set and CD clear.

    What: cr0 has bit 29 (not write-through) without bit 30 (cache disable).
    Why: Xen takes it, and a processor of AMD refuses to enter such a guest: Xen crashes it at its first step. Those of
        Intel run it.
    Repair: fetch the context again; no processor lets a guest set cr0 so.
    Source: AMD64 architecture manual, VMRUN, canonicalization and consistency checks.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType
    from streams.wire.registers import Cr0

    b.become_hvm()
    edit(b.hvm_context, SaveType.CPU, cr0=int(Cr0.PE | Cr0.ET | Cr0.NW))
