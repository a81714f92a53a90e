"""What is known of a PV guest's memory where the stream leaves something out."""

from migrate.building.builder import StreamBuilder
from migrate.judging.check import check
from streams.pages import PageType


def test_a_root_has_no_source_frame_where_the_page_of_the_p2m_never_came():
    b = StreamBuilder.pv(4)
    b.memory[b.p2m_frames[0]].type = PageType.XTAB
    assert check(b.build(), placement="low").stream.cr3 == [{"vcpu": 0, "pfn": b.roots[0], "mfn": None}]
