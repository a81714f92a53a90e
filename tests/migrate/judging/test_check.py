"""Verdicts on small built guests, and laws that hold for every stream however it is fed."""

import gzip
import io
import json
import lzma
import signal
from itertools import pairwise

import pytest
import zstandard
from asking import Checker, check, through_a_pipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import SAMPLES

from migrate.building import parts
from migrate.building.builder import StreamBuilder
from migrate.judging.report import Report
from migrate.judging.report_json import report_object
from migrate.reports.verdict.sentences import facts_told
from migrate.rules.catalogue import RULES
from migrate.rules.order import LAW, Guests, Law
from streams.pages import PageType
from streams.wire.framing import FREE_RECORD_TYPE, LIBXL_HEADER, LIBXL_IDENT, LIBXL_VERSION, RecordType
from streams.wire.msrs import Msr
from streams.wire.paging import PCD

AT_4_GIB = 0x100000


def failure(b: StreamBuilder, **options) -> tuple:
    """Rule, step, call, vcpu, pfn and errno of what stops a restore."""
    report = check(b.build(), **options)
    assert report.verdict == "refuse"
    stop = report.failure
    assert stop is not None
    return stop.rule, stop.step, stop.call, stop.vcpu, stop.pfn, stop.errno


def ids(report: Report) -> list[str]:
    return [finding.rule.id for finding in report.findings]


def found(b: StreamBuilder, **options) -> set[str]:
    return set(ids(check(b.build(), **options)))


# -- the 4 GiB rule ----------------------------------------------------------------------------------

HIGH_420 = {"target": "4.20", "placement": "high"}


def test_vcpu0_root_above_4g_passes_by_the_slack():
    assert check(StreamBuilder.pv(4).build(), **HIGH_420).verdict == "accept"


def test_a_root_of_vcpu_1_above_4g_fails_the_context_of_vcpu_1():
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    assert failure(b, **HIGH_420) == ("HYP-22", "context", "setvcpucontext", 1, b.roots[1], "ERANGE")


def test_vcpus_on_one_root_pass_by_the_slack_together():
    assert check(StreamBuilder.pv(4, vcpus=4).build(), **HIGH_420).verdict == "accept"


def test_with_one_vcpu_the_first_other_pin_in_pfn_order_fails():
    b = StreamBuilder.pv(4, roots=3)
    assert failure(b, **HIGH_420) == ("HYP-22", "pin", "mmuext_op", None, b.roots[1], "ERANGE")


def test_pins_go_by_pfn_even_if_vcpu0_has_the_last_root():
    b = StreamBuilder.pv(4, roots=3)
    b.vcpus[0].root = b.roots[2]
    assert failure(b, **HIGH_420) == ("HYP-22", "pin", "mmuext_op", None, b.roots[0], "ERANGE")


def test_a_root_that_is_neither_pinned_nor_in_use_is_never_judged():
    b = StreamBuilder.pv(4)
    b.new_root(pinned=False)
    assert check(b.build(), **HIGH_420).verdict == "accept"


def test_an_unpinned_root_of_vcpu_1_is_judged():
    b = StreamBuilder.pv(4)
    b.new_vcpu(b.new_root(pinned=False))
    assert failure(b, **HIGH_420)[:4] == ("HYP-22", "context", "setvcpucontext", 1)


def test_a_guest_with_extended_cr3_passes_above_4g():
    b = StreamBuilder.pv(4, vcpus=2, roots=3, extended=True)
    assert check(b.build(), **HIGH_420).verdict == "accept"


@pytest.mark.parametrize(("vcpu", "verdict"), [(0, "accept"), (1, "refuse")])
def test_only_vcpu_0_can_declare_extended_cr3(vcpu, verdict):
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    b.vcpus[vcpu].basic.vm_assist |= parts.PAE_EXTENDED_CR3
    assert check(b.build(), **HIGH_420).verdict == verdict


def test_a_root_without_a_source_frame_is_not_taken_for_a_high_one():
    b = StreamBuilder.pv(4, roots=2)
    b.place(b.roots[1], None)
    report = check(b.build(), target="4.20")
    assert report.verdict == "accept"
    assert "L3C-3" not in ids(report)


@pytest.mark.parametrize("placement", ["low", "identity", "source"])
def test_low_roots_pass(placement):
    b = StreamBuilder.pv(4, vcpus=2, roots=3)
    assert check(b.build(), target="4.20", placement=placement).verdict == "accept"


@pytest.mark.parametrize("target", ["4.6", "4.17", "4.18"])
def test_releases_before_4_19_have_no_4_gib_rule(target):
    b = StreamBuilder.pv(4, vcpus=2, roots=3)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    assert check(b.build(), target=target, placement="high").verdict == "accept"


def test_the_4_gib_rule_does_not_ask_64_bit_guests():
    b = StreamBuilder.pv(8, vcpus=2, roots=3)
    assert check(b.build(), **HIGH_420).verdict == "accept"


@pytest.mark.parametrize(("mfn", "verdict"), [(AT_4_GIB - 1, "accept"), (AT_4_GIB, "refuse")])
def test_the_limit_is_the_frame_at_4_gib(mfn, verdict):
    b = StreamBuilder.pv(4, roots=2)
    b.place(b.roots[1], mfn)
    assert check(b.build(), target="4.20").verdict == verdict


def test_a_placement_file_decides_over_the_source(tmp_path):
    b = StreamBuilder.pv(4, roots=2)
    frames = tmp_path / "frames"
    frames.write_text(f"{b.roots[1]:#x} {AT_4_GIB:#x}  # the second root\n")
    assert check(b.build(), target="4.20").verdict == "accept"
    assert failure(b, target="4.20", placement=f"file:{frames}")[0] == "HYP-22"


def test_a_high_shared_info_fails_32_bit_guests_from_4_20_3_on():
    b = StreamBuilder.pv(4, extended=True)
    rule, step, *_, errno = failure(b, target="4.20.3", placement="high")
    assert (rule, step, errno) == ("HYP-27", "record", "EBUSY")


@pytest.mark.parametrize("target", ["4.17", "4.19", "4.19.4", "4.20", "4.20.2", "4.21"])
def test_releases_that_leave_shared_info_where_it_is_take_it_high(target):
    b = StreamBuilder.pv(4, extended=True)
    assert check(b.build(), target=target, placement="high").verdict == "accept"


def test_a_high_shared_info_is_no_matter_to_64_bit_guests():
    assert check(StreamBuilder.pv(8).build(), target="4.20.3", placement="high").verdict == "accept"


# -- what comes first --------------------------------------------------------------------------------


def test_contexts_come_before_pins():
    b = StreamBuilder.pv(4, vcpus=2, roots=3)
    b.table(b.roots[2])[3] = 0
    b.vcpus[1].basic.ldt_base = 0x800
    assert failure(b, placement="low")[:4] == ("REC-62", "context", "setvcpucontext", 1)


def test_pins_come_before_the_p2m():
    b = StreamBuilder.pv(4, roots=2)
    b.table(b.roots[1])[3] = 0
    b.p2m_frames[0] = b.roots[0]
    assert failure(b, placement="low")[:3] == ("HYP-10", "pin", "mmuext_op")


def test_the_p2m_comes_last():
    b = StreamBuilder.pv(4, roots=2)
    b.p2m_frames[0] = b.roots[0]
    assert failure(b, placement="low")[:3] == ("XRC-30", "p2m", "libxc")


def test_of_one_vcpu_libxc_checks_the_registers_before_xen_is_asked():
    b = StreamBuilder.pv(4)
    b.vcpus[0].basic.ldt_base = 0x800
    b.vcpus[0].basic.gdt_frames[0] = b.roots[0]
    assert failure(b)[0] == "XRC-07"


def test_vcpu_0_is_all_done_before_vcpu_1_is_looked_at():
    b = StreamBuilder.pv(4, vcpus=2)
    b.vcpus[0].extended.vcpu = 99
    b.vcpus[1].root = b.start_info_pfn
    assert failure(b)[:4] == ("REC-70", "context", "set_ext_vcpucontext", 0)


def test_a_record_fails_before_anything_at_end():
    b = StreamBuilder.pv(4)
    b.vcpus[0].root = b.start_info_pfn
    b.insert(FREE_RECORD_TYPE)
    assert failure(b)[:2] == ("FRM-05", "record")


@pytest.mark.parametrize("make", [lambda: StreamBuilder.pv(8), StreamBuilder.hvm], ids=["pv", "hvm"])
def test_a_record_type_that_the_law_allows_and_nobody_handles_is_passed_over(monkeypatch, make):
    monkeypatch.setitem(LAW, FREE_RECORD_TYPE, Law(Guests.ANY))
    plain, b = make(), make()
    b.insert(FREE_RECORD_TYPE, b"whatever")
    rules = [[finding.rule.id for finding in check(one.build()).findings] for one in (plain, b)]
    assert rules[0] == rules[1]


def test_the_report_goes_on_after_the_first_failure():
    b = StreamBuilder.pv(4, vcpus=3)
    b.vcpus[1].basic.ldt_base = 0x800
    b.vcpus[2].extended.vcpu = 99
    assert {"REC-62", "REC-70"} <= found(b)


def test_a_refused_table_is_told_once():
    b = StreamBuilder.pv(4, vcpus=3)
    b.table(b.roots[0])[3] = 0
    assert ids(check(b.build())).count("HYP-10") == 1


# -- rounds, types and VERIFY ------------------------------------------------------------------------


def resend(b: StreamBuilder, pfn: int, type: int, data: bytes | None, *, before: RecordType) -> None:
    """Insert a PAGE_DATA record of one page."""
    b.insert(RecordType.PAGE_DATA, parts.page_data([(pfn, type, data)]), before=before)


def uncached(b: StreamBuilder, l1: int) -> bytes:
    """An L1's contents with a cache attribute that Xen refuses in its first entry."""
    bad = b.table(l1).copy()
    bad[0] |= PCD
    return bad.tobytes()


def test_the_newest_version_of_a_table_counts_if_it_is_bad():
    b = StreamBuilder.pv(4)
    l1 = b.chain(b.roots[0])[-1]
    resend(b, l1, PageType.L1TAB, uncached(b, l1), before=RecordType.X86_TSC_INFO)
    assert failure(b)[0] == "REC-23"


def test_the_newest_version_of_a_table_counts_if_it_is_good():
    b = StreamBuilder.pv(4)
    l1 = b.chain(b.roots[0])[-1]
    resend(b, l1, PageType.L1TAB, uncached(b, l1), before=RecordType.PAGE_DATA)
    assert check(b.build()).verdict == "accept"


def test_a_table_that_names_a_pfn_beyond_the_guest_kills_libxc_though_a_later_round_replaces_it():
    b = StreamBuilder.pv(4)
    l1 = b.chain(b.roots[0])[-1]
    bad = b.table(l1).copy()
    bad[100] = parts.entry(0x1000)
    resend(b, l1, PageType.L1TAB, bad.tobytes(), before=RecordType.PAGE_DATA)
    report = check(b.build())
    assert report.failure is not None
    assert (report.failure.rule, report.failure.signal) == ("REC-20", signal.SIGABRT)


def test_a_table_resent_as_ordinary_data_is_no_longer_localised():
    b = StreamBuilder.pv(4)
    l1 = b.chain(b.roots[0])[-1]
    resend(b, l1, PageType.NOTAB, bytes(b.table(l1).tobytes()), before=RecordType.X86_TSC_INFO)
    assert failure(b)[0] == "HYP-07"


def test_a_root_resent_unpinned_is_not_pinned():
    b = StreamBuilder.pv(4, roots=2)
    resend(b, b.roots[1], PageType.L3TAB, b.table(b.roots[1]).tobytes(), before=RecordType.X86_TSC_INFO)
    report = check(b.build(), **HIGH_420)
    assert report.verdict == "accept"
    assert report.stream.pinned == {"L1": 0, "L2": 0, "L3": 1}


def test_a_page_first_called_absent_and_then_sent_is_there():
    b = StreamBuilder.pv(4)
    resend(b, b.start_info_pfn, PageType.XTAB, None, before=RecordType.PAGE_DATA)
    report = check(b.build())
    assert report.verdict == "accept"
    assert "XRC-42" not in ids(report)


def test_start_info_last_called_absent_is_refused_by_its_type():
    b = StreamBuilder.pv(4)
    resend(b, b.start_info_pfn, PageType.XTAB, None, before=RecordType.X86_TSC_INFO)
    assert failure(b)[:3] == ("XRC-02", "context", "libxc")


def test_of_a_pfn_named_twice_in_a_record_the_later_word_counts():
    b = StreamBuilder.pv(4)
    pfn, data = b.roots[0], b.table(b.roots[0]).tobytes()
    body = parts.page_data([(pfn, PageType.NOTAB, bytes(4096)), (pfn, PageType.L3TAB_PINNED, data)])
    b.insert(RecordType.PAGE_DATA, body, before=RecordType.X86_TSC_INFO)
    report = check(b.build())
    assert report.verdict == "accept"
    assert "REC-09" in ids(report)


def test_verify_writes_nothing_but_retypes():
    b = StreamBuilder.pv(4)
    b.insert(RecordType.VERIFY, before=RecordType.X86_TSC_INFO)
    resend(b, b.roots[0], PageType.NOTAB, b.table(b.roots[0]).tobytes(), before=RecordType.X86_TSC_INFO)
    assert failure(b)[0] == "XRC-09"


def test_contents_sent_after_verify_are_not_those_of_the_guest():
    b = StreamBuilder.pv(4)
    l1 = b.chain(b.roots[0])[-1]
    b.insert(RecordType.VERIFY, before=RecordType.X86_TSC_INFO)
    resend(b, l1, PageType.L1TAB, uncached(b, l1), before=RecordType.X86_TSC_INFO)
    assert check(b.build()).verdict == "accept"


def test_a_pfn_beyond_max_pfn_is_taken_once_p2m_frames_has_grown():
    b = StreamBuilder.pv(4)
    later = b.max_pfn + 1
    resend(b, later, PageType.XTAB, None, before=RecordType.X86_TSC_INFO)
    assert failure(b)[0] == "REC-07"
    b.duplicate(RecordType.X86_PV_P2M_FRAMES).body[4:8] = later.to_bytes(4, "little")
    assert "REC-07" not in found(b)


# -- facts of the stream -----------------------------------------------------------------------------


def test_facts_of_a_32_bit_guest():
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    b.place(b.roots[0], 0x4321)
    b.place(b.roots[1], None)
    facts = check(b.build()).stream
    assert (facts.container, facts.version, facts.guest, facts.xen) == ("libxc", 3, "pv", "4.18")
    assert (facts.width, facts.levels, facts.vcpus, facts.extended_cr3) == (4, 3, 2, False)
    assert (facts.max_pfn, facts.records) == (b.max_pfn, len(b.records))
    assert facts.pinned == {"L1": 0, "L2": 0, "L3": 2}
    assert facts.cr3 == [
        {"vcpu": 0, "pfn": b.roots[0], "mfn": 0x4321},
        {"vcpu": 1, "pfn": b.roots[1], "mfn": None},
    ]


def test_facts_of_a_64_bit_guest():
    b = StreamBuilder.pv(8)
    b.wrap("xl")
    facts = check(b.build()).stream
    assert (facts.container, facts.width, facts.levels, facts.bytes) == ("xl", 8, 4, len(b.build()))
    assert facts.pinned == {"L1": 0, "L2": 0, "L3": 0, "L4": 1}


def test_facts_of_an_hvm_guest():
    b = StreamBuilder.hvm(vcpus=3)
    facts = check(b.build()).stream
    assert (facts.guest, facts.records, facts.bytes) == ("hvm", len(b.records), len(b.build()))
    assert (facts.width, facts.extended_cr3, facts.cr3, facts.pinned) == (None, None, None, None)


def test_rounds_are_told_apart_by_a_step_back():
    b = StreamBuilder.pv(4)
    b.batch = 4
    b.rounds = [[1, 2, 3], [2]]
    assert [(done.kind, done.pages) for done in check(b.build()).stream.rounds] == [
        ("first", len(b.memory)),
        ("dirty", 3),
        ("final", 1),
    ]


def test_a_source_frame_is_known_only_of_a_page_with_data():
    b = StreamBuilder.pv(4)
    b.place(b.absent_pfn, FRAME := 0x5000)
    b.place(b.roots[0], FRAME)
    assert "XRC-34" not in found(b)


def test_pages_without_a_source_frame_do_not_share_one():
    b = StreamBuilder.pv(4)
    b.place(b.store_pfn, None)
    b.place(b.console_pfn, None)
    assert "XRC-34" not in found(b)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("mark", ["foreign", "identity"])
def test_a_p2m_entry_that_linux_marked_is_no_source_frame(width, mark):
    b = StreamBuilder.pv(width)
    bits = 8 * width
    b.place(b.roots[0], 0x5000 | 1 << (bits - 1 if mark == "foreign" else bits - 2))
    cr3 = check(b.build()).stream.cr3
    assert cr3 == [{"vcpu": 0, "pfn": b.roots[0], "mfn": None}]


def test_releases_that_know_no_policies_take_them_for_unknown_records():
    b = StreamBuilder.pv(8)
    assert b.record(RecordType.X86_CPUID_POLICY)  # made for a version 3 image
    b.image["version"], b.domain["xen_minor"] = 2, 13
    assert check(b.build(), target="4.14").verdict == "accept"
    assert failure(b, target="4.13")[:2] == ("FRM-05", "record")


@pytest.mark.parametrize(
    ("target", "verdict"), [("4.6", "refuse"), ("4.8", "refuse"), ("4.10.4", "refuse"), ("4.11", "accept")]
)
def test_releases_before_4_11_fail_over_an_empty_vcpu_record(target, verdict):
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 8
    b.insert(RecordType.X86_PV_VCPU_MSRS, bytes(8))
    assert check(b.build(), target=target).verdict == verdict


def test_an_xsave_state_was_a_multiple_of_16_bytes_before_4_14():
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 12
    b.vcpus[0].xsave = bytearray(17)
    stream = b.build()
    stops = {target: check(stream, target=target).failure for target in ("4.13", "4.14")}
    assert {target: stop and stop.rule for target, stop in stops.items()} == {"4.13": "REC-55", "4.14": "REC-81"}


def test_the_rest_of_a_ragged_msrs_record_was_dropped_before_4_14():
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 12
    b.vcpus[0].msrs = bytearray(Msr.TSC_AUX.to_bytes(4, "little").ljust(24, b"\0"))
    assert check(b.build(), target="4.13").verdict == "accept"
    assert failure(b, target="4.14")[0] == "REC-56"


@pytest.mark.parametrize(
    ("shift", "verdict"), [(12, "accept"), (44, "accept"), (76, "accept"), (13, "refuse"), (0, "refuse")]
)
def test_the_page_shift_is_taken_as_x86_takes_it(shift, verdict):
    b = StreamBuilder.pv(4)
    b.domain["page_shift"] = shift
    assert check(b.build()).verdict == verdict


def test_a_libxl_stream_without_an_image_leaves_an_empty_guest():
    report = check(LIBXL_HEADER.pack(LIBXL_IDENT, LIBXL_VERSION, 0) + bytes(8))
    assert (report.verdict, ids(report)) == ("accept", ["CON-21"])


def test_the_converter_leaves_its_mark():
    b = StreamBuilder.pv(4)
    b.domain["xen_major"] = b.domain["xen_minor"] = 0
    facts = check(b.build()).stream
    assert (facts.converted, facts.xen) == (True, None)


@pytest.mark.parametrize("checkpoints", [1, 3])
@pytest.mark.parametrize("container", ["libxc", "libxl"])
def test_a_checkpointed_stream_is_judged_as_of_its_last_checkpoint(container, checkpoints):
    b = StreamBuilder.pv(4)
    b.checkpoints = checkpoints
    b.wrap(container)
    report = check(b.build())
    assert (report.verdict, report.stream.checkpoints) == ("accept", checkpoints)


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"XenSavedDomain\n", "xapi-legacy"),
        (b"xl migration receiver ready, send binary domain data.\n", "banner"),
        (b"PK\3\4 is a zip archive", "unknown"),
    ],
)
def test_what_is_recognised_and_not_read_is_not_judged(head, container):
    report = check(head + bytes(64))
    assert (report.verdict, report.stream.container, report.findings) == ("unjudged", container, [])
    assert report.reason is not None


# -- what the caller knows ---------------------------------------------------------------------------


def test_the_domain_may_have_fewer_vcpus_than_the_stream():
    b = StreamBuilder.pv(4, vcpus=2)
    assert check(b.build(), vcpus=2).verdict == "accept"
    assert failure(b, vcpus=1)[0] == "REC-52"


def test_an_xl_file_says_how_many_vcpus_there_are():
    b = StreamBuilder.pv(4, vcpus=2)
    b.wrap("xl")
    b.xl_config = b'{"c_info": {"type": "pv"}, "b_info": {"max_vcpus": 1, "type.pv": {}}}'
    assert failure(b)[0] == "REC-52"
    assert check(b.build(), vcpus=2).verdict == "accept"


@pytest.mark.parametrize(
    "options",
    [{"target": "4.99"}, {"target": "four"}, {"placement": "nowhere"}, {"select": ["XYZ-1"]}, {"ignore": ["no-such"]}],
)
def test_an_option_nobody_knows_is_a_value_error(options):
    with pytest.raises(ValueError, match=r".+"):
        check(StreamBuilder.pv(4).build(), **options)
    with pytest.raises(ValueError, match=r".+"):
        Checker(**options)


def test_progress_goes_forward_to_the_known_size():
    b = StreamBuilder.pv(4)
    b.batch = 1
    for _ in range(60):
        b.new_page()
    told: list[tuple[int, int | None]] = []
    stream = b.build()
    check(stream, progress=lambda position, size: told.append((position, size)))
    assert len(told) > 1
    assert {size for _, size in told} == {len(stream)}
    assert [position for position, _ in told] == sorted(position for position, _ in told)


@pytest.mark.parametrize("container", ["libxl", "xapi"])
def test_what_end_fails_for_comes_before_what_the_container_says_later(container):
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    b.wrap(container)
    b.libxl_after.insert(0, parts.Rec(0x4F, bytearray()))
    b.xapi_blocks.insert(-1, (0x4F, b""))
    report = check(b.build(), **HIGH_420)
    assert {"CON-12", "CON-31"} & {finding.rule.id for finding in report.findings if finding.fatal}
    assert report.failure is not None
    assert report.failure.rule == "HYP-22"


# -- laws --------------------------------------------------------------------------------------------

GUESTS = {
    "pv32": lambda: StreamBuilder.pv(4, vcpus=2, roots=2),
    "pv64": lambda: StreamBuilder.pv(8, vcpus=2, roots=2),
    "hvm": lambda: StreamBuilder.hvm(),
}


def built(kind: str, container: str = "libxc") -> bytes:
    b = GUESTS[kind]()
    b.rounds = [[1, 2], sorted(b.memory)]
    b.batch = 5
    b.wrap(container)
    return b.build()


def fed(stream: bytes, cuts: list[int], **options) -> Report:
    """The report of a stream that is fed in pieces, cut at these offsets."""
    checker = Checker(**options)
    edges = [0, *sorted(cuts), len(stream)]
    for start, stop in pairwise(edges):
        checker.feed(stream[start:stop])
    return checker.close()


def plain(report: Report) -> dict:
    """A report's JSON object without the name of the input, and whether that is compressed."""
    told = report_object(report)
    told["stream"].pop("name", None)
    told["stream"].pop("compression", None)
    return told


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_report_of_the_whole(data):
    stream = built(data.draw(st.sampled_from(list(GUESTS))), data.draw(st.sampled_from(["libxc", "libxl", "xl"])))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    assert plain(fed(stream, cuts, **HIGH_420)) == plain(check(stream, **HIGH_420))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_chunking_of_a_violation_gives_the_report_of_the_whole(data):
    slow = {"L3C-6"}  # a guest of 4 GiB
    rule = RULES[data.draw(st.sampled_from([r.id for r in RULES.values() if r.violation and r.id not in slow]))]
    b = StreamBuilder.pv(4)
    rule.violation(b)
    stream = b.build()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    assert plain(fed(stream, cuts)) == plain(check(stream))


def test_a_stream_fed_byte_by_byte_gives_the_report_of_the_whole():
    stream = built("pv32")
    assert plain(fed(stream, list(range(0, len(stream), 1)))) == plain(check(stream))


PACKED = {
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("kind", GUESTS)
def test_file_pipe_and_compressed_input_give_the_report_of_the_bytes(kind, tmp_path):
    stream = built(kind, "xl")
    expected = plain(check(stream, **HIGH_420))
    path = tmp_path / "stream"
    path.write_bytes(stream)
    assert plain(check(path, **HIGH_420)) == expected
    assert plain(check(str(path), **HIGH_420)) == expected
    assert plain(check(bytearray(stream), **HIGH_420)) == expected
    assert plain(through_a_pipe(stream, **HIGH_420)) == expected
    for pack in PACKED.values():
        path.write_bytes(pack(stream))
        assert plain(check(path, **HIGH_420)) == expected
        assert plain(through_a_pipe(pack(stream), **HIGH_420)) == expected


@pytest.mark.parametrize("sample", ["x417-pv32.live4.libxc", "x417-pv64.verify.libxc", "x417-pvh.xl"])
def test_a_genuine_stream_gives_one_report_by_every_way(sample, tmp_path):
    packed = (SAMPLES / f"{sample}.zst").read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)) as reader:
        stream = reader.read()
    expected = plain(check(stream, **HIGH_420))
    assert plain(check(packed, **HIGH_420)) == expected
    assert plain(through_a_pipe(stream, **HIGH_420)) == expected
    assert plain(fed(stream, list(range(0, len(stream), 65521)), **HIGH_420)) == expected


def test_a_descriptor_is_read_from_where_it_stands(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(b"junk" + built("pv32"))
    with path.open("rb", buffering=0) as file:
        file.seek(4)
        assert plain(check(file.fileno())) == plain(check(built("pv32")))


def test_the_json_report_is_the_same_on_every_run():
    texts = {json.dumps(check(built("pv32"), **HIGH_420).to_dict()) for _ in range(3)}
    assert len(texts) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    broken=st.sampled_from(["HYP-22", "HYP-12", "REC-60", "XRC-30", "FRM-04", "ORD-16", "HDR-05", "FRM-03"]),
    select=st.lists(st.sampled_from([*RULES, "REC", "HYP", "FRM", "l3-above-4g"]), max_size=3),
    ignore=st.lists(st.sampled_from([*RULES, "REC", "HYP", "FRM", "l3-above-4g"]), max_size=3),
)
def test_selecting_rules_hides_findings_and_never_changes_the_verdict(broken, select, ignore):
    b = StreamBuilder.pv(4)
    RULES[broken].violation(b)
    whole, part = check(b.build()), check(b.build(), select=select, ignore=ignore)
    assert (part.verdict, part.failure, part.reason) == (whole.verdict, whole.failure, whole.reason)
    assert [f for f in whole.findings if f in part.findings] == part.findings


def test_only_selected_and_not_ignored_rules_are_told():
    stream = built("pv32")
    assert set(ids(check(stream, select=["L3C", "hyp-27"], ignore=["L3C-3"], **HIGH_420))) == {"L3C-1"}


@pytest.mark.parametrize("codec", list(PACKED))
def test_what_the_input_was_unpacked_from_is_told(codec):
    stream = built("pv64")
    assert check(stream).stream.compression is None
    report = check(PACKED[codec](stream))
    assert report.stream.compression == codec
    assert f", unpacked from {codec}, " in dict(facts_told(report))["stream"]
