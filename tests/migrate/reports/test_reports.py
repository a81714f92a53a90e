"""What the text and the JSON report say of reports built by hand."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from migrate.destination.destination import Destination
from migrate.judging.report import Report
from migrate.judging.report_json import dumps, report_object
from migrate.reports.verdict.text import console_for, render, render_verdict, verdict_sentence
from migrate.rules.catalogue import RULES, rule_set_version
from migrate.rules.declaring import Effect, Severity
from migrate.rules.findings import Failure, Finding, Link
from migrate.safe import safe, well_formed
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.passes import Round

MESSAGE = (
    "vcpu 1 context: L3 pfn 0x19 (mfn 0x1bac57) lies above 4 GiB, and the guest has not enabled "
    "pae_extended_cr3: setvcpucontext → -ERANGE (Xen 4.19 and later)"
)


def l3_finding(message=MESSAGE, **fields):
    place = {"offset": 0x7FE0D0, "record": 11, "record_type": "X86_PV_VCPU_BASIC", "pfn": 0x19, "vcpu": 1}
    rule = RULES["HYP-22"]
    return Finding(rule, message, rule.severity, rule.effect, **(place | fields))


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


def unjudged(reason, stream=None):
    return Report(stream or facts(), Destination("4.20", "source"), "unjudged", None, [], reason)


def printed(report, width=None):
    file = io.StringIO()
    render(report, console_for(file) if width is None else Console(file=file, width=width))
    return file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


# -- verdicts -----------------------------------------------------------------------------------------


def test_acceptance_names_release_and_placement():
    last = printed(accepted()).splitlines()[-1]
    assert last == "accept   sample.zst: Xen 4.20.0 would restore this guest (frames placed as on the source)"


@pytest.mark.parametrize(
    ("placement", "words"),
    [("high", "above 4 GiB"), ("low", "below 4 GiB"), ("identity", "mfn = pfn"), ("file:frames.map", "frames.map")],
)
def test_acceptance_names_other_placements(placement, words):
    assert words in verdict_sentence(accepted(placement=placement))


def test_acceptance_of_an_hvm_guest_names_no_placement():
    assert verdict_sentence(accepted(facts(guest="hvm"))) == "Xen 4.20.0 would restore this guest"


def test_acceptance_counts_warnings():
    assert verdict_sentence(accepted(findings=[warning_finding()])).endswith("; 1 warning")


def test_acceptance_of_corrupt_state_says_so():
    finding = l3_finding(message="wrong afterwards")
    corrupt = Finding(finding.rule, "wrong afterwards", Severity.ERROR, Effect.CORRUPT)
    assert "not in the state it was saved in (HYP-22)" in verdict_sentence(accepted(findings=[corrupt]))


def test_refusal_names_vcpu_hypercall_errno_and_rule():
    last = printed(refused()).splitlines()[-1]
    assert last == f"refuse   sample.zst: vcpu 1's setvcpucontext fails with ERANGE (HYP-22): {MESSAGE}"


def test_refusal_by_a_pin_names_the_pfn():
    failure = l3_failure(step="pin", call="mmuext_op", vcpu=None, errno="EINVAL", message="no.")
    assert verdict_sentence(refused(failure=failure)) == "mmuext_op for pfn 0x19 fails with EINVAL (HYP-22): no."


def test_refusal_by_libxc_blames_libxc():
    failure = l3_failure(rule="ORD-01", step="record", call="libxc", errno=None, message="twice")
    assert verdict_sentence(refused(failure=failure)) == "libxc refuses it (ORD-01): twice"


def test_death_of_the_toolstack_names_the_signal():
    failure = l3_failure(rule="ORD-01", step="record", call="libxc", errno=None, message="m", signal=6)
    assert verdict_sentence(refused(failure=failure)) == "libxc dies of SIGABRT (ORD-01): m"


def test_unjudged_gives_the_reason():
    assert printed(unjudged("a xapi suspend image")).splitlines()[-1] == (
        "unjudged sample.zst: not judged: a xapi suspend image"
    )


# -- the header ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "libxc, image version 3, 16 records, 8383648 bytes",
        "pv, 32-bit, 3 page table levels, 2 vcpus, 8 MiB",
        "Xen 4.17",
        "L1 2, L2 2, L3 7",
        "source: frames placed as on the source",
        "Xen 4.20.0",
    ],
)
def test_header_says_what_the_stream_is(said):
    header = printed(accepted()).split("\n\n")[0]
    assert any(line.endswith(said) or said in line for line in header.splitlines())


def test_only_the_verdict_is_in_the_colour_of_the_verdict(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    render_verdict(accepted(), Console(file=file, force_terminal=True, width=200, color_system="standard"))
    assert file.getvalue().startswith("\x1b[1;32maccept   \x1b[0msample.zst: ")


def test_rounds_are_told_of_live_streams_only():
    assert "rounds" not in printed(accepted())
    passes = [Round("first", 2048), Round("dirty", 120), Round("dirty", 17), Round("final", 3)]
    assert "first 2048; dirty 120, 17; final 3 pages" in printed(accepted(facts(rounds=passes)))


def test_many_rounds_are_summed_up():
    passes = [Round("first", 2048), *[Round("dirty", 2)] * 30]
    told = printed(accepted(facts(rounds=passes)))
    assert "dirty 2, 2, 2, 2, 2, 2, 2, 2 … (30 passes, 60 in all) pages" in told


def test_header_of_an_unknown_stream_is_short():
    report = Report(StreamFacts("x"), Destination("4.20", "source"), "unjudged", None, [], "no stream")
    assert "None" not in printed(report)


# -- findings -----------------------------------------------------------------------------------------


def test_finding_stands_on_two_lines_where_nobody_wraps():
    lines = printed(refused()).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("HYP-22"))
    assert lines[first] == f"HYP-22  l3-above-4g    error    {MESSAGE}"
    place = "        at 0x7fe0d0, record 11 X86_PV_VCPU_BASIC"
    assert lines[first + 1] == f"{place}      explain: migrate explain HYP-22"


def test_finding_wraps_under_its_own_message():
    lines = printed(refused(), width=90).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("HYP-22"))
    column = lines[first].index("vcpu 1 context")
    assert lines[first + 1][:column] == " " * column
    assert lines[first + 1][column] != " "


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    report = refused(facts("a name/" * 30), findings=[l3_finding(), l3_finding("x" * 300)])
    body = printed(report, width).split("\n", maxsplit=1)[1]
    assert max(map(len, body.split("\n\n")[-1].splitlines())) <= width


def test_wrapped_message_loses_no_word():
    lines = printed(refused(failure=l3_failure(message="short")), width=60).split("\n\n")[1]
    assert " ".join(MESSAGE.split()) in " ".join(lines.split())


def test_folded_findings_are_counted():
    assert "and 36 more like it" in printed(refused(findings=[l3_finding(count=37)]))


def test_chain_of_tables_is_told():
    assert "by way of L3 pfn 0x19 slot 3, pfn 0x1a (L2)" in printed(
        refused(findings=[l3_finding(chain=(Link("L3", 0x19, 3), Link("L2", 0x1A)))])
    )


def test_finding_without_a_place_still_says_what_explains_it():
    lines = printed(accepted(findings=[warning_finding()])).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("HYP-22"))
    assert lines[first + 1] == "        explain: migrate explain HYP-22"


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
    assert "refuse   " in shown.getvalue()
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
    assert text.count("[bold red]x[/] :smile:") == 8


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
    assert (report["schema"], report["target"], report["placement"], report["verdict"]) == (
        2,
        "4.20",
        "source",
        "refuse",
    )
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


def test_report_converts_itself():
    assert refused().to_dict() == report_object(refused())
