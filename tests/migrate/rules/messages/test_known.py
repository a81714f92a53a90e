"""The table of messages: every form is found as what it is, and nothing that refuses a stream is without one."""

import re
from itertools import product

import pytest

from migrate.rules.catalogue import RULES
from migrate.rules.messages.declaring import Facts, expression
from migrate.rules.messages.known import MESSAGES, recognise

PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
FILLED = {None: "7", "hex": "7", "word": "word", "text": "some text", "gap": " in between "}
FORMS = [(form, message) for message in MESSAGES for form in message.says]
ERRNOS = (
    *(None, "EINVAL", "ENODATA", "EPERM", "EBUSY", "ERANGE", "ENXIO", "EDOM"),
    *("EIO", "EOPNOTSUPP", "ENODEV", "ENOENT", "ESRCH", "EEXIST", "E2BIG"),
)
# A frame that is a writable page, an L1 table, the L2 of slot 3, an L2, a GDT page.
TYPES = [0xE400_0000_0000_0001, 0x2400_0000_0000_0001, 0x4600_0000_0000_0001, 0x4000_0000_0000_0000, 0xA << 60]


def filled(form):
    return PLACEHOLDER.sub(lambda match: FILLED[match[2]], form)


def any_facts():
    """What lines can say, as far as it makes a difference."""
    for errno, number in product(ERRNOS, range(42)):
        facts = Facts(dict.fromkeys(("type", "param", "vcpu", "code", "instance", "level"), str(number)))
        facts |= {
            "flags": hex(number * 4),
            "kind": ("Reserved", "x86 PV")[number % 2],
            "what": ("header", "optdata")[number % 2],
        }
        if errno:
            facts["errno"] = errno
        yield facts
    for saw, wanted in product(TYPES, TYPES):
        yield Facts(saw=hex(saw), wanted=hex(wanted), level="2", flags="0x80")


def all_candidates():
    for message in MESSAGES:
        if callable(message.rules):
            for facts in any_facts():
                yield from message.rules(Facts(facts))
        else:
            yield from message.rules


def test_every_form_is_found_as_the_message_that_it_is_of():
    found = {
        form: recognise(f"Nov 25 23:59:59 host xl[4711]: xc: error: {filled(form)}: Internal error")
        for form, _ in FORMS
    }
    assert [form for form, message in FORMS if found[form] is None or found[form].message is not message] == []


def test_what_was_going_on_has_a_word_for_every_placeholder():
    for message in MESSAGES:
        named = set(re.findall(r"\{(\w+)\}", message.doing + message.look))
        there = [set(re.findall(r"\{(\w+)", form)) for form in message.says]
        words = set(message.words(Facts(code="1", saw="1", wanted="1", param="1"))) if message.words else set()
        assert named <= set.union(*there) | words, message.says


def test_a_form_that_lacks_a_word_leaves_no_hole_in_what_was_going_on():
    assert "{" not in "".join(
        sighting.doing + sighting.look for form, _ in FORMS if (sighting := recognise(filled(form)))
    )


def test_all_rules_that_messages_name_exist():
    assert set(all_candidates()) <= set(RULES)


def test_no_rule_that_ends_a_restore_is_without_a_message():
    assert {rule.id for rule in RULES.values() if rule.effect.fatal} - set(all_candidates()) == set()


def test_a_message_says_what_was_going_on_and_decides_between_rules_that_exist():
    for message in MESSAGES:
        assert message.doing, message.says
        assert set(re.findall(r"\b[A-Z]{3}-\d+", message.decides)) <= set(RULES)


@pytest.mark.parametrize(
    "line", ["", "x", "(XEN) Domain 3 (vcpu#0) crashed on cpu#1:", "libxl: debug: Record: 1, length 0"]
)
def test_other_lines_are_passed_over(line):
    assert recognise(line) is None


def test_numbers_are_taken_from_the_line():
    sighting = recognise("xc: error: pfn 0x1000 (index 12) outside domain maximum: Internal error")
    assert sighting.facts == {"pfn": "0x1000", "index": "12"}
    assert sighting.look == "show STREAM --pfn 0x1000"
    assert "number 12, 0x1000" in sighting.doing


@pytest.mark.parametrize(
    ("line", "errno"),
    [
        ("Failed to set vcpu1's basic info (34 = Numerical result out of range)", "ERANGE"),
        ("Failed to set vcpu1's basic info (95 = Operation not supported)", "EOPNOTSUPP"),
        ("HVM restore d6: failed to check PIC:0 rc -2", "ENOENT"),
        ("HVM9 restore: failed to load entry 2/0 rc -22", "EINVAL"),
        ("arch/x86/mm.c:1609:d0v0 Failure -16 in promote_l1_table: slot 0x3", "EBUSY"),
        ("Failed to read Record Header from stream (0 = Success)", None),
        ("Failed to pin batch of pagetables", None),
        ("libxl: error: libxl_dm.c:3120:device_model_spawn_outcome: device model: spawn failed (rc=-3)", None),
        ("libxl: error: libxl_create.c:1695:domcreate_rebuild_done: cannot (re-)build domain: -3 (rc=-3)", None),
    ],
)
def test_the_errno_is_taken_from_the_line_in_all_its_forms(line, errno):
    assert recognise(line).facts.errno == errno


def test_qemus_end_is_not_said_for_certain_to_be_of_its_state():
    sighting = recognise("libxl: error: Domain 3:device model: spawn failed (rc=-3)")
    assert "either" in sighting.doing
    assert "host" in sighting.doing
    assert "the stream is not to blame" in sighting.message.decides


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        # vm_assist is vcpu 0's to set.
        ("Failed to set vcpu0's basic info (22 = Invalid argument)", ("REC-62", "REC-60", "REC-63")),
        ("Failed to set vcpu3's basic info (22 = Invalid argument)", ("REC-62", "REC-63", "REC-64")),
        ("Failed to set vcpu1's basic info (34 = Numerical result out of range)", ("HYP-22",)),
        ("Mandatory record 0x4 (x86 PV vcpu basic) not handled", ("FRM-11",)),
        ("Mandatory record 0xb (Toolstack) not handled", ("FRM-12",)),
        ("Mandatory record 0xe (Checkpoint) not handled", ("FRM-07",)),
        ("Mandatory record 0xf (Checkpoint dirty pfn list) not handled", ("FRM-13",)),
        ("Mandatory record 0x13 (Reserved) not handled", ("FRM-05",)),
        ("set HVM param 9 = 0x0000000000000000 (22 = Invalid argument)", ("HVM-14", "REC-109")),
        ("set HVM param 4294967305 = 0x0000000000000000 (22 = Invalid argument)", ("HVM-14", "REC-109")),
        ("set HVM param 9 = 0x0000000000000003 (17 = File exists)", ("REC-109",)),
        ("set HVM param 19 = 0x0000000000000001 (19 = No such device)", ("HVM-15",)),
        ("libxl: error: libxl_stream_read.c:356:stream_header_done: Unable to handle big endian streams", ("CON-10",)),
        ("xc: error: Unable to handle big endian streams: Internal error", ("HDR-05",)),
        # A writable mapping of an L1 table; of a GDT page; a table that is mapped writable.
        ("Bad type (saw 2400000000000001 != exp e000000000000000) for mfn 1b (pfn 7)", ("HYP-02",)),
        ("Bad type (saw a400000000000001 != exp e000000000000000) for mfn 1b (pfn 7)", ("HYP-04", "HYP-02")),
        ("Bad type (saw e400000000000001 != exp 6000000000000000) for mfn 1b (pfn 7)", ("HYP-03",)),
        # The L2 of slot 3 is pinned; it stands in a lower slot, too.
        ("Bad type (saw 4600000000000001 != exp 4000000000000000) for mfn 1b (pfn 7)", ("HYP-13", "HYP-11")),
        ("Bad type (saw 4400000000000001 != exp 4200000000000000) for mfn 1b (pfn 7)", ("HYP-11", "HYP-13")),
        ("Bad L2 flags 80", ("REC-22", "HYP-06")),
        ("Bad L1 flags 18", ("REC-23", "HYP-06")),
        # Instance 0 is always there, vcpu 128 never.
        ("HVM restore d6: failed to load MTRR:0 rc -22", ("HVM-09", "HVM-01")),
        ("HVM restore d6: failed to load MTRR:2 rc -22", ("HVM-09", "HVM-02", "HVM-01")),
        ("HVM restore d6: failed to load MTRR:300 rc -22", ("HVM-02",)),
        ("HVM6 restore: failed to load entry 4/0 rc -19", ("HVM-15",)),
        # A release that has no errno here.
        ("HVM6 restore: failed to load entry 13/0", ("HVM-01", "HVM-15", "REC-111")),
        (
            "HVM restore mismatch: expected strict type 1 length 24, saw type 2 length 8.  0 bytes remaining",
            ("REC-111",),
        ),
        (
            "HVM restore mismatch: expected strict type 14 length 240, saw type 14 length 8.  0 bytes remaining",
            ("HVM-01",),
        ),
    ],
)
def test_the_rule_follows_from_what_the_line_says(line, rules):
    assert recognise(line).rules[:3] == rules


def test_no_expression_can_take_longer_than_its_own_length_at_any_place():
    for form, _ in FORMS:
        outside_of_literals = re.sub(r"\\.|\[[^]]*\]", "", expression(form).pattern)
        assert not set("*+") & set(outside_of_literals)
