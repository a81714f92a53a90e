"""Pages kept while a stream flows: the newest version wins, and what can be read again costs nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate import Checker, check
from migrate.building.builder import StreamBuilder
from migrate.guest.newest import NONE
from migrate.guest.page_places import AT_ONCE, SEARCHES, PagePlaces
from migrate.guest.pages import POOL_PAGES_IN_MEMORY, PagePool, PageStore, read_pages
from migrate.judging.report_json import report_object
from streams.pages import PFN_MASK as MAX_PFN
from streams.pages import PageType, PfnWords
from streams.transports import BytesTransport, TransportError
from streams.wire.framing import PAGE_SIZE, PFN_WORD_SIZE


def array(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def page(number: int) -> bytes:
    """A page that is told from others by its number."""
    return number.to_bytes(8, "little") * (PAGE_SIZE // 8)


# -- the pool ----------------------------------------------------------------------------------------


def test_a_pool_gives_back_what_was_put():
    pool = PagePool()
    slots = [pool.put(page(n)) for n in range(5)]
    assert [pool.get(slot) for slot in slots] == [page(n) for n in range(5)]


def test_a_pool_uses_a_freed_slot_again():
    pool = PagePool()
    pool.put(page(0))
    freed = pool.put(page(1))
    pool.drop(freed)
    assert pool.put(page(2)) == freed
    assert pool.get(freed) == page(2)


def test_a_pool_that_outgrows_memory_gives_back_every_page():
    pool = PagePool()
    count = POOL_PAGES_IN_MEMORY + 40
    slots = [pool.put(page(n)) for n in range(count)]
    for number in (0, POOL_PAGES_IN_MEMORY - 1, POOL_PAGES_IN_MEMORY, count - 1):
        assert pool.get(slots[number]) == page(number)
    pool.drop(slots[-5])
    again = pool.put(page(7777))
    assert again == slots[-5]
    assert pool.get(again) == page(7777)
    assert pool.get(slots[-4]) == page(count - 4)


def test_a_pool_takes_many_pages_at_once_into_what_is_free_and_behind_it():
    pool = PagePool()
    count = POOL_PAGES_IN_MEMORY - 2
    first = pool.put_all(b"".join(map(page, range(count))))
    pool.drop(int(first[7]))
    more = [page(n) for n in range(10_000, 10_006)]
    slots = pool.put_all(b"".join(more))
    assert slots.tolist() == [7, *range(count, count + 5)]
    assert [pool.get(slot) for slot in slots.tolist()] == more
    assert pool.get(int(first[8])) == page(8)


# -- a store that reads again ------------------------------------------------------------------------


def words(*entries: tuple[int, int]) -> PfnWords:
    pfns, types = zip(*entries, strict=True)
    return PfnWords.build(np.array(pfns, np.int64), np.array(types, np.uint8))


class Written:
    """Records' words and pages, one after the other as in a file, and a store that was told of them."""

    def __init__(self) -> None:
        self.raw = bytearray(b"header")
        self.batches: list[tuple[int, PfnWords]] = []

    def add(self, *entries: tuple[int, int, bytes | None]) -> int:
        """A record of (pfn, type, contents); returns the offset of its first page."""
        at, named = len(self.raw), words(*((pfn, kind) for pfn, kind, _ in entries))
        self.raw += named.raw
        data = at + PFN_WORD_SIZE * len(entries)
        self.raw += b"".join(contents for *_, contents in entries if contents is not None)
        self.batches.append((at, named))
        return data

    def store(self) -> PageStore:
        made = PageStore(BytesTransport(bytes(self.raw)), rereads=True)
        for batch in self.batches:
            made.note_batch(*batch)
        return made


NOTAB, XTAB, L1 = PageType.NOTAB, PageType.XTAB, PageType.L1TAB


def test_a_page_is_found_behind_pages_without_contents():
    written = Written()
    written.add((1, NOTAB, page(10)), (2, XTAB, None), (3, NOTAB, page(30)))
    assert written.store().find([3, 1]) == {3: page(30), 1: page(10)}


def test_the_last_record_that_names_a_page_counts():
    written = Written()
    written.add((1, NOTAB, page(10)), (2, NOTAB, page(20)))
    written.add((1, NOTAB, page(11)))
    assert written.store().find([1, 2]) == {1: page(11), 2: page(20)}


def test_the_last_word_of_a_record_counts():
    written = Written()
    written.add((1, NOTAB, page(10)), (1, NOTAB, page(11)))
    assert written.store().find([1]) == {1: page(11)}


def test_a_later_word_without_contents_leaves_the_page_as_it_was():
    written = Written()
    written.add((1, NOTAB, page(10)))
    written.add((1, XTAB, None))
    assert written.store().find([1]) == {1: page(10)}


def test_a_page_that_was_never_sent_is_not_found():
    written = Written()
    written.add((1, NOTAB, page(10)))
    assert written.store().find([5]) == {5: None}


def test_pages_are_found_over_many_records():
    written = Written()
    for number in range(200):
        written.add((number, NOTAB, page(number)), (number + 1, NOTAB, page(number + 1000)))
    # Each pfn is named twice, the second time by the record that is its own.
    assert written.store().find([0, 57, 199, 200]) == {n: page(n) for n in (0, 57, 199)} | {200: page(1199)}


def test_what_comes_later_is_found_after_an_earlier_search():
    written = Written()
    written.add((1, NOTAB, page(10)))
    written.add((1, NOTAB, page(11)))
    store = PageStore(BytesTransport(bytes(written.raw)), rereads=True)
    store.note_batch(*written.batches[0])
    assert store.find([1, 2]) == {1: page(10), 2: None}
    store.note_batch(*written.batches[1])
    assert store.find([1]) == {1: page(11)}


@pytest.mark.parametrize("rereads", [True, False])
def test_the_newest_version_of_a_table_counts(rereads):
    written = Written()
    offsets = [written.add((1, L1, page(10))), written.add((1, L1, page(11)))]
    store = PageStore(BytesTransport(bytes(written.raw)), rereads=rereads)
    for offset, contents in zip(offsets, (page(10), page(11)), strict=True):
        store.drop_tables(array(1))
        store.put_tables(array(1), array(2), contents, array(offset))
    assert store.table(1) == store.find([1])[1] == page(11)
    assert store.table(2) is None
    assert (store.is_table(1), store.is_table(2)) == (True, False)
    assert [found.tolist() for found in (*store.tables(), store.levels(array(2, 1)))] == [[1], [2], [0, 2]]


@pytest.mark.parametrize("rereads", [True, False])
def test_a_table_sent_as_data_is_a_table_no_more(rereads):
    written = Written()
    offset = written.add((1, L1, page(10)))
    written.add((1, NOTAB, page(11)))
    store = PageStore(BytesTransport(bytes(written.raw)), rereads=rereads)
    store.put_tables(array(1), array(1), page(10), array(offset))
    store.drop_tables(array(1))
    assert (len(store.tables()[0]), store.is_table(1)) == (0, False)
    store.note_batch(*written.batches[1])
    assert store.find([1]) == {1: page(11)}


@pytest.mark.parametrize("rereads", [True, False])
def test_tables_come_in_batches_with_their_entries(rereads):
    written = Written()
    offsets = [written.add((pfn, L1, page(pfn))) for pfn in range(10)]
    store = PageStore(BytesTransport(bytes(written.raw)), rereads=rereads)
    store.put_tables(array(*range(10)), array(*[1] * 10), b"".join(map(page, range(10))), array(*offsets))
    seen = {}
    for pfns, entries in store.table_batches(size=4):
        assert entries.shape == (len(pfns), 512)
        seen.update(zip(pfns.tolist(), entries[:, 511].tolist(), strict=True))
    assert seen == {pfn: pfn for pfn in range(10)}


def test_on_a_pipe_other_pages_are_kept_until_there_are_too_many():
    store = PageStore(None, rereads=False)
    count = PageStore.KEPT_PAGES
    store.put_others(np.arange(count), b"".join(map(page, range(count))))
    assert not store.crowded
    store.put_others(array(count), page(count))
    assert store.crowded
    store.squeeze(lambda pfns, pages: (pfns == 3) | (pages[:, 7] == 5))
    assert (store.crowded, store.keeps_all) == (False, False)
    assert store.find(range(count + 1)) == dict.fromkeys(range(count + 1)) | {3: page(3), 5: page(5)}


def test_a_page_sent_again_and_not_kept_leaves_no_stale_version():
    store = PageStore(None, rereads=False)
    store.put_others(array(1, 2), page(1) + page(2))
    store.drop_others(np.array([1, 3], np.int64))
    assert store.find([1, 2]) == {1: None, 2: page(2)}


# -- places ------------------------------------------------------------------------------------------


class Counting(BytesTransport):
    """Bytes in memory, and how many are read again."""

    reread_bytes = 0

    def reread(self, ranges):
        self.reread_bytes += sum(n for _, n in ranges)
        return super().reread(ranges)


class Costly(Counting):
    """As if each look back cost a decompression."""

    rereads = False
    decodings = 0

    def reread(self, ranges):
        self.decodings += bool(ranges)
        return super().reread(ranges)

    def reread_in_order(self, ranges):
        self.decodings += 1
        return iter(super().reread(list(ranges)))


sendings = st.lists(
    st.lists(
        st.tuples(st.integers(0, 12) | st.just(MAX_PFN), st.sampled_from([NOTAB, XTAB, L1])), min_size=1, max_size=6
    ),
    max_size=3 * AT_ONCE,
)


@given(sendings, st.lists(st.lists(st.integers(-1, 13) | st.just(MAX_PFN), max_size=4), max_size=30), st.booleans())
def test_places_are_those_of_the_newest_contents_however_often_one_asks(records, questions, costly):
    written, newest = Written(), {}
    made = [[(pfn, kind, None if kind == XTAB else page(n)) for n, (pfn, kind) in enumerate(one)] for one in records]
    offsets = [written.add(*one) for one in made]
    transport = (Costly if costly else Counting)(bytes(written.raw))
    places = PagePlaces(transport)
    rest = list(zip(made, offsets, written.batches, strict=True))
    for wanted in questions:
        for entries, at, batch in rest[:7]:
            places.add(*batch)
            data = [pfn for pfn, kind, _ in entries if kind != XTAB]
            newest.update((pfn, at + PAGE_SIZE * n) for n, pfn in enumerate(data))
        del rest[:7]
        assert places.offsets(array(*wanted)).tolist() == [newest.get(pfn, NONE) for pfn in wanted]
    assert not costly or transport.decodings == 0


def pages_of_their_own(count):
    written = Written()
    for number in range(count):
        written.add((number, NOTAB, page(number)))
    return written


@pytest.mark.parametrize("count", [500, 1000])
def test_to_look_up_page_after_page_reads_the_words_a_few_times(count):
    written = pages_of_their_own(count)
    transport = Counting(bytes(written.raw))
    store = PageStore(transport, rereads=True)
    for batch in written.batches:
        store.note_batch(*batch)
    for number in range(count):
        assert store.find([number]) == {number: page(number)}
    assert transport.reread_bytes <= count * PAGE_SIZE + (SEARCHES + 1) * count * PFN_WORD_SIZE


@pytest.mark.parametrize("count", [500, 1000])
def test_to_look_up_pages_while_more_come_reads_the_words_a_few_times(count):
    written = pages_of_their_own(count)
    transport = Counting(bytes(written.raw))
    places = PagePlaces(transport)
    for number, batch in enumerate(written.batches):
        places.add(*batch)
        assert (places.offsets(array(number, 0)) != NONE).all()
    assert transport.reread_bytes <= (SEARCHES + 1) * count * PFN_WORD_SIZE


def test_what_is_fetched_is_decoded_once_and_dropped_when_it_is_sent_again():
    written = pages_of_their_own(300)
    transport = Costly(bytes(written.raw))
    store = PageStore(transport, rereads=False)
    for batch in written.batches:
        store.note_batch(*batch)
    store.fetch(np.arange(400))
    assert {n: store.find([n])[n] for n in range(300)} == {n: page(n) for n in range(300)}
    assert (transport.decodings, store.is_at_hand(299), store.is_at_hand(300)) == (1, True, False)
    store.drop_others(np.array([5], np.int64))
    assert (store.is_at_hand(5), store.is_at_hand(6)) == (False, True)


def test_a_store_without_patience_left_has_not_kept_the_page():
    written = pages_of_their_own(3)
    transport = Costly(bytes(written.raw))
    store = PageStore(transport, rereads=False, patience=2)
    for batch in written.batches:
        store.note_batch(*batch)
    assert [store.find([n])[n] for n in range(3)] == [page(0), page(1), None]
    assert transport.decodings == 2


def test_pages_are_found_in_batches_with_their_places_in_the_question():
    written = pages_of_their_own(10)
    asked = [3, -1, 30, 3, 40, 50, 9]
    found = [(rows, pages[:, 0].tolist()) for rows, pages in written.store().found_batches(array(*asked), size=2)]
    assert found == [([0], [3]), ([3], [3]), ([6], [9])]


@pytest.mark.parametrize("kind", [XTAB, None])
def test_without_its_page_of_the_p2m_no_source_frame_is_known(kind):
    b = StreamBuilder.pv(8)
    if kind is None:
        b.p2m_frames = [b.max_pfn + 1]
    else:
        b.memory[b.p2m_frames[0]].type = kind
    assert check(b.build()).stream.cr3 == [{"vcpu": 0, "pfn": b.roots[0], "mfn": None}]


# -- a guest with more pages than are kept -----------------------------------------------------------


def large(width: int, *, resend: bool) -> StreamBuilder:
    """A guest of more pages than a pipe's store keeps; with what the end asks for sent first, or last again."""
    b = StreamBuilder.pv(width, vcpus=2, roots=2)
    for number in range(PageStore.KEPT_PAGES + 300):
        b.new_page(content=number.to_bytes(8, "little"))
    if resend:
        b.rounds = [sorted([b.start_info_pfn, b.gdt_pfn, *b.p2m_frames, *b.roots, *b.chain(b.roots[1])[1:]])]
    return b


@pytest.mark.parametrize("resend", [False, True])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("damage", ["none", "start_info", "gdt", "p2m"])
def test_a_large_guest_is_judged_alike_on_a_pipe_and_in_a_file(width, damage, resend):
    b = large(width, resend=resend)
    if damage == "start_info":
        b.start_info.store_mfn = b.max_pfn + 1
    elif damage == "gdt":
        b.table(b.gdt_pfn)[3] = 0x0000_8900_0000_0067  # a task state segment
    elif damage == "p2m":
        b.place(b.roots[1], 0x12_3456)
    stream = b.build()
    in_file = check(stream, target="4.20", placement="source")
    checker = Checker(target="4.20", placement="source")
    for start in range(0, len(stream), 1 << 20):
        checker.feed(stream[start : start + (1 << 20)])
    assert report_object(checker.close()) == report_object(in_file)
    stopped_by = {"none": None, "start_info": "XRC-04", "gdt": "HYP-05", "p2m": "HYP-22" if width == 4 else None}
    assert (in_file.failure.rule if in_file.failure else None) == stopped_by[damage]


# -- reading again -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 8])), min_size=1, max_size=12))
def test_pages_are_read_wherever_they_lie(places):
    data = b"".join(page(number) for number in range(12))
    offsets = sorted(PAGE_SIZE * ordinal + shift for ordinal, shift in places)
    expected = b"".join(data[at : at + PAGE_SIZE] for at in offsets)
    assert read_pages(BytesTransport(data), array(*offsets)) == expected


def test_pages_that_an_input_has_lost_are_an_error():
    with pytest.raises(TransportError, match="become shorter"):
        read_pages(BytesTransport(page(1)), array(0, PAGE_SIZE))
