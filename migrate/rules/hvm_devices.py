"""HVM: what an HVM guest's context says of its interrupt controllers, clocks, memory types and Viridian."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder


@rule("HVM-08", "hvm-lapic-impossible", Effect.HYPERCALL, "xen: lapic_load_hidden", errno="EINVAL")
def hvm_lapic_impossible(b: StreamBuilder) -> None:
    """A local APIC is in x2APIC mode without being enabled.

    What: the APIC base of a LAPIC entry has bit 10 (x2APIC) set and bit 11 (enabled) clear.
    Why: the architecture has no such mode, and Xen refuses it.
    Repair: fetch the context again.
    Source: xen, lapic_load_hidden (lapic_check_hidden from 4.20 on).
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.LAPIC, apic_base_msr=0xFEE0_0500)  # x2APIC, and the boot processor


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
    Why: the entry has room for eight, and so has Xen.
    Repair: fetch the context again.
    Source: xen, hvm_load_mtrr_msr.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.MTRR, msr_mtrr_cap=9)


@rule(
    "HVM-16",
    "hvm-pic-impossible",
    Effect.HYPERCALL,
    "xen: vpic_check",
    errno="EINVAL/EDOM",
    since=releases.hvm_two_phases,
)
def hvm_pic_impossible(b: StreamBuilder) -> None:
    """An interrupt controller's state is none that a PC's can have.

    What: int_output of a PIC entry is above 1 (EDOM); instance 0 is not the master, or instance 1 is; int_output is
        set while the controller is being initialised; elcr has lines that are never triggered by level: outside 0xfc
        for instance 0, 0xde for instance 1.
    Why: Xen checks it before it loads anything. Releases up to 4.18 load whatever comes.
    Repair: fetch the context again.
    Source: xen, vpic_check.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.PIC, modes=0)  # the master, which does not say so


@rule(
    "HVM-17",
    "hvm-pit-impossible",
    Effect.HYPERCALL,
    "xen: pit_check",
    errno="EINVAL/EDOM",
    since=releases.hvm_two_phases,
)
def hvm_pit_impossible(b: StreamBuilder) -> None:
    """The interval timer's state is none that a PC's can have.

    What: in a PIT entry speaker_data_on is above 1 or the padding not zero; a channel's count is above 65536,
        count_latched, read_state or write_state above 4, rw_mode above 3, gate or bcd above 1 (all EDOM); or the gate
        of channel 0 or 1 is closed (EINVAL).
    Why: Xen checks it before it loads anything. Releases up to 4.18 load whatever comes.
    Repair: fetch the context again.
    Source: xen, pit_check.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.PIT, speaker_data_on=2)


@rule("HVM-18", "hvm-pci-link", Effect.HYPERCALL, "xen: irq_load_link", errno="EINVAL")
def hvm_pci_link(b: StreamBuilder) -> None:
    """A PCI interrupt link goes to a line that does not exist.

    What: a route of the PCI_LINK entry is above 15; or, from 4.19 on, its padding is not zero.
    Why: there are 16 lines, and Xen uses the route as an index.
    Repair: fetch the context again.
    Source: xen, irq_load_link (irq_check_link from 4.19 on).
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.PCI_LINK, route=(16, 0, 0, 0))


@rule(
    "HVM-19",
    "hvm-viridian-padding",
    Effect.HYPERCALL,
    "xen: viridian_load_vcpu_ctxt",
    errno="EINVAL",
    since=releases.hvm_viridian_assist,
)
def hvm_viridian_padding(b: StreamBuilder) -> None:
    """The padding of a VIRIDIAN_VCPU entry is not zero.

    What: any of the seven bytes after apic_assist_pending is set.
    Why: they are reserved, and Xen holds them to that, whether the guest has Viridian or not.
    Repair: fetch the context again.
    Source: xen, viridian_load_vcpu_ctxt.
    """
    from migrate.building.hvm_contexts import Hardware, edit
    from streams.wire.hvm_names import SaveType
    from streams.wire.hvm_viridian import VIRIDIAN_VCPU

    # In its first form, which every later release takes, too.
    b.become_hvm(Hardware(viridian=True, lengths={SaveType.VIRIDIAN_VCPU: VIRIDIAN_VCPU.offset("simp_msr")}))
    edit(b.hvm_context, SaveType.VIRIDIAN_VCPU, pad=b"\1" * 7)


@rule("HVM-20", "hvm-machine-check-caps", Effect.HYPERCALL, "xen: vmce_restore_vcpu", errno="EINVAL")
def hvm_machine_check_caps(b: StreamBuilder) -> None:
    """A vcpu has machine check capabilities that Xen does not take.

    What: the capabilities in a VMCE_VCPU entry have bits besides the number of banks (0 to 7) and 8, which every host
        takes, and 10, 11, 24 and (from 4.10) 27, which hosts of Intel take.
    Why: what no host takes is refused everywhere. A guest from a host of Intel is refused on one of AMD: which it will
        be is not in the stream (an info, and a warning where the guest was promised another make).
    Repair: restore on a host of the same make.
    Source: xen, vmce_load_vcpu_ctxt, vmce_restore_vcpu.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    edit(b.hvm_context, SaveType.VMCE_VCPU, caps=1 << 12)


@rule(
    "HVM-21",
    "hvm-viridian-page-missing",
    Effect.HOST_DIES,
    "nobody",
    since=releases.hvm_viridian_synic,
    until=releases.viridian_pages_survived,
)
def hvm_viridian_page_missing(b: StreamBuilder) -> None:
    """A Viridian page that is not there brings the host down.

    What: with Viridian on, the reference TSC page of VIRIDIAN_DOMAIN or the SIM page of a VIRIDIAN_VCPU is enabled, and
        names a pfn that was never sent.
    Why: Xen only logs that it cannot map the page, and writes to it all the same: the reference TSC page as the guest
        is unpaused, a SIM page as soon as a synthetic timer fires. The host goes down with every guest on it
        (XSA-472). Fixed in 4.17.6, 4.18.6, 4.19.4 and 4.20.2.
    Repair: let nobody send such a stream; update the host.
    Source: xen, viridian_map_guest_page, update_reference_tsc, viridian_synic_deliver_timer_msg; XSA-472.
    """
    from migrate.building.hvm_contexts import Hardware, edit
    from streams.wire.framing import PAGE_SHIFT
    from streams.wire.hvm_names import SaveType

    b.become_hvm(Hardware(viridian=True))
    edit(b.hvm_context, SaveType.VIRIDIAN_DOMAIN, reference_tsc=b.absent_pfn << PAGE_SHIFT | 1)


@rule("HVM-23", "hvm-hpet-debug", Effect.DEBUG_HOST_DIES, "xen: hpet_set_timer", since=releases.hvm_hpet_asserted)
def hvm_hpet_debug(b: StreamBuilder) -> None:
    """A running HPET timer has no route, which a debug build of Xen dies of.

    What: in an HPET entry the HPET is enabled, and a timer that is enabled, too, and does not wait for a pending
        interrupt by level, has no route in bits 32 to 63 of its config.
    Why: a debug build asserts that there is one as it starts the timer, and takes the host down, every guest with it.
        In a release build the timer stays dead.
    Repair: fetch the context again, and send none of this to a host with a debug build.
    Source: xen, hpet_load, hpet_set_timer.
    """
    from migrate.building.hvm_contexts import edit
    from streams.wire.hvm_names import SaveType
    from streams.wire.hvm_timers import HPET, HPET_TIMERS, HpetConfig, HpetTimerConfig

    b.become_hvm()
    timer = HPET.read(b"").timers[0]._replace(config=int(HpetTimerConfig.ENABLED))
    edit(b.hvm_context, SaveType.HPET, config=int(HpetConfig.ENABLED), timers=(timer,) * HPET_TIMERS)


@rule("HVM-26", "hvm-viridian-lost", Effect.CORRUPT, "nobody")
def hvm_viridian_lost(b: StreamBuilder) -> None:
    """Viridian entries come without the parameter that turns Viridian on.

    What: the context has VIRIDIAN_DOMAIN or VIRIDIAN_VCPU entries, and HVM_PARAMS no VIRIDIAN (param 9).
    Why: Xen reads such entries, and passes over what is in them: the guest's hypercall page and reference clock are
        gone. Entries of zeros are no loss (a warning). A saver writes them only with the parameter.
    Repair: send the parameter, or restore with a configuration that turns Viridian on.
    Source: xen, viridian_load_domain_ctxt, viridian_load_vcpu_ctxt.
    """
    from migrate.building.hvm_contexts import Hardware
    from streams.wire.hvm_names import HvmParam

    b.become_hvm(Hardware(viridian=True))
    del b.hvm_params[HvmParam.VIRIDIAN]
