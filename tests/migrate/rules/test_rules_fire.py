"""Every rule fires on the stream that breaks it, with its declared effect, and sound streams are silent."""

import re
from collections.abc import Iterable
from functools import cache

import pytest
from project import ROOT
from violating import violating

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.destination.releases import RELEASES, Release
from migrate.judging.report import Report
from migrate.rules.catalogue import RULES
from migrate.rules.cross import NEEDS_VERIFY
from migrate.rules.declaring import Rule, Severity
from migrate.rules.hypervisor import NEEDS_PLACEMENT
from migrate.rules.order import LAW

SAMPLES = sorted((ROOT / "sample_streams").glob("*.zst"))

# What the sound stream of a kind of guest says of itself: a host must run 32-bit PV guests, and not place their
# shared_info high; the one root of a guest that is not extended passes by the slack; savers write an HVM guest's
# params after its context; Xen 4.22 takes a policy on hosts of its vendor alone.
AMBIENT = {"REC-32", "HYP-27", "L3C-2", "ORD-16", "REC-113"}

# Rules that a violation cannot help to break along with its own.
COMES_WITH = {
    # An image of version 2 has no CPU policy, unless somebody puts one in.
    "HDR-13": {"ORD-08"},
    "REC-107": {"ORD-08"},
    # A second root high on the source is the very risk that other placements tell of, under every placement (L3C-1),
    # and its source frame shows that the source did not mind (L3C-3).
    "HYP-22": {"L3C-1", "L3C-3"},
    # libxc asks for start_info's type before its frame. Of a pfn that was sent, NOTAB means a frame; so the pfn is
    # one that nothing mentions.
    "XRC-03": {"XRC-40"},
}

# Rules that hold in part before the release they are declared for.
HOLDS_BEFORE = {"REC-31": "only a 32-bit guest's levels escaped the check before 4.14"}

violations = pytest.mark.parametrize("rule", [r for r in RULES.values() if r.violation], ids=lambda r: r.id)
LIMITED = [r for r in RULES.values() if r.violation and r.since]
limited = pytest.mark.parametrize("rule", LIMITED, ids=lambda r: r.id)
not_before = pytest.mark.parametrize("rule", [r for r in LIMITED if r.id not in HOLDS_BEFORE], ids=lambda r: r.id)


@cache
def checked(rule: Rule, target: str | None = None) -> Report:
    """The report of a rule's violation, by default for the newest release that has the rule."""
    newest = [release for release in RELEASES if rule.in_force(release)][-1]
    return check(
        violating(rule.id),
        target=target or newest.name,
        placement=NEEDS_PLACEMENT.get(rule.id, "source"),
        verify=rule.id in NEEDS_VERIFY,
    )


def ids(report: Report) -> set[str]:
    return {finding.rule.id for finding in report.findings}


def lacking(rule: Rule) -> Release:
    """The newest release that does not have a rule yet."""
    return [release for release in RELEASES if not rule.in_force(release)][-1]


@violations
def test_a_violation_breaks_its_rule_and_nothing_else(rule):
    found = ids(checked(rule))
    assert rule.id in found
    assert found - AMBIENT - {rule.id} == COMES_WITH.get(rule.id, set())


@violations
def test_a_violation_is_refused_exactly_if_its_rule_is_fatal(rule):
    assert checked(rule).verdict == ("refuse" if rule.effect.fatal else "accept")


@violations
def test_the_failure_names_the_rule(rule):
    report = checked(rule)
    if report.verdict != "refuse":
        assert report.failure is None
        return
    assert report.failure is not None
    assert report.failure.rule == rule.id
    assert report.failure.message == next(f.message for f in report.findings if f.fatal)


@violations
def test_a_finding_has_the_severity_and_effect_that_are_declared(rule):
    finding = [f for f in checked(rule).findings if f.rule.id == rule.id][-1]
    assert (finding.severity, finding.effect) == (rule.severity, rule.effect)


@pytest.mark.parametrize(
    "rule", [r for r in RULES.values() if r.violation and r.errno and r.effect.fatal], ids=lambda r: r.id
)
def test_the_failing_call_answers_one_of_the_declared_errnos(rule):
    failure = checked(rule).failure
    assert failure is not None
    assert failure.errno in rule.errno.split("/")


@limited
def test_a_rule_is_in_force_in_its_first_release(rule):
    assert rule.id in ids(checked(rule, rule.since.firsts[-1].name))


@not_before
def test_a_rule_is_silent_before_its_first_release(rule):
    assert rule.id not in ids(checked(rule, str(lacking(rule))))


@not_before
def test_a_rule_fails_no_restore_before_its_first_release(rule):
    failure = checked(rule, str(lacking(rule))).failure
    # What stays is that releases before 4.14 know neither a version 3 image nor its records.
    assert failure is None or (failure.rule in ("HDR-04", "FRM-05") and lacking(rule).versions == (2,))


# -- sound streams -----------------------------------------------------------------------------------

KINDS = {
    "pv32": lambda: StreamBuilder.pv(4),
    "pv32-vcpus": lambda: StreamBuilder.pv(4, vcpus=3),
    "pv32-roots": lambda: StreamBuilder.pv(4, vcpus=2, roots=3),
    "pv32-extended": lambda: StreamBuilder.pv(4, vcpus=2, roots=3, extended=True),
    "pv64": lambda: StreamBuilder.pv(8),
    "pv64-roots": lambda: StreamBuilder.pv(8, vcpus=2, roots=3),
    "hvm": lambda: StreamBuilder.hvm(),
    "hvm-vcpus": lambda: StreamBuilder.hvm(vcpus=4),
}


def remarkable(report: Report) -> set[str]:
    """Rules told of above info."""
    return {finding.rule.id for finding in report.findings if finding.severity is not Severity.INFO}


def risks_of(kind: str) -> set[str]:
    """What a sound stream of 4.16 and later is warned of: 32-bit PV may not be built, and roots may land high."""
    return ({"REC-32"} if kind.startswith("pv32") else set()) | ({"L3C-1"} if kind == "pv32-roots" else set())


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_built_stream_is_accepted_in_silence(kind, container):
    b = KINDS[kind]()
    b.wrap(container)
    report = check(b.build(), target="4.20", placement="low")
    assert report.verdict == "accept"
    assert remarkable(report) == risks_of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_releases_that_move_shared_info_are_a_risk_to_32_bit_guests_alone(kind):
    report = check(KINDS[kind]().build(), target="4.20.3", placement="low")
    assert report.verdict == "accept"
    assert remarkable(report) == risks_of(kind) | ({"HYP-27"} if kind.startswith("pv32") else set())


@pytest.mark.parametrize("edit", ["live", "verify", "small batches", "version 2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_built_stream_in_another_form_is_accepted_in_silence(kind, edit):
    b = KINDS[kind]()
    if edit == "live":
        b.rounds = [[0, 2, 3], [1, 2], sorted(b.memory)]
    elif edit == "verify":
        b.verify = True
    elif edit == "small batches":
        b.batch = 3
    else:
        b.image["version"], b.domain["xen_minor"] = 2, 13
    report = check(b.build(), target="4.20", placement="low")
    assert report.verdict == "accept"
    assert remarkable(report) == risks_of(kind)


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_a_sound_stream_is_accepted_by_every_release(release):
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    assert check(b.build(), target=str(release)).verdict == "accept"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_genuine_stream_says_nothing_worse_than_that_roots_may_land_high(sample):
    report = check(sample, target="4.20", placement="low")
    assert report.verdict == "accept"
    # Low frames are harmless; that others would not be is L3C-1, for 32-bit guests that are not extended.
    assert remarkable(report) <= ({"REC-32", "L3C-1"} if report.stream.width == 4 else set())


def test_only_the_32_bit_guests_with_several_roots_are_at_risk_from_high_frames():
    at_risk = {s.name.split(".")[0] for s in SAMPLES if "L3C-1" in remarkable(check(s, target="4.20", placement="low"))}
    # Each of pv32x's guests has set pae_extended_cr3, and pv64's have no PAE roots.
    assert at_risk == {"x417-pv32", "pv32"}


# -- declarations and code ---------------------------------------------------------------------------

AN_ID = re.compile(r'"((?:CON|HDR|FRM|REC|ORD|XRC|HVM|HYP|L3C)-\d+)"')


def named_in(folders: Iterable[str]) -> set[str]:
    """Rule ids that stand as strings in the code of some folders, declarations excluded."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    code = [path for path in files if not {"rules", "testing"} & set(path.parts)]
    by_law = {rule for law in LAW.values() for rule in (law.once, law.stray, law.again and law.again.rule) if rule}
    by_law |= {need.rule for law in LAW.values() for need in (*law.after, *law.better_after, *law.better_before)}
    return by_law | {id for path in code for id in AN_ID.findall(path.read_text("utf-8"))}


def test_every_rule_that_code_names_is_declared():
    assert named_in(["streams", "migrate"]) <= RULES.keys()


def test_every_declared_rule_is_named_by_code():
    assert RULES.keys() - named_in(["streams", "migrate"]) == set()
