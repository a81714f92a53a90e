"""Many small things: time goes by the bytes, memory does not, and a report stays short."""

import json
import struct
from functools import partial

import pytest
from hostile import OPTIONAL, before_end, record, with_config, with_xenops, with_xenstore

from migrate.building import parts
from migrate.building.builder import StreamBuilder
from streams.pages import PageType
from streams.wire.framing import PARAMS_HEADER, TSC_INFO, VCPU_HEADER, LibxlRecordType, RecordType

pytestmark = pytest.mark.slow

FEW, MANY = 20_000, 1_000_000
HOW_MANY = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
LONGEST_REPORT = 40_000  # characters


def absent_page(b):
    return record(RecordType.PAGE_DATA, parts.page_data([(b.absent_pfn, PageType.XTAB, None)]))


def tsc(mode=0):
    return record(RecordType.X86_TSC_INFO, TSC_INFO.pack(mode, 0, 0, 0, 0))


def vcpu_part(id):
    return record(RecordType.X86_PV_VCPU_EXTENDED, VCPU_HEADER.pack(id, 0) + bytes(8))


def hvm_param(n):
    return record(RecordType.HVM_PARAMS, PARAMS_HEADER.pack(1, 0) + struct.pack("<QQ", n % 60, n))


GUEST = partial(StreamBuilder.pv, 8)
RECORDS = {
    "unknown optional": (GUEST, lambda b, n: record(OPTIONAL) * n, 0),
    "unknown mandatory": (GUEST, lambda b, n: record(0x33) * n, 1),
    "of the other kind of guest": (StreamBuilder.hvm, lambda b, n: vcpu_part(0) * n, 1),
    "empty": (GUEST, lambda b, n: record(RecordType.X86_PV_VCPU_BASIC) * n, 1),
    "clocks": (GUEST, lambda b, n: tsc() * n, 0),
    "VERIFY": (GUEST, lambda b, n: record(RecordType.VERIFY) * n, 0),
    "pages without data, PV": (GUEST, lambda b, n: absent_page(b) * n, 0),
    "pages without data, HVM": (StreamBuilder.hvm, lambda b, n: absent_page(b) * n, 0),
    "vcpus": (GUEST, lambda b, n: b"".join(map(vcpu_part, range(1, n))), 1),
    "HVM params": (StreamBuilder.hvm, lambda b, n: b"".join(map(hvm_param, range(n))), 1),
}


@pytest.mark.parametrize("count", HOW_MANY)
@pytest.mark.parametrize("what", RECORDS)
def test_a_flood_of_tiny_records_is_judged_in_bounded_memory(check, what, count):
    guest, flood, code = RECORDS[what]
    b = guest()
    ended = check(before_end(b.build(), flood(b, count)))
    assert ended.code == code
    assert len(ended.out) < LONGEST_REPORT


@pytest.mark.parametrize("form", ["json", "jsonl", "sarif", "junit", "github"])
def test_a_flood_of_findings_makes_a_short_report_in_any_format(check, form):
    ended = check(before_end(StreamBuilder.pv().build(), record(0x33) * 100_000), "--format", form)
    assert ended.code == 1
    assert len(ended.out) < LONGEST_REPORT
    if form == "json":
        found = json.loads(ended.out)["findings"]
        assert sum(one["count"] for one in found if one["rule"] == "FRM-05") == 100_000


def trace(confinement, path, flood):
    stream = before_end(GUEST().build(), flood)
    path.write_bytes(stream)
    return confinement.run(["trace", path], len(stream))


def test_a_trace_of_a_flood_is_short(confinement, tmp_path):
    ended = trace(confinement, tmp_path / "stream", tsc() * FEW)
    assert ended.code == 0
    assert len(ended.out.splitlines()) < 100
    assert f"not shown: {FEW} more calls, made while records are read" in ended.err


def test_a_flood_of_calls_that_each_set_something_else_is_not_traced(confinement, tmp_path):
    ended = trace(confinement, tmp_path / "stream", (tsc(1) + tsc(2)) * (FEW // 2))
    assert ended.code == 3
    assert not ended.out
    assert "more than 16384 different hypercalls" in ended.err


@pytest.mark.parametrize("what", ["clocks", "pages without data, PV", "vcpus", "HVM params"])
def test_a_filter_lets_a_flood_through_in_bounded_memory(confinement, tmp_path, what):
    guest, flood, code = RECORDS[what]
    b = guest()
    stream = before_end(b.build(), flood(b, FEW // 2))
    (tmp_path / "stream").write_bytes(stream)
    ended = confinement.run(["filter", "--quiet"], len(stream), stdin=str(tmp_path / "stream"))
    assert ended.code == code
    assert len(ended.out) > len(stream) // 2  # which is no text: not all of its bytes are characters


def test_a_filter_lets_checkpoints_through_in_bounded_memory(confinement, tmp_path):
    stream = checkpointed(StreamBuilder.hvm, record(RecordType.CHECKPOINT), FEW)
    (tmp_path / "stream").write_bytes(stream)
    assert confinement.run(["filter", "--quiet"], len(stream), stdin=str(tmp_path / "stream")).code == 0


def test_pages_sent_one_by_one_are_judged_in_bounded_memory(check):
    b = StreamBuilder.pv()
    one = record(RecordType.PAGE_DATA, parts.page_data([(b.gdt_pfn, PageType.NOTAB, parts.GDT[4].ljust(4096, b"\0"))]))
    assert check(before_end(b.build(), one * 5000)).code == 0


# -- checkpoints ---------------------------------------------------------------------------------------


def checkpointed(guest, between, count):
    b = guest()
    b.checkpoints = 1
    return b.build() + between * count


@pytest.mark.parametrize("count", HOW_MANY)
@pytest.mark.parametrize("guest", [StreamBuilder.pv, StreamBuilder.hvm])
def test_checkpoints_with_nothing_between_them_are_judged_once(check, guest, count):
    ended = check(checkpointed(guest, record(RecordType.CHECKPOINT), count), "--placement", "low")
    assert ended.code == 0
    assert len(ended.out) < LONGEST_REPORT


def test_of_very_many_checkpoints_the_first_and_the_last_are_told(check):
    ended = check(checkpointed(StreamBuilder.pv, record(RecordType.CHECKPOINT), 5000), "--format", "json")
    told = json.loads(ended.out)["checkpoints"]
    assert [one["checkpoint"] for one in told] == [*range(1, 501), *range(4502, 5002)]


def test_a_refused_checkpoint_in_the_middle_of_very_many_is_told(check):
    b = StreamBuilder.pv()
    b.checkpoints = 1
    bad = record(RecordType.X86_PV_VCPU_MSRS, VCPU_HEADER.pack(0, 0) + b"\xff" * 16) + record(RecordType.CHECKPOINT)
    quiet = record(RecordType.CHECKPOINT) * 2000  # nothing takes it back: all later ones are refused as well
    ended = check(b.build() + quiet + bad + quiet, "--format", "json", "--placement", "low")
    told = {one["checkpoint"]: one["verdict"] for one in json.loads(ended.out)["checkpoints"]}
    assert told[1] == "accept"
    assert told[2002] == "refuse"
    assert told[4002] == "refuse"


def test_more_records_than_a_checkpoint_can_hold_are_not_judged(check):
    ended = check(checkpointed(StreamBuilder.pv, tsc(), 70_000) + record(RecordType.CHECKPOINT))
    assert ended.code == 3
    assert "wait for one checkpoint" in ended.out


def test_more_bytes_than_a_checkpoint_can_hold_are_not_judged(check):
    large = record(RecordType.HVM_CONTEXT, bytes(15 << 20))
    ended = check(checkpointed(StreamBuilder.hvm, large, 4) + record(RecordType.CHECKPOINT))
    assert ended.code == 3
    assert "wait for one checkpoint" in ended.out


# -- the wrappers ----------------------------------------------------------------------------------------


# Those of more than a MiB are longer than any configuration, and are not read.
CONFIGS = {
    "lists in lists": (b"[" * (4 << 20), 0),
    "objects in objects": (b'{"a":' * (1 << 20), 0),
    "a hundred thousand levels, closed": (b"[" * 100_000 + b"]" * 100_000, 1),
    "many lists": (b"[" + b"[]," * (3 << 20) + b"[]]", 0),
    "as many lists as are read": (b"[" + b"[]," * ((1 << 20) // 3 - 2) + b"[]]", 1),
    "many objects": (b"[" + b'{"":0},' * (2 << 20) + b"{}]", 0),
    "a long text": (b'"' + b"\\u0041" * (2 << 20) + b'"', 0),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_strange_config_is_judged_in_bounded_memory(check, what):
    config, code = CONFIGS[what]
    ended = check(with_config(config))
    assert ended.code == code
    assert len(ended.out) < LONGEST_REPORT


XENOPS = {
    "deep": (b"(" * 500_000 + b")" * 500_000, 1),
    "open": (b"(" * (1 << 20), 1),
    "wide": (b"(" + b"()" * 500_000 + b")", 1),
    "one long atom": (b"((time " + b"a" * 900_000 + b")(word_size 64))", 0),
    "one long quoted atom": (b'((time "' + b"\\n" * 450_000 + b'")(word_size 64))', 0),
    "a quoted atom without end": (b'((time "' + b"\\n" * 450_000, 1),
    "a name twice": (b"((" + b"k" * 400_000 + b" a)(" + b"k" * 400_000 + b" b))", 1),
    "longer than any": (b"(" * (12 << 20), 0),
}


@pytest.mark.parametrize("what", XENOPS)
def test_a_strange_record_of_xenopsd_is_judged_in_bounded_memory(check, what):
    text, code = XENOPS[what]
    ended = check(with_xenops(text))
    assert ended.code == code
    assert len(ended.out) < LONGEST_REPORT


# Of 12 MiB only the beginning is read.
XENSTORE = {
    "nothing but ends": (bytes(12 << 20), 1),
    "short pairs": (b"ab\0cd\0" * (1 << 20), 0),
    "more short pairs": (b"ab\0cd\0" * (2 << 20), 3),
    "one long pair": (b"k" * (3 << 20) + b"\0" + b"v" * (3 << 20) + b"\0", 0),
    "a longer pair": (b"k" * (6 << 20) + b"\0" + b"v" * (6 << 20) + b"\0", 3),
    "a long absolute key": (b"/" + b"\x1b" * (12 << 20) + b"\0a\0", 1),
    "no end": (b"k" * (6 << 20), 1),
    "no end in sight": (b"k" * (12 << 20), 3),
}


@pytest.mark.parametrize("what", XENSTORE)
def test_xenstore_data_of_many_mebibytes_is_judged_in_bounded_memory(check, what):
    data, code = XENSTORE[what]
    ended = check(with_xenstore(data))
    assert ended.code == code
    assert len(ended.out) < LONGEST_REPORT


@pytest.mark.parametrize("kind", [LibxlRecordType.EMULATOR_CONTEXT, LibxlRecordType.CHECKPOINT_END, 0x55])
def test_a_flood_of_libxl_records_is_judged_in_bounded_memory(check, kind):
    b = StreamBuilder.hvm()
    b.wrap("libxl")
    body = parts.DEVICE_MODEL if kind == LibxlRecordType.EMULATOR_CONTEXT else b""
    ended = check(before_end(b.build(), record(kind, body) * FEW))
    assert ended.code in (0, 1)
    assert len(ended.out) < LONGEST_REPORT


def test_a_flood_of_xapi_blocks_is_judged_in_bounded_memory(check):
    b = StreamBuilder.hvm()
    b.wrap("xapi")
    b.xapi_blocks[1:1] = [(0xFFF, b"")] * FEW
    ended = check(b.build())
    assert ended.code in (0, 1)
    assert len(ended.out) < LONGEST_REPORT


def test_a_flood_of_save_entries_is_judged_in_bounded_memory(check):
    b = StreamBuilder.hvm()
    context = b.record(RecordType.HVM_CONTEXT).body
    context[-8:-8] = struct.pack("<HHI", 99, 0, 0) * 500_000
    ended = check(b.build())
    assert ended.code == 1
    assert len(ended.out) < LONGEST_REPORT
