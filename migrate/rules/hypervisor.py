"""HYP: what Xen answers when the page tables of a PV guest are put to use again."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule
from streams.pages import PageType
from streams.wire.framing import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "HYP-14": "says what is allowed: L2 tables of slots 0 to 2 may be shared and pinned",
    "HYP-15": "cannot come about: every pfn that libxc converts gets a frame of the domain's own",
    "HYP-20": "says what is allowed: pinning a validated table adds a reference",
    "HYP-21": "needs 2^55 references to one frame",
    "HYP-23": "cannot come about: a plain restore sets each vcpu's context once",
    "HYP-24": "the EPERM form of HYP-07; the other one is not used by a restore",
    "HYP-25": "needs a domain with passthrough, and depends on the host's frames",
    "HYP-26": "how libxc reads the result of a batch of pins; makes no difference to a stream",
}

NEEDS_PLACEMENT: dict[str, str] = {"HYP-27": "high"}
"""Rules whose violation shows only under a placement other than the source's: id -> placement."""

VIOLATION_PLACEMENT = "source"
"""All others' violations are judged so: of a 32-bit guest high frames alone are more than newer releases take."""


@rule("HYP-01", "type-conflict", Effect.HYPERCALL, "xen: _get_page_type", errno="EINVAL")
def type_conflict(b: StreamBuilder) -> None:
    """One frame is needed as two kinds of page table.

    What: a page that Xen holds as a table of one level is reached again as another level.
    Why: a frame has one type as long as anything refers to it. The second use is refused, and with
        it the table above, the next one above that, and at last the context or pin that led there.
    Repair: the entry that refers to the wrong page has to go; follow the chain in the finding.
    Source: xen _get_page_type
    """
    from migrate.building import parts

    root, l2, _ = b.chain(b.roots[0])
    b.table(l2)[1] = parts.entry(root, parts.TABLE)


@rule("HYP-02", "writable-page-table", Effect.HYPERCALL, "xen: get_page_from_l1e", errno="EBUSY")
def writable_page_table(b: StreamBuilder) -> None:
    """An L1 maps a page table writable.

    What: a present L1 entry with the writable bit refers to a page that is in use as a table.
    Why: a guest must not write its tables behind Xen's back. The frame has a table's type, a
        writable mapping needs another, and Xen refuses the L1. If the L1 is reached first: HYP-03.
    Repair: the mapping has to be read-only.
    Source: xen get_page_from_l1e
    """
    from migrate.building import parts

    root, _, l1 = b.chain(b.roots[0])
    b.table(l1)[root] = parts.entry(root, parts.PTE_RW)


@rule("HYP-03", "table-already-writable", Effect.HYPERCALL, "xen: _get_page_type", errno="EINVAL")
def table_already_writable(b: StreamBuilder) -> None:
    """A page becomes a table though it is already mapped writable.

    What: a page is pinned or referred to as a table after a validated L1 has mapped it writable.
    Why: the same conflict as HYP-02 met from the other side. Contexts come before pins and both go
        through the tables in order of their entries, so which one is met depends on that order alone.
    Repair: the mapping has to be read-only.
    Source: xen _get_page_type
    """
    from migrate.building import parts

    *_, l1 = b.chain(b.roots[0])
    pinned = b.new_table(1, pinned=True)
    b.table(l1)[pinned] = parts.entry(pinned, parts.PTE_RW)


@rule("HYP-04", "writable-gdt", Effect.HYPERCALL, "xen: get_page_from_l1e", errno="EBUSY")
def writable_gdt(b: StreamBuilder) -> None:
    """A GDT page is mapped writable.

    What: a page in a vcpu's gdt_frames has a writable mapping in an L1 of a live table.
    Why: Xen takes the GDT pages of a context before its cr3. From then on they are descriptor pages, of
        which no writable mapping may exist; the L1 that has one is refused.
    Repair: map the GDT read-only.
    Source: xen arch_set_info_guest, get_page_from_l1e
    """
    from migrate.building import parts

    *_, l1 = b.chain(b.roots[0])
    b.table(l1)[b.gdt_pfn] = parts.entry(b.gdt_pfn, parts.PTE_RW)


@rule("HYP-05", "bad-descriptor", Effect.HYPERCALL, "xen: validate_segdesc_page", errno="EINVAL")
def bad_descriptor(b: StreamBuilder) -> None:
    """A GDT page holds a descriptor that guests may not have.

    What: a present descriptor is a system segment other than an acceptable call gate, or is a 64-bit
        code segment in a 32-bit guest.
    Why: the guest's GDT is the one the processor uses, so Xen goes through every page of it: all 512
        descriptors, whatever gdt_ents says. A task state segment is the usual find.
    Repair: clear the descriptor, or correct gdt_frames if the page is not a GDT.
    Source: xen validate_segdesc_page, check_descriptor
    """
    b.table(b.gdt_pfn)[3] = 0x0000_8900_0000_0067  # a task state segment, present


@rule("HYP-06", "data-used-as-table", Effect.HYPERCALL, "xen: get_page_from_l2e", errno="EINVAL/EBUSY/EPERM")
def data_used_as_table(b: StreamBuilder) -> None:
    """A page of data is reached as a page table.

    What: an entry of a live table refers to a page sent as ordinary data, and Xen, reading its words
        as entries, meets flags that no entry of that level may have.
    Why: Xen derives what is a table from the entries above it, not from the types in the stream. A
        page of zeros passes as an empty table; text or numbers do not. Where the words have proper flags
        but foreign frames, the page was a table that lost its type: HYP-07.
    Repair: correct the entry that refers to it.
    Source: xen get_page_from_l2e, get_page_from_l3e, get_page_from_l4e
    """
    from migrate.building import parts

    _, l2, _ = b.chain(b.roots[0])
    text = b.new_page(content=b"Q" * PAGE_SIZE)  # 0x51: present, and uncached
    b.table(l2)[1] = parts.entry(text, parts.TABLE)


@rule("HYP-07", "table-untyped", Effect.HYPERCALL, "xen: get_page_from_l1e", errno="EBUSY/EPERM/EINVAL")
def table_untyped(b: StreamBuilder) -> None:
    """A live page table was sent as ordinary data.

    What: a page that Xen reaches as a table has the type NOTAB, so its entries were not converted.
    Why: libxc puts new frames into the entries of typed tables only. This one still holds the source's:
        a frame the domain does not own is EBUSY, one without memory EPERM or EINVAL. Should one happen to
        belong to the domain, the guest maps the wrong page.
    Repair: send the page with its type.
    Source: libxc x86_pv_localise_page; xen get_page_from_l1e
    """
    *_, l1 = b.chain(b.roots[0])
    b.memory[l1].type = PageType.NOTAB


@rule("HYP-08", "table-level-wrong", Effect.TOLERATED, "nobody", severity=Severity.WARNING)
def table_level_wrong(b: StreamBuilder) -> None:
    """A live page table was sent with the type of another level.

    What: a page is tagged L1 to L4, and the tables above it use it as another level.
    Why: entries look alike on all levels, so libxc converts it all the same, and Xen goes by use. It comes
        back, but only pins and the checks of cr3 look at the level: the saver, or whoever edited
        the stream, did not know the guest's tables.
    Repair: send the page with the level Xen had it validated as.
    Source: libxc x86_pv_localise_page
    """
    *_, l1 = b.chain(b.roots[0])
    b.memory[l1].type = PageType.L2TAB


@rule("HYP-09", "data-typed-as-table", Effect.CORRUPT, "nobody")
def data_typed_as_table(b: StreamBuilder) -> None:
    """A page of data was sent as a page table.

    What: a page tagged L1 to L4 is part of no live table, and a live L1 maps it writable: it is data.
    Why: libxc takes every word with bit 0 set for an entry and replaces the number in the middle of it.
        The guest finds its data changed. (A word naming a pfn beyond the guest's kills libxc, REC-20; a
        pinned one is refused, HYP-03.)
    Repair: send the page as NOTAB.
    Source: libxc x86_pv_localise_page
    """
    from migrate.building import parts

    *_, l1 = b.chain(b.roots[0])
    data = b.new_table(1)
    b.table(data)[0] = 0x1001  # an odd number is an entry to libxc, here of pfn 1
    b.table(l1)[data] = parts.entry(data, parts.PTE_RW)


@rule("HYP-10", "pae-slot3-absent", Effect.HYPERCALL, "xen: promote_l3_table", errno="EINVAL")
def pae_slot3_absent(b: StreamBuilder) -> None:
    """A live 32-bit L3 table has nothing in slot 3.

    What: the fourth entry of a PAE L3 table is not present.
    Why: the top of the address space holds Xen's own mappings, in the L2 table of that slot; without one
        there is no place for them. The other three slots may be empty.
    Repair: the guest's kernel mapping belongs there; the table is damaged or not an L3.
    Source: xen promote_l3_table
    """
    b.table(b.roots[0])[3] = 0


@rule("HYP-11", "pae-slot3-in-low-slot", Effect.HYPERCALL, "xen: _get_page_type", errno="EINVAL")
def pae_slot3_in_low_slot(b: StreamBuilder) -> None:
    """The L2 table of slot 3 is also used in a lower slot.

    What: one L2 stands in slot 3 and in one of slots 0 to 2 of live L3 tables.
    Why: with Xen's mappings inside, the L2 of slot 3 is a type of its own. It cannot be an ordinary L2 at
        the same time.
    Repair: the lower slot needs an L2 of its own.
    Source: xen promote_l3_table, _get_page_type
    """
    root = b.table(b.roots[0])
    root[0] = root[3]


@rule("HYP-12", "pae-slot3-shared", Effect.HYPERCALL, "xen: pae_xen_mappings_check", errno="EINVAL")
def pae_slot3_shared(b: StreamBuilder) -> None:
    """Two live L3 tables share the L2 table in slot 3.

    What: slot 3 of a second L3, pinned or the root of a vcpu, refers to the same L2 as the first's.
    Why: Xen's mappings in it, the linear ones among them, are those of one address space. Xen wants to be
        its only user and refuses the second L3.
    Repair: each L3 needs an L2 of its own in slot 3; its entries may refer to the same L1 tables.
    Source: xen pae_xen_mappings_check
    """
    from migrate.building import parts

    second = b.new_table(3, pinned=True)
    b.table(second)[3] = b.table(b.roots[0])[3]
    b.vcpus[0].basic.vm_assist |= parts.PAE_EXTENDED_CR3  # where the second root lies makes no difference


@rule("HYP-13", "pae-slot3-pinned", Effect.HYPERCALL, "xen: _get_page_type", errno="EINVAL")
def pae_slot3_pinned(b: StreamBuilder) -> None:
    """The L2 table of slot 3 is pinned itself.

    What: the L2 in slot 3 of a live L3 was sent with the type of a pinned L2.
    Why: a pin asks for an ordinary L2, which it is not. If the pin comes first, the L3 is refused
        instead. Xen does not let a guest do it, so no saver sends it.
    Repair: send it as an L2 that is not pinned.
    Source: xen do_mmuext_op (pin), _get_page_type
    """
    _, l2, _ = b.chain(b.roots[0])
    b.memory[l2].type = PageType.L2TAB_PINNED


@rule(
    "HYP-16", "linear-page-table", Effect.HOST, "xen: get_l2_linear_pagetable", errno="EINVAL", severity=Severity.INFO
)
def linear_page_table(b: StreamBuilder) -> None:
    """The guest uses linear page tables.

    What: an entry of a live table refers, read-only, to a table of the same level, mostly to itself.
    Why: it makes the tables appear in the guest's address space, as NetBSD does it. Xen allows one step
        of it (before 4.7.4, 4.8.3, 4.9.1 and 4.10: any number), but since then the host can switch it off
        (pv-linear-pt), or be built without: then the entry is refused with EINVAL.
    Repair: none where the destination allows it.
    Source: xen get_l2_linear_pagetable and its siblings
    """
    from migrate.building import parts

    _, l2, _ = b.chain(b.roots[0])
    b.table(l2)[1] = parts.entry(l2, parts.PTE_RO)


@rule("HYP-17", "linear-page-table-refused", Effect.HYPERCALL, "xen: get_l2_linear_pagetable", errno="EINVAL")
def linear_page_table_refused(b: StreamBuilder) -> None:
    """A linear page table entry breaks the rules for them.

    What: an entry refers to a table of its own level, and is writable, or the table it refers to is itself
        part of such a chain, or they are L3 tables of a 32-bit guest.
    Why: a writable one would let the guest edit its tables unseen, and chains could not be taken apart
        in bounded time. Xen allows one read-only step and refuses the rest; before 4.7.4, 4.8.3, 4.9.1 and 4.10 it
        took chains of any length.
    Repair: clear the writable bit, or the entry.
    Source: xen get_l2_linear_pagetable and its siblings
    """
    from migrate.building import parts

    _, l2, _ = b.chain(b.roots[0])
    b.table(l2)[1] = parts.entry(l2, parts.TABLE)


@rule("HYP-18", "linear-target-too-early", Effect.HYPERCALL, "xen: get_l2_linear_pagetable", errno="EINVAL")
def linear_target_too_early(b: StreamBuilder) -> None:
    """A linear entry is met before the table it refers to.

    What: an entry refers to a table of its own level that has not been validated by then.
    Why: Xen takes the unused page for a table of the level below, as the entry says. When its real place is
        reached, it has the wrong type. In a 32-bit guest the L2 of slot 3 comes last, so only that
        L2 itself can map it.
    Repair: keep the entry in the table that it maps, or in one that is reached later.
    Source: xen get_l2_linear_pagetable, _get_page_type
    """
    from migrate.building import parts

    root, last, _ = b.chain(b.roots[0])
    first = b.new_table(2)
    b.table(root)[0] = parts.entry(first, parts.PAE_ROOT)
    b.table(first)[1] = parts.entry(last, parts.PTE_RO)


@rule("HYP-19", "pinned-twice", Effect.HYPERCALL, "xen: do_mmuext_op", errno="EINVAL", violation=False)
def pinned_twice(b: StreamBuilder) -> None:
    """A frame is pinned twice.

    What: a pin asks for a frame that is pinned already.
    Why: Xen refuses the second. A stream cannot get there: libxc pins each pfn once, and no two pfns share
        a frame.
    Repair: none; a finding of this rule is a fault of the replay.
    Source: xen do_mmuext_op
    """


@rule("HYP-22", "l3-above-4g", Effect.HYPERCALL, "xen: promote_l3_table", errno="ERANGE", since=releases.l3_below_4g)
def l3_above_4g(b: StreamBuilder) -> None:
    """A 32-bit guest's L3 table lands above 4 GiB without extended cr3.

    What: an L3 table of a 32-bit PV guest gets a machine frame (mfn) at or above 0x100000, and bit 3 of
        vcpu 0's vm_assist, pae_extended_cr3, is clear. (The violation places the table on such a frame.)
    Why: a PAE cr3 has room for addresses below 4 GiB only. A guest that knows the rotated form lives with
        higher ones and says so by that assist; one that does not would misread its own cr3. So since 4.19
        Xen refuses to validate the table. (64-bit Xen from 4.3 to 4.18 did not ask.)

        It is the frame that counts, not the pfn. Frames are handed out by the destination, and the restore
        asks for no low ones: the same stream may pass on one host and fail on the next. The placement says
        which frames a verdict is about.

        Order decides. For each vcpu in turn its context is set, then tables are pinned in pfn order. A
        table is judged once, at its first use, and only when vcpu 0 is already set up. The root of vcpu 0
        is taken while its own context is being set, just before that, so it passes wherever it is (the
        vcpu 0 slack), and its later pin only adds a reference. Not so any other: the root of a
        later vcpu fails that vcpu's context (setvcpucontext, ERANGE), any other pinned L3 its pin
        (mmuext_op, ERANGE: "Failed to pin batch of pagetables"). The guest is destroyed; the message
        about the PAE pgd appears on Xen's console in debug builds alone.
    Repair: restore on a host, or under a memory limit, that hands out low frames only, or have the guest
        enable the assist before it is saved, as PV Linux does. Setting the bit in the stream passes the
        check, but claims for the guest that it decodes rotated roots, which nothing verifies.
    Source: xen promote_l3_table, arch_set_info_guest; libxc x86_pv_stream_complete
    """
    b.place(b.new_root(), 0x12_3456)


@rule(
    "HYP-27",
    "shared-info-moves",
    Effect.REFUSED,
    "libxc: handle_shared_info",
    errno="EBUSY",
    since=releases.shared_info_moves_low,
)
def shared_info_moves(b: StreamBuilder) -> None:
    """A 32-bit guest's shared_info is moved away under libxc.

    What: any 32-bit PV stream, on a host that put the new domain's shared_info page at or above 4 GiB.
        (The stream is valid: the violation is the placement "high" and nothing in the stream.)
    Why: some releases move that page below 4 GiB when the domain becomes 32-bit. libxc goes on with
        the frame it had looked up before, and cannot map it when the SHARED_INFO record comes: "Failed to
        map Shared Info", EBUSY. Extended cr3 makes no difference.
    Repair: restore on a release without the change, or where low memory is handed out.
    Source: xen switch_compat; libxc handle_shared_info
    """


@rule("HYP-28", "high-registers-lost", Effect.CORRUPT, "nobody", since=releases.r8_to_r15_lost)
def high_registers_lost(b: StreamBuilder) -> None:
    """Xen loses the registers r8 to r15 of a 64-bit guest.

    What: a 64-bit vcpu has something in one of these registers, and the destination is Xen 4.21.0 or 4.21.1.
    Why: setvcpucontext of these two releases succeeds and leaves the eight registers 0. The guest goes on with
        values that its code never wrote, and crashes soon, or computes nonsense.
    Repair: restore on another release; 4.21.2 has the repair. Nothing in the stream can help.
    Source: xen, arch_set_info_guest.
    """
    b.become_pv64()
    b.vcpus[0].basic.user_regs.r8 = 1


@rule("HYP-29", "high-registers-empty", Effect.CORRUPT, "nobody", severity=Severity.WARNING)
def high_registers_empty(b: StreamBuilder) -> None:
    """A Xen that loses r8 to r15 has saved them all empty.

    What: the stream comes from Xen 4.21, and all eight registers are 0 in the contexts of all vcpus.
    Why: Xen 4.21.0 and 4.21.1 lose these registers. The header says 4.21 and no more, but a guest that uses none
        of them on any vcpu is rare: it seems to have been damaged before, or while, it was saved.
    Repair: none: what was in the registers is gone. Start the guest anew.
    Source: xen, arch_set_info_guest, arch_get_info_guest.
    """
    b.become_pv64()
    b.domain["xen_minor"] = 21
    for vcpu in b.vcpus:
        for number in range(8, 16):
            setattr(vcpu.basic.user_regs, f"r{number}", 0)


@rule(
    "HYP-30", "host-without-pv", Effect.HYPERCALL, "xen: arch_sanitise_domain_config", errno="EINVAL", violation=False
)
def host_without_pv(b: StreamBuilder) -> None:
    """The host runs no PV guests.

    What: `virt_caps` of the host lacks `pv` (before 4.12, `xen_caps` lacks `xen-3.0-x86_64`).
    Why: the toolstack creates the domain before it reads the stream, and Xen refuses a kind of guest that it was
        built without.
    Repair: restore on a host that runs PV guests.
    Source: xen, arch_sanitise_domain_config; `xl info`.
    """


@rule(
    "HYP-31", "host-without-hvm", Effect.HYPERCALL, "xen: arch_sanitise_domain_config", errno="EINVAL", violation=False
)
def host_without_hvm(b: StreamBuilder) -> None:
    """The host runs no HVM or PVH guests.

    What: `virt_caps` of the host lacks `hvm`.
    Why: without VT-x or SVM, in the processor or switched on by the firmware, Xen creates no such domain; nor if it
        was built without them.
    Repair: switch virtualisation on in the firmware, or restore elsewhere.
    Source: xen, arch_sanitise_domain_config; `xl info`.
    """


@rule(
    "HYP-32", "host-short-of-memory", Effect.HOST, "xen: populate_physmap", severity=Severity.WARNING, violation=False
)
def host_short_of_memory(b: StreamBuilder) -> None:
    """The host has less memory free than the guest needs.

    What: `free_memory` of the host is less than the guest's pages and, for HVM, what libxl sets aside for its page
        tables. What Xen itself needs for a domain comes on top, and is not counted.
    Why: libxc asks for the guest's pages as their contents come, and gives up once Xen has none left. What is free
        changes: dom0 may give memory back before (autoballoon), another guest may go.
    Repair: free memory there, or restore elsewhere.
    Source: libxc populate_pfns; libxl__get_required_shadow_memory; `xl info`.
    """
