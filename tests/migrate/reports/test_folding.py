"""Findings put together as people read them: by rule and cause, what stops the restore first."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from migrate.reports.folding import folded, folds, place
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity
from migrate.rules.findings import Finding


def finding(rule, message, severity=None, effect=None, **fields):
    return Finding(RULES[rule], message, severity or RULES[rule].severity, effect or RULES[rule].effect, **fields)


def high_table(pfn, **fields):
    return finding("HYP-22", f"L3 pfn {pfn:#x} (mfn {pfn + 0x100000:#x}) lies above 4 GiB", pfn=pfn, **fields)


def test_what_differs_in_numbers_alone_has_one_cause():
    (entry,) = folded([high_table(0x19, vcpu=1), high_table(0x13), high_table(0x115)])
    (cause,) = entry.causes
    assert cause.message == "L3 pfn 0x19 (mfn 0x100019) lies above 4 GiB"
    assert cause.places() == "pfn 0x19 (vcpu 1), 0x13, 0x115"
    assert entry.count == 3


def test_one_rule_may_have_several_causes():
    first, second = finding("REC-27", "page 1 is of type 5", pfn=1), finding("REC-27", "the list ends early", record=4)
    (entry,) = folded([first, second, replace(first, message="page 7 is of type 5", pfn=7)])
    assert [(cause.message, cause.count) for cause in entry.causes] == [
        ("page 1 is of type 5", 2),
        ("the list ends early", 1),
    ]


def test_what_stops_the_restore_comes_first_though_it_weighs_no_more_and_came_later():
    early, stops = finding("REC-27", "odd", severity=Severity.ERROR, effect=Effect.CORRUPT), high_table(0x19)
    later = high_table(0x13)
    entries = folded([finding("REC-113", "said"), early, later, stops], stops)
    assert [entry.rule.id for entry in entries] == ["HYP-22", "REC-27", "REC-113"]
    assert entries[0].decisive
    assert entries[0].first is stops
    assert not any(entry.decisive for entry in entries[1:])


def test_then_the_worst_come_first_and_equals_stay_in_order():
    told = [
        finding("REC-113", "a", Severity.INFO),
        finding("REC-32", "b", Severity.WARNING),
        finding("REC-29", "c", Severity.INFO),
        finding("HYP-22", "d", Severity.ERROR),
    ]
    assert [entry.first.message for entry in folded(told)] == ["d", "b", "a", "c"]


def test_a_rule_that_weighs_differently_here_and_there_has_two_entries():
    mild = high_table(0x13, severity=Severity.WARNING, effect=Effect.HOST)
    assert [entry.severity for entry in folded([mild, high_table(0x14)])] == [Severity.ERROR, Severity.WARNING]


def test_findings_that_are_only_counted_count():
    (entry,) = folded([high_table(0x13), high_table(0x14, count=5)])
    assert entry.count == 6
    assert entry.causes[0].count == 6


def test_a_place_is_what_is_known_best():
    assert place(finding("REC-29", "m", pfn=0x22, slot=8, record=5, offset=0x570)) == "pfn 0x22 slot 8"
    assert place(finding("HVM-04", "m", vcpu=1, record=5, offset=9)) == "vcpu 1"
    assert place(finding("REC-01", "m", record=5, record_type="END", offset=9)) == "record 5 END"
    assert place(finding("HDR-04", "m", offset=0x18)) == "byte 0x18"
    assert place(finding("XRC-30", "m", step="p2m")) == "as the p2m is rewritten"


def test_a_report_knows_what_stops_it(refused_sample):
    first, *others = folds(refused_sample)
    assert first.decisive
    assert first.first is refused_sample.failure.finding
    assert len({(entry.rule.id, entry.severity, entry.effect) for entry in [first, *others]}) == len(others) + 1


SOME = st.builds(
    finding,
    st.sampled_from(["HYP-22", "REC-27", "REC-113"]),
    st.from_regex(r"[a-c]{1,2} [0-9]{1,2}", fullmatch=True),
    st.sampled_from(Severity),
    st.sampled_from(Effect),
    count=st.integers(1, 3),
)


@given(st.lists(SOME, max_size=12), st.data())
def test_nothing_is_lost_and_nothing_told_twice(findings, data):
    decisive = data.draw(st.sampled_from(findings)) if findings else None
    entries = folded(findings, decisive)
    shown = [one for entry in entries for one in entry.findings]
    assert sorted(map(id, shown)) == sorted(map(id, findings))
    assert sum(entry.count for entry in entries) == sum(one.count for one in findings)
    assert [entry.decisive for entry in entries] == [True, *[False] * (len(entries) - 1)] * bool(findings)
