"""Every byte of the headers of real streams is edited, and a sample of all others: what the check makes of it.

By default a sample of the edits is made; `-m slow` makes all, more than 100,000.
"""

import random
from dataclasses import dataclass
from functools import cache

import pytest
from project import SAMPLES

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.inspection.logbook import Layer
from migrate.inspection.reading import inspect
from streams.opening import open_transport
from streams.wire.framing import PAGE_DATA_HEADER, PFN_WORD_SIZE, RECORD_HEADER, VCPU_HEADER, RecordType

pytestmark = pytest.mark.slow

PV = sorted(path.name for path in SAMPLES.glob("*.zst") if "pvh" not in path.name)
HVM = ["x417-pvh.xl.zst", "x417-pvh.remus.libxc.zst"]
SMALL = ["pv4", "pv8", "hvm", "pv4 in xl", "hvm in libxl"]

QUESTION = {"target": "4.20", "placement": "high"}
VCPU_RECORDS = (
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
)
# Told at a record that depends on later ones: the p2m on the pages that it names, a CHECKPOINT on there being no END.
DEPENDS_ON_LATER = {"XRC-30", "XRC-40", "ORD-19"}
# Every checkpoint brings these again: where the later one is spoiled, the earlier one counts.
REPLACED_BY_LATER = {*(kind.name for kind in VCPU_RECORDS), "SHARED_INFO", "X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS"}


@dataclass(frozen=True)
class Subject:
    """A stream to edit, its unedited report, the bytes of its headers, and where its records begin."""

    data: bytearray
    findings: frozenset
    headers: list
    others: list
    starts: list
    checkpointed: bool


def heads(entry, body):
    """Offsets of the bytes of an entry that frame it, or that say how to read what follows."""
    if entry.type is None:
        return range(entry.offset, entry.offset + min(entry.length, 48))
    start = range(entry.offset, entry.body)
    if entry.layer is not Layer.LIBXC:
        return [*start, *range(entry.body, entry.body + min(entry.length, 8))]
    match entry.type:
        case RecordType.X86_PV_INFO | RecordType.X86_PV_P2M_FRAMES:
            return range(entry.offset, entry.body + entry.length)
        case RecordType.PAGE_DATA:
            return [*start, *range(entry.body, entry.body + min(entry.length, PAGE_DATA_HEADER.size))]
        case kind if kind in VCPU_RECORDS:
            return [*start, *range(entry.body, entry.body + min(entry.length, VCPU_HEADER.size))]
    return start


def identity(finding):
    return (finding.rule.id, finding.offset, finding.pfn, finding.vcpu, finding.slot, finding.message, finding.count)


@cache
def subject(name):
    if name in SMALL:
        kind, _, container = name.partition(" in ")
        b = StreamBuilder.hvm(vcpus=2) if kind == "hvm" else StreamBuilder.pv(int(kind[2:]), vcpus=2, roots=2)
        b.wrap(container or "libxc")
        data = bytearray(b.build())
    else:
        with open_transport(SAMPLES / name) as transport:
            data = bytearray(transport.give(1 << 30))

    def places(inspection):
        headers, others = [], []
        for entry in inspection.log:
            framing = heads(entry, data)
            headers += framing
            # Contents: of page data the pfn words and the pages' first entries, of all else everything.
            rest = range(entry.body, entry.body + entry.length)
            if entry.is_pages:
                rest = range(entry.body, entry.body + min(entry.length, 1024 * PFN_WORD_SIZE))
            others.append(rest)
        return headers, others, [entry.offset for entry in inspection.log], inspection.report

    headers, others, starts, report = inspect(bytes(data), **QUESTION, then=places)
    return Subject(
        data,
        frozenset(map(identity, report.findings)),
        headers,
        [r for r in others if r],
        sorted(starts),
        report.stream.checkpoints > 0,
    )


def edited(stream, offset, value):
    """The report of the stream with one byte changed."""
    before = stream.data[offset]
    stream.data[offset] = value
    try:
        return check(stream.data, **QUESTION)
    finally:
        stream.data[offset] = before


def judge_edit(name, stream, offset, value, *, twice):
    where = f"{name}: byte {offset:#x} set to {value:#04x} (was {stream.data[offset]:#04x})"
    report = edited(stream, offset, value)  # whatever it raises fails the test
    assert report.verdict in ("accept", "refuse", "unjudged"), where
    if twice:
        again = edited(stream, offset, value)
        assert list(map(identity, again.findings)) == list(map(identity, report.findings)), where
        assert again.verdict == report.verdict, where
    # What an edit changes shows in its own record or in later ones, never in earlier ones.
    start = max((s for s in stream.starts if s <= offset), default=0)
    for finding in report.findings:
        early = finding.offset is not None and finding.offset < start
        again = stream.checkpointed and finding.record_type in REPLACED_BY_LATER
        known = identity(finding) in stream.findings or finding.rule.id in DEPENDS_ON_LATER
        if early and not known and not again:
            pytest.fail(f"{where}: {finding.rule.id} at {finding.offset:#x}, before the record: {finding.message}")


def header_edits(stream, values):
    for offset in stream.headers:
        before = stream.data[offset]
        for value in values(before):
            if value != before:
                yield offset, value


def other_edits(stream, number, seed):
    chance = random.Random(seed)
    for _ in range(number):
        offset = chance.choice(chance.choice(stream.others))
        if offset < len(stream.data):
            value = chance.choice((stream.data[offset] ^ 1 << chance.randrange(8), chance.randrange(256)))
            if value != stream.data[offset]:
                yield offset, value


def telling(before):
    """A bit at either end, all bits, none, all ones."""
    return sorted({before ^ 1, before ^ 0x80, before ^ 0xFF, 0, 0xFF})


def sweep(name, edits, *, every=1):
    stream = subject(name)
    made = 0
    for number, (offset, value) in enumerate(edits(stream)):
        if number % every == 0:
            judge_edit(name, stream, offset, value, twice=made % 16 == 0)
            made += 1
    return made


def test_a_subject_knows_its_records():
    stream = subject("pv4")
    assert stream.starts[0] == 0
    assert len(stream.headers) > 200
    assert RECORD_HEADER.size == 8


@pytest.mark.parametrize("name", SMALL)
def test_edits_of_small_streams_are_told_where_they_are(name):
    made = sweep(name, lambda stream: header_edits(stream, telling), every=4)
    made += sweep(name, lambda stream: other_edits(stream, 200, seed=1))
    assert made > 250


@pytest.mark.parametrize("name", [*PV[::4], HVM[0]])
def test_edits_of_real_streams_are_told_where_they_are(name):
    assert sweep(name, lambda stream: other_edits(stream, 60, seed=2)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_value_of_every_header_byte_of_small_streams(name):
    assert sweep(name, lambda stream: header_edits(stream, lambda before: range(256))) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", PV)
def test_every_header_byte_of_real_streams(name):
    assert sweep(name, lambda stream: header_edits(stream, telling)) > 700


@pytest.mark.slow
@pytest.mark.parametrize("name", PV)
def test_a_thousand_other_bytes_of_real_streams(name):
    assert sweep(name, lambda stream: other_edits(stream, 1100, seed=3)) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", HVM)
def test_header_bytes_of_real_hvm_streams(name):
    assert sweep(name, lambda stream: header_edits(stream, telling), every=40) > 800
