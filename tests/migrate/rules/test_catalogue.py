"""The rule catalogue is complete and in one form, and every rule can be broken by a stream."""

import re
from importlib import import_module

import pytest
from violating import violating

from migrate.building.builder import StreamBuilder
from migrate.rules.catalogue import RULES, SUBJECTS
from migrate.rules.declaring import Effect, Rule

NOT_RULES: dict[str, str] = {}
for _subject in SUBJECTS:
    _declared = getattr(import_module(f"migrate.rules.{_subject}"), "NOT_RULES", {})
    assert not _declared.keys() & NOT_RULES.keys(), _subject
    NOT_RULES |= _declared

# The numbers of all checks known of Xen, by layer: ranges with both ends included.
KNOWN: dict[str, list[tuple[int, int]]] = {
    "CON": [(1, 25), (30, 46)],
    "HDR": [(1, 13)],
    "FRM": [(1, 13)],
    "REC": [
        (1, 14),  # PAGE_DATA
        (20, 29),  # page tables
        (30, 34),  # X86_PV_INFO
        (40, 45),  # X86_PV_P2M_FRAMES
        (50, 59),  # vcpu records
        (60, 69),  # BASIC
        (70, 75),  # EXTENDED
        (80, 85),  # XSAVE
        (90, 93),  # MSRS
        (100, 114),  # the others
    ],
    "ORD": [(1, 25)],
    "XRC": [(1, 16), (20, 20), (30, 34), (40, 46)],
    "HVM": [(1, 28)],
    "HYP": [(1, 32)],
}
KNOWN_IDS = [
    f"{layer}-{number:02}"
    for layer, ranges in KNOWN.items()
    for first, last in ranges
    for number in range(first, last + 1)
] + [f"L3C-{number}" for number in range(1, 7)]

HEADINGS = ("What: ", "Why: ", "Repair: ", "Source: ")

# Whose failing call is known by something else than its errno, or where a refusal by libxc has one.
ERRNO_UNKNOWN: dict[str, str] = {}
ERRNO_OF_LIBXC = {"HYP-27": "libxc fails to map a page, and passes on why"}

# Rules that the sound stream shows by itself, once frames are placed or simply by its kind.
SHOWN_UNEDITED = {"HYP-27": "under the placement high", "L3C-2": "its one root is vcpu 0's, not extended"}

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
every_violation = pytest.mark.parametrize("rule", [r for r in RULES.values() if r.violation], ids=lambda r: r.id)


@pytest.mark.parametrize("id", KNOWN_IDS)
def test_known_check_is_a_rule_or_says_why_not(id: str) -> None:
    assert (id in RULES) != (id in NOT_RULES)


def test_no_rule_is_unheard_of() -> None:
    assert RULES.keys() - set(KNOWN_IDS) == set()


def test_what_is_no_rule_has_a_reason() -> None:
    assert [id for id, reason in NOT_RULES.items() if len(reason) < 20] == []


def test_slugs_are_unique() -> None:
    slugs = [rule.slug for rule in RULES.values()]
    assert sorted(slugs) == sorted(set(slugs))


@every_rule
def test_slug_is_kebab_case(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.slug)


@every_rule
def test_title_is_one_short_line(rule: Rule) -> None:
    assert 10 <= len(rule.title) < 70
    assert not rule.title.endswith(".")


@every_rule
def test_explanation_has_its_four_headings_in_order(rule: Rule) -> None:
    starts = [line.split(" ", 1)[0] + " " for line in rule.text.splitlines() if line.startswith(HEADINGS)]
    assert tuple(starts) == HEADINGS


@every_rule
def test_explanation_is_a_page_at_most(rule: Rule) -> None:
    assert 4 <= len(rule.text.splitlines()) <= 24


@pytest.mark.parametrize("rule", [r for r in RULES.values() if r.effect is Effect.HYPERCALL], ids=lambda r: r.id)
def test_failing_hypercall_has_an_errno(rule: Rule) -> None:
    assert (rule.errno is None) == (rule.id in ERRNO_UNKNOWN)


def test_only_hypercalls_have_an_errno() -> None:
    others = {r.id for r in RULES.values() if r.errno and r.effect not in (Effect.HYPERCALL, Effect.HOST)}
    assert others == ERRNO_OF_LIBXC.keys()


@every_rule
def test_first_release_lies_before_the_last(rule: Rule) -> None:
    assert rule.since is None or rule.until is None or rule.since.firsts < rule.until.firsts


SOUND = StreamBuilder.pv(4).build()


@every_violation
def test_violation_builds_a_stream_unlike_the_sound_one(rule: Rule) -> None:
    assert (violating(rule.id) == SOUND) == (rule.id in SHOWN_UNEDITED)
