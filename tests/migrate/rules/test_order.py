"""The law of record order: what the table says, and what becomes of streams that go against it."""

import random
from itertools import permutations

import pytest

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.rules.catalogue import RULES
from migrate.rules.order import INFERS_STATIC_DATA_END, LAW, Guests
from streams.wire.framing import RecordType


def refused_by(b: StreamBuilder) -> str | None:
    """The rule that stops the restore on a host with low frames, if any."""
    report = check(b.build(), placement="low")
    return report.failure.rule if report.failure else None


def test_the_law_knows_every_record_type():
    assert LAW.keys() == set(RecordType)


def test_every_rule_of_the_law_is_declared_and_refuses():
    named = {need.rule for law in LAW.values() for need in law.after}
    named |= {law.once for law in LAW.values() if law.once} | {law.stray for law in LAW.values()}
    assert named == {"ORD-01", "ORD-02", "ORD-03", "ORD-04", "ORD-06", "FRM-11", "FRM-12", "FRM-13"}
    assert all(RULES[rule].effect.fatal for rule in named)


def test_every_order_that_is_put_up_with_has_a_declared_rule_that_refuses_nothing():
    named = {need.rule for law in LAW.values() for need in (*law.better_after, *law.better_before)}
    named |= {law.again.rule for law in LAW.values() if law.again}
    assert named == {"ORD-09", "ORD-10", "ORD-16", "ORD-22"}
    assert not any(RULES[rule].effect.fatal for rule in named)


def test_a_record_only_waits_for_records_of_its_own_guest():
    for kind, law in LAW.items():
        for need in law.after:
            assert LAW[need.record].guests & law.guests, kind


def test_no_record_waits_for_itself_even_by_detours():
    def needs(kind: RecordType) -> set[RecordType]:
        direct = {need.record for need in LAW[kind].after}
        return direct | {further for needed in direct for further in needs(needed)}

    assert all(kind not in needs(kind) for kind in LAW)


@pytest.mark.parametrize("kind", [kind for kind, law in LAW.items() if law.guests == Guests.PV])
def test_a_pv_record_in_an_hvm_stream_is_not_handled(kind):
    b = StreamBuilder.hvm()
    b.insert(kind, bytes(64))
    assert refused_by(b) == "FRM-11"


@pytest.mark.parametrize("kind", [kind for kind, law in LAW.items() if law.guests == Guests.HVM])
def test_an_hvm_record_in_a_pv_stream_is_not_handled(kind):
    b = StreamBuilder.pv(8)
    b.insert(kind, bytes(64))
    assert refused_by(b) == "FRM-11"


def test_the_first_page_infers_the_end_of_static_data_in_version_2_alone():
    b = StreamBuilder.hvm()
    b.image["version"], b.domain["xen_minor"] = 2, 13
    assert RecordType.PAGE_DATA in INFERS_STATIC_DATA_END
    assert refused_by(b) is None
    b.insert(RecordType.STATIC_DATA_END, before=RecordType.HVM_CONTEXT)
    assert refused_by(b) == "ORD-06"


@pytest.mark.parametrize("late", [RecordType.X86_PV_P2M_FRAMES, RecordType.PAGE_DATA])
def test_memory_before_the_end_of_static_data_is_refused_in_version_3(late):
    b = StreamBuilder.pv(4)
    b.move(RecordType.STATIC_DATA_END, after=late)
    assert refused_by(b) == "ORD-04"


def test_a_missing_end_of_static_data_is_told_before_a_missing_p2m():
    b = StreamBuilder.pv(4)
    b.drop(RecordType.STATIC_DATA_END)
    b.drop(RecordType.X86_PV_P2M_FRAMES)
    assert refused_by(b) == "ORD-04"


def test_pages_without_a_p2m_kill_libxc_at_pfn_0():
    b = StreamBuilder.pv(4)
    b.batch = 1
    b.drop(RecordType.X86_PV_P2M_FRAMES)
    failure = check(b.build()).failure
    assert failure is not None
    assert (failure.rule, failure.signal) == ("ORD-03", 11)


def test_pages_from_pfn_1_on_without_a_p2m_are_refused_by_a_check():
    b = StreamBuilder.pv(4)
    b.batch = 1
    b.drop(RecordType.PAGE_DATA)  # pfn 0's
    b.drop(RecordType.X86_PV_P2M_FRAMES)
    failure = check(b.build()).failure
    assert failure is not None
    assert (failure.rule, failure.signal) == ("ORD-03", None)


@pytest.mark.parametrize(
    "order", list(permutations([RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY, RecordType.X86_PV_INFO]))
)
def test_records_before_the_memory_may_come_in_any_order(order):
    b = StreamBuilder.pv(4)
    for kind in order:
        b.move(kind, before=RecordType.STATIC_DATA_END)
    assert refused_by(b) is None


@pytest.mark.parametrize("seed", range(8))
def test_records_after_the_memory_may_come_in_any_order(seed):
    b = StreamBuilder.pv(4, vcpus=2)
    state = [rec for rec in b.records if rec.type in (RecordType.X86_TSC_INFO, *range(4, 8))]
    b.records[:] = [rec for rec in b.records if rec not in state]
    random.Random(seed).shuffle(state)
    b.records[-1:-1] = state
    assert refused_by(b) is None


def test_vcpu_records_may_come_before_the_pages_they_name():
    b = StreamBuilder.pv(4)
    b.move(RecordType.X86_PV_VCPU_BASIC, before=RecordType.X86_PV_P2M_FRAMES)
    assert refused_by(b) is None


def test_the_context_of_a_64_bit_vcpu_may_come_before_the_width_is_known():
    b = StreamBuilder.pv(8)
    b.move(RecordType.X86_PV_VCPU_BASIC, before=RecordType.X86_PV_INFO)
    assert refused_by(b) is None


def test_a_dropped_record_is_refused_only_where_libxc_asks_for_it():
    outcomes = {}
    for kind in [rec.type for rec in StreamBuilder.pv(4).records]:
        b = StreamBuilder.pv(4)
        b.drop(kind)
        outcomes[RecordType(kind).name] = refused_by(b)
    assert outcomes == {
        "X86_PV_INFO": "ORD-02",
        "X86_CPUID_POLICY": None,
        "X86_MSR_POLICY": None,
        "STATIC_DATA_END": "ORD-04",
        "X86_PV_P2M_FRAMES": "ORD-03",
        "PAGE_DATA": "XRC-03",
        "X86_TSC_INFO": None,
        "SHARED_INFO": None,
        "X86_PV_VCPU_BASIC": "ORD-24",
        "X86_PV_VCPU_EXTENDED": None,
        "X86_PV_VCPU_XSAVE": None,
        "END": "FRM-08",
    }
