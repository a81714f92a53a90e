"""Where a finding says the trouble is: offset, record, pfn, whose call it is, and in which releases it counts."""

import signal
import struct

import pytest
from asking import check

from migrate.building.builder import StreamBuilder
from migrate.destination.destination import Destination
from migrate.destination.releases import RELEASES
from migrate.judging.check import judge
from migrate.judging.report import Report
from migrate.reports.verdict.trace import describe
from migrate.rules.catalogue import RULES
from migrate.rules.cross import NEEDS_VERIFY
from migrate.rules.declaring import Effect
from migrate.rules.findings import Finding
from migrate.rules.hypervisor import NEEDS_PLACEMENT
from migrate.toolstack import restore, session
from streams.wire.framing import PAGE_DATA_HEADER, RecordType

# Told of the guest as a whole, at END, though the rule is of records or of their order.
OF_THE_GUEST = {
    *("ORD-08", "ORD-14", "ORD-15", "ORD-17", "ORD-18", "ORD-24", "ORD-25"),
    *("REC-21", "REC-25", "REC-26", "REC-27"),
}
# Told of bytes that are no record.
OF_NO_RECORD = {"FRM-01", "FRM-08", "FRM-09"}
OF_RECORDS = [
    rule
    for rule in RULES.values()
    if rule.violation and rule.id[:3] in ("FRM", "ORD", "REC") and rule.id not in OF_THE_GUEST | OF_NO_RECORD
]


def violated(rule: str) -> tuple[StreamBuilder, Report]:
    b = StreamBuilder.pv(4)
    RULES[rule].violation(b)
    newest = [release for release in RELEASES if RULES[rule].in_force(release)][-1].name
    placement = NEEDS_PLACEMENT.get(rule, "source")
    return b, check(b.build(), target=newest, placement=placement, verify=rule in NEEDS_VERIFY)


def the(rule: str, report: Report) -> Finding:
    return next(finding for finding in report.findings if finding.rule.id == rule)


def ids(report: Report) -> list[str]:
    return [finding.rule.id for finding in report.findings]


# -- headers -----------------------------------------------------------------------------------------

# Field of the image header (24 bytes) or the domain header after it, a value, the rule, and where the field stands.
FIELDS = [
    ("image", "version", 4, "HDR-04", 12),
    ("image", "options", 2, "HDR-06", 16),
    ("image", "reserved1", 1, "HDR-07", 18),
    ("image", "reserved2", 1, "HDR-07", 18),
    ("domain", "type", 3, "HDR-09", 24),
    ("domain", "page_shift", 13, "HDR-10", 28),
    ("domain", "page_shift", 44, "HDR-10", 28),
    ("domain", "reserved", 1, "HDR-11", 30),
    ("domain", "xen_minor", 13, "HDR-13", 32),
]


@pytest.mark.parametrize("container", ["libxc", "xl"])
@pytest.mark.parametrize(("header", "field", "value", "rule", "at"), FIELDS)
def test_a_wrong_header_field_is_told_where_it_stands(header, field, value, rule, at, container):
    b = StreamBuilder.pv(4)
    getattr(b, header)[field] = value
    b.wrap(container)
    stream = b.build()
    found = the(rule, check(stream))
    assert found.offset == stream.index(b"\xff" * 8) + at
    assert (found.step, found.call, found.record) == ("headers", "libxc", None)
    if field == "page_shift" or value == 2:
        assert str(value) in found.message


def test_a_version_3_image_is_refused_up_to_4_13():
    stream = StreamBuilder.pv(4).build()
    refused = check(stream, target="4.13")
    assert refused.failure is not None
    assert (refused.failure.rule, refused.failure.step) == ("HDR-04", "headers")
    assert the("HDR-04", refused).offset == 12
    assert "HDR-04" not in ids(check(stream, target="4.14"))


@pytest.mark.parametrize(
    ("container", "rule", "call", "step"),
    [
        ("xl", "CON-01", "xl", "headers"),
        ("libxl", "CON-09", "libxl", "headers"),
        ("xapi", "CON-30", "xapi", "headers"),
        ("xl", "HDR-03", "libxc", "headers"),
        ("xl", "FRM-03", "libxc", "record"),
    ],
)
def test_a_broken_wrapper_is_its_readers_to_refuse(container, rule, call, step):
    b = StreamBuilder.pv(4)
    b.wrap(container)
    match rule:
        case "CON-01":
            b.xl["magic"] = b"Xen saved domain, xl format\n \0 \n!"[:32]
        case "CON-09":
            b.libxl["version"] = 3
        case "CON-30":
            b.xapi_signature = b"XenSavedDomv2-\r"
        case "HDR-03":
            b.image["id"] = 1
        case "FRM-03":
            b.cut = -40
    failure = check(b.build()).failure
    assert failure is not None
    assert (failure.rule, failure.call, failure.step) == (rule, call, step)


@pytest.mark.parametrize(("container", "rule"), [("libxc", "FRM-09"), ("libxl", "CON-22"), ("xl", "CON-22")])
def test_what_follows_the_end_is_told_by_who_reads_it(container, rule):
    b = StreamBuilder.pv(4)
    b.wrap(container)
    length = len(b.build())
    b.trailing = bytes(5)
    found = the(rule, check(b.build()))
    assert found.offset == length
    assert found.message.startswith("5 bytes ")


# -- records -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", OF_RECORDS, ids=lambda rule: rule.id)
def test_what_is_told_of_a_record_names_it(rule):
    b, report = violated(rule.id)
    found = the(rule.id, report)
    at = b.build().index(b.headers()) + len(b.headers())
    assert found.record is not None
    if b.container == "libxc":
        at += sum(len(record.build()) for record in b.records[: found.record])
        record = b.records[found.record]
        assert at <= found.offset < at + len(record.build())
        known = record.type in set(RecordType)
        assert found.record_type == (RecordType(record.type).name if known else f"0x{record.type:08x}")
    assert found.signal in (None, signal.SIGABRT, signal.SIGSEGV)
    assert str(found.message).partition(" ")[2]


@pytest.mark.parametrize(("length", "verdict"), [(8 << 20, "accept"), ((8 << 20) + 1, "refuse")])
def test_a_record_may_be_8_mib_long_before_4_10(length, verdict):
    b = StreamBuilder.pv(4)
    b.image["version"], b.domain["xen_minor"] = 2, 9
    b.insert(0x8000_0001, bytes(length))
    stream = b.build()
    assert check(stream, target="4.10").verdict == "accept"
    report = check(stream, target="4.9")
    assert report.verdict == verdict
    assert (report.failure and report.failure.rule) == (None if verdict == "accept" else "FRM-02")


def test_padding_is_told_where_it_begins():
    b = StreamBuilder.pv(4)
    record = b.record(RecordType.X86_PV_VCPU_EXTENDED)
    del record.body[-4:]
    stream = bytearray(b.build())
    found = stream.index(record.build()) + 8 + len(record.body)
    stream[found + 1] = 1
    assert the("FRM-04", check(bytes(stream))).offset == found


@pytest.mark.parametrize(
    ("guest", "kind", "rule", "words"),
    [
        (StreamBuilder.hvm, RecordType.X86_PV_INFO, "FRM-11", "a HVM restore does not handle it"),
        (StreamBuilder.pv, RecordType.HVM_CONTEXT, "FRM-11", "a PV restore does not handle it"),
        (StreamBuilder.pv, RecordType.TOOLSTACK, "FRM-12", "no restore handles it"),
    ],
)
def test_a_stray_record_is_told_who_does_not_want_it(guest, kind, rule, words):
    b = guest()
    b.insert(kind, bytes(8))
    found = the(rule, check(b.build()))
    assert found.message == f"record {kind.name}: {words}"


XTAB, ILLEGAL = 0xF << 60, 5 << 60
WRITTEN_THROUGH_NULL = (Effect.CRASH, 11)
OUT_OF_RANGE = (Effect.REFUSED, None)


@pytest.mark.parametrize(
    ("words", "count", "outcome"),
    [
        ([XTAB], 1, WRITTEN_THROUGH_NULL),
        ([XTAB, XTAB, XTAB], 3, WRITTEN_THROUGH_NULL),
        ([XTAB | 1], 1, OUT_OF_RANGE),
        ([XTAB, XTAB, XTAB | 1], 3, OUT_OF_RANGE),  # libxc looks at all pfns before it writes
        ([ILLEGAL], 1, OUT_OF_RANGE),
        ([0], 1, OUT_OF_RANGE),  # with data, which is missing
        ([XTAB], 2, OUT_OF_RANGE),
        ([], 0, OUT_OF_RANGE),
    ],
)
def test_pages_before_the_p2m_kill_libxc_only_if_all_of_a_sound_record_is_pfn_0(words, count, outcome):
    b = StreamBuilder.pv(4)
    b.drop(RecordType.X86_PV_P2M_FRAMES)
    words_of(b, *words)
    b.record(RecordType.PAGE_DATA).body[:4] = count.to_bytes(4, "little")
    found = the("ORD-03", check(b.build()))
    assert (found.effect, found.signal) == outcome


def words_of(b: StreamBuilder, *words: int) -> None:
    """Put a record of bare pfn words before the first pages."""
    body = struct.pack(f"<II{len(words)}Q", len(words), 0, *words)
    b.insert(RecordType.PAGE_DATA, body, before=RecordType.PAGE_DATA)


BEYOND = XTAB | 0x1_0000


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ((ILLEGAL | 3, BEYOND), ["REC-04"]),  # libxc looks no further
        ((BEYOND, ILLEGAL | 3), ["REC-07"]),
        ((BEYOND,), ["REC-07"]),
        ((ILLEGAL | 3,), ["REC-04"]),
    ],
)
def test_pfn_words_are_looked_at_in_order(words, rules):
    b = StreamBuilder.pv(4)
    words_of(b, *words)
    report = check(b.build())
    assert report.failure is not None
    assert [rule for rule in ids(report) if rule in ("REC-04", "REC-07")][:1] == rules
    if rules == ["REC-04"]:
        found = the("REC-04", report)
        assert found.pfn == 3
        assert "pfn 0x3 (word 0) has type 5" in found.message
        assert "REC-07" not in ids(report)


def test_a_page_of_type_xalloc_is_named():
    b = StreamBuilder.pv(4)
    words_of(b, XTAB | 2, 0xE << 60 | 3)
    found = the("REC-13", check(b.build()))
    assert found.pfn == 3
    assert found.message == "pfn 0x3 has type XALLOC"


@pytest.mark.parametrize(("count", "told"), [(1024, False), (1025, True)])
def test_a_batch_is_longer_than_savers_write_from_1025_pfns_on(count, told):
    b = StreamBuilder.pv(4)
    words_of(b, *[XTAB | b.absent_pfn] * count)
    assert ("REC-10" in ids(check(b.build()))) is told


# What is wrong with these their length alone tells, however long they are.
TOLD_BY_LENGTH = {
    RecordType.END: "FRM-10",
    RecordType.VERIFY: "FRM-10",
    RecordType.CHECKPOINT: "FRM-10",
    RecordType.STATIC_DATA_END: "FRM-10",
    RecordType.X86_TSC_INFO: "REC-101",
    RecordType.SHARED_INFO: "REC-100",
}


@pytest.mark.parametrize("kind", [*TOLD_BY_LENGTH, RecordType.X86_CPUID_POLICY, RecordType.X86_PV_VCPU_XSAVE])
def test_a_body_too_long_to_be_read_is_judged_if_its_length_tells_all(kind, monkeypatch):
    monkeypatch.setattr(restore, "LONGEST_BODY", 4096)
    b = StreamBuilder.pv(4)
    if kind in (RecordType.VERIFY, RecordType.CHECKPOINT):
        b.insert(kind, before=RecordType.END)
    b.record(kind).body[:] = bytes(4160)
    report = check(b.build())
    if kind in TOLD_BY_LENGTH:
        assert TOLD_BY_LENGTH[kind] in ids(report)
        assert report.verdict != "unjudged"
    else:
        assert report.verdict == "unjudged"
        assert report.reason is not None
        assert report.reason.startswith(f"{kind.name} of 4160 bytes: ")


@pytest.mark.parametrize(
    ("kind", "rule", "goes_on"),
    [
        (RecordType.X86_TSC_INFO, "REC-101", True),
        (RecordType.X86_CPUID_POLICY, "REC-104", True),
        (RecordType.X86_MSR_POLICY, "REC-105", True),
        (RecordType.SHARED_INFO, "REC-100", False),
    ],
)
def test_what_comes_at_end_is_told_after_a_refused_record_that_it_does_not_depend_on(kind, rule, goes_on):
    b = StreamBuilder.pv(4, roots=2)
    b.record(kind).body[:] = b"1"
    report = check(b.build(), target="4.20", placement="high")
    assert report.failure is not None
    assert report.failure.rule == rule
    assert ("HYP-22" in ids(report)) is goes_on


@pytest.mark.parametrize(
    ("guest", "kind"),
    [
        (StreamBuilder.pv, RecordType.X86_TSC_INFO),
        (StreamBuilder.pv, RecordType.SHARED_INFO),
        (StreamBuilder.hvm, RecordType.HVM_CONTEXT),
        (StreamBuilder.hvm, RecordType.HVM_PARAMS),
    ],
)
def test_state_that_comes_twice_is_told_at_the_second(guest, kind):
    b = guest()
    b.duplicate(kind)
    told = [finding for finding in check(b.build()).findings if finding.rule.id == "ORD-22"]
    second = [record.type for record in b.records].index(kind) + 1
    assert [(finding.record, finding.record_type) for finding in told] == [(second, kind.name)]


@pytest.mark.parametrize("kind", [RecordType.STATIC_DATA_END, RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY])
def test_a_record_of_version_3_is_unknown_to_those_who_read_only_version_2(kind):
    body = bytes(StreamBuilder.pv(4).record(kind).body)
    b = StreamBuilder.pv(4)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    b.insert(kind, body, after=RecordType.X86_PV_INFO)
    stream = b.build()
    assert the("REC-107", check(stream)).record == 1
    refused = check(stream, target="4.13").failure
    assert refused is not None
    assert (refused.rule, "FRM-05" in ids(check(stream, target="4.14"))) == ("FRM-05", False)


# -- hypercalls while records are read ---------------------------------------------------------------


def calls_of(b):
    """What Xen answers to the calls made while records are read."""
    return judge(b.build(), then=lambda j: [answer for _, answer in j.calls(Destination())])


def test_the_policy_is_set_in_one_call_and_tsc_as_its_record_comes():
    b = StreamBuilder.pv(4)
    answers = calls_of(b)
    assert [describe(answer.step, None) for answer in answers] == [
        "set_address_size(32 bit)",
        f"set_cpu_policy({len(b.cpuid_policy)} leaves, {len(b.msr_policy)} MSR)",
        f"settscinfo(mode 0, {b.tsc['khz']} kHz)",
    ]
    assert [answer.finding for answer in answers] == [None, None, None]


def test_a_call_that_is_refused_has_its_finding():
    b = StreamBuilder.pv(4)
    b.tsc["mode"] = 7
    RULES["REC-106"].violation(b)
    found = [(answer.step.call, answer.finding) for answer in calls_of(b)]
    refused = [(call, finding.rule.id, finding.errno) for call, finding in found if finding]
    assert refused == [("set_cpu_policy", "REC-106", "ERANGE"), ("settscinfo", "REC-102", "EINVAL")]
    assert all(finding.call == call for call, finding in found if finding)


POLICY = RecordType.X86_CPUID_POLICY


def unknown_leaf():
    """The body of a policy record that no release takes."""
    b = StreamBuilder.pv(4)
    RULES["REC-106"].violation(b)
    return bytes(b.record(POLICY).body)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("bodies", "refused"),
    [
        (["bad", "good"], False),
        (["good", "bad"], True),
        (["bad"], True),
        (["good", "late bad"], False),
        (["bad", "late good"], True),
    ],
)
def test_the_last_policy_before_the_end_of_the_static_data_counts(version, bodies, refused):
    good = bytes(StreamBuilder.pv(4).record(POLICY).body)
    b = StreamBuilder.pv(4)
    if version == 2:
        b.image["version"], b.domain["xen_minor"] = 2, 13
    else:
        b.records[:] = [record for record in b.records if record.type != POLICY]
    end = RecordType.X86_PV_P2M_FRAMES if version == 2 else RecordType.STATIC_DATA_END
    for body in bodies:
        content = unknown_leaf() if "bad" in body else good
        if body.startswith("late"):
            b.insert(POLICY, content, after=RecordType.X86_TSC_INFO)
        else:
            b.insert(POLICY, content, before=end)
    report = check(b.build(), target="4.20", placement="low")
    assert (report.failure and report.failure.rule) == ("REC-106" if refused else None)


def test_what_was_asked_before_is_not_asked_again():
    b = StreamBuilder.hvm()
    params = bytes(b.record(RecordType.HVM_PARAMS).body)
    before = len(calls_of(b))
    b.insert(RecordType.HVM_PARAMS, params, after=RecordType.HVM_PARAMS)
    assert len(calls_of(b)) == before


def test_a_stream_that_asks_for_too_much_is_not_judged(monkeypatch):
    monkeypatch.setattr(session, "MOST_CALLS", 2)
    report = check(StreamBuilder.pv(4).build(), placement="low")
    assert (report.verdict, report.reason) == ("unjudged", "more than 2 different hypercalls while records are read")


@pytest.mark.parametrize(
    ("mode", "refused_by"),
    [(0, []), (1, []), (2, []), (3, ["4.12", "4.13"]), (4, ["4.6", "4.11", "4.12", "4.13"])],
)
def test_tsc_modes_are_three_and_were_four(mode, refused_by):
    b = StreamBuilder.pv(4)
    b.image["version"], b.domain["xen_minor"] = 2, 5
    b.tsc["mode"] = mode
    stream = b.build()
    targets = ["4.6", "4.11", "4.12", "4.13"]
    assert [name for name in targets if "REC-102" in ids(check(stream, target=name))] == refused_by


# -- checkpoints -------------------------------------------------------------------------------------


def waiting(b: StreamBuilder) -> int:
    """Records between two checkpoints."""
    first, second = (i for i, record in enumerate(b.records) if record.type == RecordType.CHECKPOINT)
    return second - first - 1


@pytest.mark.parametrize(("spare", "verdict"), [(0, "accept"), (-1, "unjudged")])
def test_so_many_records_may_wait_for_a_checkpoint(spare, verdict, monkeypatch):
    b = StreamBuilder.pv(4)
    b.checkpoints = 2
    monkeypatch.setattr(restore, "MOST_BUFFERED", waiting(b) + spare)
    report = check(b.build(), placement="low")
    assert report.verdict == verdict
    if verdict == "unjudged":
        assert report.reason is not None
        assert report.reason.startswith(f"more than {waiting(b) - 1} records, or 32 MiB of them, wait for one")


@pytest.mark.parametrize(("spare", "verdict"), [(0, "accept"), (-1, "unjudged")])
@pytest.mark.parametrize("checkpoints", [2, 3])
def test_so_many_bytes_of_records_may_wait_for_a_checkpoint(checkpoints, spare, verdict, monkeypatch):
    b = StreamBuilder.pv(4)
    b.checkpoints = checkpoints
    first = [record.type for record in b.records].index(RecordType.CHECKPOINT)
    after = [record.type for record in b.records[first + 1 :]]
    one = b.records[first + 1 : first + 1 + after.index(RecordType.CHECKPOINT)]
    pages, others = ([r.body for r in one if (r.type == RecordType.PAGE_DATA) == kind] for kind in (True, False))
    held = sum(map(len, others)) + sum(
        8 * PAGE_DATA_HEADER.unpack_from(body)[0] for body in pages
    )  # of pages the words
    monkeypatch.setattr(restore, "MOST_BUFFERED_BYTES", held + spare)
    assert check(b.build(), placement="low").verdict == verdict


def test_a_record_too_long_after_a_checkpoint_makes_the_secondary_take_over():
    b = StreamBuilder.pv(4)
    b.checkpoints = 2
    b.records[-1].length = (128 << 20) + 1
    report = check(b.build(), placement="low")
    assert (report.verdict, the("FRM-02", report).effect, report.stream.checkpoints) == ("accept", Effect.SPEC, 1)


def test_a_stream_with_an_end_was_a_plain_one_all_along():
    b = StreamBuilder.pv(4, roots=2)
    b.insert(RecordType.CHECKPOINT, before=RecordType.END)
    report = check(b.build(), target="4.20", placement="high")
    assert report.failure is not None
    assert report.failure.rule == "ORD-19"
    assert "CHECKPOINT" in report.failure.message
    assert report.stream.checkpoints == 0
    assert "HYP-22" not in ids(report)  # libxc gives up before it would ask Xen for anything
