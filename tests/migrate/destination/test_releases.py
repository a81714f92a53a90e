"""Which release behaves how: facts about Xen, not about the table that holds them."""

import itertools
import re

import pytest
from project import ROOT

from migrate.destination.releases import (
    CHANGES,
    NEWEST,
    RELEASES,
    Release,
    differences,
    distinct,
    like,
    max_leaves_relaxed,
    resolve,
    shared_info_moves_low,
    spans,
)
from migrate.rules.catalogue import RULES
from migrate.rules.extended_cr3 import L3_RULES

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("name", "last_without", "first_with"),
    [
        ("colo", "4.6.6", "4.7"),
        ("long_records", "4.9.4", "4.10"),
        ("linear_pt_restricted", "4.9.0", "4.9.1"),
        ("linear_pt_restricted", "4.7.3", "4.7.4"),
        ("msrs_restored", "4.9.1", "4.9.2"),
        ("msrs_restored", "4.8.3", "4.10.0"),
        ("empty_vcpu_records_skipped", "4.10.4", "4.11"),
        ("l1tf", "4.11.0", "4.11.1"),
        ("l1tf", "4.8.4", "4.8.5"),
        ("vm_assist_mask", "4.12.2", "4.12.3"),
        ("vm_assist_mask", "4.13.0", "4.13.1"),
        ("vm_assist_mask", "4.11.4", "4.14.0"),
        ("blob_lengths_checked", "4.13.0", "4.13.1"),
        ("hvm_context_nonempty", "4.13.5", "4.14"),
        ("tsc_mode_3_refused", "4.11.4", "4.12"),
        ("pv32_switch", "4.13.5", "4.14"),
        ("debug_registers_checked", "4.17.7", "4.18"),
        ("l3_below_4g", "4.18.6", "4.19"),
        ("shared_info_moves_low", "4.18.6", "4.22"),
        ("shared_info_moves_low", "4.19.4", "4.19.5"),
        ("shared_info_moves_low", "4.20.2", "4.20.3"),
        ("shared_info_moves_low", "4.21.0", "4.21.1"),
        ("eflags_vm_refused", "4.21.0", "4.21.1"),
        ("eflags_vm_refused", "4.20.4", "4.22"),
        ("msr_refusal_enxio", "4.19.6", "4.20"),
        ("qemu_traditional_gone", "4.20.4", "4.21"),
    ],
)
def test_a_behaviour_begins_with_its_release(name, last_without, first_with):
    assert resolve(last_without).has(CHANGES[name]) is False
    assert resolve(first_with).has(CHANGES[name]) is True


@pytest.mark.parametrize(
    ("name", "last_with", "first_without"),
    [("r8_to_r15_lost", "4.21.1", "4.21.2"), ("r8_to_r15_lost", "4.21.0", "4.22.0")],
)
def test_a_behaviour_ends_with_its_release(name, last_with, first_without):
    assert resolve(last_with).has(CHANGES[name]) is True
    assert resolve(first_without).has(CHANGES[name]) is False


def test_a_newer_branch_may_lack_what_an_older_point_release_has():
    assert resolve("4.19.5").has(shared_info_moves_low)
    assert not resolve("4.20.0").has(shared_info_moves_low)


@pytest.mark.parametrize(("release", "versions"), [("4.6", (2,)), ("4.13", (2,)), ("4.14", (2, 3)), ("4.22", (2, 3))])
def test_version_3_images_are_read_since_4_14(release, versions):
    assert resolve(release).versions == versions


def test_hyp_27_holds_on_the_later_point_releases_of_three_branches():
    held = [release.name for release in RELEASES if RULES["HYP-27"].in_force(release)]
    assert held == ["4.19.5", "4.19.6", "4.20.3", "4.20.4", "4.21.1", "4.21.2", "4.22.0"]


def test_the_assist_mask_was_backported_to_4_12_and_4_13():
    assert RULES["REC-60"].in_force(resolve("4.13.1"))
    assert not RULES["REC-60"].in_force(resolve("4.13.0"))


def test_an_ordinary_rule_holds_from_its_release_on():
    assert not RULES["HYP-22"].in_force(resolve("4.18"))
    assert RULES["HYP-22"].in_force(resolve("4.20.1"))


def test_the_table_reaches_from_4_6_to_4_22_and_lists_every_point_release():
    assert RELEASES[0] == Release(4, 6, 0)
    assert NEWEST == RELEASES[-1] == Release(4, 22, 0)
    assert list(RELEASES) == sorted(set(RELEASES))
    assert {release.minor for release in RELEASES} == set(range(6, 23))
    last = {release.branch: release.point for release in RELEASES}
    assert (last[4, 13], last[4, 17], last[4, 20], last[4, 21]) == (5, 7, 4, 2)
    assert [release.point for release in RELEASES if release.minor == 6] == [0, 1, 3, 4, 5, 6]


def test_every_change_begins_and_ends_with_releases_that_exist():
    assert all({*change.firsts, *change.lasts} <= set(RELEASES) for change in CHANGES.values())
    assert all(list(change.firsts) == sorted(change.firsts) for change in CHANGES.values())


def test_releases_that_the_table_does_not_tell_apart_are_represented_by_the_first():
    answers = {tuple(release.has(change) for change in CHANGES.values()) for release in RELEASES}
    assert len(answers) == len(distinct())
    assert [NEWEST in like(first) for first in distinct()].count(True) == 1
    assert RELEASES[0] in distinct()


def test_a_release_knows_what_it_changed():
    assert "l3_below_4g" in [change.name for change in resolve("4.19.0").changes]
    assert "r8_to_r15_lost" in [change.name for change in resolve("4.21.2").changes]
    assert all(change.what for change in CHANGES.values())


@pytest.mark.parametrize("text", ["4.20.3", "v4.20.3", "xen-4.20.3", "Xen-4.20.3", "xen 4.20.3", " XEN4.20.3 "])
def test_a_release_may_be_written_in_many_ways(text):
    assert resolve(text) == (4, 20, 3)


def test_a_branch_means_its_first_release():
    assert resolve("4.20") == (4, 20, 0)


@pytest.mark.parametrize("text", ["newest", "NEWEST"])
def test_newest_is_the_newest_known(text):
    assert resolve(text) is NEWEST
    assert resolve() is NEWEST


@pytest.mark.parametrize(("release", "short"), [("4.20.0", "4.20"), ("4.20.3", "4.20.3"), ("4.10", "4.10")])
def test_the_short_name_leaves_out_the_zero_of_a_first_release(release, short):
    assert resolve(release).short == short


def refusals(variant):
    """(width4, extended, high, vcpu0_initialised) of every case that a variant refuses."""
    cases = itertools.product([False, True], repeat=4)
    return {case for case in cases if L3_RULES[variant].refuses(*case)}


def test_the_l3_rule_as_merged_refuses_one_case_only():
    assert refusals(resolve("4.19").l3_rule) == {(True, False, True, True)}
    assert L3_RULES["L3V-3"].errno == "ERANGE"


def test_before_4_19_no_l3_table_is_refused():
    assert resolve("4.18").l3_rule == "L3V-2"
    assert refusals("L3V-2") == set()


def test_the_original_rule_differs_from_the_merged_one_in_width_and_errno_alone():
    assert {case[1:] for case in refusals("L3V-1")} == {case[1:] for case in refusals("L3V-3")}
    assert L3_RULES["L3V-1"].errno == "EINVAL"


def test_the_simplified_rule_knows_no_slack_and_no_width():
    assert refusals("L3V-4") == {(w, False, True, i) for w in (False, True) for i in (False, True)}


def test_masking_the_assist_of_64_bit_guests_changes_no_answer():
    assert refusals("L3V-5") == refusals("L3V-3")


def test_a_point_release_yet_to_come_behaves_as_the_last_of_its_branch():
    assert resolve("4.19.12").has(shared_info_moves_low)
    assert resolve("4.18.99").has(max_leaves_relaxed)


@pytest.mark.parametrize("text", ["4.23", "4.23.0", "4.22.1", "5.0", "xen-4.100.2"])
def test_a_release_newer_than_all_is_refused_with_the_newest(text):
    with pytest.raises(ValueError, match=r"newer than any that is known here: the newest is 4\.22\.0"):
        resolve(text)


@pytest.mark.parametrize(("text", "hint"), [("4.5", "4.6"), ("4.2", "4.6"), ("newst", "newest"), ("3.20", "4.20")])
def test_an_unknown_release_is_refused_with_a_hint(text, hint):
    with pytest.raises(ValueError, match=f"did you mean {hint}"):
        resolve(text)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ((), ""),
        (("4.20.0",), "4.20.0"),
        (("4.14.0", "4.14.1", "4.14.2", "4.15.0"), "4.14.0–4.14.2, 4.15.0"),
        (("4.13.5", "4.14.0"), "4.13.5–4.14.0"),
        (("4.6.1", "4.6.3"), "4.6.1–4.6.3"),
    ],
)
def test_many_releases_are_told_in_runs(chosen, text):
    assert spans({resolve(name) for name in chosen}) == text


def test_all_releases_are_one_run():
    assert spans(RELEASES) == f"{RELEASES[0]}–{NEWEST}"


def test_every_release_is_like_one_of_the_distinct_ones():
    assert sorted(itertools.chain.from_iterable(map(like, distinct()))) == list(RELEASES)
    assert all(not differences(first, other) for first in distinct() for other in like(first))


def test_two_releases_differ_in_what_one_of_them_has():
    changed = differences(resolve("4.16.0"), resolve("4.16.1"))
    assert "leaf_7_2" in [change.name for change in changed]
    assert "leaf_80000021" not in [change.name for change in changed]
    assert differences(NEWEST, NEWEST) == ()


@pytest.mark.parametrize("release", distinct(), ids=str)
def test_a_release_may_be_supposed_with_one_change_turned_round(release):
    for change in CHANGES.values():
        supposed = release.supposing(change)
        assert differences(release, supposed) == (change,)
        assert (supposed.name, supposed.branch) == (release.name, release.branch)
        assert supposed != release
        assert supposed == release.supposing(change)
        assert like(supposed) == () or release not in like(supposed)


def test_a_change_has_its_main_release_and_its_backports():
    assert [release.name for release in max_leaves_relaxed.backports] == ["4.18.4", "4.19.1"]
    assert max_leaves_relaxed.firsts[-1].name == "4.20.0"


@pytest.mark.parametrize("text", ["", "4", "four", "4.20.3.1", "4.x", "-4.20", "4.20-rc1", "0" * 5000 + ".1", "4.٢٠"])
def test_nonsense_is_refused_without_a_traceback_of_another_kind(text):
    with pytest.raises(ValueError, match="unknown Xen release"):
        resolve(text)


def test_every_change_is_asked_for_by_a_check_or_a_rule():
    """No row that nobody reads; what names one here are checks in code, and rules in `since` and `until`."""
    table = ROOT / "migrate" / "destination" / "releases.py"
    code = "\n".join(path.read_text() for path in (ROOT / "migrate").rglob("*.py") if path != table)
    asked = set(re.findall(r"\breleases\.(\w+)", code)) | set(re.findall(r"\bhas\((\w+)\)", code))
    assert CHANGES.keys() - asked == set()


def test_release_numbers_stand_in_the_table_alone():
    """No check compares with numbers of its own, however they are written."""
    forms = re.compile(r"Release\(\s*\d|[<>=]=?\s*\(\s*4\s*,\s*\d+|resolve\(\s*[\"']\d")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("migrate", "streams")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "releases.py"
        for line in path.read_text().splitlines()
        if forms.search(line)
    ]
    assert found == []


def test_decoders_know_no_rules():
    """`streams` reports breaches; which rule that is stands in one table of the toolstack."""
    ids = re.compile(r"\b(?:CON|HDR|FRM|REC|ORD|XRC|HVM|HYP|L3C)-\d")
    assert [path.name for path in (ROOT / "streams").rglob("*.py") if ids.search(path.read_text())] == []
