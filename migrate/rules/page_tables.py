"""What can be wrong with the entries of the page tables that a PV stream carries."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "REC-28": "says what is allowed: an L2 that stands in no slot 3 may use all of its entries",
}


@rule("REC-20", "pte-beyond-max", Effect.CRASH, "libxc: x86_pv_localise_page")
def pte_beyond_max(b: StreamBuilder) -> None:
    """A page-table entry names a pfn beyond the guest's last one.

    What: a present entry of a page typed as a table holds a pfn above max_pfn. Slots that Xen fills itself are
        not exempt.
    Why: libxc converts the entries of a table as it arrives and looks the pfn up without an error path: an
        assertion fails and the process aborts (signal 6). A damaged copy in an early pass is enough, even
        if a later pass replaces it.
    Repair: clear bit 0 of the entry or correct its pfn. If the page is data, its type is wrong.
    Source: xg_sr_restore_x86_pv.c, x86_pv_localise_page and pfn_to_mfn.
    """
    from migrate.building.parts import entry

    b.table(b.chain(b.roots[0])[-1])[100] = entry(0x1000)


@rule("REC-21", "pte-to-absent-page", Effect.CORRUPT, "nobody; libxc: x86_pv_localise_page allocates")
def pte_to_absent_page(b: StreamBuilder) -> None:
    """A page-table entry names a pfn that the stream never gave contents.

    What: a present entry points at a pfn that was not sent, or only as absent (XTAB) or BROKEN.
    Why: libxc allocates a fresh frame for it and goes on. The guest comes back with a mapping whose contents are
        whatever the host handed out, and learns of it when it reads them.
    Repair: send the page, or clear bit 0 of the entry so that the guest takes a fault instead.
    Source: xg_sr_restore_x86_pv.c, x86_pv_localise_page; populate_pfns.
    """
    from migrate.building.parts import entry

    b.table(b.chain(b.roots[0])[-1])[100] = entry(b.absent_pfn)


@rule(
    "REC-22",
    "superpage-entry",
    Effect.HYPERCALL,
    "xen: get_page_from_l2e, get_page_from_l3e, get_page_from_l4e",
    errno="EINVAL",
)
def superpage_entry(b: StreamBuilder) -> None:
    """An entry above L1 is marked as a superpage.

    What: a present entry of an L2, L3 or L4 table has bit 7 (PSE) set.
    Why: PV guests have no superpages. The saver stops at such an entry (since Xen 4.10 at once), the restorer
        passes it on, and Xen refuses its flags when the table is validated under a cr3 or a pin.
    Repair: clear the bit only if the entry points at a table; a real superpage needs an L1 in its place.
    Source: xen, get_page_from_l2e and its siblings, L2_DISALLOW_MASK; xg_sr_save_x86_pv.c.
    """
    from streams.wire.paging import PSE

    b.table(b.chain(b.roots[0])[1])[:1] |= PSE


@rule("REC-23", "pte-cache-flags", Effect.HYPERCALL, "xen: get_page_from_l1e and above", errno="EINVAL")
def pte_cache_flags(b: StreamBuilder) -> None:
    """A page-table entry has flags that Xen refuses.

    What: a present entry has PWT or PCD, or PAT in an L1, or G above L1.
    Why: cacheability is the host's business: Xen refuses these bits in an L1 unless the domain may control
        caching (passthrough), and in upper levels always. Global entries exist in an L1 only.
    Repair: clear the bits; the guest's kernel has no business setting them.
    Source: xen, get_page_from_l1e to get_page_from_l4e; L1_DISALLOW_MASK to L4_DISALLOW_MASK.
    """
    from streams.wire.paging import PCD

    b.table(b.chain(b.roots[0])[-1])[:1] |= PCD


@rule("REC-24", "l3-pae-flags", Effect.HYPERCALL, "xen: promote_l3_table, get_page_from_l3e", errno="EINVAL")
def l3_pae_flags(b: StreamBuilder) -> None:
    """A 32-bit guest's L3 entry has flags that Xen refuses.

    What: one of the four entries sets a bit other than P, RW, US, A, D, the three available ones (9 to 11) and
        the frame. NX and bits 52 to 62 are the usual suspects.
    Why: Xen hangs a PAE L3 under a top level of its own and allows only what can be carried over. It refuses
        the table when a cr3 or a pin makes it validate it.
    Repair: clear the bits. An entry of the saver's reads as pfn << 12 with 0x27.
    Source: xen, promote_l3_table and get_page_from_l3e; COMPAT_L3_DISALLOW_MASK.
    """
    from streams.wire.paging import NX, PAE_L3_ENTRIES

    b.table(b.roots[0])[PAE_L3_ENTRIES - 1 : PAE_L3_ENTRIES] |= NX


@rule("REC-25", "l3-pae-beyond-slot-3", Effect.TOLERATED, "nobody")
def l3_pae_beyond_slot_3(b: StreamBuilder) -> None:
    """A 32-bit guest's L3 page has entries past its four.

    What: one of entries 4 to 511 of a PAE L3 is not zero.
    Why: the saver zeroes them. libxc converts them like any entry (so they must name pfns that exist), then Xen
        zeroes them when it validates the table. The guest sees nothing of it.
    Repair: none needed; zero them. If they look like data, the page may not be an L3.
    Source: xg_sr_save_x86_pv.c, x86_pv_normalise_page; xen, promote_l3_table.
    """
    from migrate.building.parts import PAE_ROOT, entry
    from streams.wire.paging import PAE_L3_ENTRIES

    b.table(b.roots[0])[PAE_L3_ENTRIES] = entry(b.start_info_pfn, PAE_ROOT)


@rule("REC-26", "l2-pae-xen-slots", Effect.TOLERATED, "nobody")
def l2_pae_xen_slots(b: StreamBuilder) -> None:
    """A 32-bit guest's slot-3 L2 has entries in the part that is Xen's.

    What: one of entries 428 to 511 of the L2 in an L3's slot 3 is not zero.
    Why: the saver zeroes them. libxc converts those that are present, as in any table; Xen passes over them and
        writes its own mappings there. What the guest had put there is lost, as it would be on any host.
    Repair: none needed; zero them.
    Source: xg_sr_save_x86_pv.c, x86_pv_normalise_page; xen, init_xen_pae_l2_slots.
    """
    from migrate.building.parts import TABLE, entry
    from streams.wire.paging import PAE_L2_FIRST_XEN_SLOT

    _, l2, l1 = b.chain(b.roots[0])
    b.table(l2)[PAE_L2_FIRST_XEN_SLOT] = entry(l1, TABLE)


@rule("REC-27", "l4-xen-slots", Effect.TOLERATED, "nobody")
def l4_xen_slots(b: StreamBuilder) -> None:
    """A 64-bit guest's L4 has entries in the part that is Xen's.

    What: one of entries 256 to 271 of an L4 is not zero.
    Why: the saver zeroes them. libxc converts those that are present, then Xen passes over them and writes its
        own mappings there when it validates the table.
    Repair: none needed; zero them.
    Source: xg_sr_save_x86_pv.c, x86_pv_normalise_page; xen, init_xen_l4_slots.
    """
    from migrate.building.parts import TABLE, entry
    from streams.wire.paging import L4_XEN_SLOTS

    b.become_pv64()
    l4, l3, *_ = b.chain(b.roots[0])
    b.table(l4)[L4_XEN_SLOTS.start] = entry(l3, TABLE)


@rule("REC-29", "pte-l1tf-unsafe", Effect.HOST, "xen: pv_l1tf_check_pte", severity=Severity.INFO, since=releases.l1tf)
def pte_l1tf_unsafe(b: StreamBuilder) -> None:
    """A non-present entry holds an address that L1TF makes unsafe.

    What: an entry without bit 0 still names a frame within the range of the host's memory, or above the lowest
        level has the superpage bit.
    Why: CPUs with the L1TF fault may read through such an entry. On a host that guards against it (pv-l1tf, by
        default where the CPU is affected), validating the table moves the guest to shadow paging, which is slower,
        or crashes it if Xen was built without, as it is by default since 4.22. On other hosts the entry is
        ignored. Linux inverts these bits and is safe.
    Repair: have the guest's kernel write safe values (zero, or inverted frames); the stream alone can be mended
        by zeroing such entries only if the guest keeps nothing in them.
    Source: xen, pv_l1tf_check_pte and its siblings; option pv-l1tf.
    """
    from migrate.building.parts import entry
    from streams.wire.paging import RW

    b.table(b.chain(b.roots[0])[-1])[100] = entry(b.store_pfn, RW)
