"""A stream and a known host: which fact decides, what is asked for in its place, and many hosts at once."""

from dataclasses import replace

import pytest
from click.testing import CliRunner
from host_texts import info, parsed, real, version, without_features, xen_cpuid, xl_info
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main
from migrate.destination.destination import Destination
from migrate.destination.host import MAX, PV32
from migrate.guest.cpu_policy import Policy
from migrate.judging.check import check, survey
from migrate.judging.judgement import Judgement
from migrate.reports.verdict.sentences import facts_told
from migrate.rules.declaring import Severity
from streams.compressed import CompressedTransport
from streams.wire.cpu_features import HOME

PVH, PV64, PV32_SAMPLE = (SAMPLES / f"x417-{kind}.plain.libxc.zst" for kind in ("pvh", "pv64", "pv32"))


def with_leaf_0(host, kind, last):
    policy = host.policies[MAX[kind]]
    _, *vendor = policy.leaf(0)
    less = Policy({**policy.leaves, (0, None): (last, *vendor)}, policy.msrs)
    return replace(host, policies={**host.policies, MAX[kind]: less})


def on(host, source, **options):
    return check(source, Destination(host=host, **options))


# -- the fact that decides ----------------------------------------------------------------------------

AMD = real("amd 4.17")
FACTS = {
    "32-bit PV": (
        replace(AMD, xen_caps=("xen-3.0-x86_64",)),
        PV32_SAMPLE,
        ("record", "set_address_size", "EOPNOTSUPP"),
        "xen_caps has no xen-3.0-x86_32p",
    ),
    "HVM": (
        replace(AMD, virt_caps=("pv",)),
        PVH,
        ("create", "domctl createdomain", "EINVAL"),
        "virt_caps has no hvm",
    ),
    "PV": (
        replace(AMD, virt_caps=("hvm", "hap"), xen=AMD.xen),
        PV64,
        ("create", "domctl createdomain", "EINVAL"),
        "virt_caps has no pv",
    ),
    "last leaf": (
        with_leaf_0(AMD, "pv", 5),
        PV64,
        ("record", "set_cpu_policy", "EINVAL"),
        "at most 0x5, as in the PV Max policy",
    ),
    "XSAVE": (
        without_features(AMD, "hvm", "xsave", "avx"),
        PVH,
        None,
        "promised to the guest, and not in the HVM Max policy of the host: xsave, avx",
    ),
}


@pytest.mark.parametrize(("host", "source", "failure", "fact"), FACTS.values(), ids=FACTS)
def test_an_answer_names_the_fact_that_decided(host, source, failure, fact):
    report = on(host, source)
    where = report.failure and (str(report.failure.step), report.failure.call, report.failure.errno)
    assert where == failure
    assert any(fact in finding.message for finding in report.findings if finding.severity != Severity.INFO)


def test_a_frame_above_4_gib_is_there_because_the_host_has_so_much():
    b = StreamBuilder.pv(4)
    other = b.new_root()
    b.place(other, 0x12_3456)
    caps = info(virt_caps="pv", xen_caps=f"xen-3.0-x86_64 {PV32}")
    high = parsed(version("4.20.1") + caps + info(total_memory="6143", free_memory="5555"))
    report = on(high, b.build())
    assert (report.failure.rule, report.failure.errno) == ("HYP-22", "ERANGE")
    assert "(total_memory 6143 MiB is more than fits below 4 GiB)" in report.failure.message
    low = replace(high, total_memory=2999)
    assert on(low, b.build()).verdict == "accept"


def test_release_and_placement_are_told_with_the_fact_that_decided():
    told = dict(facts_told(on(AMD, PV64)))
    assert told["target"] == "Xen 4.17.7 (xen_version 4.17.7)"
    assert told["placement"].startswith("high: frames above 4 GiB (total_memory 6143 MiB is more than fits")


def test_what_is_asked_for_in_its_place_is_told():
    report = on(AMD, PV64, release="4.20", placement="low")
    told = dict(facts_told(report))
    assert told["target"] == "Xen 4.20.0 (not as on the host: xen_version 4.17.7)"
    assert told["placement"].startswith("low: frames below 4 GiB (not as on the host: total_memory")
    assert report.to_dict()["destination"]["overridden"] == ["release", "placement"]


def test_a_destination_takes_a_host_file(tmp_path):
    file = tmp_path / "host.txt"
    file.write_text(xl_info(AMD) + xen_cpuid(AMD))
    here = Destination(host=file)
    assert (here.host, here.host.label) == (AMD, str(file))
    assert (here.release.name, here.placement) == ("4.17.7", "high")
    file.write_text("nothing of the kind")
    with pytest.raises(ValueError, match="expected what `xl info` and `xen-cpuid -p` print"):
        Destination(host=str(file))


def test_to_ask_for_what_the_host_says_anyway_is_no_override():
    assert Destination("4.17.7", "high", host=AMD).overridden == ()
    assert Destination("4.17.7", "low").overridden == ()


# -- a guest without a host's features, or memory -------------------------------------------------------


def test_what_the_guest_was_promised_and_does_not_get_is_a_warning():
    report = on(without_features(AMD, "pv", "sse4_2", "aes"), PV64)
    (lost,) = (finding for finding in report.findings if finding.rule.id == "REC-114")
    assert (report.verdict, lost.severity, lost.record_type) == ("accept", Severity.WARNING, "X86_CPUID_POLICY")
    assert lost.message.endswith(": sse4_2, aes")


@pytest.mark.parametrize("source", [PVH, PV64, PV32_SAMPLE])
def test_nothing_is_lost_on_the_kind_of_host_that_a_guest_comes_from(source):
    assert {finding.rule.id for finding in on(AMD, source).findings} & {"REC-113", "REC-114", "HYP-32"} == set()


@pytest.mark.parametrize(("source", "needed"), [(PVH, 10), (PV64, 8)])
def test_too_little_free_memory_is_a_warning(source, needed):
    """8 MiB each; for a PVH guest of one vcpu libxl sets aside 1 MiB, and 8 KiB per MiB."""
    report = on(replace(AMD, free_memory=needed - 2), source)
    (short,) = (finding for finding in report.findings if finding.rule.id == "HYP-32")
    assert (report.verdict, short.severity) == ("accept", Severity.WARNING)
    assert short.message.startswith(f"free_memory {needed - 2} MiB, and {needed} MiB are needed")
    assert all(finding.rule.id != "HYP-32" for finding in on(replace(AMD, free_memory=needed), source).findings)


# -- laws -----------------------------------------------------------------------------------------------

_FEATURES = sorted(name for name in HOME if AMD.policies[MAX["pv"]].has(name) or AMD.policies[MAX["hvm"]].has(name))


GUESTS = {
    "pv64": (PV64.read_bytes(), "pv"),
    "pv32": (PV32_SAMPLE.read_bytes(), "pv"),
    "pvh": (PVH.read_bytes(), "hvm"),
    "built pv64": (StreamBuilder.pv(8).build(), "pv"),
    "built hvm": (StreamBuilder.hvm().build(), "hvm"),
}


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(list(GUESTS)),
    st.sets(st.sampled_from(_FEATURES), max_size=12),
    st.sampled_from(_FEATURES),
    st.sampled_from(["4.17.7", "4.20"]),
    st.sampled_from([None, "caps", "leaf"]),
)
def test_a_feature_more_never_turns_accept_into_refuse(guest, missing, feature, release, other):
    """Whatever else the host lacks: a feature, a word of xen_caps and virt_caps, or leaves of its policy."""
    source, kind = GUESTS[guest]
    base = replace(AMD, virt_caps=("pv", "hvm")) if other == "caps" else AMD
    base = with_leaf_0(base, kind, 0xB) if other == "leaf" else base
    more = without_features(base, kind, *(missing - {feature}))
    less = without_features(more, kind, feature)
    if other == "caps":
        more = replace(more, virt_caps=(*more.virt_caps, "hap", "shadow"))
    if other == "leaf":
        more = with_leaf_0(more, kind, 0xD)
    here, there = survey(source, [Destination(release, host=less), Destination(release, host=more)])
    assert not (here.verdict == "accept" and there.verdict != "accept"), there.failure


# -- a pool ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [PV64, PV32_SAMPLE, PVH], ids=["pv64", "pv32", "pvh"])
def test_alike_hosts_are_asked_once_and_the_stream_is_read_once(source, monkeypatch):
    """100 hosts of two makes cost two replays, and not one byte more of the stream than a host of each."""
    kinds = [AMD, without_features(AMD, "pv", "aes")]
    pool = [replace(kinds[n % 2], name=f"host{n}", path=f"host{n}.txt", free_memory=5000 + n) for n in range(100)]
    replays, bytes_read = [], []
    replay = Judgement.replay
    monkeypatch.setattr(Judgement, "replay", lambda self, *a, **k: replays.append(a) or replay(self, *a, **k))
    again = CompressedTransport.reread
    monkeypatch.setattr(
        CompressedTransport, "reread", lambda self, ranges: bytes_read.append(len(ranges)) or again(self, ranges)
    )

    def cost(hosts):
        replays.clear()
        bytes_read.clear()
        reports = survey(source, [Destination(host=host) for host in hosts])
        assert [report.destination.host.label for report in reports] == [host.label for host in hosts]
        return len(replays), sum(bytes_read)

    of_two = cost(pool[:2])
    assert cost(pool) == of_two


def test_a_trace_begins_with_the_domain_that_cannot_be_created(tmp_path):
    host = tmp_path / "host.txt"
    host.write_text(xl_info(replace(AMD, virt_caps=("pv",))))
    shown = CliRunner().invoke(main, ["trace", str(PVH), "--host", str(host)]).stdout.splitlines()
    assert shown[:2] == [
        "domctl createdomain → -EINVAL (HYP-31)",
        "    no HVM guest can be created there (virt_caps has no hvm)",
    ]
    host.write_text(xl_info(AMD))
    assert not CliRunner().invoke(main, ["trace", str(PVH), "--host", str(host)]).stdout.startswith("domctl")
