"""An HVM guest's restore from end to end: what libxc refuses, what it asks Xen for, and in what order that fails."""

import subprocess
import sys

import pytest
from project import SAMPLES

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.configuration import libxl_json
from migrate.building.hvm_contexts import PVH, Hardware, add, edit, hvm_context, pack_entry, resize
from migrate.rules.declaring import Effect, Severity
from streams.wire.framing import PAGE_SHIFT, PARAMS_HEADER, RecordType
from streams.wire.hvm_names import HvmParam, SaveType
from streams.wire.registers import Cr4

GENUINE = sorted(SAMPLES.glob("x417-pvh.*.zst"))


def ids(report):
    return [finding.rule.id for finding in report.findings]


def failure(b, target="4.20", **options):
    found = check(b.build(), target=target, **options).failure
    return found and (found.rule, found.step, found.call, found.errno)


# -- genuine and sound ------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", GENUINE, ids=lambda path: path.stem)
@pytest.mark.parametrize("target", ["4.17", "4.20", "newest"])
def test_genuine_pvh_stream_is_accepted_in_silence(sample, target):
    report = check(sample, target=target)
    assert report.verdict == "accept"
    # Where an older host may not reach as far as the policy does, that is all there is to say.
    assert {finding.severity for finding in report.findings} == {Severity.INFO}
    assert set(ids(report)) <= {"ORD-16", "REC-113"}
    assert report.stream.vcpus == 1


def test_all_genuine_pvh_streams_are_here():
    assert len(GENUINE) == 4


@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_guest_has_as_many_vcpus_as_cpu_entries(vcpus):
    assert check(StreamBuilder.hvm(vcpus=vcpus).build()).stream.vcpus == vcpus


def test_judging_an_hvm_guest_imports_neither_numpy_nor_construct():
    code = (
        "import sys; from migrate import check; r = check(sys.argv[1]);"
        "print(r.verdict, {'numpy', 'construct'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code, GENUINE[0]], capture_output=True, text=True, check=True).stdout
    assert out == "accept set()\n"


# -- what is known of the domain --------------------------------------------------------------------


def test_the_domains_vcpus_can_be_given():
    b = StreamBuilder.hvm(vcpus=2)
    assert failure(b, vcpus=2) is None
    report = check(b.build(), target="4.20", vcpus=1)
    assert (report.failure.rule, report.failure.vcpu) == ("HVM-02", 1)
    assert (report.failure.step, report.failure.call, report.failure.errno) == ("context", "sethvmcontext", "EINVAL")


def test_an_xl_config_says_how_many_vcpus_there_are():
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.hvm_context[:] = hvm_context(3)
    assert failure(b)[0] == "HVM-02"


@pytest.mark.parametrize(("config", "rule"), [("pvh", "HVM-15"), ("hvm", None)])
def test_an_xl_config_says_which_devices_there_are(config, rule):
    b = StreamBuilder.hvm()
    if config == "pvh":
        b.libxl_after.pop(0)  # it has no device model
    b.xl_config = libxl_json(config, 1, 1024)
    b.wrap("xl")
    found = failure(b)
    assert (found and found[0]) == rule


def test_else_the_context_says_it():
    b = StreamBuilder.pvh()
    b.hvm_params[HvmParam.ACPI_IOPORTS_LOCATION] = 0
    assert failure(b) == ("HVM-15", "record", "hvm_set_param", "ENODEV")
    b = StreamBuilder.hvm()
    b.hvm_params[HvmParam.ACPI_IOPORTS_LOCATION] = 1
    assert failure(b) is None


def test_the_streams_policy_decides_what_a_vcpu_may_use():
    with_policy, without = StreamBuilder.hvm(), StreamBuilder.hvm()
    without.saved_by(4, 13, 2)
    for b in (with_policy, without):
        edit(b.hvm_context, SaveType.CPU, cr4=int(Cr4.PCIDE))
    assert failure(with_policy) == ("HVM-05", "context", "sethvmcontext", "EINVAL")
    report = check(without.build(), target="4.20")
    assert report.verdict == "accept"
    told = next(finding for finding in report.findings if finding.rule.id == "HVM-05")
    assert (told.severity, told.effect) == (Severity.INFO, Effect.HOST)


# -- params -----------------------------------------------------------------------------------------


def test_a_param_that_xen_refuses_stops_the_restore():
    b = StreamBuilder.hvm()
    b.hvm_params[HvmParam.TIMER_MODE] = 4
    assert failure(b) == ("HVM-14", "record", "hvm_set_param", "EINVAL")


def test_a_finding_on_a_param_is_about_its_place():
    b = StreamBuilder.hvm()
    b.hvm_params[HvmParam.TIMER_MODE] = 4
    stream = b.build()
    finding = next(f for f in check(stream, target="4.20").findings if f.rule.id == "HVM-14")
    assert stream[finding.offset : finding.offset + 16] == (10).to_bytes(8, "little") + (4).to_bytes(8, "little")
    assert finding.record_type == "HVM_PARAMS"


def test_params_come_before_the_context_whose_record_came_first():
    b = StreamBuilder.hvm()
    edit(b.hvm_context, SaveType.CPU, cr0=0)
    b.hvm_params[HvmParam.TIMER_MODE] = 4
    assert failure(b)[0] == "HVM-14"


def test_params_come_before_what_is_wrong_with_later_records():
    b = StreamBuilder.hvm()
    b.hvm_params[HvmParam.TIMER_MODE] = 4
    b.insert(RecordType.X86_TSC_INFO, bytes(8))
    assert failure(b)[0] == "HVM-14"
    b.move(RecordType.X86_TSC_INFO, before="HVM_PARAMS", nth=1)
    assert failure(b)[0] == "REC-101"


def test_a_second_record_of_params_goes_on_from_the_first():
    b = StreamBuilder.hvm()
    b.hvm_params[HvmParam.IOREQ_PFN] = 5
    again = b.duplicate(RecordType.HVM_PARAMS)
    assert failure(b) is None
    at = again.body.index((5).to_bytes(8, "little") * 2)
    again.body[at + 8] = 6
    assert failure(b) == ("REC-109", "record", "hvm_set_param", "EEXIST")


@pytest.mark.parametrize(
    ("count", "target", "rule"), [(1, "4.20", "REC-108"), (1, "4.8.1", None), (9, "4.8.1", "REC-108")]
)
def test_older_releases_passed_over_what_was_more_than_counted(count, target, rule):
    b = StreamBuilder.hvm(hardware=Hardware(lengths={SaveType.RTC: 16, SaveType.VMCE_VCPU: 24}))
    b.saved_by(4, 8, 2)
    PARAMS_HEADER.pack_into(b.record(RecordType.HVM_PARAMS).body, 0, count, 0)
    found = failure(b, target)
    assert (found and found[0]) == rule


# -- the context ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "errno"), [("4.20", "ENODATA"), ("4.12", "EPERM")])
def test_no_context_is_an_answer_of_xens(target, errno):
    b = StreamBuilder.hvm()
    b.saved_by(4, 12, 2)
    b.drop(RecordType.HVM_CONTEXT)
    assert failure(b, target) == ("ORD-17", "context", "sethvmcontext", errno)


@pytest.mark.parametrize(("target", "expected"), [("4.14", ("REC-110", None)), ("4.13", ("REC-111", "EPERM"))])
def test_an_empty_context_was_passed_on_before_4_14(target, expected):
    b = StreamBuilder.hvm()
    b.saved_by(4, 13, 2)
    b.hvm_context.clear()
    rule, _, _, errno = failure(b, target)
    assert (rule, errno) == expected


def test_a_broken_context_that_is_replaced_is_harmless():
    b = StreamBuilder.hvm()
    b.duplicate(RecordType.HVM_CONTEXT)
    b.record(RecordType.HVM_CONTEXT).body[:4] = bytes(4)
    assert failure(b) is None


def test_an_entry_that_a_newer_release_has_made_longer_is_refused_by_older_ones():
    b = StreamBuilder.hvm(hardware=Hardware(lengths={SaveType.LAPIC: 32}))
    answers = {target: failure(b, target) for target in ("4.17", "4.19.1", "4.19.2", "4.20", "4.20.1", "4.22")}
    assert {target: answer and (answer[0], answer[3]) for target, answer in answers.items()} == {
        "4.17": ("HVM-01", "EINVAL"),
        "4.19.1": ("HVM-01", "EINVAL"),
        "4.19.2": None,
        "4.20": ("HVM-01", "ENODATA"),
        "4.20.1": None,
        "4.22": None,
    }


def test_a_finding_on_an_entry_is_about_its_place():
    b = StreamBuilder.hvm()
    edit(b.hvm_context, SaveType.PIT, speaker_data_on=0xABCD)
    stream = b.build()
    finding = next(f for f in check(stream, target="4.20").findings if f.rule.id == "HVM-17")
    assert stream[finding.offset : finding.offset + 4] == (0xABCD).to_bytes(4, "little")
    assert "PIT" in finding.message
    assert "0xabcd; at most 1" in finding.message


def test_guest_without_any_cpu_comes_back_dead():
    b = StreamBuilder.hvm()
    b.hvm_context[:] = hvm_context(0)
    report = check(b.build(), target="4.20")
    told = next(finding for finding in report.findings if finding.rule.id == "HVM-03")
    assert (report.verdict, told.severity, told.effect) == ("accept", Severity.ERROR, Effect.CORRUPT)


# -- hosts at stake ---------------------------------------------------------------------------------


def with_page(pfn, kind=SaveType.VIRIDIAN_DOMAIN, field="reference_tsc"):
    b = StreamBuilder.hvm(hardware=Hardware(viridian=True))
    edit(b.hvm_context, kind, **{field: pfn << PAGE_SHIFT | 1})
    return b


@pytest.mark.parametrize(
    ("kind", "field"), [(SaveType.VIRIDIAN_DOMAIN, "reference_tsc"), (SaveType.VIRIDIAN_VCPU, "simp_msr")]
)
@pytest.mark.parametrize("place", ["absent", "beyond", "dropped", "there"])
def test_a_viridian_page_that_is_not_there_kills_the_host(kind, field, place):
    b = with_page(2, kind, field)
    if place != "there":
        pfn = {"absent": b.absent_pfn, "beyond": 1 << 40, "dropped": 2}[place]
        edit(b.hvm_context, kind, **{field: pfn << PAGE_SHIFT | 1})
    if place == "dropped":
        del b.memory[2]
    report = check(b.build(), target="4.20.1")
    assert report.verdict == ("accept" if place == "there" else "refuse")
    if place != "there":
        assert report.failure.rule == "HVM-21"
        assert "the host dies" in report.failure.message
        assert [f.effect.harms_host for f in report.findings if f.fatal] == [True]
    assert check(b.build(), target="4.20.2").verdict == "accept"


def test_without_viridian_the_page_does_not_matter():
    b = with_page(1 << 40)
    del b.hvm_params[HvmParam.VIRIDIAN]
    assert failure(b, "4.20.1") is None


def test_what_kills_a_debug_build_is_an_error_and_changes_no_verdict():
    b = StreamBuilder.hvm()
    edit(b.hvm_context, SaveType.CPU, cs_arbytes=0)
    report = check(b.build(), target="4.20")
    told = next(finding for finding in report.findings if finding.rule.id == "HVM-22")
    assert (report.verdict, told.severity, told.effect.harms_host) == ("accept", Severity.ERROR, True)


# -- bad input --------------------------------------------------------------------------------------


def test_a_flood_of_entries_is_told_of_in_few_findings():
    b = StreamBuilder.hvm()
    end = len(b.hvm_context) - 8
    b.hvm_context[end:end] = pack_entry(SaveType.TSC_ADJUST, bytes(9)) * 20_000
    report = check(b.build(), target="4.17")
    assert report.verdict == "refuse"
    assert len(report.findings) < 50
    assert sum(finding.count for finding in report.findings) >= 20_000


def test_entries_of_every_type_and_of_vcpus_that_no_domain_has():
    b = StreamBuilder.hvm(hardware=PVH)
    for kind in range(23):
        add(b.hvm_context, kind, b"\xff" * 7, 65535)
    resize(b.hvm_context, SaveType.MTRR, 4096)
    for target in ("4.6", "4.17", "4.20", "newest"):
        report = check(b.build(), target=target)
        assert all(0 <= finding.offset <= report.stream.bytes for finding in report.findings if finding.offset)
