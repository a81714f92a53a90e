"""HVM: the entries of an HVM guest's context, whatever is in them, and its parameters."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "HVM-27": "what only the host decides is told under the rule that it may break, as a matter of the host",
}


@rule("HVM-01", "hvm-entry-length", Effect.HYPERCALL, "xen: _hvm_check_entry", errno="EINVAL/ENODATA/EPERM")
def hvm_entry_length(b: StreamBuilder) -> None:
    """An entry of the HVM context has a wrong length.

    What: an entry is not as long as the release expects. CPU, LAPIC, RTC, VIRIDIAN_* and VMCE_VCPU may be shorter,
        as older releases wrote them; CPU_XSAVE and CPU_MSR have a least length; all others one length.
    Why: Xen copies each entry into a structure of its own, and reads zeros for what a short one lacks. What newer
        releases have added is refused: CPU 1032 since 4.7, VMCE_VCPU 32 since 4.10, VIRIDIAN_VCPU 16 since 4.7
        and 216 since 4.13, RTC 24 since 4.14, LAPIC 32 since 4.18.5, 4.19.2, 4.20.1 and 4.21. The errno is EINVAL
        for most, EPERM for VMCE_VCPU, ENODATA for IOAPIC and PIT, PIC and PCI_LINK from 4.19, LAPIC and LAPIC_REGS
        from 4.20; before 4.16 (and late point releases of 4.13 to 4.15) it is always EPERM.
    Repair: fetch the context again. If a newer Xen saved it, this release is too old for it.
    Source: xen, _hvm_check_entry and the load handler of each type; public/arch-x86/hvm/save.h.
    """
    from migrate.building.hvm_contexts import resize
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    resize(b.hvm_context, SaveType.PCI_IRQ, 8)


@rule("HVM-02", "hvm-vcpu-unknown", Effect.HYPERCALL, "xen: the load handlers", errno="EINVAL/ENOENT")
def hvm_vcpu_unknown(b: StreamBuilder) -> None:
    """The HVM context names a vcpu that the domain does not have.

    What: the instance of a vcpu's entry is not below the domain's number of vcpus (EINVAL); or there is a third PIC
        (ENOENT).
    Why: Xen looks the vcpu up before it loads the entry, and refuses the whole context where there is none. An
        entry is saved for every vcpu that exists, whether it runs or not.
    Repair: restore with at least as many vcpus (maxvcpus) as the guest was saved with.
    Source: xen, hvm_load_cpu_ctxt and the other load handlers.
    """
    from migrate.building.hvm_contexts import hvm_context

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
    from migrate.building.hvm_contexts import drop
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    drop(b.hvm_context, SaveType.CPU)


@rule("HVM-12", "hvm-entry-twice", Effect.TOLERATED, "nobody")
def hvm_entry_twice(b: StreamBuilder) -> None:
    """The HVM context has an entry twice.

    What: two entries have the same type and, where that counts, the same instance.
    Why: Xen loads each as it comes, so the last one counts. No release saves one twice.
    Repair: drop the earlier one.
    Source: xen, hvm_load.
    """
    from migrate.building.hvm_contexts import add
    from streams.wire.hvm_interrupts import PCI_LINK
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    add(b.hvm_context, SaveType.PCI_LINK, bytes(PCI_LINK.size))


@rule("HVM-13", "hvm-bytes-after-end", Effect.TOLERATED, "nobody")
def hvm_bytes_after_end(b: StreamBuilder) -> None:
    """Something follows the END entry of the HVM context.

    What: the HVM_CONTEXT record goes on behind its END entry.
    Why: Xen stops reading at END, and looks at neither its length nor its instance. Entries behind it are lost.
    Repair: move END to the end, or cut the rest off.
    Source: xen, hvm_load.
    """
    b.become_hvm()
    b.hvm_context += bytes(8)


@rule(
    "HVM-15",
    "hvm-device-missing",
    Effect.HYPERCALL,
    "xen: the load handlers",
    errno="ENODEV",
    since=releases.hvm_devices_checked,
)
def hvm_device_missing(b: StreamBuilder) -> None:
    """A PVH guest brings the state of a device that it does not have.

    What: the context of a PVH guest has an entry of type PIC, IOAPIC, PIT, RTC, HPET or PMTIMER, or its HVM_PARAMS
        set ACPI_IOPORTS_LOCATION.
    Why: of all emulated devices a PVH guest has a local APIC alone, and Xen answers ENODEV to the state of others
        before it looks at anything else of it. HVM and PVH guests are one type to libxc; what the guest is follows
        from an xl file's configuration, else from the context: HVM guests' savers write all six types, PVH guests'
        none. An HVM domain takes a PVH guest's context.
    Repair: restore the guest as what it was saved as (`type` in its configuration), or drop the entry.
    Source: xen, ioapic_load, pit_load, rtc_load, hpet_load, acpi_load, vpic_load; pmtimer_change_ioport.
    """
    from migrate.building.hvm_contexts import PVH, add
    from streams.wire.hvm_interrupts import IOAPIC
    from streams.wire.hvm_names import SaveType

    b.become_hvm(PVH)
    add(b.hvm_context, SaveType.IOAPIC, bytes(IOAPIC.size))


@rule("HVM-24", "hvm-held-otherwise", Effect.TOLERATED, "nobody", severity=Severity.WARNING)
def hvm_held_otherwise(b: StreamBuilder) -> None:
    """Xen takes a value of an HVM guest and holds another.

    What: the upper half of dr6, reserved bits of dr6 and dr7 (from 4.18), selectors and attributes beyond 16 bits, an
        error code without an event, FPU state that the flags deny; a PAT or MTRR of no memory type, or with reserved
        bits, which is dropped; VM86_TSS_SIZED above 8329 bytes. To know (info): instances of what there is but one
        of, lengths that no release writes, params that libxc sets anew.
    Why: none of this fails a restore, and none of it comes from a saver. What the guest finds is not what it left.
        One exception is known and not told: Xen's savers write variable MTRR 0 into all eight.
    Repair: fetch the state again, or correct the value to what Xen would hold.
    Source: xen, hvm_load_cpu_ctxt, x86_adj_dr6_rsvd, hvm_load_mtrr_msr, hvm_set_guest_pat, hvm_set_param.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.MTRR, msr_pat_cr=3)  # there is no such memory type


@rule("HVM-14", "hvm-param-value", Effect.HYPERCALL, "xen: hvm_set_param", errno="EINVAL")
def hvm_param_value(b: StreamBuilder) -> None:
    """An HVM parameter has a value that Xen refuses.

    What: TIMER_MODE above 3; ACPI_S_STATE other than 0 and 3; X87_FIP_WIDTH other than 0, 4 and 8; VIRIDIAN without
        its base features (bit 0) or with features that the release does not have; NR_IOREQ_SERVER_PAGES other than 1
        to 64; TRIPLE_FAULT_REASON above 5; ACPI_IOPORTS_LOCATION other than 0 and 1; VM86_TSS above 4 GiB and
        VM86_TSS_SIZED below 104 bytes (from 4.9); NESTEDHVM above 1 (to 4.14); ALTP2M above 3 (to 4.18); MCA_CAP
        with more than bit 0, which takes a host of Intel.
    Why: libxc sets each parameter as it reads the record, and stops where Xen answers with an error.
    Repair: correct the value, or drop the parameter: unset, each has a default.
    Source: xen, hvm_set_param, pmtimer_change_ioport.
    """
    from streams.wire.hvm_names import HvmParam

    b.become_hvm()
    b.hvm_params[HvmParam.TIMER_MODE] = 4
