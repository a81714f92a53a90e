"""Switches on Xen's command line that change whether a guest comes back.

Source: docs/misc/xen-command-line of Xen. Most of them show elsewhere in a host file, and are named for the reader
only; where they do not, the functions below say what they decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.destination.answers import Answer, left_open
from streams.values import NamedTuple, dataclass

COMMAND_LINE = "xen_commandline"
_POLICIES = "the policies"


class Meaning(NamedTuple):
    """What a switch changes, and what else of a host file shows it; None where nothing does."""

    changes: str
    shows_in: str | None


SWITCHES: dict[str, Meaning] = {
    "pv": Meaning("whether 32-bit PV guests can be created", "xen_caps"),
    "cet": Meaning("Xen's own shadow stacks and branch tracking switch 32-bit PV guests off", "xen_caps"),
    "hap": Meaning("without it HVM guests run on shadow page tables", "virt_caps"),
    "mem": Meaning("the address at which memory ends", "total_memory"),
    "availmem": Meaning("how much memory Xen uses", "total_memory"),
    "dom0_mem": Meaning("how much memory dom0 leaves free", "free_memory"),
    "cpuid": Meaning("hides features from Xen and from all guests", _POLICIES),
    "cpuid_mask": Meaning("hides features from Xen and from all guests", _POLICIES),
    "xsave": Meaning("without it no guest has XSAVE or anything that needs it", _POLICIES),
    "smep": Meaning("whether guests have SMEP", _POLICIES),
    "smap": Meaning("whether guests have SMAP", _POLICIES),
    "pku": Meaning("whether HVM guests have PKU", _POLICIES),
    "tsx": Meaning("whether guests have HLE and RTM", _POLICIES),
    "spec-ctrl": Meaning(
        "which speculation controls guests have; `no` also takes the guard against L1TF away", _POLICIES
    ),
    "pv-l1tf": Meaning("whether PV guests with unsafe non-present entries are shadowed", None),
    "pv-linear-pt": Meaning("whether PV guests may have linear page tables", None),
}

_TRUE = frozenset({"yes", "on", "true", "enable", "1"})
_FALSE = frozenset({"no", "off", "false", "disable", "0"})
_SIZE = r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})([bBkKmMgGtT]?)"
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
# A size without a unit is in KiB.
_NO_UNIT = "k"


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch as it stands on the command line, and what it changes."""

    text: str
    meaning: Meaning


def known_switches(command_line: str) -> tuple[Switch, ...]:
    """The switches that change an answer, in their order."""
    found = ((text, _meaning(name)) for text, name, _ in _words(command_line))
    return tuple(Switch(text, meaning) for text, meaning in found if meaning)


def memory_limit(command_line: str | None) -> int | None:
    """The address in bytes at which `mem=` ends the host's RAM; None without it."""
    import re

    limit = None
    for _, name, value in _words(command_line or ""):
        size = re.fullmatch(_SIZE, value or "") if name == "mem" else None
        if size:
            digits, unit = size.groups()
            number = int(digits, 16 if digits[:2].lower() == "0x" else 10)
            limit = number << _UNITS[(unit or _NO_UNIT).lower()] or None
    return limit


def linear_page_tables(command_line: str | None) -> Answer[bool]:
    """Whether PV guests may have linear page tables: what `pv-linear-pt` says, and yes without it."""
    if command_line is None:
        return left_open(f"no {COMMAND_LINE}")
    said: Answer[bool] = Answer(True, f"{COMMAND_LINE} has no pv-linear-pt=: allowed as Xen is built by default")
    for text, name, value in _words(command_line):
        allowed = _boolean(value) if name == "pv-linear-pt" else None
        if allowed is not None:
            said = Answer(allowed, f"{COMMAND_LINE} has {text}")
    return said


def l1tf_switch(command_line: str) -> Answer[bool] | None:
    """Whether PV guests are guarded against L1TF as far as the command line says; None where it does not.

    `spec-ctrl=no` counts unless pv-l1tf= stands before it.
    """
    said: Answer[bool] | None = None
    for text, name, value in _words(command_line):
        guarded = None
        if name == "pv-l1tf":
            guarded = _list_item(value, "domu")
        elif name == "spec-ctrl" and said is None and _boolean((value or "").partition(",")[0]) is False:
            guarded = False
        if guarded is not None:
            said = Answer(guarded, f"{COMMAND_LINE} has {text}")
    return said


def _meaning(name: str) -> Meaning | None:
    return SWITCHES.get("cpuid_mask" if name.startswith("cpuid_mask_") else name)


def _words(command_line: str) -> Iterator[tuple[str, str, str | None]]:
    """Every word as it stands, its name, and its value; `no-x` is x with the value no, x alone has none."""
    for text in command_line.split():
        name, equals, value = text.partition("=")
        if not equals and name.startswith("no-"):
            yield text, name.removeprefix("no-"), "no"
        else:
            yield text, name, value if equals else None


def _boolean(value: str | None) -> bool | None:
    """A switch's value as Xen reads it: set where it has none, None for what is no boolean."""
    if value is None or value in _TRUE:
        return True
    return False if value in _FALSE else None


def _list_item(value: str | None, item: str) -> bool | None:
    """What a list of booleans says of one of its items, or of all; the last counts."""
    said = _boolean(value)
    for part in (value or "").split(","):
        name, equals, of_item = part.partition("=")
        if name == item:
            said = _boolean(of_item if equals else None)
        elif part == f"no-{item}":
            said = False
        elif _boolean(part) is not None:
            said = _boolean(part)
    return said
