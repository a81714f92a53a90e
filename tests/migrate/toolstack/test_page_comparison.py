"""The VERIFY phase: pages sent again, compared with what was sent before."""

import os
import threading

import pytest
from asking import check
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.building.parts import page_data
from streams.pages import PageType
from streams.wire.framing import RecordType


def resent(builder, pfn, *, flip=None):
    """A stream whose VERIFY phase sends one page again, perhaps with a bit flipped at some byte."""
    contents = bytearray(builder.memory[pfn].data())
    if flip is not None:
        contents[flip] ^= 0x10
    builder.insert(RecordType.VERIFY, before=RecordType.X86_TSC_INFO)
    body = page_data([(pfn, builder.memory[pfn].type, bytes(contents))])
    builder.insert(RecordType.PAGE_DATA, body, before=RecordType.X86_TSC_INFO)
    return builder.build()


def mismatches(report):
    return [f for f in report.findings if f.rule.id == "XRC-46"]


@pytest.mark.parametrize("name", ["x417-pv32.verify.libxc.zst", "x417-pv64.verify.libxc.zst"])
def test_a_genuine_verify_phase_has_nothing_to_tell(name):
    assert not mismatches(check(str(SAMPLES / name), verify=True))


@pytest.mark.parametrize("kind", [lambda: StreamBuilder.pv(4), lambda: StreamBuilder.pv(8), StreamBuilder.hvm])
@pytest.mark.parametrize("byte", [0, 7, 4095])
def test_a_difference_names_pfn_and_first_byte(kind, byte):
    builder = kind()
    pfn = next(p for p, page in builder.memory.items() if page.type == PageType.NOTAB and p)
    (finding,) = mismatches(check(resent(builder, pfn, flip=byte), verify=True))
    assert finding.pfn == pfn
    assert f"first at byte {byte:#x}" in finding.message


def test_the_same_contents_again_are_no_difference():
    builder = StreamBuilder.pv(4)
    assert not mismatches(check(resent(builder, builder.store_pfn), verify=True))


def test_nothing_is_compared_unless_asked_for():
    builder = StreamBuilder.pv(4)
    assert not mismatches(check(resent(builder, builder.store_pfn, flip=3)))


def test_a_difference_changes_no_verdict():
    builder = StreamBuilder.pv(4)
    assert check(resent(builder, builder.store_pfn, flip=3), verify=True).verdict == "accept"


def test_on_a_pipe_the_page_is_named_without_the_byte():
    builder = StreamBuilder.pv(4)
    stream = resent(builder, builder.store_pfn, flip=9)
    reader, writer = os.pipe()

    def send():
        with os.fdopen(writer, "wb") as out:
            out.write(stream)

    sender = threading.Thread(target=send)
    sender.start()
    (finding,) = mismatches(check(reader, verify=True))
    sender.join()
    os.close(reader)
    assert finding.pfn == builder.store_pfn
    assert "byte" not in finding.message


@pytest.mark.parametrize("name", ["x417-pv64.remus.libxc.zst", "x417-pvh.remus.libxc.zst"])
def test_a_checkpointed_stream_has_no_verify_phase_to_compare(name):
    report = check(str(SAMPLES / name), verify=True)
    assert report.verdict == "accept"
    assert not mismatches(report)


def test_a_refused_record_leaves_nothing_to_compare():
    builder = StreamBuilder.pv(4)
    beyond = page_data([(builder.max_pfn + 1, PageType.NOTAB, bytes(4096))])
    builder.insert(RecordType.PAGE_DATA, beyond, before=RecordType.PAGE_DATA)
    report = check(resent(builder, builder.store_pfn), verify=True)
    assert report.failure is not None
    assert report.failure.rule == "REC-07"
    assert not mismatches(report)
