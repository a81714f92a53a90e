"""Which release behaves how: facts about Xen, not about the table that holds them."""

import itertools

import pytest

from migrate.destination.releases import CHANGES, NEWEST, RELEASES, Target, resolve
from migrate.rules.declaring import Effect, Rule, Severity
from migrate.rules.extended_cr3 import VARIANTS

MIB = 1024 * 1024


def rule(id, since):
    return Rule(id, "x", Effect.REFUSED, Severity.ERROR, "xen", since, None, None, "", None)


@pytest.mark.parametrize(
    ("name", "last_without", "first_with"),
    [
        ("colo", "4.6", "4.7"),
        ("linear_p2m", "4.6", "4.7"),
        ("superpages_fail_save", "4.9", "4.10"),
        ("linear_pt_restricted", "4.9", "4.10"),
        ("msrs_restored", "4.9", "4.10"),
        ("empty_vcpu_records", "4.10", "4.11"),
        ("l1tf", "4.11.0", "4.11.1"),
        ("l1tf", "4.10.9", "4.12.0"),
        ("vm_assist_mask", "4.12.2", "4.12.3"),
        ("vm_assist_mask", "4.13.0", "4.13.1"),
        ("vm_assist_mask", "4.11.9", "4.14.0"),
        ("pv_levels_checked", "4.13.4", "4.14"),
        ("blob_lengths_checked", "4.13.4", "4.14"),
        ("hvm_context_nonempty", "4.13.4", "4.14"),
        ("pv32_switch", "4.13.4", "4.14"),
        ("dr_checks", "4.17.5", "4.18"),
        ("l3_rule", "4.18.5", "4.19"),
        ("shared_info_moves_low", "4.18.9", "4.22"),
        ("shared_info_moves_low", "4.19.4", "4.19.5"),
        ("shared_info_moves_low", "4.20.2", "4.20.3"),
        ("shared_info_moves_low", "4.21.0", "4.21.1"),
        ("populates_2m", "4.20.9", "4.21"),
        ("eflags_vm_refused", "4.21.1", "4.22"),
    ],
)
def test_a_behaviour_begins_with_its_release(name, last_without, first_with):
    assert getattr(resolve(last_without), name) is False
    assert getattr(resolve(first_with), name) is True


@pytest.mark.parametrize(
    ("name", "last_with", "first_without"),
    [("tsc_mode_3", "4.11", "4.12"), ("xsave_multiple_of_16", "4.13", "4.14"), ("qemu_traditional", "4.20", "4.21")],
)
def test_a_behaviour_ends_with_its_release(name, last_with, first_without):
    assert getattr(resolve(last_with), name) is True
    assert getattr(resolve(first_without), name) is False


def test_a_newer_branch_may_lack_what_an_older_point_release_has():
    assert resolve("4.19.5").shared_info_moves_low
    assert not resolve("4.20.0").shared_info_moves_low


@pytest.mark.parametrize(("release", "mib"), [("4.6", 8), ("4.9", 8), ("4.10", 128), ("newest", 128)])
def test_records_may_be_8_mib_long_before_4_10_and_128_since(release, mib):
    assert resolve(release).max_record_length == mib * MIB


@pytest.mark.parametrize(("release", "versions"), [("4.6", (2,)), ("4.13", (2,)), ("4.14", (2, 3)), ("4.22", (2, 3))])
def test_version_3_images_are_read_since_4_14(release, versions):
    assert resolve(release).versions == versions


@pytest.mark.parametrize(("release", "count"), [("4.10", 1), ("4.11", 2), ("4.12", 7), ("newest", 7)])
def test_the_number_of_msrs_grew(release, count):
    assert resolve(release).max_msrs == count


def test_an_msr_is_known_from_its_release_on():
    assert not resolve("4.10").knows_msr(0x48)
    assert resolve("4.11").knows_msr(0x48)
    assert resolve("4.12").knows_msr(0xC0000103)
    assert not resolve("newest").knows_msr(0x10)


def test_an_unlisted_msr_is_einval_on_4_17_and_enxio_on_4_20():
    assert resolve("4.17").msr_unlisted_errno == "EINVAL"
    assert resolve("4.20").msr_unlisted_errno == "ENXIO"


def test_hyp_27_holds_on_point_releases_of_four_branches():
    hyp27 = rule("HYP-27", since=(4, 19, 5))
    held = [t.name for t in RELEASES if t.enforces(hyp27)]
    assert held == ["4.19.5", "4.20.3", "4.21.1", "4.22.0"]


def test_the_assist_mask_was_backported_to_4_12_and_4_13():
    rec60 = rule("REC-60", since=(4, 14, 0))
    assert resolve("4.13.1").enforces(rec60)
    assert not resolve("4.13.0").enforces(rec60)


def test_an_ordinary_rule_holds_from_its_release_on():
    hyp22 = rule("HYP-22", since=(4, 19, 0))
    assert not resolve("4.18").enforces(hyp22)
    assert resolve("4.20.1").enforces(hyp22)


def test_the_table_reaches_from_4_6_to_4_22():
    assert RELEASES[0] == Target((4, 6, 0))
    assert NEWEST == RELEASES[-1] == Target((4, 22, 0))
    assert list(RELEASES) == sorted(set(RELEASES))
    assert {t.release[1] for t in RELEASES} == set(range(6, 23))


def test_the_table_lists_the_point_releases_that_changed_something():
    points = {t.name for t in RELEASES if t.release[2]}
    assert points == {"4.11.1", "4.12.3", "4.13.1", "4.19.5", "4.20.3", "4.21.1"}


def test_a_release_knows_what_it_changed():
    assert [change.name for change in resolve("4.19.0").changes] == ["l3_rule"]
    assert [change.name for change in resolve("4.16").changes] == []
    assert all(change.what for change in CHANGES.values())


@pytest.mark.parametrize("text", ["4.20.3", "v4.20.3", "xen-4.20.3", "Xen-4.20.3", "xen 4.20.3", " XEN4.20.3 "])
def test_a_release_may_be_written_in_many_ways(text):
    assert resolve(text).release == (4, 20, 3)


def test_a_branch_means_its_first_release():
    assert resolve("4.20").release == (4, 20, 0)


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
    return {case for case in cases if VARIANTS[variant].refuses(*case)}


def test_the_l3_rule_as_merged_refuses_one_case_only():
    assert refusals(resolve("4.19").l3_variant) == {(True, False, True, True)}
    assert VARIANTS["L3V-3"].errno == "ERANGE"


def test_before_4_19_no_l3_table_is_refused():
    assert resolve("4.18").l3_variant == "L3V-2"
    assert refusals("L3V-2") == set()


def test_the_original_rule_differs_from_the_merged_one_in_width_and_errno_alone():
    assert {case[1:] for case in refusals("L3V-1")} == {case[1:] for case in refusals("L3V-3")}
    assert VARIANTS["L3V-1"].errno == "EINVAL"


def test_the_simplified_rule_knows_no_slack_and_no_width():
    assert refusals("L3V-4") == {(w, False, True, i) for w in (False, True) for i in (False, True)}


def test_masking_the_assist_of_64_bit_guests_changes_no_answer():
    assert refusals("L3V-5") == refusals("L3V-3")


def test_an_unlisted_point_release_behaves_as_computed():
    assert resolve("4.19.3").l3_rule
    assert not resolve("4.19.3").shared_info_moves_low
    assert resolve("4.19.12").shared_info_moves_low


@pytest.mark.parametrize(("text", "hint"), [("4.23", "4.2"), ("4.5", "4."), ("newst", "newest"), ("5.20", "4.20")])
def test_an_unknown_release_is_refused_with_a_hint(text, hint):
    with pytest.raises(ValueError, match=f"did you mean {hint}"):
        resolve(text)


@pytest.mark.parametrize("text", ["", "4", "four", "4.20.3.1", "4.x", "-4.20", "4.20-rc1", "9" * 5000 + ".1", "4.٢٠"])
def test_nonsense_is_refused_without_a_traceback_of_another_kind(text):
    with pytest.raises(ValueError, match="unknown Xen release"):
        resolve(text)
