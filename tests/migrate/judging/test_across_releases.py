"""All releases at once: which answer alike, and which change makes the others differ."""

import pytest

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.destination.destination import Destination
from migrate.destination.releases import RELEASES, distinct, resolve
from migrate.judging.across_releases import answer_of, compare
from migrate.rules.catalogue import RULES


def compared(b, placement="low", **more):
    return compare(b.build(), [Destination(release, placement) for release in distinct()], **more)


def told(comparison):
    """(releases, verdict, rule) of each group, and the names of the deciding changes."""
    rows = [
        (group.spans, group.report.verdict, group.report.failure and group.report.failure.rule)
        for group in comparison.groups
    ]
    return rows, [change.name for change in comparison.changes]


def version_2(width=8):
    b = StreamBuilder.pv(width)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    return b


def test_a_stream_that_every_release_takes_makes_one_group():
    b = version_2()
    for number in range(8, 16):
        setattr(b.vcpus[0].basic.user_regs, f"r{number}", 0)
    assert told(compared(b)) == ([("4.6.0–4.22.0", "accept", None)], [])


def test_a_damaged_guest_is_a_group_of_its_own():
    b = version_2()
    b.vcpus[0].basic.user_regs.r8 = 1
    comparison = compared(b)
    rows, changes = told(comparison)
    assert rows == [("4.6.0–4.20.4, 4.21.2–4.22.0", "accept", None), ("4.21.0–4.21.1", "accept", None)]
    assert [group.damage for group in comparison.groups] == [(), ("HYP-28",)]
    assert changes == ["r8_to_r15_lost"]


@pytest.mark.parametrize(
    ("rule", "taken", "refused", "change"),
    [
        ("REC-66", "4.6.0–4.21.0", "4.21.1–4.22.0", "eflags_vm_refused"),
        ("REC-60", "4.6.0–4.12.2, 4.13.0", "4.12.3–4.12.4, 4.13.1–4.22.0", "vm_assist_mask"),
        ("REC-102", "4.6.0–4.11.4", "4.12.0–4.22.0", "tsc_mode_3_refused"),
    ],
)
def test_the_change_that_decides_is_found_among_others_of_the_same_release(rule, taken, refused, change):
    b = version_2(4)
    RULES[rule].violation(b)
    assert told(compared(b)) == ([(taken, "accept", None), (refused, "refuse", rule)], [change])


def test_an_errno_sets_releases_apart():
    b = version_2()
    RULES["REC-92"].violation(b)
    comparison = compared(b)
    failures = [group.report.failure for group in comparison.groups]
    assert [failure and failure.errno for failure in failures] == [None, "EINVAL", "ENXIO"]
    assert [change.name for change in comparison.changes] == ["msrs_restored", "msr_refusal_enxio"]


def test_groups_hold_every_release_once():
    b = StreamBuilder.pv(4, vcpus=2, roots=3)
    comparison = compared(b, "high")
    assert sorted(release for group in comparison.groups for release in group.releases) == list(RELEASES)


def test_the_group_of_a_release_answers_as_the_release_itself():
    b = StreamBuilder.pv(4, vcpus=2, roots=3)
    for group in compared(b, "high").groups:
        for release in (group.releases[0], group.releases[-1]):
            alone = check(b.build(), target=release.name, placement="high")
            assert answer_of(alone) == answer_of(group.report)


def test_rules_that_are_ignored_set_no_releases_apart():
    b = version_2()
    b.vcpus[0].basic.user_regs.r8 = 1
    assert len(compared(b, ignore=["HYP-28"]).groups) == 1


def test_a_few_releases_may_be_compared():
    b = version_2()
    b.vcpus[0].basic.user_regs.r8 = 1
    few = compare(b.build(), [Destination(resolve(name), "low") for name in ("4.20.0", "4.21.0")])
    assert [change.name for change in few.changes] == ["r8_to_r15_lost"]
