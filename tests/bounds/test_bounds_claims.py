"""What a stream claims costs nothing: only bytes that are there do."""

import os

import pytest
from hostile import OPTIONAL, before_end, record

from migrate.building import parts
from migrate.building.builder import StreamBuilder
from streams.pages import PageType
from streams.wire.framing import (
    EMULATOR_HEADER,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PARAMS_HEADER,
    RECORD_HEADER,
    LibxlRecordType,
    RecordType,
    XapiBlockId,
)
from streams.wire.legacy import MAX_P2M_SIZE, Chunk
from streams.wire.vcpu import CONTEXT

HUGE = 0xFFFF_FFFF
LARGEST_RECORD = 0x800_0000
MAX_PFN = (1 << 52) - 1
ALL_PFNS = HUGE


def rules(ended):
    """Ids of the rules told of in a text report, in order."""
    return [line.split()[0] for line in ended.out.splitlines() if line[:3].isupper() and line[3:4] == "-"]


def claiming(kind, length, guest):
    """A stream in which the first record of a type says that it is so long."""
    b = guest()
    b.record(kind).length = length
    return b.build()


PV_RECORDS = [
    RecordType.X86_PV_INFO,
    RecordType.X86_PV_P2M_FRAMES,
    RecordType.PAGE_DATA,
    RecordType.SHARED_INFO,
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_CPUID_POLICY,
    RecordType.X86_TSC_INFO,
    RecordType.STATIC_DATA_END,
    RecordType.END,
]
HVM_RECORDS = [RecordType.PAGE_DATA, RecordType.HVM_CONTEXT, RecordType.HVM_PARAMS, RecordType.X86_MSR_POLICY]
GUESTS = {"pv": (StreamBuilder.pv, PV_RECORDS), "hvm": (StreamBuilder.hvm, HVM_RECORDS)}
RECORDS = [(guest, kind) for guest, (_, kinds) in GUESTS.items() for kind in kinds]


@pytest.mark.parametrize(("guest", "kind"), RECORDS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize(("length", "rule"), [(HUGE, "FRM-02"), (LARGEST_RECORD, "FRM-03")])
def test_a_record_that_claims_gigabytes_is_refused(check, guest, kind, length, rule):
    ended = check(claiming(kind, length, GUESTS[guest][0]))
    assert ended.code == 1
    assert rule in rules(ended)


def test_a_policy_that_claims_gigabytes_is_refused(check):
    b = StreamBuilder.pv(8)
    b.record(RecordType.X86_CPUID_POLICY).length = HUGE // 24 * 24
    assert check(b.build()).code == 1


@pytest.mark.parametrize("container", ["libxl", "xl"])
@pytest.mark.parametrize("kind", [LibxlRecordType.EMULATOR_CONTEXT, LibxlRecordType.EMULATOR_XENSTORE_DATA])
def test_what_a_libxl_record_that_claims_gigabytes_lacks_is_not_made(check, container, kind):
    b = StreamBuilder.hvm()
    b.wrap(container)
    b.libxl_after.insert(0, parts.Rec(kind, bytearray(EMULATOR_HEADER.pack(2, 0)), length=HUGE))
    ended = check(b.build())
    assert ended.code in (0, 1)  # libxl takes what is missing for zeros: it depends on what they stand for
    assert "CON-35" in rules(ended)


def test_optional_data_of_an_xl_file_that_claims_gigabytes_is_cut_short(check):
    b = StreamBuilder.pv(4)
    b.wrap("xl")
    b.xl["optional_data_len"] = HUGE
    ended = check(b.build())
    assert (ended.code, rules(ended)[0]) == (1, "CON-05")


@pytest.mark.parametrize("kind", [XapiBlockId.XENOPS, XapiBlockId.QEMU_TRAD, 0xFFF])
def test_a_xapi_block_that_claims_all_there_is_is_cut_short(check, kind):
    b = StreamBuilder.hvm()
    b.wrap("xapi")
    data = b.build()
    head = len(b.xapi_signature)
    claim = int(kind).to_bytes(8, "little") + (2**64 - 1).to_bytes(8, "little")
    ended = check(data[:head] + claim + data[head + len(claim) :])
    assert (ended.code, "FRM-03" in rules(ended)) == (1, True)


@pytest.mark.parametrize("guest", [lambda: StreamBuilder.pv(4), lambda: StreamBuilder.pv(8), StreamBuilder.hvm])
def test_a_count_of_all_pfn_words_is_refused(check, guest):
    b = guest()
    PAGE_DATA_HEADER.pack_into(b.record(RecordType.PAGE_DATA).body, 0, HUGE, 0)
    assert "REC-03" in rules(check(b.build()))


def test_a_count_of_all_hvm_params_is_refused(check):
    b = StreamBuilder.hvm()
    PARAMS_HEADER.pack_into(b.record(RecordType.HVM_PARAMS).body, 0, HUGE, 0)
    assert "REC-108" in rules(check(b.build()))


@pytest.mark.parametrize("kind", [PageType.NOTAB, PageType.XTAB])
def test_the_highest_pfn_word_of_an_hvm_guest_is_refused(check, kind):
    b = StreamBuilder.hvm()
    page = bytes(4096) if kind == PageType.NOTAB else None
    b.insert(RecordType.PAGE_DATA, parts.page_data([(MAX_PFN, kind, page)]), before=RecordType.HVM_CONTEXT)
    assert "REC-08" in rules(check(b.build()))


@pytest.mark.parametrize("width", [4, 8])
def test_a_p2m_to_the_last_pfn_is_refused(check, width):
    b = StreamBuilder.pv(width)
    P2M_HEADER.pack_into(b.record(RecordType.X86_PV_P2M_FRAMES).body, 0, 0, ALL_PFNS)
    assert "REC-42" in rules(check(b.build()))


@pytest.mark.parametrize("width", [4, 8])
def test_a_p2m_that_reaches_the_last_pfn_over_a_gap_makes_no_array_of_it(check, width):
    b = StreamBuilder.pv(width)
    body = P2M_HEADER.pack(ALL_PFNS, ALL_PFNS) + bytes(P2M_ENTRY_SIZE)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)
    b.insert(RecordType.PAGE_DATA, parts.page_data([(ALL_PFNS, PageType.XTAB, None)]), before=RecordType.SHARED_INFO)
    assert check(b.build()).code in (1, 3)


def test_page_tables_that_name_the_last_pfn_make_no_array_of_it(check):
    b = StreamBuilder.pv(8)
    body = P2M_HEADER.pack(ALL_PFNS, ALL_PFNS) + bytes(P2M_ENTRY_SIZE)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)
    b.table(b.chain(b.roots[0])[-1])[:] = parts.entry(ALL_PFNS, parts.PTE_RW)
    assert check(b.build()).code in (1, 3)


@pytest.mark.parametrize("id", [8192, 0x7FFF_FFFF, HUGE])
def test_a_vcpu_of_a_huge_number_makes_no_list_of_those_below(check, id):
    b = StreamBuilder.pv(4)
    b.duplicate(RecordType.X86_PV_VCPU_BASIC).body[0:4] = id.to_bytes(4, "little")
    assert "ORD-25" in rules(check(b.build()))


@pytest.mark.parametrize(
    ("vcpus", "code"), [("9" * 18, 1), ("9" * 300, 0), ("9" * 5000, 0), ("9" * (3 << 20), 0), ("-1", 1), ("1e999", 0)]
)
def test_a_config_with_a_strange_number_of_vcpus_is_read_without_loops_over_it(check, vcpus, code):
    b = StreamBuilder.pv(8)
    b.wrap("xl")
    b.xl_config = b'{"c_info": {"type": "pv"}, "b_info": {"max_vcpus": %b, "type.pv": {}}}' % vcpus.encode()
    assert check(b.build()).code == code


# -- streams from before 4.6 ---------------------------------------------------------------------------


def legacy(tail, p2m_size=0x800, context=4):
    """A 64-bit toolstack's PV stream: extended info with one vcpu context, and what is to follow its p2m list."""
    word = 8
    size = CONTEXT[context].size
    block = b"vcpu" + size.to_bytes(4, "little") + bytes(size)
    info = len(block).to_bytes(4, "little") + block
    frames = bytes(-(-p2m_size * context // 4096) * word) if p2m_size < 1 << 24 else b""
    return p2m_size.to_bytes(word, "little") + b"\xff" * word + info + frames + tail


CHUNKS = {
    "a batch of many pages": (0x7FFF_FFFF).to_bytes(4, "little"),
    "a batch of the most pages": (1024).to_bytes(4, "little"),
    "an unknown chunk": (-(2**31)).to_bytes(4, "little", signed=True),
    "a toolstack's chunk": int(Chunk.TOOLSTACK).to_bytes(4, "little", signed=True) + b"\xff" * 4,
    "vcpus": int(Chunk.VCPU_INFO).to_bytes(4, "little", signed=True) + b"\xff" * 8,
    "unmapped pfns": bytes(4) + b"\xff" * 4,
}


@pytest.mark.parametrize("what", CHUNKS)
def test_claims_of_a_legacy_stream_cost_nothing(check, what):
    ended = check(legacy(CHUNKS[what] + bytes(64)))
    assert (ended.code, "pre-4.6" in ended.out) == (3, True)


def test_the_largest_legacy_guest_costs_nothing(check):
    ended = check(legacy(b"", MAX_P2M_SIZE))
    assert (ended.code, "pre-4.6" in ended.out) == (3, True)


def test_extended_info_of_gigabytes_costs_nothing(check):
    ended = check((0x800).to_bytes(8, "little") + b"\xff" * 12 + b"extv\xff\xff\xff\xff")
    assert (ended.code, "pre-4.6" in ended.out) == (3, True)


# -- bytes that are there ---------------------------------------------------------------------------------


BODIES = {
    RecordType.SHARED_INFO: (1, "REC-100"),
    RecordType.X86_TSC_INFO: (1, "REC-101"),
    RecordType.X86_PV_VCPU_BASIC: (3, None),
    RecordType.X86_PV_VCPU_XSAVE: (3, None),
    RecordType.X86_CPUID_POLICY: (3, None),
    RecordType.END: (0, "FRM-10"),
    OPTIONAL: (0, "FRM-06"),
}


@pytest.mark.parametrize("kind", BODIES, ids=str)
def test_a_body_of_a_hundred_mebibytes_is_not_taken_in(confinement, tmp_path, kind):
    code, rule = BODIES[kind]
    path = tmp_path / "stream"
    _with_hole(path, StreamBuilder.pv(8).build(), kind, 100 << 20)
    # As if the hole were not part of it: less is allowed than the law would.
    ended = confinement.run(["check", "-v", path], 0)
    assert ended.code == code
    assert rule is None or rule in rules(ended)
    assert code != 3 or "no more than 16 MiB are read" in ended.out


def test_an_hvm_context_of_a_hundred_mebibytes_is_not_taken_in(confinement, tmp_path):
    path = tmp_path / "stream"
    _with_hole(path, StreamBuilder.hvm().build(), RecordType.HVM_CONTEXT, 100 << 20)
    ended = confinement.run(["check", "-v", path], 0)
    assert ended.code == 3
    assert "no more than 16 MiB are read" in ended.out


def test_a_hundred_mebibytes_of_pfn_words_are_not_taken_in(confinement, tmp_path):
    path = tmp_path / "stream"
    count = (100 << 20) // 8
    stream = StreamBuilder.hvm().build()
    head = RECORD_HEADER.pack(RecordType.PAGE_DATA, PAGE_DATA_HEADER.size + 8 * count) + PAGE_DATA_HEADER.pack(count, 0)
    with path.open("wb") as out:
        out.write(stream[:-8] + head)
        out.seek(8 * count, 1)
        out.write(stream[-8:])
    ended = confinement.run(["check", "-v", path], 0)
    assert ended.code == 3
    assert "pfn words: no more than 262144 are read" in ended.out


def _with_hole(path, stream, kind, length):
    """Write a stream with one more record, of zeros, before its END."""
    with path.open("wb") as out:
        out.write(stream[:-8] + RECORD_HEADER.pack(kind, length))
        out.seek(length, 1)
        out.write(stream[-8:])


def test_records_of_no_content_are_as_cheap_as_others(check):
    empty = b"".join(record(kind) for kind in PV_RECORDS if kind != RecordType.END)
    assert check(before_end(StreamBuilder.pv(8).build(), empty * 1000)).code == 1


@pytest.mark.slow  # the server begins anew
def test_a_command_that_takes_no_processor_time_is_found_to_hang(confinement, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "never written")
    with monkeypatch.context() as patch:
        patch.setattr("confined.PATIENCE", 0.5)
        with pytest.raises(AssertionError, match="it hangs"):
            confinement.run(["check", "-"], 0, stdin=str(tmp_path / "never written"))
    assert confinement.check(StreamBuilder.hvm().build()).code == 0
