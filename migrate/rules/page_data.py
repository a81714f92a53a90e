"""What can be wrong with PAGE_DATA records, short of what their pages contain."""

from __future__ import annotations

from migrate.rules.declaring import Effect, Severity, rule
from streams.pages import TYPE_SHIFT, PageType
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE, RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "REC-14": "whether the host has memory for a pfn is not in the stream",
}


def _words(*pfns: int, type: int = PageType.XTAB) -> bytes:
    """The start of a PAGE_DATA body, up to the contents: these pfns, all of one type."""
    words = (type << TYPE_SHIFT | pfn for pfn in pfns)
    return PAGE_DATA_HEADER.pack(len(pfns), 0) + b"".join(word.to_bytes(PFN_WORD_SIZE, "little") for word in words)


def _add_page_data(b: StreamBuilder, body: bytes) -> None:
    """Put a further PAGE_DATA record after the guest's own."""
    b.insert(RecordType.PAGE_DATA, body, after=RecordType.PAGE_DATA)


@rule("REC-01", "page-data-short", Effect.REFUSED, "libxc: handle_page_data")
def page_data_short(b: StreamBuilder) -> None:
    """A PAGE_DATA record is too short for its own header.

    What: the body has fewer than 8 bytes, so that count and reserved word do not fit.
    Why: libxc checks this before it reads the count, and refuses the record as truncated.
    Repair: the record holds no page; remove it.
    Source: xg_sr_restore.c, handle_page_data.
    """
    _add_page_data(b, bytes(4))


@rule("REC-02", "page-data-empty", Effect.REFUSED, "libxc: handle_page_data")
def page_data_empty(b: StreamBuilder) -> None:
    """A PAGE_DATA record lists no pfn.

    What: the count is 0.
    Why: libxc wants at least one pfn in a batch and refuses the record, although it would change nothing.
    Repair: remove the record.
    Source: xg_sr_restore.c, handle_page_data.
    """
    _add_page_data(b, _words())


@rule("REC-03", "page-data-words-short", Effect.REFUSED, "libxc: handle_page_data")
def page_data_words_short(b: StreamBuilder) -> None:
    """A PAGE_DATA record is too short for the pfns that it counts.

    What: the body is shorter than 8 bytes plus 8 for each pfn.
    Why: libxc checks the size of the list of pfns before it walks it, and refuses the record as truncated.
    Repair: correct the count, or fetch the record again.
    Source: xg_sr_restore.c, handle_page_data.
    """
    _add_page_data(b, _words(b.absent_pfn, b.absent_pfn)[:-PFN_WORD_SIZE])


@rule("REC-04", "page-type-illegal", Effect.REFUSED, "libxc: handle_page_data")
def page_type_illegal(b: StreamBuilder) -> None:
    """A pfn has a page type that does not exist.

    What: the top four bits of a pfn word are 5, 6, 7 or 8.
    Why: these values are no type of Xen's, and libxc could not tell whether a page of data goes with them. It
        refuses the whole record.
    Repair: find the type of the page: 0 for ordinary memory, 1 to 4 for tables, plus 8 where pinned, f for none.
    Source: xg_sr_restore.c, handle_page_data; libxc migration stream, section PAGE_DATA, page types.
    """
    _add_page_data(b, _words(b.absent_pfn, type=5) + bytes(PAGE_SIZE))


@rule("REC-05", "page-data-length", Effect.REFUSED, "libxc: handle_page_data")
def page_data_length(b: StreamBuilder) -> None:
    """The length of a PAGE_DATA record does not match its page types.

    What: the body is not exactly 8 bytes, 8 for each pfn and 4096 for each pfn whose type carries data.
    Why: types d, e and f come without contents, all others with a page each. libxc adds this up and refuses
        a record of any other size, since it could not say which contents belong to which pfn.
    Repair: drop the pages of types without data, or add those that are missing.
    Source: xg_sr_restore.c, handle_page_data.
    """
    _add_page_data(b, _words(b.absent_pfn) + bytes(PAGE_SIZE))


@rule("REC-06", "page-data-reserved", Effect.SPEC, "verify-stream-v2")
def page_data_reserved(b: StreamBuilder) -> None:
    """Reserved bits of a PAGE_DATA record are set.

    What: the word after the count is not zero, or bits 52 to 59 of a pfn word are set.
    Why: libxc masks them away and restores. The specification keeps them for later use, and the verifier
        refuses them.
    Repair: clear them.
    Source: libxc migration stream, section PAGE_DATA.
    """
    _add_page_data(b, _words(b.absent_pfn | 1 << 52))


@rule("REC-07", "pfn-beyond-max", Effect.REFUSED, "libxc: handle_page_data")
def pfn_beyond_max(b: StreamBuilder) -> None:
    """A PV page lies beyond the guest's last pfn.

    What: a PAGE_DATA record names a pfn above the end_pfn of the P2M_FRAMES records seen so far. The type does
        not matter: an absent page is refused as well.
    Why: libxc keeps its tables of frames and types for pfns up to that bound, and refuses any pfn outside of
        the domain's maximum.
    Repair: drop the pfn, or raise end_pfn (and the list of p2m pages with it) before the first such page.
    Source: xg_sr_restore.c, handle_page_data; xg_sr_restore_x86_pv.c, x86_pv_pfn_is_valid.
    """
    _add_page_data(b, _words(b.max_pfn + 1))


@rule("REC-08", "pfn-absurd", Effect.REFUSED, "libxc: pfn_set_populated; xen: populate_physmap")
def pfn_absurd(b: StreamBuilder) -> None:
    """An HVM page has an absurdly large pfn.

    What: a pfn with data lies far beyond any guest physical address that a host could map.
    Why: HVM restores have no bound of their own. But libxc grows its bitmap of populated pfns up to the pfn and
        runs out of memory, or Xen declines to populate it; the restore fails either way.
    Repair: correct the pfn; what exactly fails, and at which size, depends on the host.
    Source: xg_sr_restore.c, pfn_set_populated and populate_pfns; xen, populate_physmap.
    """
    b.become_hvm()
    _add_page_data(b, _words(1 << 51, type=PageType.NOTAB) + bytes(PAGE_SIZE))


@rule("REC-09", "pfn-repeated", Effect.TOLERATED, "nobody")
def pfn_repeated(b: StreamBuilder) -> None:
    """A PAGE_DATA record names the same pfn twice.

    What: one record lists a pfn more than once.
    Why: libxc writes the contents in order, so the last copy stays. No saver does this, and the legacy converter
        refuses it; the two copies may come from a faulty editor.
    Repair: drop the earlier copy.
    Source: xg_sr_restore.c, process_page_data.
    """
    _add_page_data(b, _words(b.absent_pfn, b.absent_pfn))


@rule("REC-10", "page-data-large-batch", Effect.TOLERATED, "nobody")
def page_data_large_batch(b: StreamBuilder) -> None:
    """A PAGE_DATA record lists more than 1024 pfns.

    What: the count exceeds the batch size of every saver.
    Why: libxc takes any number whose record fits its length limit. It only shows that another tool wrote it.
    Repair: none needed.
    Source: xg_sr_save.c, MAX_BATCH_SIZE; xg_sr_restore.c, handle_page_data.
    """
    b.become_hvm()
    _add_page_data(b, _words(*range(b.max_pfn + 1, b.max_pfn + 2001)))


@rule("REC-11", "table-type-in-hvm", Effect.TOLERATED, "nobody")
def table_type_in_hvm(b: StreamBuilder) -> None:
    """An HVM page is typed as a page table.

    What: a page of an HVM guest has one of the types 1 to 4 or 9 to c.
    Why: Xen does not type the page tables of HVM guests, and libxc ignores the type there: the page is written
        as it is, without converting any entry.
    Repair: none needed; type 0 would be the right one.
    Source: xg_sr_restore_x86_hvm.c, x86_hvm_localise_page and x86_hvm_set_page_type.
    """
    b.become_hvm()
    b.memory[0].type = PageType.L1TAB


@rule("REC-12", "l4-in-32bit", Effect.TOLERATED, "nobody on restore", severity=Severity.WARNING)
def l4_in_32bit(b: StreamBuilder) -> None:
    """A 32-bit PV guest has a page typed as an L4 table.

    What: a page of a guest with three paging levels has type 4 or c.
    Why: such a guest has no fourth level, and the saver aborts before writing one. The restorer takes it: the
        entries are converted as in any table, so ordinary data typed like this is damaged, while Xen ignores
        the pin. Only a cr3 that names the page is refused, by the check of cr3 itself (XRC-09).
    Repair: give the page its real type: 3 or b for a root, 0 for data.
    Source: xg_sr_save_x86_pv.c, x86_pv_normalise_page; xen, do_mmuext_op, MMUEXT_PIN_L4_TABLE.
    """
    b.new_page(PageType.L4TAB_PINNED)


@rule("REC-13", "xalloc-in-native", Effect.TOLERATED, "nobody")
def xalloc_in_native(b: StreamBuilder) -> None:
    """A page has the type "allocate only" in a native stream.

    What: a pfn has type e, and the domain header does not name the legacy converter as the writer.
    Why: libxc gives the pfn a frame and leaves its contents as the host hands them out. Only streams of
        Xen 4.2 to 4.5 used the type, and it reaches a v2 stream through the converter alone.
    Repair: none needed if the guest does not care for the contents; else send the page with data.
    Source: libxc migration stream, section PAGE_DATA, page types; xg_sr_restore.c, populate_pfns.
    """
    b.memory[b.absent_pfn].type = PageType.XALLOC
