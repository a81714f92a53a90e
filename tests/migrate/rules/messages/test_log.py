"""Logs: lines that belong together narrow it down, restores are told apart, and nothing in a log does any harm."""

import json
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT

from migrate.rules.messages.log import LONGEST_LINE, MOST_LINES, lines, read

RESTORES = [json.loads(line) for line in (ROOT / "tests" / "data" / "logs" / "restores.jsonl").read_text().splitlines()]

CONTEXT = "xc: error: Unable to restore HVM context (22 = Invalid argument): Internal error"
PIN = "xc: error: Failed to pin batch of pagetables (22 = Invalid argument): Internal error"
LARGE = "xc: error: pfn 0x1000 (index 12) outside domain maximum: Internal error"


def failures(*texts):
    return read(["\n".join(texts).encode()]).failures


def rules(*texts):
    return [failure.rules for failure in failures(*texts)]


@pytest.mark.parametrize("restore", RESTORES, ids=[f"{r['rule']}-{r['xen']}-{i}" for i, r in enumerate(RESTORES)])
def test_real_lines_name_the_rule_that_check_names_among_the_first_three(restore):
    (failure,) = failures(f"xc: error: {restore['error']}: Internal error", *(f"(XEN) {x}" for x in restore["console"]))
    assert restore["rule"] in failure.rules[:3]


def test_real_lines_name_that_rule_first_more_often_than_not():
    first = [failures(restore["error"], *restore["console"])[0].rules[0] == restore["rule"] for restore in RESTORES]
    assert sum(first) > 0.8 * len(first)


def test_a_line_of_the_console_narrows_down_what_libxc_says():
    (alone,) = rules(CONTEXT)
    (both,) = rules(CONTEXT, "(XEN) HVM restore d6: failed to check PIC:0 rc -22")
    assert len(alone) > len(both) == 1
    assert both == ("HVM-16",)


def test_the_order_of_lines_makes_no_difference():
    console = "(XEN) HVM restore d6: failed to check PIC:0 rc -22"
    assert rules(CONTEXT, console) == rules(console, CONTEXT)


def test_the_line_that_leaves_least_is_the_telling_one():
    (failure,) = failures(
        CONTEXT, "(XEN) HVM6 restore: bad CR0 0x91", "(XEN) HVM restore d6: failed to load CPU:0 rc -22"
    )
    assert failure.telling.text == "(XEN) HVM6 restore: bad CR0 0x91"
    assert failure.rules == ("HVM-04",)


def test_two_restores_are_two_failures():
    assert rules(LARGE, PIN) == [("REC-07", "ORD-03"), failures(PIN)[0].rules]


def test_the_same_again_is_told_once_with_how_often():
    (failure,) = failures(*[LARGE, "xc: error: Restore failed (22 = Invalid argument)"] * 5)
    assert failure.times == 5
    assert failure.sightings[0].line == 9


def test_what_failed_last_comes_last():
    assert [failure.rules[0] for failure in failures(LARGE, PIN, LARGE)] == [failures(PIN)[0].rules[0], "REC-07"]


def test_another_domain_is_another_restore():
    console = "(XEN) HVM restore d{}: failed to check PIC:0 rc -22"
    (failure,) = failures(*(console.format(domain) for domain in (6, 7)))
    assert failure.times == 2


def test_lines_of_two_domains_may_come_mixed():
    found = failures(
        "(XEN) HVM6 restore: bad CR0 0x91",
        "(XEN) HVM restore d7: failed to check PIC:0 rc -22",
        "(XEN) HVM restore d6: failed to load CPU:0 rc -22",
    )
    assert [[sighting.line for sighting in failure.sightings] for failure in found] == [[2], [1, 3]]


def test_the_whole_console_behind_the_output_of_xl_is_one_log_with_it():
    (failure,) = failures(CONTEXT, "(XEN) Xen version 4.20.0 (", "(XEN) HVM restore d6: failed to check PIC:0 rc -22")
    assert (failure.rules, failure.release) == (("HVM-16",), "4.20.0")


def test_a_new_beginning_ends_what_came_before():
    found = failures(
        PIN, "xc: info: Found x86 PV domain from Xen 4.17", "(XEN) arch/x86/mm.c:1533:d0v0 Bad L1 flags 18"
    )
    assert [len(failure.rules) for failure in found] == [len(failures(PIN)[0].rules), 2]


def test_consequences_alone_are_a_failure_without_a_cause():
    (failure,) = failures(
        "libxl: error: libxl_create.c:1:domcreate_rebuild_done: Domain 5:cannot (re-)build domain: -3"
    )
    assert failure.rules == ()
    assert failure.telling is None


def test_what_is_no_fault_of_the_stream_names_no_rule():
    (failure,) = failures(
        "xc: error: Unable to allocate 4194304 bytes for record data (0x1, Page data): Internal error"
    )
    assert failure.rules == ()
    assert failure.telling is not None


POPULATE = "xc: error: Failed to populate physmap (16 = Device or resource busy): Internal error"
BALLOON = "(XEN) d5 Over-allocation for domain 5: 8193 > 8192"


@pytest.mark.parametrize("texts", [(POPULATE, BALLOON), (BALLOON, POPULATE)])
def test_what_a_console_says_every_day_decides_beside_a_cause(texts):
    assert rules(*texts) == [("CON-39",)]


def test_what_a_console_says_every_day_is_no_failure():
    assert rules(BALLOON, LARGE, BALLOON) == [("REC-07", "ORD-03")]
    assert rules(BALLOON) == [("CON-39",)]  # given by itself, it is what is asked about


def test_a_restore_that_went_well_is_no_failure():
    assert failures("xc: info: Found x86 PV domain from Xen 4.17", "xc: info: Restoring domain") == []


def test_the_destination_is_taken_from_the_log():
    (failure,) = failures("(XEN) Xen version 4.17.7 (root@host) (gcc 12) debug=y", LARGE)
    assert failure.release == "4.17.7"


def test_a_line_that_lost_its_end_is_two():
    (failure,) = failures(
        "(XEN) arch/x86/mm.c:1533:d0v0 PAE pgd must be below 4GB (0x1bac47 >= 0x100000)<G><1>arch/x86/mm.c:2666:d0v0 "
        "Error while validating mfn 1bac47 (pfn 00019) for type 6000000000000000: caf=8 taf=6"
    )
    assert [sighting.message.rules[:1] for sighting in failure.sightings] == [("HYP-22",), ("HYP-03",)]
    assert failure.rules == ("HYP-22",)


# -- what a log can be -----------------------------------------------------------------------------------


def test_colours_and_other_sequences_are_taken_out():
    assert list(lines([b"\x1b[1;31mpfn\x1b[0m 0x1 \x1b]0;title\x07(index\x002) outside\r\n"])) == [
        (1, "pfn 0x1 (index 2) outside")
    ]


def test_lines_are_counted_as_an_editor_does():
    assert list(lines([b"a\n\nb\n"])) == [(1, "a"), (3, "b")]
    assert read([b"a\n\nb\n"]).lines == 3


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_it_makes_no_difference_how_a_log_is_cut_into_pieces(data, cuts):
    data += b"\n" + LARGE.encode() + b"\n" + data
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert list(lines(data[a:b] for a, b in pairwise(edges))) == list(lines([data]))


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log(data):
    log = read([data])
    assert log.recognised <= len(data)
    assert sum(failure.times for failure in log.failures) + log.more <= log.recognised


def test_of_a_giant_line_the_beginning_is_read():
    giant = LARGE.encode() + b"x" * (3 * LONGEST_LINE)
    assert rules(giant.decode()) == [("REC-07", "ORD-03")]
    assert max(len(text) for _, text in lines([giant, giant])) <= LONGEST_LINE


def test_memory_does_not_grow_with_the_log():
    tracemalloc.start()
    log = read(b"\xff\x00" * (1 << 15) for _ in range(100))
    _, without_lines = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracemalloc.start()
    flood = read(f"{LARGE}\n(XEN) Bad L1 flags {n:x}\n".encode() * 20 for n in range(25))
    _, with_failures = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert log.failures == []
    assert without_lines < 1 << 20
    assert sum(failure.times for failure in flood.failures) == 1000
    assert with_failures < 4 << 20


def test_what_is_kept_of_failures_is_bounded_and_the_last_are_kept(monkeypatch):
    monkeypatch.setattr("migrate.rules.messages.log.MOST_FAILURES", 10)
    log = read([f"xc: error: {one['error']}\n".encode() for one in RESTORES])
    assert len(log.failures) == 10
    assert sum(failure.times for failure in log.failures) + log.more == len(RESTORES)
    assert log.failures[-1].last == len(RESTORES)
    (one,) = failures(CONTEXT, *["(XEN) HVM restore d6: failed to check PIC:0 rc -22"] * (2 * MOST_LINES))
    assert len(one.sightings) == MOST_LINES
