"""What the text and the JSON report say of reports built by hand."""

import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text as Styled

from migrate.cli.check_outputs import ConciseOutput
from migrate.destination.destination import Destination
from migrate.judging.report import CheckpointVerdict, Report
from migrate.judging.report_json import dumps, report_object
from migrate.reports.verdict.sentences import concise_lines, verdict_sentence
from migrate.reports.verdict.text import console_for, hanging, render, render_verdict, render_verdict_line
from migrate.rules.catalogue import RULES, rule_set_version
from migrate.rules.declaring import Effect, Severity
from migrate.rules.findings import Failure, Finding, Link
from migrate.safe import safe, well_formed
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.passes import Round

MESSAGE = "L3 pfn 0x19 (mfn 0x1bac57) lies above 4 GiB, and the guest has not enabled pae_extended_cr3"


def l3_finding(message=MESSAGE, **fields):
    place = {"offset": 0x7FE0D0, "record": 11, "record_type": "X86_PV_VCPU_BASIC", "pfn": 0x19, "vcpu": 1}
    rule = RULES["HYP-22"]
    return Finding(rule, message, fields.pop("severity", rule.severity), rule.effect, **(place | fields))


def warning_finding():
    return Finding(RULES["HYP-22"], "told as a warning", Severity.WARNING, Effect.HOST)


L3_FAILURE = Failure("HYP-22", "context", "setvcpucontext", MESSAGE, vcpu=1, pfn=25, errno="ERANGE")
SAMPLE = StreamFacts(
    name="sample.zst",
    container="libxc",
    version=3,
    guest="pv",
    width=4,
    levels=3,
    xen="4.17",
    vcpus=2,
    max_pfn=2047,
    bytes=8383648,
    records=16,
    extended_cr3=False,
    pinned={"L1": 2, "L2": 2, "L3": 7},
    cr3=[{"vcpu": 0, "pfn": 25, "mfn": 1794647}],
    rounds=[Round("first", 2048, 8368144)],
)


def l3_failure(**fields):
    return replace(L3_FAILURE, **fields)


def facts(name="sample.zst", **fields):
    return replace(SAMPLE, name=name, **fields)


def accepted(stream=None, findings=(), placement="source", target="4.20"):
    return Report(stream or facts(), Destination(target, placement), "accept", None, list(findings))


def refused(stream=None, failure=None, findings=None):
    found = [l3_finding()] if findings is None else findings
    return Report(stream or facts(), Destination("4.20", "source"), "refuse", failure or l3_failure(), found)


def damaged(message="wrong afterwards", count=1):
    rule = RULES["REC-71"]
    found = [Finding(rule, message, rule.severity, Effect.CORRUPT, offset=0x40, record=2, count=count)]
    return Report(facts(), Destination("4.20", "high"), "accept", None, found, damaged=True)


def unjudged(reason, stream=None):
    return Report(stream or facts(), Destination("4.20", "source"), "unjudged", None, [], reason)


def printed(report, width=None, *, verbose=False):
    file = io.StringIO()
    render(report, console_for(file) if width is None else Console(file=file, width=width), verbose=verbose)
    return file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


# -- verdicts -----------------------------------------------------------------------------------------


def test_a_verdict_names_release_and_placement():
    first = printed(accepted()).splitlines()[0]
    assert first == "restores: sample.zst on Xen 4.20.0 with frames where they lay on the source"


@pytest.mark.parametrize(
    ("placement", "words"),
    [("high", "above 4 GiB"), ("low", "below 4 GiB"), ("identity", "mfn = pfn"), ("file:frames.map", "frames.map")],
)
def test_a_verdict_names_other_placements(placement, words):
    assert words in verdict_sentence(accepted(placement=placement))


def test_what_was_assumed_is_said_with_what_would_change_it():
    assumed = "(assumed: --placement low or --host FILE changes that)"
    assert assumed in printed(accepted(placement=None)).splitlines()[0]
    assert "assumed" not in printed(accepted(placement="high"))


def test_nothing_is_assumed_where_nothing_hangs_on_it():
    assert "assumed" not in printed(accepted(facts(width=8), placement=None))
    assert "assumed" not in printed(accepted(facts(guest="hvm", width=None), placement=None))


def test_of_an_hvm_guest_no_placement_is_named():
    assert verdict_sentence(accepted(facts(guest="hvm"))) == "restores on Xen 4.20.0"


def test_warnings_are_counted():
    assert verdict_sentence(accepted(findings=[warning_finding()])).endswith("; 1 warning")


def test_a_damaged_guest_restores_but_damaged():
    lines = printed(damaged()).splitlines()
    assert lines[:3] == [
        "restores, but damaged: sample.zst on Xen 4.20.0 with frames above 4 GiB",
        "because   wrong afterwards (migrate explain REC-71)",
        f"repair    {RULES['REC-71'].repair}",
    ]


def test_a_refusal_says_in_a_sentence_who_says_no_and_how():
    lines = printed(refused()).splitlines()
    assert lines[0].startswith("refused: sample.zst on Xen 4.20.0 ")
    assert lines[1] == f"because   {MESSAGE}: vcpu 1's setvcpucontext fails with ERANGE (migrate explain HYP-22)"
    assert lines[2] == f"repair    {RULES['HYP-22'].repair}"


def test_call_and_errno_are_said_once():
    text = printed(refused())
    assert text.count("setvcpucontext") == text.count("ERANGE") == 1


def test_refusal_by_libxc_blames_libxc():
    failure = l3_failure(rule="ORD-01", step="record", call="libxc", errno=None, message="twice")
    assert verdict_sentence(refused(failure=failure)).endswith(": twice: libxc refuses it (ORD-01)")


def test_death_of_the_toolstack_names_the_signal():
    failure = l3_failure(rule="ORD-01", step="record", call="libxc", errno=None, message="m", signal=6)
    assert verdict_sentence(refused(failure=failure)).endswith(": m: libxc dies of SIGABRT (ORD-01)")


def test_unjudged_gives_the_reason():
    lines = printed(unjudged("a xapi suspend image")).splitlines()
    assert lines[0].startswith("not judged: sample.zst on Xen 4.20.0")
    assert lines[1] == "because   a xapi suspend image"


def test_a_rule_that_nothing_can_be_done_about_has_no_repair():
    assert RULES["HYP-19"].repair == "none"
    assert "repair" not in printed(refused(failure=l3_failure(rule="HYP-19")))


# -- what the stream is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "libxc, image version 3, 16 records, 8383648 bytes",
        "pv, 32-bit, 3 page table levels, 2 vcpus, 8 MiB",
        "Xen 4.17",
        "L1 2, L2 2, L3 7",
        "source: frames where they lay on the source",
        "Xen 4.20.0",
    ],
)
def test_the_end_says_what_the_stream_is(said):
    end = printed(accepted(), verbose=True).split("\n\n")[-1]
    assert any(said in line for line in end.splitlines())


def test_page_tables_are_for_those_who_ask_for_more():
    assert "pinned" not in printed(accepted())
    assert "8383648 bytes, from Xen 4.17" in printed(accepted())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pages": 100, "pvh": False}, "hvm, 2 vcpus, 400 KiB in 100 pages"),
        ({"pages": 1, "pvh": True}, "pvh, 2 vcpus, 4 KiB in 1 page"),
        ({"pages": 3 << 17, "pvh": None}, "hvm, 2 vcpus, 1.5 GiB in 393216 pages"),
    ],
)
def test_memory_of_hvm_guests_is_told_and_pvh_is_told_apart(fields, said):
    guest = facts(guest="hvm", width=None, levels=None, max_pfn=None, **fields)
    assert f"guest        {said}\n" in printed(accepted(guest))


def test_only_the_verdict_is_in_the_colour_of_the_verdict(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    render_verdict(accepted(), Console(file=file, force_terminal=True, width=200, color_system="standard"))
    assert file.getvalue().startswith("\x1b[1;32mrestores: \x1b[0m\x1b[1msample.zst\x1b[0m ")


def test_rounds_are_told_of_live_streams_only():
    assert "passes" not in printed(accepted())
    passes = [Round("first", 2048), Round("dirty", 120), Round("dirty", 17), Round("final", 3)]
    assert "first 2048; dirty 120, 17; final 3 pages" in printed(accepted(facts(rounds=passes)))


def test_what_goes_once_over_memory_is_called_a_pass_everywhere():
    texts = [text for rule in RULES.values() for text in (rule.title, *rule.sections.values())]
    texts += [printed(accepted(facts(rounds=[Round("first", 2), Round("final", 1)])), verbose=True)]
    assert [text for text in texts if re.search(r"\b(live|early|later|first|last) rounds?\b|^rounds", text, re.M)] == []


def test_checkpoints_are_told_in_the_words_of_verdicts_and_those_alike_together():
    def told(*verdicts):
        at = [CheckpointVerdict(number, 0, verdict) for number, verdict in enumerate(verdicts, 1)]
        return printed(replace(accepted(facts(checkpoints=len(at))), checkpoints=at))

    assert "3: 1–2 restore, 3 refused\n" in told("accept", "accept", "refuse")
    assert "2: 1 refused, 2 restores\n" in told("refuse", "accept")


def test_many_rounds_are_summed_up():
    passes = [Round("first", 2048), *[Round("dirty", 2)] * 30]
    told = printed(accepted(facts(rounds=passes)))
    assert "dirty 2, 2, 2, 2, 2, 2, 2, 2 … (30 passes, 60 in all) pages" in told


def test_header_of_an_unknown_stream_is_short():
    report = Report(StreamFacts("x"), Destination("4.20", "source"), "unjudged", None, [], "no stream")
    assert "None" not in printed(report)


# -- findings -----------------------------------------------------------------------------------------


def l3_findings(*pfns):
    return [l3_finding(MESSAGE.replace("0x19", f"{pfn:#x}"), pfn=pfn, vcpu=None, record=None) for pfn in pfns]


def entry(text, rule="HYP-22"):
    """The lines about a rule."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(rule))
    last = next((i for i in range(first + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return lines[first:last]


def test_an_entry_says_where_and_then_what():
    assert entry(printed(accepted(findings=[l3_finding()]))) == [
        "HYP-22  error    l3-above-4g, pfn 0x19 (vcpu 1), record 11 X86_PV_VCPU_BASIC, at 0x7fe0d0",
        f"        {MESSAGE}",
    ]


def test_findings_of_one_cause_share_an_entry():
    assert entry(printed(accepted(findings=l3_findings(0x19, 0x13, 0x115)))) == [
        "HYP-22  error    l3-above-4g, 3 times: pfn 0x19, 0x13, 0x115",
        f"        {MESSAGE}",
    ]


def test_what_the_verdict_says_is_not_said_again():
    finding = l3_finding()
    text = printed(refused(failure=l3_failure(finding=finding), findings=[finding]))
    assert len(entry(text)) == 1
    assert text.count(MESSAGE) == 1


def test_what_stops_the_restore_stands_before_what_weighs_as_much():
    first, stops = Finding(RULES["REC-71"], "odd", Severity.ERROR, Effect.CORRUPT), l3_finding()
    text = printed(refused(failure=l3_failure(finding=stops), findings=[first, stops]))
    assert text.index("\nHYP-22") < text.index("\nREC-71")


def test_what_is_for_information_shares_a_line():
    infos = [Finding(RULES[id], "so it is", Severity.INFO, Effect.TOLERATED) for id in ("REC-113", "ORD-16")]
    text = printed(accepted(findings=infos))
    assert "info    REC-113 cpu-policy-host, ORD-16 params-after-context (-v tells all)\n" in text
    assert "so it is" not in text
    assert printed(accepted(findings=infos), verbose=True).count("so it is") == 2


def test_unfolded_each_finding_says_all():
    text = printed(
        refused(findings=[l3_finding(errno="ERANGE", call="setvcpucontext"), *l3_findings(0x13)]), verbose=True
    )
    assert entry(text) == [
        "HYP-22  error    l3-above-4g, pfn 0x19 (vcpu 1), record 11 X86_PV_VCPU_BASIC, at 0x7fe0d0",
        f"        {MESSAGE}",
        "        vcpu 1's setvcpucontext fails with ERANGE",
        "        explain: migrate explain HYP-22",
    ]
    assert text.count("\nHYP-22") == 2


def test_finding_wraps_under_its_place():
    lines = entry(printed(accepted(findings=l3_findings(*range(0x10, 0x18))), width=60))
    assert lines[1].startswith(" " * 17 + "0x")
    assert lines[2].startswith(" " * 8 + "L3 pfn")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    report = refused(facts("a name/" * 30), findings=[l3_finding(), l3_finding("x" * 300)])
    body = printed(report, width).split("\n\n", maxsplit=1)[1]
    assert max(map(len, body.splitlines())) <= width


def test_wrapped_message_loses_no_word():
    lines = printed(refused(failure=l3_failure(message="short")), width=60).split("\n\n")[1]
    assert " ".join(MESSAGE.split()) in " ".join(lines.split())


def test_findings_beyond_those_that_are_told_are_counted():
    assert "37 times: pfn 0x19 (vcpu 1), …" in printed(refused(findings=[l3_finding(count=37)]))
    assert "and 36 more like it" in printed(refused(findings=[l3_finding(count=37)]), verbose=True)


def test_chain_of_tables_is_told_of_what_stops_the_restore():
    finding = l3_finding(chain=(Link("L3", 0x19, 3), Link("L2", 0x1A)))
    told = "by way of L3 pfn 0x19 slot 3, pfn 0x1a (L2)"
    assert told in printed(refused(failure=l3_failure(finding=finding), findings=[finding]))
    assert told in printed(refused(findings=[finding]), verbose=True)


def test_finding_without_a_place_still_says_what_explains_it():
    assert entry(printed(accepted(findings=[warning_finding()]), verbose=True)) == [
        "HYP-22  warning  l3-above-4g",
        "        told as a warning",
        "        explain: migrate explain HYP-22",
    ]


def test_a_verdict_line_holds_all():
    file = io.StringIO()
    render_verdict_line(refused(), console_for(file))
    (line,) = file.getvalue().splitlines()
    assert line.startswith("refused: sample.zst on Xen 4.20.0 with frames where they lay on the source: L3 pfn 0x19")
    assert line.endswith("vcpu 1's setvcpucontext fails with ERANGE (HYP-22)")


def test_concise_lines_are_told_by_file_and_byte():
    report = refused(findings=[l3_finding(), l3_finding("later", offset=None, count=3)])
    assert list(concise_lines([report])) == [
        f"sample.zst:0x7fe0d0: HYP-22 error: {MESSAGE}",
        "sample.zst:0x0: HYP-22 error: later (3 times)",
    ]
    assert list(concise_lines([unjudged("why")])) == ["sample.zst:0x0: not judged: why"]


@given(
    name=st.text(),
    found=st.lists(
        st.builds(
            l3_finding,
            message=st.text() | st.just(MESSAGE),
            offset=st.none() | st.integers(0, 1 << 64),
            count=st.integers(1, 1 << 32),
            severity=st.sampled_from(Severity),
        )
    ),
    targets=st.lists(st.sampled_from(["4.17", "4.19", "4.20"]), min_size=1, unique=True),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_concise_output_has_one_line_for_each_finding_whatever_it_says(name, found, targets, capsys):
    reports = [accepted(facts(name), found, target=target) for target in targets]
    ConciseOutput().answered(reports)
    lines = capsys.readouterr().out.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(found)
    assert all(re.search(r":0x[0-9a-f]+: HYP-22 (error|warning|info): ", line) for line in lines)


def test_plain_output_has_no_escape_sequences():
    assert "\x1b" not in printed(refused())


@pytest.fixture
def colourful(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": ""}], ids=str)
def test_terminal_output_is_coloured(colourful, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown = Terminal()
    render(refused(), console_for(shown))
    assert "31m" in shown.getvalue()


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}], ids=str
)
def test_terminal_output_has_neither_colour_nor_bold_where_none_is_wanted(colourful, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown = Terminal()
    render(refused(), console_for(shown))
    assert "refused: " in shown.getvalue()
    assert "\x1b" not in shown.getvalue()


# -- what comes from outside --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain name ä.zst", "plain name ä.zst"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nb\x00\x7f\x9b", r"a\x0d\x0ab\x00\x7f\x9b"),
        ("caf\udce9", r"caf\xe9"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        (b"\xff\x1bok", r"\xff\x1bok"),
    ],
)
def test_unprintable_characters_become_escapes(raw, shown):
    assert safe(raw) == shown


def test_hostile_text_reaches_a_terminal_escaped():
    hostile = "\x1b]0;owned\x07[bold red]x[/] :smile:"
    report = refused(
        facts(hostile, container=hostile, xen=hostile),
        l3_failure(message=hostile),
        [l3_finding(hostile, record_type=hostile, chain=(Link(hostile, 1),))],
    )
    text = printed(report)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("[bold red]x[/] :smile:") == 6


# -- JSON ---------------------------------------------------------------------------------------------


def test_json_has_the_stream_by_its_names():
    stream = report_object(refused())["stream"]
    assert {name: stream[name] for name in ("name", "container", "version", "guest", "width", "levels", "xen")} == {
        "name": "sample.zst",
        "container": "libxc",
        "version": 3,
        "guest": "pv",
        "width": 4,
        "levels": 3,
        "xen": "4.17",
    }
    assert stream["pinned"] == {"L1": 2, "L2": 2, "L3": 7}
    assert stream["cr3"] == [{"vcpu": 0, "pfn": 25, "mfn": 1794647}]
    assert (stream["vcpus"], stream["max_pfn"], stream["bytes"], stream["records"]) == (2, 2047, 8383648, 16)
    assert (stream["extended_cr3"], stream["rounds"]) == (False, [{"kind": "first", "pages": 2048, "bytes": 8368144}])


def test_json_has_verdict_and_failure():
    report = report_object(refused())
    assert (report["schema"], report["target"], report["placement"]) == (2, "4.20", "source")
    assert (report["verdict"], report["damaged"]) == ("refuse", False)
    assert (report_object(damaged())["verdict"], report_object(damaged())["damaged"]) == ("accept", True)
    assert report["destination"] == {
        "release": "4.20.0",
        "placement": "source",
        "l3_rule": None,
        "vcpus": None,
        "overridden": [],
        "host": None,
    }
    assert report["failure"] == {
        "rule": "HYP-22",
        "step": "context",
        "call": "setvcpucontext",
        "vcpu": 1,
        "pfn": 25,
        "errno": "ERANGE",
        "signal": None,
        "message": MESSAGE,
    }
    assert report["tool"]["name"] == "xen-migrate"
    assert report["rule_set"] == rule_set_version()


def test_json_finding_has_its_place():
    (finding,) = report_object(refused())["findings"]
    assert (finding["rule"], finding["slug"], finding["severity"]) == ("HYP-22", RULES["HYP-22"].slug, "error")
    assert (finding["offset"], finding["record"], finding["record_type"]) == (0x7FE0D0, 11, "X86_PV_VCPU_BASIC")
    assert (finding["pfn"], finding["vcpu"], finding["message"]) == (25, 1, MESSAGE)


def test_json_finding_without_a_place_has_nulls_for_it_and_no_other_nulls():
    (finding,) = report_object(accepted(findings=[warning_finding()]))["findings"]
    nulls = {name for name, value in finding.items() if value is None}
    assert nulls == {"offset", "record", "record_type", "pfn", "vcpu"}


def test_json_of_an_unknown_stream_has_nulls():
    report = report_object(Report(StreamFacts("x"), Destination("4.20", "source"), "unjudged", None, [], "no stream"))
    assert report["stream"]["guest"] is None
    assert report["failure"] is None
    assert report["reason"] == "no stream"


def test_json_takes_numpy_integers():
    np = pytest.importorskip("numpy")
    assert json.loads(dumps({"pfn": np.uint64(25)})) == {"pfn": 25}


def test_json_is_printable_ascii_whatever_the_name():
    text = dumps(report_object(accepted(facts("\x1b\x7f\x9b\udcffä"))))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["stream"]["name"] == "\x1b\x7f\x9b\\xffä"


def test_well_formed_text_keeps_what_utf8_has():
    assert well_formed("ä\x1b\udcff").encode() == "ä\x1b\\xff".encode()


def test_a_report_says_whether_all_is_well_and_why_not():
    assert (accepted().ok, accepted().reason) == (True, None)
    assert (damaged().ok, damaged().damaged, damaged().reason) == (False, True, "wrong afterwards")
    assert (refused().ok, refused().damaged, refused().reason) == (False, False, MESSAGE)
    assert (unjudged("why").ok, unjudged("why").damaged, unjudged("why").reason) == (False, False, "why")


def test_report_converts_itself():
    assert refused().to_dict() == report_object(refused())


def test_what_has_hardly_any_room_beside_its_head_stands_below_it():
    file = io.StringIO()
    hanging(Console(file=file, width=30), Styled("a head of 23 columns:  "), "said of it in a few words more")
    assert file.getvalue() == "a head of 23 columns:\n    said of it in a few words\n    more\n"
