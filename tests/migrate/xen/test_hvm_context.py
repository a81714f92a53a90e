"""What Xen says to an HVM guest's context and parameters: refusals that are certain, and silence for the rest."""

import subprocess
import sys

import pytest
from project import SAMPLES

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.parts import hvm_context
from migrate.guest.cpu_policy import Policy
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_context import CR0_DEFINED, CR4_DEFINED, EFER_DEFINED, context_objections, saved_vcpus
from streams.hvm_context import decode_context
from streams.wire.framing import HVM_SAVE_HEADER, RecordType
from streams.wire.hvm import LAYOUTS
from streams.wire.hvm_names import ENTRIES, HvmParam, SaveType
from streams.wire.vcpu import FXSAVE

SAMPLES = sorted(SAMPLES.glob("x417-pvh.*.zst"))
END = HVM_SAVE_HEADER.pack(0, 0, 0)
OLD = "4.19"  # the last release of which every form of an entry is known


def packed(typecode, body, instance=0):
    return HVM_SAVE_HEADER.pack(typecode, instance, len(body)) + body


def with_entries(*entries, vcpus=1):
    """A sound context, and more entries before its END."""
    return hvm_context(vcpus)[: -len(END)] + b"".join(entries) + END


def with_cpu(**fields):
    """A sound context whose vcpu 0 differs in some fields."""
    header, cpu, _ = decode_context(hvm_context(1)).entries
    edited = cpu.build({**cpu.parse(), **fields})
    return packed(header.typecode, header.body) + packed(edited.typecode, edited.body) + END


def with_cpu_length(length):
    """A sound context whose CPU entry is this long."""
    header, cpu, _ = decode_context(hvm_context(1)).entries
    return packed(header.typecode, header.body) + packed(cpu.typecode, cpu.body.ljust(length, b"\0")[:length]) + END


def xsave(xcr0, accum, bv=0, area=576, *, xcomp=0, reserved=bytes(48), tail=b""):
    fields = {"xfeature_mask": accum, "xcr0": xcr0, "xcr0_accum": accum, "xstate_bv": bv, "xcomp_bv": xcomp}
    fields |= {"fxsave": FXSAVE.parse(bytes(512)), "reserved": reserved, "components": b""}
    return packed(SaveType.CPU_XSAVE, LAYOUTS[SaveType.CPU_XSAVE].build(fields).ljust(24 + area, b"\0") + tail)


def msrs(*listed, count=None, reserved=0):
    entries = [{"index": index, "reserved": reserved, "value": 1} for index in listed]
    body = LAYOUTS[SaveType.CPU_MSR].build({"count": len(listed), "pad": bytes(4), "msrs": entries, "excess": b""})
    return packed(SaveType.CPU_MSR, (count if count is not None else len(listed)).to_bytes(4, "little") + body[4:])


def found(body, **known):
    """(rule, errno) of all that is to be said."""
    return [(objection.rule, objection.errno) for objection in context_objections(body, **known)]


def built(**edits):
    """The report on a sound HVM stream after edits of the builder's attributes."""
    b = StreamBuilder.hvm()
    for name, value in edits.items():
        setattr(b, name, value)
    return check(b.build(), target=OLD)


def ids(report):
    return [finding.rule.id for finding in report.findings]


# -- genuine and sound contexts ---------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("target", ["4.17", "4.20", "newest"])
def test_genuine_stream_is_accepted_in_silence(sample, target):
    report = check(sample, target=target)
    assert report.verdict == "accept"
    assert ids(report) == ["ORD-16"]
    assert report.stream.vcpus == 1


def test_all_genuine_pvh_streams_are_here():
    assert len(SAMPLES) == 4


@pytest.mark.parametrize("vcpus", [1, 2, 5])
def test_sound_context_has_nothing_to_say(vcpus):
    assert found(hvm_context(vcpus), vcpus=vcpus) == []


@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_guest_has_as_many_vcpus_as_cpu_entries(vcpus):
    assert check(StreamBuilder.hvm(vcpus=vcpus).build()).stream.vcpus == vcpus


def test_a_vcpu_that_is_sent_twice_counts_once():
    assert saved_vcpus(with_entries(packed(SaveType.CPU, bytes(1032)))) == 1


# -- the chain --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "errno", "offset"),
    [
        (b"", "ENODATA", 0),
        (bytes(8), "ENODATA", 0),
        (END, "ENODATA", 0),
        (hvm_context(1)[32:], "ENODATA", 0),
        (packed(1, bytes(24)) + END, "EINVAL", 8),
        (packed(1, hvm_context(1)[8:12] + bytes(20)) + END, "EINVAL", 8),
        (packed(1, hvm_context(1)[8:16]) + END, "ENODATA", 0),
        (hvm_context(1)[: -len(END)], "ENODATA", 32 + 1040),
        (hvm_context(1)[:-9], "ENODATA", 32),
        (with_entries(packed(21, b"")), "EINVAL", 32 + 1040),
        (with_entries(hvm_context(1)[:32]), "EINVAL", 32 + 1040),
    ],
    ids=[
        "nothing",
        "zeros",
        "end",
        "no header",
        "bad magic",
        "version 0",
        "short header",
        "no end",
        "cut",
        "unknown type",
        "second header",
    ],
)
def test_broken_chain_is_refused_where_it_breaks(body, errno, offset):
    *_, last = context_objections(body)
    assert (last.rule, last.errno, last.offset) == ("REC-111", errno, offset)


def test_what_comes_before_the_break_is_told_first():
    body = with_entries(packed(SaveType.PCI_LINK, b""), packed(21, b""))
    assert [rule for rule, _ in found(body)] == ["HVM-01", "REC-111"]


def test_bytes_behind_end_are_never_read():
    assert found(hvm_context(1) + packed(99, b"")) == [("HVM-13", None)]


def test_an_entry_that_comes_twice_is_loaded_twice():
    link = packed(SaveType.PCI_LINK, bytes(8))
    assert found(with_entries(link)) == []
    assert found(with_entries(link, link)) == [("HVM-12", None)]


def test_the_same_type_for_several_vcpus_is_no_repetition():
    tsc = [packed(SaveType.TSC_ADJUST, bytes(8), vcpu) for vcpu in range(2)]
    assert found(with_entries(*tsc, vcpus=2)) == []


# -- lengths ----------------------------------------------------------------------------------------

EXACT = [kind for kind, known in ENTRIES.items() if not (known.shorter or known.longer) and known.length > 0]
EXACT.remove(SaveType.HEADER)
EXTENDED = [kind for kind, known in ENTRIES.items() if known.shorter]


def test_these_types_may_be_shorter():
    assert {kind.name for kind in EXTENDED} == {
        "CPU",
        "LAPIC",
        "LAPIC_REGS",
        "VIRIDIAN_DOMAIN",
        "VIRIDIAN_VCPU",
        "VMCE_VCPU",
    }


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_entry_of_fixed_length_is_refused_at_any_other(kind, off):
    assert found(with_entries(packed(kind, bytes(ENTRIES[kind].length + off)))) == [("HVM-01", "EINVAL")]


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_entry_of_its_own_length_is_taken(kind):
    assert found(with_entries(packed(kind, bytes(ENTRIES[kind].length)))) == []


@pytest.mark.parametrize("kind", [kind for kind in EXTENDED if kind is not SaveType.CPU], ids=lambda kind: kind.name)
def test_entry_of_an_older_form_is_taken(kind):
    for length in (0, 8, ENTRIES[kind].length):
        assert found(with_entries(packed(kind, bytes(length)))) == []


@pytest.mark.parametrize("length", [1016, 1024, 1032])
def test_cpu_entry_of_any_release_is_taken(length):
    assert found(with_cpu_length(length)) == []


def test_cpu_entry_without_control_registers_is_refused_for_them():
    assert found(with_cpu_length(640)) == [("HVM-04", "EINVAL")]


@pytest.mark.parametrize(("target", "verdict"), [("4.17", "refuse"), ("4.19", "refuse"), ("4.22", "accept")])
def test_entry_of_a_newer_form_is_refused_by_releases_known_not_to_have_it(target, verdict):
    b = StreamBuilder.hvm()
    b.hvm_context[:] = with_entries(packed(SaveType.LAPIC, bytes(32)))
    report = check(b.build(), target=target)
    told = [finding for finding in report.findings if finding.rule.id == "HVM-01"]
    assert report.verdict == verdict
    assert [finding.severity for finding in told] == [Severity.ERROR if verdict == "refuse" else Severity.WARNING]


@pytest.mark.parametrize("kind", [SaveType.CPU_XSAVE, SaveType.CPU_MSR], ids=lambda kind: kind.name)
def test_entry_of_variable_length_has_a_least_one(kind):
    assert found(with_entries(packed(kind, bytes(ENTRIES[kind].length - 1)))) == [("HVM-01", "EINVAL")]


# -- vcpus ------------------------------------------------------------------------------------------


def test_vcpu_beyond_the_domains_is_refused_once():
    more = [packed(SaveType.TSC_ADJUST, bytes(8), vcpu) for vcpu in range(2)]
    assert found(with_entries(*more, vcpus=2), vcpus=1) == [("HVM-02", "EINVAL")]


def test_nothing_is_said_of_vcpus_where_nobody_knows_their_number():
    assert found(hvm_context(9)) == []


def test_instances_of_devices_are_no_vcpus():
    assert found(with_entries(packed(SaveType.PCI_IRQ, bytes(16), 7)), vcpus=1) == []


def test_there_are_two_pics():
    pics = [packed(SaveType.PIC, bytes(8), instance) for instance in range(3)]
    assert found(with_entries(*pics[:2]), vcpus=1) == []
    assert found(with_entries(*pics), vcpus=1) == [("HVM-02", "EINVAL")]


def test_the_domains_vcpus_can_be_given():
    b = StreamBuilder.hvm(vcpus=2)
    assert check(b.build(), vcpus=2).verdict == "accept"
    report = check(b.build(), vcpus=1)
    assert (report.verdict, report.failure.rule, report.failure.vcpu) == ("refuse", "HVM-02", 1)
    assert (report.failure.step, report.failure.call, report.failure.errno) == ("context", "sethvmcontext", "EINVAL")


def test_an_xl_config_says_how_many_vcpus_there_are():
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.hvm_context[:] = hvm_context(3)
    assert check(b.build()).failure.rule == "HVM-02"


def test_guest_without_any_cpu_comes_back_dead():
    report = built(hvm_context=bytearray(hvm_context(0)))
    assert report.verdict == "accept"
    told = next(finding for finding in report.findings if finding.rule.id == "HVM-03")
    assert (told.severity, told.effect) == (Severity.ERROR, Effect.CORRUPT)


def test_guest_without_vcpu_0_may_mean_it():
    body = hvm_context(2)
    told = list(context_objections(body[:32] + body[32 + 1040 :], vcpus=2))
    assert [(one.rule, one.severity) for one in told] == [("HVM-03", Severity.WARNING)]


def test_guest_with_other_vcpus_down_is_fine():
    assert found(hvm_context(1), vcpus=4) == []


# -- registers --------------------------------------------------------------------------------------

PE, ET, PG = 0x1, 0x10, 0x8000_0000
VALID = 0x8000_0000  # of a pending event


@pytest.mark.parametrize(
    "fields",
    [
        {"cr0": 0},
        {"cr0": PE},
        {"cr0": ET | PG},
        {"cr0": ET | 1 << 6},
        {"cr0": ET | 1 << 32},
        {"cr4": 1 << 15},
        {"cr4": 1 << 63},
        {"msr_efer": 1 << 10},
        {"cr0": ET, "msr_efer": 1 << 10 | 1 << 8},
        {"msr_efer": 1 << 1},
        {"msr_efer": 1 << 40},
        {"flags": 2},
        {"pad0": 1},
        {"pending_event": VALID | 1 << 8},
        {"pending_event": VALID | 7 << 8},
        {"pending_event": VALID | 1 << 12},
        {"pending_event": VALID | 1 << 11 | 3 << 8, "error_code": 0x10000},
    ],
    ids=str,
)
def test_impossible_registers_are_refused(fields):
    assert found(with_cpu(**fields)) == [("HVM-04", "EINVAL")]


@pytest.mark.parametrize(
    "fields",
    [
        {"cr0": ET},
        {"cr0": ET | PE | PG},
        {"cr0": CR0_DEFINED, "cr4": CR4_DEFINED},
        {"msr_efer": EFER_DEFINED},
        {"cr0": ET | PE | PG, "cr4": 1 << 5, "msr_efer": 0xD01},
        {"flags": 1},
        {"pending_event": 7 << 8},
        {"pending_event": VALID | 14 | 3 << 8 | 1 << 11, "error_code": 0xFFFF},
        {"pending_event": VALID | 4 << 8 | 0x80, "error_code": 0x10000},
        {"cr3": (1 << 52) - 1},
        {"msr_tsc_aux": 0xFFFF_FFFF},
    ],
    ids=str,
)
def test_possible_registers_are_taken(fields):
    assert found(with_cpu(**fields)) == []


@pytest.mark.parametrize("fields", [{"cr3": 1 << 52}, {"msr_tsc_aux": 1 << 32}], ids=str)
@pytest.mark.parametrize(("target", "rule"), [("4.13", None), ("4.14", "HVM-04"), ("4.20", "HVM-04")])
def test_too_wide_values_are_refused_where_that_is_known(fields, target, rule):
    b = StreamBuilder.hvm()
    b.hvm_context[:] = with_cpu(**fields)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    failure = check(b.build(), target=target).failure
    assert (failure and failure.rule) == rule


def test_old_cpu_entry_is_not_read_beyond_its_form():
    # In the form of 1016 bytes, TSC and the pending event lie where newer ones have TSC_AUX and the TSC.
    header, cpu, _ = decode_context(hvm_context(1)).entries
    body = bytearray(cpu.body[:1016])
    body[1000:1016] = b"\xff" * 16
    assert found(packed(header.typecode, header.body) + packed(cpu.typecode, bytes(body)) + END) == []


@pytest.mark.parametrize(
    ("cr4", "objections"), [(0x630, 0), (0x20, 0), (0x100, 0), (1 << 20, 1), (1 << 20 | 1 << 22, 2), (1 << 13, 1)]
)
def test_cr4_is_held_against_the_streams_own_policy(cr4, objections):
    policy = Policy({(1, None): (0, 0, 0, 1 << 3 | 1 << 4 | 1 << 6 | 1 << 24 | 1 << 25)})
    told = list(context_objections(with_cpu(cr4=cr4), policy=policy))
    assert [one.rule for one in told] == ["HVM-05"] * objections


def test_without_a_policy_cr4_may_be_anything():
    assert found(with_cpu(cr4=1 << 22)) == []


def test_use_beyond_the_policy_is_a_matter_of_the_host():
    report = built(hvm_context=bytearray(with_cpu(cr4=1 << 22)))
    assert report.verdict == "accept"
    told = next(finding for finding in report.findings if finding.rule.id == "HVM-05")
    assert (told.severity, told.effect) == (Severity.WARNING, Effect.HOST)


# -- extended state ---------------------------------------------------------------------------------

AVX = 0b111


@pytest.mark.parametrize(
    ("entry", "errno"),
    [
        (xsave(0, 1), "EINVAL"),
        (xsave(0b101, 0b101), "EINVAL"),
        (xsave(1, 0), "EINVAL"),
        (xsave(3, 1), "EINVAL"),
        (xsave(1, 1, bv=2), "EINVAL"),
        (xsave(0b1000111, 0b1000111, area=832), "EINVAL"),
        (xsave(0b1011, 0b1011, area=832), "EINVAL"),
        (xsave(1, 1, xcomp=1 << 63), "EOPNOTSUPP"),
        (xsave(1, 1, reserved=b"\1" * 48), "EIO"),
    ],
    ids=[
        "no x87",
        "avx without sse",
        "beyond accum",
        "sse beyond accum",
        "bv beyond accum",
        "half of avx-512",
        "half of mpx",
        "compressed",
        "reserved",
    ],
)
def test_impossible_extended_state_is_refused(entry, errno):
    assert found(with_entries(entry)) == [("HVM-06", errno)]


@pytest.mark.parametrize(
    ("entry", "errno"),
    [
        (xsave(AVX, AVX, area=576), "EINVAL"),
        (xsave(1, AVX, area=831), "EINVAL"),
        (xsave(AVX, AVX, area=832, tail=bytes(7) + b"\1"), "EOPNOTSUPP"),
        (xsave(1, 1, area=576, tail=b"\1"), "EOPNOTSUPP"),
    ],
)
def test_area_that_does_not_fit_its_components_is_refused(entry, errno):
    assert found(with_entries(entry)) == [("HVM-07", errno)]


@pytest.mark.parametrize(
    "entry",
    [
        xsave(1, 1),
        xsave(3, 3, bv=3),
        xsave(1, AVX, bv=AVX, area=832),
        xsave(AVX, AVX, area=832, tail=bytes(100)),
    ],
)
def test_sound_extended_state_is_taken(entry):
    assert found(with_entries(entry)) == []


PKRU = 1 << 9 | 3
PKRU_POLICY = Policy({(0xD, 0): (0x207, 0, 0, 0), (0xD, 2): (256, 576, 0, 0), (0xD, 9): (8, 2688, 0, 0)})


def test_later_components_lie_where_the_policy_puts_them():
    # So did a PVH Linux of two vcpus have it: 2720 bytes with xcr0 3 and xcr0_accum 0x203.
    assert len(xsave(3, PKRU, area=2696)) == HVM_SAVE_HEADER.size + 2720
    assert found(with_entries(xsave(3, PKRU, area=2696)), policy=PKRU_POLICY) == []


def test_another_place_is_a_matter_of_the_host():
    told = list(context_objections(with_entries(xsave(3, PKRU, area=840)), policy=PKRU_POLICY))
    assert [(one.rule, one.effect) for one in told] == [("HVM-07", Effect.HOST)]


def test_without_a_policy_nobody_knows_where_components_lie():
    assert found(with_entries(xsave(3, PKRU, area=840))) == []


def test_components_are_held_against_the_policy():
    told = found(with_entries(xsave(3, 0x203 | 0xE7, area=2696)), policy=PKRU_POLICY)
    assert told == [("HVM-05", "EINVAL")]


# -- APIC, MTRRs, MSRs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "refused"), [(0xFEE0_0400, 1), (0xFEE0_0C00, 0), (0xFEE0_0900, 0), (0, 0)])
def test_x2apic_mode_needs_an_enabled_apic(base, refused):
    entry = packed(SaveType.LAPIC, base.to_bytes(8, "little").ljust(24, b"\0"))
    assert found(with_entries(entry)) == [("HVM-08", "EINVAL")] * refused


@pytest.mark.parametrize(("cap", "refused"), [(0x508, 0), (9, 1), (0x100, 0), (255, 1)])
def test_there_are_eight_variable_mtrrs(cap, refused):
    fields = LAYOUTS[SaveType.MTRR].parse(bytes(240))
    fields.msr_mtrr_cap = cap
    assert (
        found(with_entries(packed(SaveType.MTRR, LAYOUTS[SaveType.MTRR].build(fields))))
        == [("HVM-09", "EINVAL")] * refused
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (msrs(0x48), []),
        (msrs(0x48, 0x140, 0xD90, 0xDA0, 0xC001_1027), []),
        (msrs(0x48, count=2), [("HVM-10", "EOPNOTSUPP")]),
        (msrs(0x48, 0x140, count=1), [("HVM-10", "EOPNOTSUPP")]),
        (msrs(0x48, count=0xFFFF_FFFF), [("HVM-10", "EOPNOTSUPP")]),
        (msrs(0x48, reserved=1), [("HVM-10", "EOPNOTSUPP")]),
        (msrs(0x10, 0x11), [("HVM-11", "ENXIO")]),
    ],
)
def test_list_of_msrs_is_checked_as_a_whole(entry, expected):
    assert found(with_entries(entry)) == expected


# -- params -----------------------------------------------------------------------------------------


def with_params(**params):
    b = StreamBuilder.hvm()
    b.hvm_params.update({HvmParam[name]: value for name, value in params.items()})
    return check(b.build(), target=OLD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMER_MODE", 4),
        ("ACPI_S_STATE", 1),
        ("X87_FIP_WIDTH", 2),
        ("VIRIDIAN", 2),
        ("NR_IOREQ_SERVER_PAGES", 0),
        ("NR_IOREQ_SERVER_PAGES", 65),
    ],
)
def test_value_that_xen_refuses_stops_the_restore(name, value):
    failure = with_params(**{name: value}).failure
    assert (failure.rule, failure.call, failure.errno) == ("HVM-14", "hvm_set_param", "EINVAL")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMER_MODE", 3),
        ("ACPI_S_STATE", 3),
        ("X87_FIP_WIDTH", 8),
        ("VIRIDIAN", 0x7FF),
        ("NR_IOREQ_SERVER_PAGES", 8),
        ("MCA_CAP", 1),
        ("IDENT_PT", 0xFEFF_E000),
        ("PAE_ENABLED", 1),
    ],
)
def test_value_that_some_xen_takes_is_left_alone(name, value):
    report = with_params(**{name: value})
    assert (report.verdict, ids(report)) == ("accept", ["ORD-16"])


@pytest.mark.parametrize(
    ("name", "errno"),
    [("DM_DOMAIN", "EPERM"), ("BUFIOREQ_EVTCHN", "EPERM"), ("MEMORY_EVENT_CR3", "EOPNOTSUPP")],
)
def test_deprecated_param_is_refused(name, errno):
    failure = with_params(**{name: 1}).failure
    assert (failure.rule, failure.errno) == ("REC-109", errno)


def test_param_above_the_last_is_unknown():
    b = StreamBuilder.hvm()
    b.hvm_params[39] = 0
    assert (check(b.build()).failure.rule, check(b.build()).failure.errno) == ("REC-109", "EINVAL")


def twice(index, first, second):
    b = StreamBuilder.hvm()
    b.hvm_params[index] = first
    again = b.duplicate(RecordType.HVM_PARAMS)
    at = again.body.index(index.to_bytes(8, "little") + first.to_bytes(8, "little"))
    again.body[at + 8 : at + 16] = second.to_bytes(8, "little")
    return check(b.build(), target=OLD)


def test_param_that_is_set_once_cannot_change():
    report = twice(HvmParam.IOREQ_PFN, 5, 6)
    assert (report.failure.rule, report.failure.errno) == ("REC-109", "EEXIST")


@pytest.mark.parametrize(("index", "first", "second"), [(HvmParam.IOREQ_PFN, 5, 5), (HvmParam.IDENT_PT, 5, 6)])
def test_other_params_can_be_sent_again(index, first, second):
    assert twice(index, first, second).verdict == "accept"


# -- size -------------------------------------------------------------------------------------------


def test_judging_an_hvm_guest_imports_neither_numpy_nor_construct():
    code = (
        "import sys; from migrate import check; r = check(sys.argv[1]);"
        "print(r.verdict, {'numpy', 'construct'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code, SAMPLES[0]], capture_output=True, text=True, check=True).stdout
    assert out == "accept set()\n"
