"""Truncated, lying and random input: a verdict or a plain error, no traceback, and no more memory than it holds."""

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import zstandard
from asking import Checker, check
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from project import ROOT, SAMPLES
from trying import examples

from migrate.building import parts
from migrate.building.builder import StreamBuilder
from migrate.cli.main import main
from migrate.judging.report import Report
from migrate.judging.report_json import report_object
from streams.compression import CODECS
from streams.pages import PageType
from streams.transports import FileTransport, TransportError
from streams.wire.framing import (
    DOMAIN_HEADER,
    FREE_RECORD_TYPE,
    IMAGE_HEADER,
    LIBXL_HEADER,
    LIBXL_IDENT,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PARAMS_HEADER,
    RECORD_HEADER,
    XL_HEADER,
    XL_MAGIC,
    RecordType,
)
from streams.wire.libvirt import LIBVIRT_MAGIC
from streams.wire.paging import NX, PSE, P

VERDICTS = {"accept", "refuse", "unjudged"}
# What a stream that breaks off can be refused for: by libxc, or by the wrapper it breaks off in.
CUT_OFF = {"HDR-01", "HDR-08", "FRM-01", "FRM-03", "FRM-08", "CON-01", "CON-05", "CON-07", "CON-08", "CON-36"}
MAX_PFN_WORD = (1 << 52) - 1

KINDS = {
    "pv32": lambda: StreamBuilder.pv(4, vcpus=2, roots=2),
    "pv64": lambda: StreamBuilder.pv(8, vcpus=2, roots=2),
    "hvm": lambda: StreamBuilder.hvm(vcpus=2),
}
CONTAINERS = ["libxc", "libxl", "xl", "libvirt"]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_container = pytest.mark.parametrize("container", CONTAINERS)


@cache
def built(kind: str, container: str = "libxc") -> bytes:
    b = KINDS[kind]()
    b.wrap(container)
    return b.build()


@cache
def sample(name: str) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress((SAMPLES / f"{name}.zst").read_bytes())


def record_offsets(stream: bytes) -> list[int]:
    """Offsets of the libxc record headers in a sound stream, END's among them."""
    at = stream.index(b"\xff" * 8 + b"XENF") + IMAGE_HEADER.size + DOMAIN_HEADER.size
    found = []
    while True:
        found.append(at)
        kind, length = RECORD_HEADER.unpack_from(stream, at)
        if kind == RecordType.END:
            return found
        at += RECORD_HEADER.size + (length + 7) // 8 * 8


def told(report: Report) -> dict:
    return report_object(report)


def judged(stream: bytes, **options) -> Report:
    """The report, after making sure that it is one, and is the same on a second run and on a pipe."""
    report = check(stream, **options)
    assert report.verdict in VERDICTS
    assert (report.failure is not None) == (report.verdict == "refuse")
    assert (report.unjudged_because is not None) == (report.verdict == "unjudged")
    assert (report.reason is None) == report.ok
    checker = Checker(**options)
    for start in range(0, len(stream), 40_000):
        checker.feed(stream[start : start + 40_000])
    assert told(checker.close()) == told(report) == told(check(stream, **options))
    return report


# -- truncation --------------------------------------------------------------------------------------


def assert_cut_is_noticed(stream: bytes, cut: int) -> None:
    report = check(stream[:cut])
    if cut < 8 and report.verdict == "unjudged":
        assert report.stream.container == "unknown"  # too little to tell what it was
        return
    assert report.verdict == "refuse", cut
    assert report.failure is not None
    assert report.failure.rule in CUT_OFF, cut


def whole_from(stream: bytes) -> int:
    """From which cut on the guest is whole: in libxl's own part behind the image, whose end libxl does not miss."""
    wrapped = stream.startswith((LIBXL_IDENT, XL_MAGIC, LIBVIRT_MAGIC))
    return record_offsets(stream)[-1] + RECORD_HEADER.size if wrapped else len(stream)


def telling_cuts(stream: bytes) -> Iterator[int]:
    """Every offset in and near a header, and some within the bodies."""
    near = {edge + i for edge in record_offsets(stream) for i in range(-9, 25)}
    start = record_offsets(stream)[0]
    return (i for i in range(len(stream)) if i in near or i <= start or i > len(stream) - 64 or not i % 509)


@every_container
@every_kind
def test_a_stream_cut_anywhere_is_refused(kind, container):
    stream = built(kind, container)
    for cut in telling_cuts(stream):
        if cut < whole_from(stream):
            assert_cut_is_noticed(stream, cut)


@pytest.mark.parametrize("container", ["libxl", "xl", "libvirt"])
@every_kind
def test_libxl_does_not_miss_the_end_of_its_own_part(kind, container):
    stream = built(kind, container)
    for cut in range(whole_from(stream), len(stream)):
        report = check(stream[:cut])
        (cut_off,) = [finding for finding in report.findings if finding.rule.id == "CON-35"]
        assert cut_off.severity == "warning"
        assert "the guest's memory came whole" in cut_off.message
        assert (report.verdict == "accept") == (report.failure is None)
        assert report.failure is None or report.failure.call in ("libxl", "qemu"), cut
        assert kind == "hvm" or report.failure is None


@pytest.mark.slow
@every_container
@every_kind
def test_a_stream_cut_at_every_single_byte_is_refused(kind, container):
    stream = built(kind, container)
    for cut in range(whole_from(stream)):
        assert_cut_is_noticed(stream, cut)


def test_a_genuine_stream_cut_at_a_few_hundred_places_is_refused():
    stream = sample("x417-pv32.plain.libxc")
    edges = record_offsets(stream)
    places = random.Random(6).sample(range(len(stream)), 100)
    cuts = {edge + i for edge in edges for i in (-1, 0, 1, 7, 8, 9, 16)} | set(places)
    for cut in sorted(cut for cut in cuts if cut < len(stream)):
        assert_cut_is_noticed(stream, cut)


def test_a_genuine_hvm_file_cut_at_some_places_is_refused():
    stream = sample("x417-pvh.xl")
    for cut in random.Random(6).sample(range(len(stream)), 30):
        assert_cut_is_noticed(stream, cut)


def test_a_checkpointed_stream_may_break_off_after_its_first_checkpoint():
    b = StreamBuilder.pv(4)
    b.checkpoints = 2
    stream = b.build()
    first = stream.index(RECORD_HEADER.pack(RecordType.CHECKPOINT, 0)) + RECORD_HEADER.size
    for cut in range(8, len(stream), 499):
        assert check(stream[:cut], placement="low").verdict == ("refuse" if cut < first else "accept")
    assert check(stream[:first], placement="low").verdict == "accept"
    assert check(stream[: first - 1]).verdict == "refuse"


# -- claims that the bytes do not keep ---------------------------------------------------------------

LENGTHS = [0, 1, 7, 8, 9, 4095, 4096, 0xFFFF, 0x7FF_FFFF, 0x800_0000, 0x800_0001, 0x7FFF_FFFF, 0xFFFF_FFFF]


@every_container
@every_kind
def test_any_length_of_any_record_gets_a_verdict(kind, container):
    stream = built(kind, container)
    for edge in record_offsets(stream):
        true = RECORD_HEADER.unpack_from(stream, edge)[1]
        for length in LENGTHS:
            lying = bytearray(stream)
            lying[edge + 4 : edge + 8] = length.to_bytes(4, "little")
            report = check(bytes(lying))
            assert report.verdict == "accept" if length == true else report.verdict in VERDICTS


@every_kind
def test_a_length_beyond_all_limits_is_refused_as_such(kind):
    stream = built(kind)
    for edge in record_offsets(stream):
        lying = bytearray(stream)
        lying[edge + 4 : edge + 8] = b"\xff" * 4
        failure = check(bytes(lying)).failure
        assert failure is not None
        assert failure.rule == "FRM-02"


@pytest.mark.parametrize("width", [4, 8])
def test_a_count_of_four_thousand_million_pfns_is_refused(width):
    b = StreamBuilder.pv(width)
    PAGE_DATA_HEADER.pack_into(b.record(RecordType.PAGE_DATA).body, 0, 0xFFFF_FFFF, 0)
    report = judged(b.build())
    assert report.failure is not None
    assert report.failure.rule == "REC-03"


def test_a_count_of_four_thousand_million_params_is_refused():
    b = StreamBuilder.hvm()
    PARAMS_HEADER.pack_into(b.record(RecordType.HVM_PARAMS).body, 0, 0xFFFF_FFFF, 0)
    report = judged(b.build())
    assert report.failure is not None
    assert report.failure.rule == "REC-108"


def test_the_largest_pfn_word_of_a_pv_guest_is_refused():
    b = StreamBuilder.pv(4)
    b.insert(
        RecordType.PAGE_DATA, parts.page_data([(MAX_PFN_WORD, PageType.XTAB, None)]), before=RecordType.SHARED_INFO
    )
    report = judged(b.build())
    assert report.failure is not None
    assert (report.failure.rule, report.failure.pfn) == ("REC-07", MAX_PFN_WORD)


def test_the_largest_pfn_word_of_an_hvm_guest_is_refused():
    b = StreamBuilder.hvm()
    body = parts.page_data([(MAX_PFN_WORD, PageType.NOTAB, bytes(4096))])
    b.insert(RecordType.PAGE_DATA, body, before=RecordType.HVM_CONTEXT)
    report = judged(b.build())
    assert report.failure is not None
    assert (report.failure.rule, report.failure.pfn) == ("REC-08", MAX_PFN_WORD)


@pytest.mark.parametrize("width", [4, 8])
def test_a_guest_of_all_pfns_with_a_short_list_is_refused(width):
    b = StreamBuilder.pv(width)
    P2M_HEADER.pack_into(b.record(RecordType.X86_PV_P2M_FRAMES).body, 0, 0, 0xFFFF_FFFF)
    report = judged(b.build())
    assert report.failure is not None
    assert report.failure.rule == "REC-42"


@pytest.mark.parametrize("width", [4, 8])
def test_a_list_that_grows_to_all_pfns_over_a_gap_is_refused_at_end(width):
    b = StreamBuilder.pv(width)
    body = P2M_HEADER.pack(0xFFFF_FFFF, 0xFFFF_FFFF) + bytes(8)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)
    report = judged(b.build())
    assert report.failure is not None
    assert (report.failure.rule, report.failure.step) == ("XRC-30", "p2m")
    assert "p2m frame 1 was never given" in report.failure.message


def test_a_list_that_begins_at_the_end_of_all_pfns_is_refused():
    b = StreamBuilder.pv(4)
    body = P2M_HEADER.pack(0xFFFF_FFFF, 0xFFFF_FFFF) + bytes(8)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, before=RecordType.X86_PV_P2M_FRAMES)
    report = judged(b.build())
    assert report.failure is not None
    assert (report.failure.rule, report.failure.step) == ("XRC-30", "p2m")
    assert "REC-44" in {finding.rule.id for finding in report.findings}


@pytest.mark.parametrize("id", [128, 8192, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_vcpu_id_however_large_leaves_one_gap(id):
    b = StreamBuilder.pv(4)
    record = b.duplicate(RecordType.X86_PV_VCPU_BASIC)
    record.body[0:4] = id.to_bytes(4, "little")
    gaps = [f for f in judged(b.build()).findings if f.rule.id == "ORD-25"]
    assert [(f.vcpu, f.count) for f in gaps] == [(1, id - 1)]


def test_pages_far_beyond_those_sent_are_not_worth_their_memory():
    b = StreamBuilder.pv(8)
    per_page = b.pfns_per_p2m_page
    while b.max_pfn < per_page * 2:
        b.new_page(PageType.XTAB)
    last = (1 << 25) - 1
    listed = [*b.p2m_frames, *[b.p2m_frames[0]] * (last // per_page + 1 - len(b.p2m_frames))]
    b.record(RecordType.X86_PV_P2M_FRAMES).body[:] = P2M_HEADER.pack(0, last) + b"".join(
        pfn.to_bytes(8, "little") for pfn in listed
    )
    b.insert(RecordType.PAGE_DATA, parts.page_data([(last, PageType.XTAB, None)]), before=RecordType.SHARED_INFO)
    report = judged(b.build())
    assert report.verdict == "unjudged"
    assert "too sparse" in str(report.reason)


# -- floods ------------------------------------------------------------------------------------------


def flooded(kind: int, count: int) -> bytes:
    """A sound stream with so many empty records of a type before its END."""
    stream = built("pv32")
    end = record_offsets(stream)[-1]
    return stream[:end] + RECORD_HEADER.pack(kind, 0) * count + stream[end:]


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_floods_of_empty_optional_records_are_skipped_and_counted(count):
    report = check(flooded(0x8000_0001, count), placement="low")
    assert report.verdict == "accept"
    alike = [f for f in report.findings if f.rule.id == "FRM-06"]
    assert len(alike) < 20
    assert sum(f.count for f in alike) == count


@pytest.mark.parametrize(
    ("kind", "rule"),
    [(FREE_RECORD_TYPE, "FRM-05"), (RecordType.X86_TSC_INFO, "REC-101"), (RecordType.TOOLSTACK, "FRM-12")],
)
def test_a_flood_of_refused_records_is_told_in_a_few_lines(kind, rule):
    report = check(flooded(kind, 20_000))
    assert report.failure is not None
    assert report.failure.rule == rule
    assert len(report.findings) < 60


def test_a_fatal_finding_is_not_lost_in_a_flood_of_its_rule():
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 11
    body = b.record(RecordType.X86_TSC_INFO).body
    for mode in [3] * 30 + [4]:  # mode 3 was good before 4.12, mode 4 never
        b.insert(RecordType.X86_TSC_INFO, mode.to_bytes(4, "little") + bytes(body[4:]), before=RecordType.SHARED_INFO)
    report = check(b.build(), target="4.11")
    assert report.failure is not None
    assert (report.failure.rule, report.verdict) == ("REC-102", "refuse")
    assert "mode 4" in report.failure.message


def test_a_second_end_is_not_looked_at():
    stream = built("pv32")
    report = judged(stream + RECORD_HEADER.pack(RecordType.END, 0), placement="low")
    assert report.verdict == "accept"
    assert "FRM-09" in {f.rule.id for f in report.findings}


# -- input that is no stream -------------------------------------------------------------------------


def test_an_empty_input_is_refused():
    report = judged(b"")
    assert report.failure is not None
    assert report.failure.rule == "HDR-01"


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert check(path).verdict == "refuse"


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_not_judged(seed):
    report = judged(random.Random(seed).randbytes(10_000))
    assert report.verdict == "unjudged"
    assert report.findings == []


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange_to_answer(data):
    assume(not any(codec.fits(data) for codec in CODECS))
    assert judged(data).verdict != "accept"


@given(st.sampled_from(CONTAINERS), st.binary(max_size=300))
def test_whatever_follows_the_headers_gets_an_answer(container, data):
    stream = built("pv32", container)
    assert judged(stream[: record_offsets(stream)[0]] + data).verdict != "accept"


def test_a_directory_is_an_os_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        check(tmp_path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_os_error(tmp_path):
    path = tmp_path / "closed"
    path.write_bytes(built("pv32"))
    path.chmod(0)
    with pytest.raises(PermissionError):
        check(path)


def test_a_descriptor_that_is_not_open_is_an_os_error():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=r".+"):
        check(reader)


def test_compressed_input_that_breaks_off_is_a_transport_error(tmp_path):
    packed = zstandard.ZstdCompressor().compress(built("pv32"))
    path = tmp_path / "stream.zst"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TransportError):
        check(path)


# -- edits of a byte ---------------------------------------------------------------------------------


def header_bytes(stream: bytes) -> list[int]:
    """Offsets of the bytes of all headers: wrappers', image's, domain's and records'."""
    edges = record_offsets(stream)
    image = edges[0] - IMAGE_HEADER.size - DOMAIN_HEADER.size
    wrapped = [
        *range(min(image, XL_HEADER.size)),
        *range(max(0, image - LIBXL_HEADER.size - RECORD_HEADER.size), image),
    ]
    return sorted({*wrapped, *range(image, edges[0]), *(edge + i for edge in edges for i in range(8))})


@pytest.mark.parametrize("flips", [(0x01, 0xFF), pytest.param((0x08, 0x80), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "container"), [("pv32", "libxc"), ("pv64", "libxl"), ("hvm", "xl")])
def test_any_edit_of_a_header_byte_gets_a_verdict(kind, container, flips):
    stream = built(kind, container)
    for at in header_bytes(stream):
        for flip in flips:
            edited = bytearray(stream)
            edited[at] ^= flip
            assert check(bytes(edited)).verdict in VERDICTS, (at, flip)


def test_every_bit_of_the_image_header_matters_or_is_reserved():
    stream = built("pv32")
    for bit in range(IMAGE_HEADER.size * 8):
        edited = bytearray(stream)
        edited[bit // 8] ^= 1 << bit % 8
        report = check(bytes(edited), placement="low")
        assert report.verdict != "accept" or {"HDR-06", "HDR-07", "HDR-13"} & {f.rule.id for f in report.findings}, bit


# -- many random edits -------------------------------------------------------------------------------

WORDS = [0, 1, 2, 3, 4, 7, 8, 0xFF, 0x1000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 51]
WORDS += [MAX_PFN_WORD, *(kind << 60 | 4 for kind in range(16)), (1 << 63) - 1, (1 << 64) - 1]


@st.composite
def edits(draw: st.DrawFn, stream: bytes) -> bytes:
    """A stream with a few words replaced, and pieces taken out, repeated or cut off; mostly near its headers."""
    edges = record_offsets(stream)
    near = st.tuples(st.sampled_from([0, *edges]), st.integers(0, 80)).map(sum)
    offsets = near | st.integers(0, len(stream) - 1)
    out = bytearray(stream)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(offsets)
        match draw(st.sampled_from(["word", "word", "half", "byte", "drop", "repeat", "cut"])):
            case "word":
                out[at : at + 8] = draw(st.sampled_from(WORDS)).to_bytes(8, "little")
            case "half":
                out[at : at + 4] = (draw(st.sampled_from(WORDS)) & 0xFFFF_FFFF).to_bytes(4, "little")
            case "byte":
                out[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "drop":
                del out[at : at + draw(st.sampled_from([1, 8, 16, 4096]))]
            case "repeat":
                start = draw(offsets)
                out[at:at] = out[start : start + draw(st.sampled_from([8, 32, 4096, 9000]))]
            case _:
                del out[at:]
    return bytes(out)


OPTIONS = {
    "target": st.sampled_from(["newest", "4.6", "4.13", "4.17", "4.20"]),
    "placement": st.sampled_from(["source", "high", "low", "identity"]),
}


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_random_edits_of_a_built_stream_get_one_verdict(data):
    stream = built(data.draw(st.sampled_from(list(KINDS))), data.draw(st.sampled_from(CONTAINERS)))
    options = {name: data.draw(some) for name, some in OPTIONS.items()}
    judged(data.draw(edits(stream)), **options)


@settings(max_examples=examples(10), deadline=None)
@given(data=st.data())
def test_random_edits_of_a_genuine_stream_get_one_verdict(data):
    stream = sample(data.draw(st.sampled_from(["x417-pv32.plain.libxc", "x417-pv64.live4.libxc"])))
    options = {name: data.draw(some) for name, some in OPTIONS.items()}
    judged(data.draw(edits(stream)), **options)


@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_random_words_in_page_tables_get_one_verdict(data):
    b = KINDS[data.draw(st.sampled_from(["pv32", "pv64"]))]()
    tables = [pfn for root in b.roots for pfn in b.chain(root)]
    flags = st.sampled_from([0, 1, 3, parts.PTE_RW, parts.PTE_RO, parts.PAE_ROOT, P | PSE, NX | 1])
    for _ in range(data.draw(st.integers(1, 12))):
        slot = data.draw(st.sampled_from([0, 1, 2, 3, 4, 255, 256, 271, 272, 427, 428, 511]))
        target = data.draw(st.integers(0, b.max_pfn + 1))
        b.table(data.draw(st.sampled_from(tables)))[slot] = parts.entry(target, data.draw(flags))
    for pfn in data.draw(st.lists(st.sampled_from(tables), max_size=2)):
        b.memory[pfn].type = data.draw(st.sampled_from([0, 1, 2, 3, 4, 9, 10, 11, 12, 15]))
    judged(b.build(), **{name: data.draw(some) for name, some in OPTIONS.items()})


# -- memory ------------------------------------------------------------------------------------------

# In a process that may not have much more address space than the imports take.
CONFINED = """
import resource, sys
from migrate import check
from migrate.building.builder import StreamBuilder
check(StreamBuilder.pv(4).build(), placement="high")  # what is imported late is imported now
check(StreamBuilder.hvm().build())
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = taken + {spare}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
report = check(sys.argv[1], placement="source")
print(report.verdict, report.failure.rule if report.failure else "-")
"""


def confined(stream: bytes, tmp_path: Path, spare: int) -> list[str]:
    """Verdict and failing rule of a stream that is checked with so many bytes to spare."""
    path = tmp_path / "stream"
    path.write_bytes(stream)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CONFINED).format(spare=spare), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout.split()


def with_length(kind: RecordType, length: int) -> bytes:
    stream = bytearray(built("pv32"))
    edge = next(at for at in record_offsets(bytes(stream)) if RECORD_HEADER.unpack_from(stream, at)[0] == kind)
    stream[edge + 4 : edge + 8] = length.to_bytes(4, "little")
    return bytes(stream)


def sparse_end() -> bytes:
    b = StreamBuilder.pv(4)
    body = P2M_HEADER.pack(0xFFFF_FFFF, 0xFFFF_FFFF) + bytes(8)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)
    return b.build()


def long_optional_data() -> bytes:
    b = StreamBuilder.pv(4)
    b.wrap("xl")
    b.xl["optional_data_len"] = 0xFFFF_FFFF
    return b.build()


GREEDY = {
    "a shared_info of 128 MiB": (lambda: with_length(RecordType.SHARED_INFO, 0x800_0000), "FRM-03"),
    "a record of 4 GiB": (lambda: with_length(RecordType.SHARED_INFO, 0xFFFF_FFFF), "FRM-02"),
    "pages of 128 MiB": (lambda: with_length(RecordType.PAGE_DATA, 0x7FF_FFF8), "FRM-03"),
    "a guest of 16 TiB": (sparse_end, "XRC-30"),
    "an xl config of 4 GiB": (long_optional_data, "CON-05"),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the address space")
@pytest.mark.parametrize("what", GREEDY)
def test_a_claim_costs_no_memory(what, tmp_path):
    make, rule = GREEDY[what]
    assert confined(make(), tmp_path, 16 << 20) == ["refuse", rule]


@pytest.mark.slow
def test_a_p2m_list_for_all_pfns_is_judged(tmp_path):
    b = StreamBuilder.pv(8)
    body = b.record(RecordType.X86_PV_P2M_FRAMES).body
    listed = int.from_bytes(body[P2M_HEADER.size :][:8], "little")
    entries = [listed.to_bytes(8, "little")] * (2**32 // b.pfns_per_p2m_page)
    body[:] = P2M_HEADER.pack(0, 0xFFFF_FFFF) + b"".join(entries)
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    report = check(path)
    # Accepted, as measured of a list that names one page twice; and corrupt.
    assert report.verdict == "accept"
    assert {"XRC-31", "XRC-40"} <= {f.rule.id for f in report.findings}


@pytest.mark.parametrize("left", [100, 5000, 30_000])
@pytest.mark.parametrize("command", [["check"], ["trace"], ["show", "--tables"], ["corpus", "scrub", "-o", "scrubbed"]])
def test_a_file_that_becomes_shorter_before_its_tables_are_read_is_told(tmp_path, monkeypatch, command, left):
    path = tmp_path / "stream"
    path.write_bytes(KINDS["pv64"]().build())
    reread = FileTransport.reread

    def shortened(self, ranges):
        os.truncate(path, left)
        return reread(self, ranges)

    monkeypatch.setattr(FileTransport, "reread", shortened)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*command, str(path)])
    assert done.exit_code == 2
    assert f"the file has become shorter while it was read: {left} bytes" in done.stderr
    assert not Path("scrubbed").exists()
