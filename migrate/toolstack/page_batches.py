"""libxc's checks of a batch of pages that are the same for every guest.

Source: `handle_page_data` (`xg_sr_restore.c`).
"""

from __future__ import annotations

from collections.abc import Callable

from streams.counting import count
from streams.decoder import MOST_WORDS
from streams.pages import ILLEGAL_TYPES, PageType, PfnWords
from streams.records import PageData, Record
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.toolstack.session import Session

# A saver's batch (MAX_BATCH_SIZE).
MAX_BATCH = 1024


def passes(session: Session, record: PageData, check_pfns: Callable[[PageData, int], bool]) -> bool:
    """REC-02 to REC-13: whether libxc takes a batch.

    Parameters
    ----------
    check_pfns:
        whether every pfn of a record, up to a place in it, may be sent to this guest.
    """
    place, words = record.place, record.words
    if record.count < 1:
        session.refuse("REC-02", "no pfn words; expected at least 1", place)
        return False
    if len(words) != record.count:
        if record.count > MOST_WORDS and place.length >= PAGE_DATA_HEADER.size + record.count * PFN_WORD_SIZE:
            session.not_read(f"{place.name} of {count(record.count, 'pfn word')}: no more than {MOST_WORDS} are read")
        else:
            session.refuse(
                "REC-03",
                f"{count(place.length, 'byte is', 'bytes are')} too few for {count(record.count, 'pfn word')}",
                place,
            )
        return False
    illegal = words.first_with(ILLEGAL_TYPES) if words.has_illegal_type else -1
    good = check_pfns(record, illegal if illegal >= 0 else len(words))
    if illegal >= 0:
        pfn, kind = words.pfn(illegal), words.word(illegal) >> 60
        message = f"pfn {pfn:#x} (word {illegal}) has type {kind}, which is not defined"
        session.refuse("REC-04", message, place, pfn=pfn)
        return False
    if not good:
        session.spoil(place)
        return False
    expected = _length(words)
    if place.length != expected:
        pages = f"{count(len(words), 'pfn word')} and {count(words.data_pages, 'page')}"
        session.refuse("REC-05", f"{count(place.length, 'byte')}; expected {expected} for {pages}", place)
        return False
    _remark(session, record)
    return True


def _remark(session: Session, record: PageData) -> None:
    """What libxc takes, and no saver writes."""
    place, words = record.place, record.words
    if record.count > MAX_BATCH:
        session.report("REC-10", f"{count(record.count, 'pfn word')}; savers write at most {MAX_BATCH}", place)
    if record.reserved or words.has_reserved_bits:
        what = "the reserved word" if record.reserved else "bits 59..52 of a pfn word"
        session.report("REC-06", f"{what} should be zero", place)
    if not session.facts.converted and words.has_type(PageType.XALLOC):
        pfn = words.pfn(words.first_with(frozenset({PageType.XALLOC})))
        session.report("REC-13", f"pfn {pfn:#x} has type XALLOC", place, pfn=pfn)


def _length(words: PfnWords) -> int:
    """Bytes of a PAGE_DATA body with these words."""
    return PAGE_DATA_HEADER.size + len(words) * PFN_WORD_SIZE + words.data_pages * PAGE_SIZE


def of_pfn_0_alone(record: Record | PageData) -> bool:
    """Whether a record of pages passes all checks of a guest without a p2m: only pfn 0 is in its range."""
    if not isinstance(record, PageData) or not record.count or len(record.words) != record.count:
        return False
    words = record.words
    return not words.has_illegal_type and record.place.length == _length(words) and not words.pfns.any()
