"""What has to be kept as it is: state, pages and tables of an input that cannot be read again, and long lists."""

import gzip

import numpy as np
import pytest
from hostile import before_end, record
from many import PAGE, pv, vcpu_part

from migrate.building.parts import GDT, PTE_RW, entry
from streams.pages import PageType, PfnWords
from streams.wire.framing import P2M_HEADER, PAGE_DATA_HEADER, RecordType

pytestmark = pytest.mark.slow

LOW = ("--placement", "low")
TABLES = 20_000
BATCH = 1024


def guest(more):
    """A guest with room for more pfns, the first of those, and how many p2m pages list it."""
    b = pv()
    first = b.max_pfn + 1
    last = first + more - 1
    body = b.record(RecordType.X86_PV_P2M_FRAMES).body
    listed = np.frombuffer(body[P2M_HEADER.size :], "<u8")
    rows = -(-(last + 1) // b.pfns_per_p2m_page)
    frames = [*listed.tolist(), *(first + n for n in range(rows - len(listed)))]
    body[:] = P2M_HEADER.pack(0, last) + np.array(frames, "<u8").tobytes()
    return b, first + rows - len(listed)


def pages(pfns, kind, page, batch=BATCH):
    """PAGE_DATA records of pages that are all alike."""
    out = []
    for start in range(0, len(pfns), batch):
        words = PfnWords.build(pfns[start : start + batch], np.full(len(pfns[start : start + batch]), kind, np.uint8))
        content = page * words.data_pages
        out.append(record(RecordType.PAGE_DATA, PAGE_DATA_HEADER.pack(len(words), 0) + words.raw + content))
    return b"".join(out)


def looks_like_a_gdt():
    return bytes(GDT[8]).ljust(4096, b"\0")


def a_table(b):
    return np.full(512, entry(b.store_pfn, PTE_RW), "<u8").tobytes()


def tables(batch=BATCH):
    b, first = guest(TABLES + 100)
    return before_end(b.build(), pages(np.arange(first, first + TABLES), PageType.L1TAB_PINNED, a_table(b), batch))


def data_that_looks_remarkable():
    b, first = guest(TABLES + 100)
    return before_end(b.build(), pages(np.arange(first, first + TABLES), PageType.NOTAB, looks_like_a_gdt()))


def waiting(kind):
    """So many pages of a few pfns that wait for one checkpoint."""
    b, first = guest(BATCH + 100)
    b.checkpoints = 1
    page = looks_like_a_gdt() if kind == PageType.NOTAB else PAGE
    wait = pages(np.arange(first, first + BATCH), kind, page) * (TABLES // BATCH)
    return b.build() + wait + record(RecordType.CHECKPOINT)


def states_of_vcpus():
    b = pv()
    contents = {
        RecordType.X86_PV_VCPU_BASIC: bytes(b.record(RecordType.X86_PV_VCPU_BASIC).body[8:]),
        RecordType.X86_PV_VCPU_XSAVE: bytes(1 << 14),
        RecordType.X86_PV_VCPU_MSRS: bytes(16),
    }
    parts = (vcpu_part(n, kind, content) for n in range(1, 8000) for kind, content in contents.items())
    return before_end(b.build(), b"".join(parts))


STREAMS = {
    "tables": tables,
    "tables in one record": lambda: tables(TABLES),
    "remarkable pages": data_that_looks_remarkable,
    "tables that wait": lambda: waiting(PageType.L1TAB),
    "remarkable pages that wait": lambda: waiting(PageType.NOTAB),
    "states of vcpus": states_of_vcpus,
}


@pytest.mark.parametrize("compressed", [False, True], ids=["in a file", "compressed"])
@pytest.mark.parametrize("what", STREAMS)
def test_what_is_kept_is_not_kept_in_memory(confinement, tmp_path, what, compressed):
    stream = STREAMS[what]()
    path = tmp_path / "stream"
    path.write_bytes(gzip.compress(stream, 1) if compressed else stream)
    ended = confinement.run(["check", *LOW, path], len(stream))
    assert ended.code in (0, 1), ended.out


def test_pfns_that_are_named_far_apart_take_no_more_than_their_guest_is_worth(confinement, tmp_path):
    b, first = guest(3 << 20)
    words = pages(np.arange(first, first + (3 << 20), 3), PageType.XTAB, b"")
    path = tmp_path / "stream"
    path.write_bytes(before_end(b.build(), words))
    assert confinement.run(["check", "--placement", "source", path], (1 << 20) << 12).code in (0, 1, 3)


def test_a_list_of_p2m_pages_that_no_file_holds_the_guest_of_is_not_judged(check):
    b = pv()
    body = P2M_HEADER.pack(0, 0xFFFF_FFFF) + np.full((1 << 32) // b.pfns_per_p2m_page, b.p2m_frames[0], "<u8").tobytes()
    b.record(RecordType.X86_PV_P2M_FRAMES).body[:] = body
    ended = check(b.build())
    assert ended.code == 3
    assert "no more than 8 MiB are read" in ended.out


def test_lists_of_p2m_pages_that_are_long_together_are_not_judged(check):
    b = pv()
    rows = 1 << 19
    per = b.pfns_per_p2m_page
    listed = np.full(rows, b.p2m_frames[0], "<u8").tobytes()
    lists = (P2M_HEADER.pack(n * rows * per, (n + 1) * rows * per - 1) + listed for n in range(4))
    ended = check(before_end(b.build(), b"".join(record(RecordType.X86_PV_P2M_FRAMES, one) for one in lists)))
    assert ended.code == 3
    assert "a longer list than is read" in ended.out
