"""XRC: what libxc checks across records once END has come, and what nobody checks."""

from __future__ import annotations

from migrate.rules.declaring import Effect, Severity, rule
from streams.pages import PageType
from streams.wire.framing import RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NEEDS_VERIFY: frozenset[str] = frozenset({"XRC-46"})
"""Rules that are looked for only where the pages of a VERIFY phase are to be compared."""

NOT_RULES: dict[str, str] = {
    "XRC-06": "the bound on gdt_ents, which is REC-61",
    "XRC-11": "says what is allowed: a root need not be pinned",
    "XRC-13": "says what is allowed: a 64-bit vcpu without a user root, see REC-65",
    "XRC-14": "says what is ignored: ctrlreg[1] of a 32-bit vcpu",
    "XRC-16": "says how cr3 is decoded; L3C-6 tells of a 32-bit root at or above pfn 0x100000",
    "XRC-20": "points to the hypervisor's checks, the HYP rules",
    "XRC-32": "a p2m page that is a page table is XRC-30, and one mapped read-write is right",
    "XRC-33": "says what is replaced: the contents of the p2m pages",
    "XRC-41": "how a live save reports a page that has been ballooned out; XRC-42 has the harmful case",
}


@rule("XRC-01", "start-info-out-of-range", Effect.REFUSED, "libxc: process_start_info")
def start_info_out_of_range(b: StreamBuilder) -> None:
    """The start_info pfn lies beyond the guest's largest pfn.

    What: edx (rdx) of vcpu 0 holds a number above max_pfn.
    Why: the guest leaves start_info's frame in that register when it suspends, and the saver replaces it
        by the pfn. libxc has to rewrite the page and refuses a pfn that the guest cannot have; an mfn that
        was left unconverted looks like this.
    Repair: put start_info's pfn into vcpu 0's edx (rdx).
    Source: libxc process_start_info
    """
    b.vcpus[0].basic.user_regs.edx = b.max_pfn + 1


@rule("XRC-02", "start-info-type", Effect.REFUSED, "libxc: process_start_info")
def start_info_type(b: StreamBuilder) -> None:
    """start_info is not an ordinary page.

    What: the page that vcpu 0's edx (rdx) names was last sent with a type other than NOTAB.
    Why: libxc writes to it, and would not write into a page table; an absent or broken page fails here
        as well.
    Repair: correct the register, or the page's type.
    Source: libxc process_start_info
    """
    b.vcpus[0].basic.user_regs.edx = b.roots[0]


@rule("XRC-03", "start-info-without-frame", Effect.REFUSED, "libxc: process_start_info")
def start_info_without_frame(b: StreamBuilder) -> None:
    """start_info was never sent.

    What: the pfn in vcpu 0's edx (rdx) is in range, but no PAGE_DATA and no page table named it.
    Why: its type is still the initial NOTAB, so only the frame lookup notices: there is no memory to map.
    Repair: send the page.
    Source: libxc process_start_info
    """
    pfn = b.new_page()
    del b.memory[pfn]
    b.vcpus[0].basic.user_regs.edx = pfn


@rule("XRC-04", "store-ring-without-frame", Effect.REFUSED, "libxc: process_start_info")
def store_ring_without_frame(b: StreamBuilder) -> None:
    """start_info names a xenstore ring that the guest does not have.

    What: start_info's store field is above max_pfn, or a page without a frame.
    Why: the guest turns that field into a pfn before it suspends; libxc translates it to the new frame.
        Its type is not looked at. A value like a frame number means that the guest forgot to convert it.
    Repair: put the ring's pfn into start_info, and send that page.
    Source: libxc process_start_info
    """
    b.start_info.store_mfn = b.absent_pfn


@rule("XRC-05", "console-ring-without-frame", Effect.REFUSED, "libxc: process_start_info")
def console_ring_without_frame(b: StreamBuilder) -> None:
    """start_info names a console ring that the guest does not have.

    What: start_info's console field is above max_pfn, or a page without a frame.
    Why: as with the xenstore ring: the guest converts it, libxc translates it, its type does not matter.
        An unconverted source frame is far above max_pfn and fails here.
    Repair: put the ring's pfn into start_info, and send that page.
    Source: libxc process_start_info
    """
    b.start_info.console_mfn = b.max_pfn + 1


@rule("XRC-07", "gdt-frame-unusable", Effect.REFUSED, "libxc: process_vcpu_basic")
def gdt_frame_unusable(b: StreamBuilder) -> None:
    """A GDT frame is not an ordinary page of the guest.

    What: one of the first ceil(gdt_ents / 512) gdt_frames is above max_pfn, not of type NOTAB, or absent.
    Why: libxc translates those pfns for every vcpu and refuses a page table or hole among them. Entries
        beyond the used ones are neither converted nor looked at.
    Repair: correct gdt_frames or gdt_ents, or send the page as NOTAB.
    Source: libxc process_vcpu_basic
    """
    b.vcpus[0].basic.gdt_frames[0] = b.roots[0]


@rule("XRC-08", "cr3-out-of-range", Effect.REFUSED, "libxc: process_vcpu_basic")
def cr3_out_of_range(b: StreamBuilder) -> None:
    """A vcpu's cr3 lies beyond the guest's largest pfn.

    What: ctrlreg[3], decoded, is a pfn above max_pfn.
    Why: a 32-bit cr3 is always stored rotated left by 12 bits. An unrotated number, a machine frame left
        in place, or cache bits (PWT, PCD) in the low twelve all decode to a huge pfn, which libxc refuses.
    Repair: store the root's pfn in the guest's own encoding.
    Source: libxc process_vcpu_basic, cr3_to_mfn
    """
    b.vcpus[0].root = b.max_pfn + 1


@rule("XRC-09", "cr3-not-a-root", Effect.REFUSED, "libxc: process_vcpu_basic")
def cr3_not_a_root(b: StreamBuilder) -> None:
    """A vcpu's cr3 names a page that is no top-level table.

    What: the page's last type is not L3 (32-bit) or L4 (64-bit), pinned or not.
    Why: the saver asks Xen for the type of every page, and a root in use has its level. libxc refuses
        anything else before Xen is asked.
    Repair: correct cr3, or send the page with the type of a root.
    Source: libxc process_vcpu_basic
    """
    _, l2, _ = b.chain(b.roots[0])
    b.vcpus[0].root = l2


@rule("XRC-10", "cr3-without-frame", Effect.REFUSED, "libxc: process_vcpu_basic", violation=False)
def cr3_without_frame(b: StreamBuilder) -> None:
    """A vcpu's root was never sent.

    What: cr3 names a page of the right type that has no frame.
    Why: libxc looks for the frame after the type. A stream cannot get there: a page has the type of a table
        only when it was sent with data, and then it has a frame.
    Repair: send the page.
    Source: libxc process_vcpu_basic
    """


@rule("XRC-12", "user-root-unusable", Effect.REFUSED, "libxc: process_vcpu_basic")
def user_root_unusable(b: StreamBuilder) -> None:
    """A 64-bit vcpu's user root is no top-level table.

    What: ctrlreg[1] has bit 0 set, and its pfn is above max_pfn, not of type L4, or absent.
    Why: bit 0 marks that the saver has replaced the frame by a pfn. libxc then checks it like cr3.
    Repair: correct ctrlreg[1], or set it to 0 for a vcpu in kernel mode without a user root.
    Source: libxc process_vcpu_basic
    """
    b.become_pv64()
    _, l3, _, _ = b.chain(b.roots[0])
    b.vcpus[0].user_root = l3


@rule("XRC-15", "user-root-unconverted", Effect.HYPERCALL, "xen: arch_set_info_guest", errno="EINVAL")
def user_root_unconverted(b: StreamBuilder) -> None:
    """A 64-bit vcpu's user root still holds a machine frame.

    What: ctrlreg[1] is not 0, but has bit 0, the mark of a converted pfn, clear.
    Why: libxc leaves such a value alone and Xen takes it for a frame of the destination. Normally the
        domain does not own that frame: EINVAL. If it happens to, user space runs on whatever is there.
    Repair: store the pfn shifted left by 12 with bit 0 set.
    Source: libxc process_vcpu_basic, xen arch_set_info_guest
    """
    b.become_pv64()
    b.vcpus[0].basic.ctrlreg[1] = 0x5000


@rule("XRC-30", "p2m-frame-unusable", Effect.REFUSED, "libxc: update_guest_p2m")
def p2m_frame_unusable(b: StreamBuilder) -> None:
    """P2M_FRAMES lists a page that cannot hold the p2m.

    What: an entry is above max_pfn, its page is not of type NOTAB, or it has no frame.
    Why: as the last step libxc writes the new frame numbers into those pages, so each has to be an
        ordinary page of the guest. It comes after contexts and pins, whose failures hide it.
    Repair: list the pfns of the guest's own p2m pages, and send them as NOTAB.
    Source: libxc update_guest_p2m
    """
    b.p2m_frames[0] = b.roots[0]


@rule("XRC-31", "p2m-frame-twice", Effect.CORRUPT, "nobody")
def p2m_frame_twice(b: StreamBuilder) -> None:
    """P2M_FRAMES lists the same page twice.

    What: two entries of the list name one pfn.
    Why: libxc writes both parts of the map into that page, one over the other. The restore succeeds, and
        the guest uses wrong frames for a whole range of its memory.
    Repair: list each p2m page once, in order.
    Source: libxc update_guest_p2m
    """
    while b.max_pfn < b.pfns_per_p2m_page - 1:
        b.new_page(PageType.XTAB)
    b.p2m_frames.append(b.p2m_frames[0])
    b.new_page(PageType.XTAB)  # one pfn more than the first p2m page holds


@rule("XRC-34", "source-p2m-ambiguous", Effect.CORRUPT, "nobody", severity=Severity.WARNING)
def source_p2m_ambiguous(b: StreamBuilder) -> None:
    """Two pages share one frame in the guest's own p2m.

    What: two pfns that were sent with data have the same source frame in the p2m pages.
    Why: the p2m travels unchanged and shows where the guest lived. A frame belongs to one pfn, so pages
        are mixed up or the map is stale. The restore replaces the map and does not notice.
    Repair: look for the fault in the guest's p2m on the source.
    Source: stream format, the guest's p2m; no check of Xen's
    """
    b.place(b.store_pfn, 0x5000)
    b.place(b.console_pfn, 0x5000)


@rule("XRC-40", "pfn-not-mentioned", Effect.CORRUPT, "nobody")
def pfn_not_mentioned(b: StreamBuilder) -> None:
    """A pfn up to max_pfn is never mentioned.

    What: no PAGE_DATA names the pfn, not even as absent, and no page table refers to it.
    Why: the saver reports every pfn in its first pass. One that is missing gets no frame and an all-ones
        p2m entry: if the guest had memory there, it is gone.
    Repair: send the page, or name it with type XTAB if there is none.
    Source: libxc populate_pfns, update_guest_p2m
    """
    del b.memory[b.absent_pfn]


@rule("XRC-42", "referenced-page-stale", Effect.CORRUPT, "nobody")
def referenced_page_stale(b: StreamBuilder) -> None:
    """A page that page tables still refer to is last reported absent.

    What: the last word on a pfn is XTAB, after data for it, and a present entry maps it.
    Why: live saves postpone pages they cannot read, type XTAB, and resend them once the guest is
        suspended. Without that the frame keeps the contents of an early pass, and the guest reads them.
    Repair: resend the page in the last pass, or remove the mapping.
    Source: libxc process_page_data
    """
    from migrate.building import parts

    gone = parts.page_data([(b.store_pfn, PageType.XTAB, None)])
    b.insert(RecordType.PAGE_DATA, gone, after=RecordType.PAGE_DATA)


@rule("XRC-43", "vm-assist-differs", Effect.CORRUPT, "nobody")
def vm_assist_differs(b: StreamBuilder) -> None:
    """The vcpus disagree on vm_assist.

    What: a vcpu's vm_assist is not that of vcpu 0 (in other bits than the extended cr3 one, L3C-5).
    Why: the assists belong to the domain; the saver copies them into each context and Xen takes vcpu 0's.
        If another vcpu's were the right ones, the guest runs without what it had switched on.
    Repair: write the domain's assists into every context.
    Source: xen arch_get_info_guest, arch_set_info_guest
    """
    b.new_vcpu().basic.vm_assist |= 1 << 4  # architectural_iopl


@rule("XRC-44", "shared-info-max-pfn", Effect.CORRUPT, "nobody")
def shared_info_max_pfn(b: StreamBuilder) -> None:
    """shared_info knows fewer pfns than P2M_FRAMES.

    What: shared_info's max_pfn, which is a count, minus 1 is less than the end_pfn of P2M_FRAMES.
    Why: the saver starts from shared_info's count and only ever lowers it, where the tail of the p2m
        repeats. A larger end_pfn did not come from this guest; its p2m and its shared_info disagree.
    Repair: send the shared_info page of the same guest and moment.
    Source: libxc map_p2m, in the saver
    """
    from streams.wire.shared_info import SHARED_INFO
    from streams.wire.views import view

    view(SHARED_INFO[b.width], b.shared_info)["arch"]["max_pfn"] = b.max_pfn


@rule("XRC-45", "special-pages-coincide", Effect.CORRUPT, "nobody")
def special_pages_coincide(b: StreamBuilder) -> None:
    """start_info, xenstore ring and console ring are not three pages.

    What: two of the three have the same pfn.
    Why: nobody compares them. Two backends, or a backend and the rewritten start_info, then write over
        each other in one page.
    Repair: correct the fields in start_info.
    Source: libxc process_start_info
    """
    b.start_info.console_mfn = b.store_pfn


@rule("XRC-46", "verify-mismatch", Effect.TOLERATED, "libxc: process_page_data", severity=Severity.WARNING)
def verify_mismatch(b: StreamBuilder) -> None:
    """A page sent again after VERIFY differs from what was sent before.

    What: the sender's debug option resends all memory after VERIFY, and a page has other contents now. It is
        looked for only where that is asked for (--verify): every page has to be read.
    Why: libxc compares each such page with the guest's memory and logs a difference; it restores all the same.
        The guest was suspended, so nothing should differ: dirty tracking missed a write, or something wrote
        to guest memory behind the log. Without the debug option the guest would come back with old contents.
    Repair: look for the fault on the source; the stream is what it is.
    Source: libxc process_page_data
    """
    from migrate.building.parts import page_data

    b.insert(RecordType.VERIFY, before=RecordType.X86_TSC_INFO)
    changed = bytearray(b.memory[b.store_pfn].data() or b"")
    changed[7] ^= 1
    body = page_data([(b.store_pfn, PageType.NOTAB, bytes(changed))])
    b.insert(RecordType.PAGE_DATA, body, before=RecordType.X86_TSC_INFO)
