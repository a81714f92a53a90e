"""HVM: what an HVM guest's context and parameters say, as Xen loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule

if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {}


def _append(b: StreamBuilder, typecode: int, body: bytes, instance: int = 0) -> None:
    """Put an entry before END."""
    from streams.wire.framing import HVM_SAVE_HEADER

    entry = HVM_SAVE_HEADER.pack(typecode, instance, len(body)) + body
    b.hvm_context[-HVM_SAVE_HEADER.size : -HVM_SAVE_HEADER.size] = entry


def _edit_cpu(b: StreamBuilder, **fields: int) -> None:
    """Change fields of vcpu 0's CPU entry."""
    from dataclasses import replace

    from streams.hvm_context import decode_context, encode_context
    from streams.wire.hvm_names import SaveType

    state = decode_context(bytes(b.hvm_context))
    cpu = state.of(SaveType.CPU)[0]
    edited = cpu.build({**cpu.parse(), **fields})
    entries = tuple(edited if entry is cpu else entry for entry in state.entries)
    b.hvm_context[:] = encode_context(replace(state, entries=entries))


def _xsave(b: StreamBuilder, xcr0: int, area: int) -> None:
    """Give vcpu 0 an XSAVE entry with an area of so many bytes, and a CPU policy that has these components."""
    from streams.wire.hvm_names import XSAVE_CONTROL, XSAVE_WORDS_SIZE, SaveType, XsaveControl
    from streams.wire.xstate import XState

    state = XSAVE_CONTROL.pack(*XsaveControl(xcr0, xcr0, xcr0, 0, 0, bytes(48)))
    _append(b, SaveType.CPU_XSAVE, state.ljust(XSAVE_WORDS_SIZE + area, b"\0"))
    components = XState.X87 | XState.SSE | XState.AVX
    b.cpuid_policy.append({"leaf": 0xD, "subleaf": 0, "a": int(components), "b": 0, "c": 0, "d": 0})


@rule("HVM-01", "hvm-entry-length", Effect.HYPERCALL, "xen: _hvm_check_entry", errno="EINVAL")
def hvm_entry_length(b: StreamBuilder) -> None:
    """An entry of the HVM context has a wrong length.

    What: an entry is not as long as its type is. Some types may be shorter, as older releases wrote them: CPU,
        LAPIC, LAPIC_REGS, VIRIDIAN_* and VMCE_VCPU. CPU_XSAVE and CPU_MSR have a least length.
    Why: Xen copies each entry into a structure of its own, and reads zeros for what a short one lacks. It refuses
        any other length; which errno it gives differs by type and release, mostly EINVAL. A longer entry of
        those that have grown before may be fine for a release from 4.20 on.
    Repair: fetch the context again. If a newer Xen saved it, this release is too old for it.
    Source: xen, _hvm_check_entry and the load handler of each type; public/arch-x86/hvm/save.h.
    """
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    _append(b, SaveType.PCI_LINK, bytes(4))


@rule("HVM-02", "hvm-vcpu-unknown", Effect.HYPERCALL, "xen: the load handlers", errno="EINVAL")
def hvm_vcpu_unknown(b: StreamBuilder) -> None:
    """The HVM context names a vcpu that the domain does not have.

    What: the instance of a vcpu's entry is not below the domain's number of vcpus; or there is a third PIC.
    Why: Xen looks the vcpu up before it loads the entry, and refuses the whole context where there is none. An
        entry is saved for every vcpu that exists, whether it runs or not.
    Repair: restore with at least as many vcpus (maxvcpus) as the guest was saved with.
    Source: xen, hvm_load_cpu_ctxt and the other load handlers.
    """
    from migrate.building.parts import hvm_context

    b.become_hvm()
    b.wrap("xl")  # whose configuration says how many vcpus there are
    b.hvm_context[:] = hvm_context(2)


@rule("HVM-03", "hvm-cpu-missing", Effect.CORRUPT, "nobody")
def hvm_cpu_missing(b: StreamBuilder) -> None:
    """No vcpu, or not vcpu 0, has a CPU entry.

    What: the HVM context has no entry of type CPU for vcpu 0.
    Why: Xen stops all vcpus and starts those that have one, and nobody counts them. A guest without any never
        runs again. Without vcpu 0 but with others (a warning) the guest may have taken it down itself, which few
        can.
    Repair: fetch the context again while the guest is suspended, not while its vcpus are down.
    Source: xen, hvm_load and hvm_load_cpu_ctxt; hvm_save_cpu_ctxt leaves out vcpus that are down.
    """
    from migrate.building.parts import hvm_context

    b.become_hvm()
    b.hvm_context[:] = hvm_context(0)


@rule("HVM-04", "hvm-cpu-impossible", Effect.HYPERCALL, "xen: hvm_load_cpu_ctxt", errno="EINVAL")
def hvm_cpu_impossible(b: StreamBuilder) -> None:
    """A vcpu's registers are such as no processor can have.

    What: cr0 has undefined bits, lacks ET, or pages without protected mode; cr4 or EFER have bits that are defined
        nowhere; EFER says long mode is active without being enabled; the flags or the reserved word of the entry
        hold anything unknown; the pending event is of no kind, or its error code is wider than 16 bits. Since
        4.14 at least also: cr3 beyond 52 bits, TSC_AUX beyond 32.
    Why: entering the guest in such a state would fail, so Xen checks it as it loads it.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_ctxt, hvm_efer_valid, vmx_vmcs_restore, svm_vmcb_restore.
    """
    b.become_hvm()
    _edit_cpu(b, cr0=0)


@rule("HVM-05", "hvm-cpu-beyond-policy", Effect.HOST, "xen: hvm_load_cpu_ctxt, validate_xstate", errno="EINVAL")
def hvm_cpu_beyond_policy(b: StreamBuilder) -> None:
    """A vcpu uses a feature that its own CPU policy does not promise.

    What: a bit of cr4 or EFER, or a component of xcr0_accum, belongs to a feature that X86_CPUID_POLICY lacks.
    Why: Xen holds the registers against the policy of the new domain, which is that of the stream as far as
        the host can keep it, and answers EINVAL where the policy does not allow a bit.
    Repair: find out how the guest came to use it; `migrate policy` shows what it was promised.
    Source: xen, hvm_cr4_guest_valid_bits, hvm_efer_valid, cpuid_policy_xcr0_max.
    """
    b.become_hvm()
    _edit_cpu(b, cr4=1 << 22)  # protection keys


@rule("HVM-06", "hvm-xsave-impossible", Effect.HYPERCALL, "xen: validate_xstate", errno="EINVAL/EOPNOTSUPP/EIO")
def hvm_xsave_impossible(b: StreamBuilder) -> None:
    """An HVM vcpu's XSAVE state is such as no processor can have.

    What: xcr0 or xstate_bv go beyond xcr0_accum, or a combination of components is impossible: no x87, AVX without
        SSE, a part of AVX-512, MPX or AMX alone (EINVAL); the area is compressed (EOPNOTSUPP); reserved bytes of
        its header are set (EIO).
    Why: restoring such an area would fault in Xen itself, so it is checked first. The same checks as for the
        XSAVE records of PV guests.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_xsave_states, validate_xstate, valid_xcr0.
    """
    b.become_hvm()
    _xsave(b, 0b110, 832)  # SSE and AVX without x87


@rule("HVM-07", "hvm-xsave-size", Effect.HYPERCALL, "xen: hvm_load_cpu_xsave_states", errno="EINVAL/EOPNOTSUPP")
def hvm_xsave_size(b: StreamBuilder) -> None:
    """An HVM vcpu's XSAVE area does not have the size of its components.

    What: a CPU_XSAVE entry is shorter than the area of xcr0_accum takes (EINVAL), or longer and not zero there
        (EOPNOTSUPP).
    Why: x87 and SSE take 576 bytes, AVX 832, on every processor. Where later components lie the processor decides;
        the policy in the stream tells where they were on the source, and a mismatch with that is a warning.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_xsave_states, xstate_ctxt_size.
    """
    b.become_hvm()
    _xsave(b, 0b111, 576)  # AVX in the room of SSE


@rule("HVM-08", "hvm-lapic-impossible", Effect.HYPERCALL, "xen: lapic_load_hidden", errno="EINVAL")
def hvm_lapic_impossible(b: StreamBuilder) -> None:
    """A local APIC is in x2APIC mode without being enabled.

    What: the APIC base of a LAPIC entry has bit 10 (x2APIC) set and bit 11 (enabled) clear.
    Why: the architecture has no such mode, and Xen refuses it.
    Repair: fetch the context again.
    Source: xen, lapic_load_hidden (lapic_check_hidden in newer releases).
    """
    from streams.wire.hvm_names import ENTRIES, LAPIC_CONTROL, SaveType

    b.become_hvm()
    base = LAPIC_CONTROL.pack(0xFEE0_0500)  # x2APIC, and the boot processor
    _append(b, SaveType.LAPIC, base.ljust(ENTRIES[SaveType.LAPIC].length, b"\0"))


@rule(
    "HVM-09",
    "hvm-mtrr-count",
    Effect.HYPERCALL,
    "xen: hvm_load_mtrr_msr",
    errno="EINVAL",
    since=releases.hvm_widths_checked,
)
def hvm_mtrr_count(b: StreamBuilder) -> None:
    """A vcpu has more variable MTRRs than Xen keeps.

    What: the lowest byte of MTRRcap in an MTRR entry counts more than 8.
    Why: the entry has room for eight, and so has Xen. Releases before 4.14 may check it, too.
    Repair: fetch the context again.
    Source: xen, hvm_load_mtrr_msr.
    """
    from streams.wire.hvm_names import ENTRIES, MTRR_CONTROL, SaveType

    b.become_hvm()
    _append(b, SaveType.MTRR, MTRR_CONTROL.pack(9).ljust(ENTRIES[SaveType.MTRR].length, b"\0"))


@rule("HVM-10", "hvm-msrs", Effect.HYPERCALL, "xen: hvm_load_cpu_msrs", errno="EOPNOTSUPP")
def hvm_msrs(b: StreamBuilder) -> None:
    """A CPU_MSR entry is not a list of MSRs.

    What: the length is not 8 bytes and 16 for each MSR counted, or the reserved word of an MSR is not zero.
    Why: Xen checks the whole list before it sets the first.
    Repair: fetch the context again.
    Source: xen, hvm_load_cpu_msrs.
    """
    from streams.wire.hvm_names import HVM_MSR, HVM_MSR_HEADER, SaveType

    b.become_hvm()
    _append(b, SaveType.CPU_MSR, HVM_MSR_HEADER.pack(1) + HVM_MSR.pack(0xDA0, 1, 0))


@rule("HVM-11", "hvm-msr-unknown", Effect.HOST, "xen: hvm_load_cpu_msrs", errno="ENXIO")
def hvm_msr_unknown(b: StreamBuilder) -> None:
    """A CPU_MSR entry holds an MSR that no release is known to save.

    What: an index is none of those that savers write: SPEC_CTRL, MISC_FEATURES_ENABLES, BNDCFGS, XSS, the CET and
        PKS registers, TSC_AUX, VIRT_SPEC_CTRL, AMD's debug address masks.
    Why: a release that does not know an index answers ENXIO, and so does one whose policy for the guest does not
        have the MSR. Which a newer one knows is not told here.
    Repair: restore on a release that is at least as new as the source.
    Source: xen, hvm_load_cpu_msrs, msrs_to_send.
    """
    from streams.wire.hvm_names import HVM_MSR, HVM_MSR_HEADER, SaveType

    b.become_hvm()
    _append(b, SaveType.CPU_MSR, HVM_MSR_HEADER.pack(1) + HVM_MSR.pack(0x10, 0, 1))


@rule("HVM-12", "hvm-entry-twice", Effect.TOLERATED, "nobody")
def hvm_entry_twice(b: StreamBuilder) -> None:
    """The HVM context has an entry twice.

    What: two entries have the same type and instance.
    Why: Xen loads each as it comes, so the last one counts. No release saves one twice.
    Repair: drop the earlier one.
    Source: xen, hvm_load.
    """
    from streams.wire.hvm_names import ENTRIES, SaveType

    b.become_hvm()
    for _ in range(2):
        _append(b, SaveType.PCI_LINK, bytes(ENTRIES[SaveType.PCI_LINK].length))


@rule("HVM-13", "hvm-bytes-after-end", Effect.TOLERATED, "nobody")
def hvm_bytes_after_end(b: StreamBuilder) -> None:
    """Something follows the END entry of the HVM context.

    What: the HVM_CONTEXT record goes on behind its END entry.
    Why: Xen stops reading at END. Entries behind it are lost.
    Repair: move END to the end, or cut the rest off.
    Source: xen, hvm_load.
    """
    b.become_hvm()
    b.hvm_context += bytes(8)


@rule("HVM-14", "hvm-param-value", Effect.HYPERCALL, "xen: hvm_set_param", errno="EINVAL")
def hvm_param_value(b: StreamBuilder) -> None:
    """An HVM parameter has a value that Xen refuses.

    What: TIMER_MODE above 3, ACPI_S_STATE other than 0 and 3, X87_FIP_WIDTH other than 0, 4 and 8, VIRIDIAN without
        its base features (bit 0), or NR_IOREQ_SERVER_PAGES other than 1 to 64.
    Why: libxc sets each parameter as it reads the record, and stops where Xen answers with an error. Values of
        other parameters depend on the host and are left alone.
    Repair: correct the value, or drop the parameter: unset, each has a default.
    Source: xen, hvm_set_param.
    """
    from streams.wire.hvm_names import HvmParam

    b.become_hvm()
    b.hvm_params[HvmParam.TIMER_MODE] = 4
