"""The face of the package, as a program or a person at a prompt sees it."""

import gzip
import io
import os
import pydoc
import subprocess
import sys

import pytest
from project import ROOT, SAMPLES

import migrate
from migrate.building.builder import StreamBuilder
from streams.opening import open_transport

REFUSED = str(SAMPLES / "x417-pv32.plain.libxc.zst")


def test_dir_shows_the_face_and_nothing_else():
    assert {name for name in dir(migrate) if not name.startswith("_")} == set(migrate.__all__) - {"__version__"}


def test_pydoc_shows_the_face():
    text = pydoc.render_doc(migrate, renderer=pydoc.plaintext)
    for name in ("Checker", "Destination", "Report", "check(", "inspect(", "survey("):
        assert name in text
    assert "_HOMES" not in text


def test_what_cannot_be_read_raises_what_the_face_has():
    packed = gzip.compress(StreamBuilder.pv(8).build())
    with pytest.raises(migrate.TransportError, match="gzip data ends"):
        migrate.check(packed[: len(packed) // 2])


def test_a_report_answers_in_words():
    report = migrate.check(REFUSED, target="4.20", placement="high")
    assert (report.ok, report.damaged) == (False, False)
    assert (
        report.reason == "L3 pfn 0x19 (mfn 0x100019) lies above 4 GiB, and the guest has not enabled pae_extended_cr3"
    )
    told = report.explain()
    assert told.startswith(f"refused: {report.reason}\n\nHYP-22 l3-above-4g: ")
    assert migrate.RULES["HYP-22"].sections["Repair"] in told


def test_of_a_guest_that_comes_back_nothing_is_explained():
    report = migrate.check(REFUSED, target="4.20", placement="low")
    assert (report.ok, report.reason, report.explain()) == (True, None, "restores")


def test_a_damaged_guest_is_not_ok():
    b = StreamBuilder.pv(8)
    migrate.RULES["REC-71"].violation(b)
    report = migrate.check(b.build(), placement="source")
    assert (report.verdict, report.damaged, report.ok) == ("accept", True, False)
    assert report.outcome == "restores, but damaged"
    assert "Repair: " in report.explain()


def test_damage_counts_though_its_rule_is_not_told():
    b = StreamBuilder.pv(8)
    migrate.RULES["REC-71"].violation(b)
    report = migrate.check(b.build(), placement="source", ignore=["REC-71"])
    assert (report.damaged, report.ok) == (True, False)


def test_closed_sets_are_strings():
    report = migrate.check(REFUSED, target="4.20", placement="high")
    (finding, *_) = (one for one in report.findings if one.rule.id == "HYP-22")
    assert (finding.severity, finding.effect, finding.step) == ("error", "hypercall", "context")
    assert report.verdict == "refuse"


def test_a_finding_and_a_rule_are_shown_on_one_line():
    report = migrate.check(REFUSED, target="4.20", placement="high")
    assert repr(migrate.RULES["HYP-22"]) == "<Rule HYP-22 l3-above-4g>"
    (finding,) = (one for one in report.findings if one.pfn == 0x19)
    assert repr(finding) == f"<Finding HYP-22 error: {finding.message}>"
    assert not any("\n" in repr(one) for one in report.findings)


# -- sources ------------------------------------------------------------------------------------------


STREAM = StreamBuilder.pv(8).build()


class Trickle:
    """A file object that gives less than it is asked for, and can do nothing else."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def read(self, size):
        return self._data.read(min(size, 1000))


@pytest.mark.parametrize("kind", ["bytesio", "file", "unbuffered", "gzip", "trickle", "pipe"])
def test_file_objects_are_streams(tmp_path, kind):
    path = tmp_path / "guest"
    path.write_bytes(b"before" + STREAM)
    packed = tmp_path / "guest.gz"
    packed.write_bytes(gzip.compress(b"before" + STREAM))
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as end:
        end.write(b"before" + STREAM[:40_000])
    opened = {
        "bytesio": lambda: io.BytesIO(b"before" + STREAM),
        "file": lambda: path.open("rb"),
        "unbuffered": lambda: path.open("rb", buffering=0),
        "gzip": lambda: gzip.open(packed),  # noqa: SIM115 - closed below
        "trickle": lambda: Trickle(b"before" + STREAM),
        "pipe": lambda: os.fdopen(os.dup(ours), "rb"),
    }[kind]()
    assert opened.read(6) == b"before"
    report = migrate.check(opened)
    os.close(ours)
    assert report.verdict == migrate.check(STREAM if kind != "pipe" else STREAM[:40_000]).verdict
    assert report.findings == migrate.check(STREAM if kind != "pipe" else STREAM[:40_000]).findings
    if hasattr(opened, "close"):
        opened.close()


def test_a_file_object_is_left_open(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(STREAM)
    with path.open("rb") as file:
        assert migrate.check(file).verdict == migrate.check(file).verdict == "accept"
        assert not file.closed


def test_a_file_opened_as_text_is_told_apart(tmp_path):
    path = tmp_path / "guest"
    path.write_text("no stream")
    with path.open() as file, pytest.raises(Exception, match="open it with 'rb'"):
        migrate.check(file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"source": 5.0}, "is no stream: expected a path"),
        ({"source": None}, "is no stream: expected a path"),
        ({"vcpus": -5}, "a domain with -5 vcpus"),
        ({"vcpus": "two"}, "'two' is no number of vcpus"),
        ({"target": 4.2}, "4.2 is no release"),
        ({"target": "5.9"}, "the newest is"),
        ({"placement": 7}, "7 is no placement"),
        ({"placement": "upstairs"}, "unknown placement 'upstairs'"),
        ({"select": ["NOPE"]}, "no rule is called 'NOPE'"),
        ({"host": 5}, "5 is no host"),
        ({"destination": migrate.Destination("4.20"), "target": "4.19"}, "and target beside it"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        migrate.check(arguments.pop("source", STREAM), **arguments)


@pytest.mark.parametrize("width", [0, 5, "4", 32])
def test_a_pv_guest_of_another_width_is_refused_in_a_sentence(width):
    with pytest.raises(ValueError, match="have 4 bytes or 8"):
        StreamBuilder.pv(width)


HOST = SAMPLES / "hosts" / "h417-max-no32.txt"


@pytest.mark.parametrize("host", [HOST, str(HOST), migrate.Destination(host=HOST).host], ids=["path", "text", "read"])
def test_a_host_is_named_where_the_question_is_asked(host):
    asked = migrate.check(REFUSED, host=host)
    assert (asked.failure.rule, asked.target) == ("REC-32", "4.17.7")
    checker = migrate.Checker(host=host)
    checker.feed(open_transport(REFUSED).give(1 << 30))
    assert checker.close().failure == asked.failure
    assert migrate.inspect(REFUSED, host=host, then=lambda inspection: inspection.report.failure) == asked.failure


def test_a_report_is_printed_as_check_prints_it():
    printed = str(migrate.check(str(REFUSED), target="4.20"))
    command = [sys.executable, "-m", "migrate", "check", str(REFUSED), "--target", "4.20"]
    assert printed == subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip()


def test_one_rule_may_be_named_without_a_list():
    named = migrate.check(REFUSED, target="4.20", select="HYP-22")
    assert {finding.rule.id for finding in named.findings} == {"HYP-22"}


# -- types --------------------------------------------------------------------------------------------


CLIENT = """
from pathlib import Path

import migrate


def sort(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            report = migrate.check(stream, migrate.Destination("4.20", "low"))
        found.setdefault(report.outcome, []).append(file.name)
        errors: list[migrate.Finding] = [one for one in report.findings if one.severity == "error"]
        if report.failure is not None and not report.ok:
            failure: migrate.Failure = report.failure
            why: str | None = report.reason
            print(failure.rule, why, report.explain(), len(errors), report.damaged)
    return found


def piecewise(pieces: list[bytes]) -> migrate.Report:
    checker = migrate.Checker(target="4.19")
    for piece in pieces:
        checker.feed(piece)
    return checker.close()


def guest_of(path: str) -> str:
    def then(inspection: object) -> str:
        return repr(inspection)

    return migrate.inspect(path, then=then)


reports: list[migrate.Report] = migrate.survey("guest.xl", [migrate.Destination(), migrate.Destination("4.17")])
rule: migrate.Rule = migrate.RULES["HYP-22"]
worst: migrate.Severity = rule.severity
text: str = f"{rule.repair} {worst} {migrate.__version__} {sort(Path())} {piecewise([])} {guest_of('x')} {reports}"
"""


@pytest.mark.slow
def test_a_program_that_uses_the_face_is_sound_by_its_types(tmp_path):
    pytest.importorskip("mypy")
    file = tmp_path / "client.py"
    file.write_text(CLIENT)
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    words += ["--cache-dir", os.environ.get("MYPY_CACHE_DIR", str(ROOT / ".mypy_cache"))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
