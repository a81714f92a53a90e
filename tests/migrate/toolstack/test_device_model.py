"""A device model's records and state: what libxl asks of the records, and what QEMU says to the state."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate import check
from migrate.building.builder import Rec, StreamBuilder
from migrate.building.qemu_state import QemuStateBuilder
from migrate.rules.declaring import Severity
from streams.containers import BODY_LIMIT
from streams.wire.framing import EMULATOR_HEADER, LibxlRecordType, XapiBlockId
from streams.wire.qemu import XAPI_LONGEST_STATE

HEADER = EMULATOR_HEADER.pack(2, 0)
CONTEXT, XENSTORE = LibxlRecordType.EMULATOR_CONTEXT, LibxlRecordType.EMULATOR_XENSTORE_DATA


def guest(state=None, container="xl"):
    b = StreamBuilder.hvm()
    b.wrap(container)
    if state is not None:
        b.libxl_after[0].body[:] = HEADER + state
        b.xapi_blocks = [(kind, state if kind == XapiBlockId.QEMU_TRAD else body) for kind, body in b.xapi_blocks]
    return b


def asked(b, target="4.20", **options):
    data = b if isinstance(b, bytes) else b.build()
    return check(data, target=target, placement="low", **options)


def loud(report):
    return {f.rule.id for f in report.findings if f.severity is not Severity.INFO}


def whole(**changes):
    built = QemuStateBuilder()
    for name, value in changes.items():
        setattr(built, name, value)
    return built


# -- the state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["libxl", "xl", "libvirt", "xapi"])
@pytest.mark.parametrize(
    "state", [whole(), whole(machine="xenfv"), whole(footers=True), whole(description=True)], ids=range(4)
)
def test_a_state_that_qemu_loads_is_silent(container, state):
    report = asked(guest(state.build(), container))
    assert (report.verdict, loud(report)) == ("accept", set())


def bad(name):
    state = whole()
    match name:
        case "magic":
            state.magic = b"QEVN"
        case "version":
            state.version = 2
        case "name":
            state.sections[3].name = "acpi"
            state.sections[3].version, state.sections[3].data = 3, b""
        case "section-version":
            state.section("platform").version = 99
        case "footer":
            state.footers = True
            return state.build().replace(b"\x7e\0\0\0\5", b"\x7e\0\0\0\6")
        case "cut":
            return state.build()[:-1]
        case "half":
            return state.build()[:2000]
        case "zeros":
            return bytes(512)
        case "empty":
            return b""
    return state.build()


REFUSED = [
    *(("magic", "CON-41", "EINVAL"), ("version", "CON-41", "ENOTSUP"), ("zeros", "CON-41", "EINVAL")),
    *(("empty", "CON-41", "EINVAL"), ("cut", "CON-42", "EIO"), ("half", "CON-42", "EIO")),
    *(("name", "CON-43", "EINVAL"), ("section-version", "CON-43", "EINVAL"), ("footer", "CON-43", "EINVAL")),
]


@pytest.mark.parametrize(("name", "rule", "errno"), REFUSED)
@pytest.mark.parametrize("container", ["libxl", "xl", "libvirt", "xapi"])
def test_what_qemu_refuses_fails_in_a_step_of_its_own(container, name, rule, errno):
    report = asked(guest(bad(name), container))
    failure = report.failure
    assert (failure.rule, failure.step, failure.call, failure.errno) == (rule, "device-model", "qemu", errno)
    assert loud(report) == {rule}


def test_the_offset_is_that_of_the_fault_in_the_stream():
    state = whole()
    state.section("mc146818rtc").version = 77
    data = guest(state.build()).build()
    report = asked(data)
    offset = report.failure.finding.offset
    assert data[offset : offset + 4] == (77).to_bytes(4, "big")
    assert "'mc146818rtc' 0 has version 77" in report.failure.message


def test_data_of_another_length_than_qemus_are_a_risk():
    state = whole()
    state.section("timer").data = bytes(40)
    report = asked(guest(state.build()))
    assert (report.verdict, loud(report)) == ("accept", {"CON-44"})


def test_bytes_behind_the_state_are_nobodys():
    report = asked(guest(whole().build() + b"more"))
    assert (report.verdict, loud(report)) == ("accept", set())


@pytest.mark.parametrize("bad_first", [True, False])
def test_the_last_state_counts(bad_first):
    b = guest(bad("magic") if bad_first else whole().build())
    other = whole().build() if bad_first else bad("magic")
    b.libxl_after.insert(1, Rec(CONTEXT, bytearray(HEADER + other)))
    assert asked(b).verdict == ("accept" if bad_first else "refuse")


def test_qemu_comes_last():
    b = guest(bad("magic"))
    b.hvm_context = b.hvm_context[:-8]
    report = asked(b)
    assert report.failure.step == "context"
    assert "CON-41" in loud(report)


def test_no_qemu_is_started_for_a_pv_guest_of_xapi():
    b = StreamBuilder.pv(8)
    b.wrap("xapi")
    b.xapi_blocks.insert(-1, (XapiBlockId.QEMU_TRAD, b"anything"))
    assert asked(b).verdict == "accept"


def test_of_a_state_longer_than_any_only_the_beginning_is_looked_at():
    state = whole().build()
    b = guest(state[:-1].ljust(BODY_LIMIT + 1, b"\1"), "libxl")
    assert asked(b).verdict == "accept"
    b = guest(b"QEVN" + bytes(BODY_LIMIT), "libxl")
    assert asked(b).failure.rule == "CON-41"


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_get_one_verdict(state):
    report = asked(guest(state, "libxl"))
    assert report.verdict in ("accept", "refuse")
    assert (report.failure is None) == (report.verdict == "accept")


# -- no state --------------------------------------------------------------------------------------------------


def without_state(config):
    b = guest(container="libxl" if config is None else "xl")
    b.libxl_after.pop(0)
    if config:
        parts = json.loads(b.xl_config)
        parts["b_info"] |= config
        b.xl_config = json.dumps(parts).encode()
    return b


def test_an_hvm_guest_without_a_state_is_refused_by_qemu():
    failure = asked(without_state({})).failure
    assert (failure.rule, failure.step, failure.call) == ("CON-23", "device-model", "qemu")


def test_a_guest_that_asks_for_no_device_model_needs_no_state():
    report = asked(without_state({"device_model_version": "none"}))
    assert (report.verdict, loud(report)) == ("accept", set())


def test_without_a_configuration_nobody_knows_whether_one_is_missing():
    report = asked(without_state(None))
    assert (report.verdict, loud(report)) == ("accept", set())
    assert "CON-23" in {finding.rule.id for finding in report.findings}


# -- the records -----------------------------------------------------------------------------------------------

LATER = [("4.10", True), ("4.20", True), ("4.22", True)]
EARLIER = [("4.6.0", False), ("4.7.0", False), ("4.9.4", False)]


def is_minded(b, target):
    """Whether libxl refuses a record because it expected none."""
    found = [finding for finding in asked(b, target).findings if finding.rule.id == "CON-13"]
    assert all(finding.fatal and finding.call == "libxl" for finding in found)
    return bool(found)


@pytest.mark.parametrize(("target", "minded"), EARLIER + LATER)
@pytest.mark.parametrize("kind", ["pv", "pvh"])
@pytest.mark.parametrize("record", [CONTEXT, XENSTORE])
def test_a_guest_without_a_device_model_gets_none_of_its_records_since_4_10(kind, record, target, minded):
    b = StreamBuilder.pv(8) if kind == "pv" else StreamBuilder.pvh()
    b.wrap("xl")
    b.libxl_after.insert(0, Rec(record, bytearray(HEADER)))
    assert is_minded(b, target) == minded


@pytest.mark.parametrize(("target", "minded"), [("4.6.0", False), ("4.7.0", True), ("4.9.4", True), ("4.10", False)])
def test_before_4_10_only_a_guest_that_asks_for_no_device_model_is_minded(target, minded):
    b = guest()
    parts = json.loads(b.xl_config)
    parts["b_info"]["device_model_version"] = "none"
    b.xl_config = json.dumps(parts).encode()
    assert is_minded(b, target) == minded


@pytest.mark.parametrize(("more", "verdict"), [(0, "accept"), (1, "refuse")])
def test_xenopsd_reads_a_mebibyte_of_a_device_models_record_and_no_byte_more(more, verdict):
    state = whole().build().ljust(XAPI_LONGEST_STATE + more, b"\0")
    report = asked(guest(state, "xapi"))
    assert report.verdict == verdict
    if verdict == "refuse":
        assert (report.failure.rule, report.failure.call) == ("CON-45", "xapi")
        assert "1048576" in report.failure.message


# -- a stream that ends in the state ---------------------------------------------------------------------------


def cut_in_state(keep):
    data = guest(whole().build()).build()
    return data[: data.index(b"QEVM") + keep]


def test_what_a_cut_stream_lacks_of_the_state_is_zeros_to_qemu():
    state = whole()
    inside = state.build().index(b"platform") + 60  # in the data of the last device
    report = asked(cut_in_state(inside))
    assert (report.verdict, loud(report)) == ("accept", {"CON-35"})


def test_zeros_in_place_of_a_sections_header_are_no_section():
    at = whole().build().index(b"platform") - len("0000:00:02.0/") - 3  # behind the type byte of its section
    report = asked(cut_in_state(at))
    assert report.failure.rule == "CON-43"
    assert loud(report) == {"CON-35", "CON-43"}
