"""What can be wrong with vcpu records, and with the registers that VCPU_BASIC holds."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule
from streams.wire.framing import VCPU_HEADER, RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "REC-67": "Xen corrects these fields for every guest; there is nothing to report",
    "REC-68": "libxc brings every vcpu with a record online, and savers write records for such vcpus only",
    "REC-69": "gdt_frames past the used ones are neither converted nor read by anybody",
}


@rule("REC-50", "vcpu-record-short", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_record_short(b: StreamBuilder) -> None:
    """A vcpu record is too short for its own header.

    What: the body has fewer than 8 bytes, so that vcpu id and reserved word do not fit.
    Why: libxc refuses it as truncated before it knows which vcpu it is for.
    Repair: fetch the record again.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.insert(RecordType.X86_PV_VCPU_EXTENDED, bytes(4))


@rule("REC-51", "vcpu-record-empty", Effect.TOLERATED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_record_empty(b: StreamBuilder) -> None:
    """A vcpu or parameter record has no content.

    What: a vcpu record ends after its header, or HVM_PARAMS counts 0.
    Why: savers of Xen 4.6 to 4.8 could write such records. libxc skips them without a look at the vcpu id, since
        Xen 4.11. Earlier releases fail the restore over a vcpu record: they call it truncated, or mean to skip
        it and return failure all the same.
    Repair: none needed; remove the record when the destination is older than 4.11.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.insert(RecordType.X86_PV_VCPU_MSRS, VCPU_HEADER.pack(0, 0))


@rule("REC-52", "vcpu-id", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_id(b: StreamBuilder) -> None:
    """A vcpu record is for a vcpu that the domain does not have.

    What: the vcpu id is not below the domain's number of vcpus.
    Why: that number comes from the domain's configuration and not from the stream. libxc refuses a record that
        it has no slot for.
    Repair: raise maxvcpus in the configuration, or correct the id.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.wrap("xl")  # whose configuration says how many vcpus there are
    VCPU_HEADER.pack_into(b.duplicate(RecordType.X86_PV_VCPU_BASIC).body, 0, 128, 0)


@rule("REC-53", "vcpu-basic-length", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_basic_length(b: StreamBuilder) -> None:
    """A VCPU_BASIC record has the wrong size for the guest's width.

    What: its content is not exactly 2800 bytes for a 32-bit guest, or 5168 for a 64-bit one.
    Why: it is Xen's vcpu_guest_context structure, which has these two sizes. libxc takes the width to be 8
        until X86_PV_INFO has come, so a 32-bit record that comes too early fails here.
    Repair: move it after X86_PV_INFO, or fetch it again.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    del b.duplicate(RecordType.X86_PV_VCPU_BASIC).body[-4:]


@rule("REC-54", "vcpu-extended-length", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_extended_length(b: StreamBuilder) -> None:
    """A VCPU_EXTENDED record is too long.

    What: its content has more than 128 bytes.
    Why: libxc hands it to Xen through a buffer of 128 bytes and refuses what does not fit. Savers send what
        Xen's structure has, 64 bytes today.
    Repair: cut it to the size that its own size field says.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.insert(RecordType.X86_PV_VCPU_EXTENDED, VCPU_HEADER.pack(0, 0) + bytes(136))


@rule("REC-55", "vcpu-xsave-length", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_xsave_length(b: StreamBuilder) -> None:
    """A VCPU_XSAVE record is too short.

    What: its content has fewer than the 16 bytes of xcr0 and xcr0_accum.
    Why: libxc refuses it while reading. Before Xen 4.12.3, 4.13.1 and 4.14 it asked for a multiple of 16 in the
        place of this.
    Repair: fetch the record again; for a vcpu that never used its FPU, two zero words are right.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.insert(RecordType.X86_PV_VCPU_XSAVE, VCPU_HEADER.pack(0, 0) + bytes(8))


@rule(
    "REC-56", "vcpu-msrs-length", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_blob", since=releases.blob_lengths_checked
)
def vcpu_msrs_length(b: StreamBuilder) -> None:
    """A VCPU_MSRS record does not hold whole entries.

    What: its content is not a multiple of 16 bytes.
    Why: it is an array of MSR entries of 16 bytes each. libxc refuses a ragged one; before Xen 4.12.3, 4.13.1 and
        4.14 it passed it on, and Xen took as many entries as are whole.
    Repair: cut or complete the last entry.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    from streams.wire.msrs import Msr

    entry = Msr.INTEL_MISC_FEATURES_ENABLES.to_bytes(4, "little")
    b.insert(RecordType.X86_PV_VCPU_MSRS, VCPU_HEADER.pack(0, 0) + entry.ljust(24, b"\0"))


@rule("REC-57", "vcpu-record-reserved", Effect.SPEC, "verify-stream-v2")
def vcpu_record_reserved(b: StreamBuilder) -> None:
    """The reserved word of a vcpu record is not zero.

    What: the word after the vcpu id holds something.
    Why: libxc never looks at it; the verifier refuses it as against the specification.
    Repair: zero it.
    Source: libxc migration stream, sections X86_PV_VCPU_BASIC, EXTENDED, XSAVE, MSRS.
    """
    VCPU_HEADER.pack_into(b.record(RecordType.X86_PV_VCPU_EXTENDED).body, 0, 0, 1)


@rule("REC-58", "vcpu-record-repeated", Effect.TOLERATED, "libxc: handle_x86_pv_vcpu_blob")
def vcpu_record_repeated(b: StreamBuilder) -> None:
    """A vcpu has two records of one type.

    What: a second BASIC, EXTENDED, XSAVE or MSRS record for the same vcpu.
    Why: libxc keeps the last one and applies it at END. Checkpointed streams work like this; in a plain stream
        no saver writes a second one.
    Repair: none needed; keep the one that is meant.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_vcpu_blob.
    """
    b.duplicate(RecordType.X86_PV_VCPU_EXTENDED)


@rule("REC-59", "vcpu-without-basic", Effect.TOLERATED, "nobody")
def vcpu_without_basic(b: StreamBuilder) -> None:
    """A vcpu has state but no VCPU_BASIC record.

    What: EXTENDED, XSAVE or MSRS records of a vcpu other than 0 come without a BASIC record for it.
    Why: libxc applies them all the same. But without registers the vcpu is not brought up; to the guest it is
        a CPU that went offline during the migration.
    Repair: fetch the BASIC record from the source if the vcpu was online there.
    Source: xg_sr_restore_x86_pv.c, update_vcpu_context.
    """
    b.new_vcpu().basic = None


# -- registers in VCPU_BASIC, judged by setvcpucontext ----------------------------------------------


@rule(
    "REC-60",
    "vm-assist-mask",
    Effect.HYPERCALL,
    "xen: arch_set_info_guest",
    errno="EINVAL",
    since=releases.vm_assist_mask,
)
def vm_assist_mask(b: StreamBuilder) -> None:
    """Vcpu 0 asks for a VM assist that Xen does not have.

    What: vm_assist of vcpu 0 has a bit outside of the valid ones: 0 to 5 for a 32-bit guest, these and 32 for
        a 64-bit one.
    Why: vcpu 0's field sets the assists of the whole domain, and setvcpucontext refuses unknown ones (also in
        Xen 4.13.1 and 4.12.3). The field of other vcpus is ignored.
    Repair: clear the bits. If a newer Xen defined them, the guest has to turn the assist off before it moves.
    Source: xen, arch_set_info_guest; COMPAT_VM_ASSIST_VALID, NATIVE_VM_ASSIST_VALID.
    """
    b.vcpus[0].basic.vm_assist |= 1 << 6


@rule("REC-61", "gdt-entries", Effect.REFUSED, "libxc: process_vcpu_basic; xen: arch_set_info_guest")
def gdt_entries(b: StreamBuilder) -> None:
    """A vcpu's GDT is longer than a PV guest's may be.

    What: gdt_ents of a vcpu is larger than 7168, the entries of 14 pages.
    Why: the rest of the table is Xen's. libxc refuses it (as ERANGE) before it asks Xen, which would refuse it
        too. A value like this mostly means that the fields of the record are shifted.
    Repair: correct gdt_ents.
    Source: xg_sr_restore_x86_pv.c, process_vcpu_basic; FIRST_RESERVED_GDT_ENTRY.
    """
    b.vcpus[0].basic.gdt_ents = 7169


@rule("REC-62", "ldt-bounds", Effect.HYPERCALL, "xen: arch_set_info_guest", errno="EINVAL")
def ldt_bounds(b: StreamBuilder) -> None:
    """A vcpu's LDT is misplaced or too long.

    What: ldt_base is not page aligned, ldt_ents is above 8192, or in a 64-bit guest the base of a used LDT is
        not an address that the guest may use.
    Why: Xen maps the LDT page by page on first use and wants sound bounds for it. setvcpucontext answers EINVAL.
    Repair: set both to 0 if the guest has no LDT, which is the rule outside of emulators.
    Source: xen, arch_set_info_guest.
    """
    b.vcpus[0].basic.ldt_base = 0x800


@rule(
    "REC-63",
    "debug-registers",
    Effect.HYPERCALL,
    "xen: arch_set_info_guest",
    errno="EINVAL",
    since=releases.debug_registers_checked,
)
def debug_registers(b: StreamBuilder) -> None:
    """A 64-bit vcpu's debug registers hold what hardware or Xen refuses.

    What: dr6 or dr7 has a bit set in its upper half, or one of dr0 to dr3 lies in Xen's address range.
    Why: loading them would fault, or break into the hypervisor. Since Xen 4.18 setvcpucontext answers EINVAL;
        before, no value was refused. Those of a 32-bit guest always fit.
    Repair: clear the upper halves; zero a breakpoint that lies in Xen's range.
    Source: xen, arch_set_info_guest.
    """
    b.become_pv64()
    b.vcpus[0].basic.debugreg[7] |= 1 << 32


@rule("REC-64", "non-canonical-address", Effect.HYPERCALL, "xen: arch_set_info_guest", errno="EINVAL")
def non_canonical_address(b: StreamBuilder) -> None:
    """A 64-bit vcpu's register holds a non-canonical address.

    What: one of rip, rsp, kernel_sp, fs_base, the two gs bases, the three callbacks or the 256 trap handlers is
        no canonical address: bits 63 to 47 differ.
    Why: going to such an address faults inside the hypervisor, so setvcpucontext refuses it with EINVAL.
    Repair: nothing sensible can be put there by hand, unless it is one flipped bit; take the record from a
        fresh save.
    Source: xen, arch_set_info_guest.
    """
    b.become_pv64()
    b.vcpus[0].basic.user_regs.rip = 1 << 48


@rule("REC-65", "user-mode-without-user-root", Effect.HYPERCALL, "xen: arch_set_info_guest", errno="EINVAL")
def user_mode_without_user_root(b: StreamBuilder) -> None:
    """A 64-bit vcpu is in user mode and has no user page table.

    What: the in_kernel flag is clear and ctrlreg[1] is 0.
    Why: a 64-bit PV guest has one root for its kernel and one for its processes. Xen would have to run the vcpu
        on the second, which is not there, and answers EINVAL.
    Repair: set the flag (bit 2 of flags) if the vcpu was in its kernel; a suspended vcpu always is.
    Source: xen, arch_set_info_guest.
    """
    from streams.wire.vcpu import ContextFlag

    b.become_pv64()
    b.vcpus[0].basic.flags &= ~ContextFlag.IN_KERNEL


@rule(
    "REC-66",
    "eflags-vm",
    Effect.HYPERCALL,
    "xen: arch_set_info_guest",
    errno="EINVAL",
    since=releases.eflags_vm_refused,
)
def eflags_vm(b: StreamBuilder) -> None:
    """A 32-bit vcpu is in virtual-8086 mode.

    What: bit 17 (VM) of eflags is set.
    Why: PV guests have no virtual-8086 mode. Since Xen 4.21.1 setvcpucontext refuses it with EINVAL; earlier
        releases accept the value. For a 64-bit guest the same releases clear the bit in silence.
    Repair: clear the bit.
    Source: xen, arch_set_info_guest.
    """
    b.vcpus[0].basic.user_regs.eflags |= 1 << 17
