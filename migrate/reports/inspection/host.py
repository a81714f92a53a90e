"""What is known of a host, for people and for programs: facts, what follows from them, and what stays open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from migrate.destination.answers import Answer
from migrate.destination.host import Host
from migrate.destination.host_files import HostReading
from migrate.destination.host_json import FACTS, facts_object
from migrate.destination.policy_ranges import Ranges
from migrate.destination.releases import Release
from migrate.guest.cpu_policy import Policy, component_name
from migrate.judging.report import SCHEMA
from migrate.reports.verdict.text import hanging
from migrate.safe import safe, well_formed
from streams.wire.cpu_features import set_bits

if TYPE_CHECKING:
    from rich.console import Console

_KEY_WIDTH = 20
_VALUE_WIDTH = 20


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _last_leaves(policy: Policy) -> str:
    last = policy.max_leaves
    return f"{last['basic']:#x}, 7.{last['leaf 7']}, {last['extended']:#x}"


def _ranges(value: Ranges) -> str:
    return f"to 7.{value.leaf7}, {value.extended:#x}"


class Question(NamedTuple):
    """What is asked of a host, and how the answer's value is told to people."""

    ask: Callable[[Host], Answer[Any]]
    text: Callable[[Any], str] = str


QUESTIONS: dict[str, Question] = {
    "release": Question(lambda host: host.release),
    "pv": Question(lambda host: host.pv, _yes_no),
    "pv32": Question(lambda host: host.pv32, _yes_no),
    "hvm": Question(lambda host: host.hvm, _yes_no),
    "hap": Question(lambda host: host.hap, _yes_no),
    "shadow": Question(lambda host: host.shadow, _yes_no),
    "vendor": Question(lambda host: host.vendor),
    "pv max": Question(lambda host: host.max_policy("pv"), _last_leaves),
    "hvm max": Question(lambda host: host.max_policy("hvm"), _last_leaves),
    "pv default": Question(lambda host: host.default_policy("pv"), _last_leaves),
    "hvm default": Question(lambda host: host.default_policy("hvm"), _last_leaves),
    "policy entries": Question(lambda host: host.ranges, _ranges),
    "pv xcr0": Question(lambda host: host.xcr0("pv"), hex),
    "hvm xcr0": Question(lambda host: host.xcr0("hvm"), hex),
    "hvm address bits": Question(lambda host: host.physical_bits("hvm")),
    "memory above 4 GiB": Question(lambda host: host.memory_above_4g, _yes_no),
    "frames above 4 GiB": Question(lambda host: host.places_high(), _yes_no),
    "l1tf guard": Question(lambda host: host.l1tf, _yes_no),
    "linear page tables": Question(lambda host: host.linear_page_tables, _yes_no),
}
"""What is asked of every host, by the name that the answer goes by."""


def host_object(reading: HostReading) -> dict[str, Any]:
    """The JSON object of `migrate host --json`; its facts can be read again as a host file.

    `answers` has the value of every question (null where it is open, and where there is no such thing), the fact that
    decided, and whether it is open. A policy's value is where its leaves end, and its XSAVE components.
    """
    host = reading.host
    return {
        "schema": SCHEMA,
        FACTS: facts_object(host),
        "answers": {name: _answer_object(question.ask(host)) for name, question in QUESTIONS.items()},
        "switches": [
            {"switch": switch.text, "changes": switch.meaning.changes, "shows_in": switch.meaning.shows_in}
            for switch in host.switches
        ],
        "doubts": list(host.doubts),
        "remarks": list(map(well_formed, reading.remarks)),
    }


def _answer_object(answer: Answer[Any]) -> dict[str, Any]:
    value = answer.value
    if isinstance(value, Policy):
        value = {**value.max_leaves, "xcr0": [component_name(bit) for bit in set_bits(value.xcr0)]}
    elif isinstance(value, Ranges):
        value = {name: getattr(value, name) for name in Ranges.__slots__}
    elif isinstance(value, Release):
        value = value.name
    return {"value": value, "because": answer.because, "open": answer.open}


def render_host(reading: HostReading, name: str, console: Console) -> None:
    """Print what was understood of a host's files, question by question, and what stays open for want of what."""
    host = reading.host
    answers = {name: question.ask(host) for name, question in QUESTIONS.items()}
    console.print(Text(safe(name), "bold"), soft_wrap=True)
    for key, value in _identity(host):
        hanging(console, Text(f"    {key:<{_KEY_WIDTH}}"), safe(value))
    for key, answer in answers.items():
        if not answer.open:
            said = "none" if answer.value is None else QUESTIONS[key].text(answer.value)
            head = Text(f"    {key:<{_KEY_WIDTH}}{safe(said):<{_VALUE_WIDTH}}  ")
            hanging(console, head, safe(answer.because), "dim")
    switches: dict[str, list[str]] = {}
    for switch in host.switches:
        shown = f" (shows in {switch.meaning.shows_in})" if switch.meaning.shows_in else ""
        switches.setdefault(f"{switch.meaning.changes}{shown}", []).append(switch.text)
    rows = [(", ".join(dict.fromkeys(texts)), meaning) for meaning, texts in switches.items()]
    _section("switches of Xen that change an answer", rows, console)
    _section("missing, and what that leaves open", _missing(answers), console)
    _section("to be looked at", [(doubt, "") for doubt in (*host.doubts, *reading.remarks)], console)


def _identity(host: Host) -> Iterator[tuple[str, str]]:
    if host.name is not None:
        yield "host", host.name
    if host.total_memory is not None:
        free = "unknown" if host.free_memory is None else f"{host.free_memory} MiB"
        yield "memory", f"{host.total_memory} MiB, free {free}"


def _missing(answers: Mapping[str, Answer[Any]]) -> list[tuple[str, str]]:
    missing: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if answer.open:
            missing.setdefault(answer.because, []).append(name)
    return [(because, ", ".join(names)) for because, names in missing.items()]


def _section(title: str, rows: list[tuple[str, str]], console: Console) -> None:
    if not rows:
        return
    console.print()
    console.print(f"{title}:")
    for what, then in rows:
        hanging(console, Text("  - "), safe(f"{what}: {then}" if then else what))
