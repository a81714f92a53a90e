"""Data pages in place of page tables: found alike in files and compressed input, and without a search for each."""

import numpy as np
import pytest
import zstandard

from migrate import Checker, Destination, check
from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RW, TABLE, entry
from migrate.judging.judgement import Judgement
from migrate.judging.report_json import report_object
from migrate.rules.selection import Selection
from migrate.xen.untyped_pages import UntypedPages
from streams.compressed import CompressedTransport
from streams.compression import ZSTD
from streams.decoder import Decoder, drive
from streams.transports import BytesTransport

LOW = Destination("4.20", "low")
IDENTITY = Destination("4.20", "identity")


class Plain(BytesTransport):
    """Counts what is read again."""

    decodings = 0

    def reread(self, ranges):
        self.decodings += sum(n for _, n in ranges)
        return super().reread(ranges)


class Compressed(CompressedTransport):
    """Counts how often it is decoded once more."""

    decodings = 0

    def reread(self, ranges):
        self.decodings += bool(ranges)
        return super().reread(ranges)

    def reread_in_order(self, ranges):
        self.decodings += 1
        return super().reread_in_order(ranges)


def judged(transport, destination=LOW):
    judgement = Judgement(transport, "-", None)
    drive(Decoder(judgement.restorer).run(), transport)
    judgement.finish(transport.position)
    return judgement.report(destination, Selection())


def compressed(stream):
    return Compressed(BytesTransport(zstandard.ZstdCompressor().compress(stream)), ZSTD)


def with_untyped_l1s(count):
    """A guest whose last L2s name so many empty data pages, which Xen takes for L1s."""
    b = StreamBuilder.pv(8)
    data = [b.new_page(content=bytes(4096)) for _ in range(count)]
    for _ in range(2400 - count):  # more than are kept of a stream that cannot be read again
        b.new_page(content=b"\x01" * 4096)
    for start in range(0, count, 100):
        some = data[start : start + 100]
        b.table(b.new_table(2, pinned=True))[: len(some)] = np.array([entry(pfn, TABLE) for pfn in some], np.uint64)
    return b.build()


def with_untyped_tables_of_every_level(*, last=0):
    """A pinned L4 over a data page taken for an L3, over one taken for an L2, over one taken for an L1."""
    b = StreamBuilder.pv(8)
    l1 = b.new_page(content=last.to_bytes(8, "little").ljust(4096, b"\0"))
    l2 = b.new_page(content=entry(l1, TABLE).to_bytes(8, "little").ljust(4096, b"\0"))
    l3 = b.new_page(content=entry(l2, TABLE).to_bytes(8, "little").ljust(4096, b"\0"))
    b.table(b.new_table(4, pinned=True))[300] = entry(l3, TABLE)
    for _ in range(2400):
        b.new_page(content=b"\x01" * 4096)
    return b.build()


@pytest.mark.parametrize("count", [100, 800])
def test_compressed_input_is_decoded_once_more_for_all_of_them(count):
    transport = compressed(with_untyped_l1s(count))
    assert judged(transport).verdict == "accept"
    assert transport.decodings == 1


def test_a_file_is_not_searched_for_each_of_them():
    costs = []
    for count in (400, 800):
        transport = Plain(with_untyped_l1s(count))
        assert judged(transport).verdict == "accept"
        costs.append(transport.decodings)
    # 400 pages more, and not 400 times the words of all 2400.
    assert costs[1] - costs[0] < 2 * 400 * 4096


def test_for_each_further_level_it_is_decoded_once_more():
    # Under this placement what a data page names is the guest's own.
    transport = compressed(with_untyped_tables_of_every_level())
    assert judged(transport, IDENTITY).verdict == "accept"
    assert transport.decodings == 3


@pytest.mark.parametrize("destination", [LOW, IDENTITY])
@pytest.mark.parametrize("last", [0, 0xFFF_FFFF_F000 | PTE_RW])
def test_a_compressed_stream_is_judged_as_a_plain_one(destination, last):
    stream = with_untyped_tables_of_every_level(last=last)
    plain, packed = (report_object(check(s, destination)) for s in (stream, zstandard.compress(stream)))
    assert (plain["stream"].pop("compression"), packed["stream"].pop("compression")) == (None, "zstd")
    assert plain == packed
    assert plain["failure"] is None or plain["failure"]["rule"] == "HYP-07"


def test_of_a_pipe_that_did_not_keep_them_nothing_is_gathered_for_each(monkeypatch):
    gathered = []
    monkeypatch.setattr(UntypedPages, "_named", lambda pages: gathered.append(pages) or iter(()))
    checker = Checker(target="4.20", placement="low")
    checker.feed(with_untyped_l1s(800))
    assert checker.close().verdict == "unjudged"
    assert not gathered


def test_a_page_that_a_pipe_did_not_keep_is_not_taken_for_an_empty_table():
    stream = with_untyped_l1s(100)
    assert check(stream, target="4.20", placement="low").verdict == "accept"
    checker = Checker(target="4.20", placement="low")
    for start in range(0, len(stream), 1 << 20):
        checker.feed(stream[start : start + (1 << 20)])
    report = checker.close()
    assert report.verdict == "unjudged"
    assert "it came as data and was not kept" in report.unjudged_because
