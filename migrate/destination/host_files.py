"""Reading what `xl info` and `xen-cpuid -p` printed on a host.

The two outputs may come in any order, in one file or in several, with anything around them: banners, prompts, log
lines, time stamps in front. What `migrate host --json` writes is read, too. The formats are those of Xen 4.12 to
4.22; they differ in the words of virt_caps and xen_caps only.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Callable, Iterable
from typing import IO, Any

from migrate.destination.host import HW_CAPS, Host, PolicyName, XenVersion
from migrate.destination.host_facts import Facts, HostFileError, Where
from migrate.destination.host_json import FACTS, put_json
from migrate.destination.host_memory import Node
from migrate.guest.cpu_policy import Policy, Registers
from migrate.safe import safe
from streams.counting import count
from streams.values import dataclass, field
from streams.wire.framing import NO_SUBLEAF

MOST_BYTES = 16 << 20
"""What is read of one input: a host file has some ten kilobytes, a log around it some thousand."""
# Xen's command line, the longest line of all, has at most two thousand characters.
_LONGEST_LINE = 8192
_LONGEST_SHOWN = 60
# By so many bytes a host file is told from a stream.
_TOLD_BY = 4096

_NAMES = "|".join(map(re.escape, PolicyName))
_HEX = "[0-9a-fA-F]"
# An entry begins a line, or what stands before it ends with a blank or a bracket: a time stamp, the host's name.
_START = r"(?:^|(?<=[\s\]|>:]))"
_LEAF = re.compile(rf"{_START}({_HEX}{{8}}):({_HEX}{{8}})\s*->\s*((?:{_HEX}{{8}}:){{3}}{_HEX}{{8}})\s*$")
_MSR = re.compile(rf"{_START}({_HEX}{{8}})\s*->\s*({_HEX}{{16}})\s*$")
# What can only be a leaf: if it is none, it has been damaged.
_DAMAGED = re.compile(rf"{_START}{_HEX}{{7,8}}:{_HEX}{{7,8}}\s*->")
_BOUNDS = re.compile(r"Xen reports there are maximum (\d{1,9}) leaves and (\d{1,9}) MSRs")
_POLICY = re.compile(rf"\b({_NAMES}|Domain \d+) policy: (\d{{1,9}}) leaves, (\d{{1,9}}) MSRs")
_UNSUPPORTED = re.compile(rf"\b({_NAMES}) policy not supported by Xen")
_NODES = re.compile(r"\bnode:\s+memsize\s+memfree\s+distances")
_NODE = re.compile(r"(?:^|(?<=\s))(\d{1,4}):\s+(\d{1,12})\s+(\d{1,12})\s+\d+(?:,\d+)*\s*$")
# Escape sequences of a terminal: colours and cursor (CSI), titles (OSC).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(\D.*)?")
_ARM = ("aarch64", "armv7l")

_WANTED = "expected what `xl info` and `xen-cpuid -p` print"
_ONE_DOMAIN = "the policy of one domain (`xen-cpuid -p DOMID`) says nothing of the host; `xen-cpuid -p` does"
# Other outputs by something they print, and what to say of them.
_OTHERS: tuple[tuple[str, str], ...] = (
    ("nr_features: ", "the features that `xen-cpuid` prints are not enough; `xen-cpuid -p` prints the policies"),
    ("Dynamic sets:", "the features that `xen-cpuid` prints are not enough; `xen-cpuid -p` prints the policies"),
    ("xl: command not found", "xl was not found there"),
    ("xl: not found", "xl was not found there"),
    ("xen-cpuid: command not found", "xen-cpuid was not found there; it may lie in /usr/lib/xen-VERSION/bin"),
    ("xen-cpuid: not found", "xen-cpuid was not found there; it may lie in /usr/lib/xen-VERSION/bin"),
    ("cannot init xl context", "xl failed there: it needs root, on a Xen host"),
    ("xc_interface_open", "xen-cpuid failed there: it needs root, on a Xen host"),
    ("Could not obtain handle on privileged", "the command failed there: it needs root, on a Xen host"),
)


@dataclass(frozen=True, slots=True)
class HostReading:
    """A host, and what its files have in place of something that is missing: "pool.txt, line 3: …"."""

    host: Host
    remarks: tuple[str, ...] = ()


def read_host(*sources: str | os.PathLike[str] | IO[bytes]) -> HostReading:
    """One host, from one or several files.

    Raises
    ------
    HostFileError
        for input that says nothing of a host, is damaged, contradicts itself, or is too long.
    OSError
        for a file that cannot be read.
    """
    return parse_host(map(_content, sources))


def parse_host(inputs: Iterable[tuple[str, bytes]]) -> HostReading:
    """One host, from the names and contents of its files. Raises HostFileError as `read_host` does."""
    facts, remarks = Facts(), list[HostFileError]()
    for name, data in inputs:
        reader = _Reader(name, facts)
        reader.read(data)
        remarks += reader.remarks.values()
        if not (reader.useful or reader.remarks):
            raise reader.foreign(data)
    if not facts:
        raise next(iter(remarks), HostFileError(Where(""), _WANTED))
    host = facts.host()
    complete = host.xen is not None and host.policies
    return HostReading(host, () if complete else tuple(map(str, remarks)))


def may_be_host_file(path: str) -> bool:
    """Whether a file begins as text, as host files do and streams do not; JSON with the facts of a host.

    Raises OSError for one that cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(_TOLD_BY)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    if start.lstrip()[:1] == b"{":
        return f'"{FACTS}"'.encode() in start
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and "\0" not in text


def _content(source: str | os.PathLike[str] | IO[bytes]) -> tuple[str, bytes]:
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return os.fspath(source), _most(file)
    return str(getattr(source, "name", "")), _most(source)


def _most(file: IO[bytes]) -> bytes:
    """What is in a file, up to one byte more than is taken."""
    data = bytearray()
    while len(data) <= MOST_BYTES and (more := file.read(MOST_BYTES + 1 - len(data))):
        data += more
    return bytes(data)


# -- values of xl info --------------------------------------------------------------------------------


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("a number")
    return int(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _caps(text: str) -> tuple[str, ...]:
    if any(arm in text for arm in _ARM):
        raise ValueError("an x86 host")
    return _words(text)


def _hw_caps(text: str) -> tuple[int, ...]:
    if not re.fullmatch(rf"{_HEX}{{8}}(:{_HEX}{{8}}){{{len(HW_CAPS) - 1}}}", text):
        raise ValueError(f"{count(len(HW_CAPS), 'word')} of 8 hexadecimal digits with colons between them")
    return tuple(int(word, 16) for word in text.split(":"))


def _version(text: str) -> XenVersion:
    match = _VERSION.fullmatch(text)
    if not match:
        raise ValueError("a version such as 4.17.7")
    return XenVersion(int(match[1]), int(match[2]), match[3] or "")


_VALUES: dict[str, Callable[[str], Any]] = {
    "host": str,
    "nr_cpus": _number,
    "hw_caps": _hw_caps,
    "virt_caps": _words,
    "total_memory": _number,
    "free_memory": _number,
    "xen_major": _number,
    "xen_minor": _number,
    "xen_extra": str,
    "xen_version": _version,
    "xen_caps": _caps,
    "xen_commandline": str,
}
# "host" is too common a word to be taken for xl's without the room that xl leaves behind it.
_KEYS = "|".join(rf"{key}(?=\s*(?:\s\s|\t):)" if key == "host" else key for key in _VALUES)
_KEY = re.compile(rf"{_START}({_KEYS})\s*:(?:\s(.*))?$", re.DOTALL)


# -- lines --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Section:
    """A policy that is being printed."""

    name: str
    most_leaves: int
    msr_count: int
    where: Where
    leaves: dict[tuple[int, int | None], Registers] = field(default_factory=dict)
    msrs: dict[int, int] = field(default_factory=dict)


class _Reader:
    """One input: its lines go by, what they say of the host goes to `facts`."""

    def __init__(self, source: str, facts: Facts) -> None:
        self.source, self.facts = source, facts
        self.where = Where(source)
        self.section: _Section | None = None
        self.in_nodes = False
        self.useful = False
        self.remarks: dict[str, HostFileError] = {}
        self.no_json: HostFileError | None = None

    def read(self, data: bytes) -> None:
        """Take everything in. Raises HostFileError for what is damaged, too long, or of another host."""
        if len(data) > MOST_BYTES:
            raise HostFileError(Where(self.source), f"longer than {MOST_BYTES >> 20} MiB: {_WANTED}")
        if data.lstrip()[:1] == b"{" and self._json(data):
            return
        for number, line in enumerate(_lines(data), 1):
            if len(line) <= _LONGEST_LINE:
                self.where = Where(self.source, number)
                self._line(_ESCAPES.sub("", line) if "\x1b" in line else line)
        self._close()

    def _json(self, data: bytes) -> bool:
        try:
            put_json(data, self.facts, self.source)
        except HostFileError:
            raise
        except (ValueError, RecursionError) as error:
            self.no_json = HostFileError(Where(self.source, getattr(error, "lineno", 1)), f"not JSON: {error}")
            return False
        self.useful = True
        return True

    def _line(self, line: str) -> None:
        for sign, pattern, take in _LINES:
            match = pattern.search(line) if sign in line else None
            if match:
                take(self, match)
                return
        for sign, what in _OTHERS:
            if sign in line:
                self.remarks.setdefault(what, HostFileError(self.where, what))

    def _bounds(self, match: re.Match[str]) -> None:
        self._put("maximum leaves", int(match[1]))
        self._put("maximum MSRs", int(match[2]))

    def _policy(self, match: re.Match[str]) -> None:
        self._close()
        self.section = _Section(match[1], int(match[2]), int(match[3]), self.where)

    def _unsupported(self, match: re.Match[str]) -> None:
        self._close()
        self.facts.put_policy(PolicyName(match[1]), None, self.where)
        self.useful = True

    def _leaf(self, match: re.Match[str]) -> None:
        leaf, subleaf = int(match[1], 16), int(match[2], 16)
        a, b, c, d = (int(register, 16) for register in match[3].split(":"))
        if self.section is None:
            raise HostFileError(
                self.where, "a leaf of no policy: expected a line 'Raw policy: …' or the like before it"
            )
        key = leaf, None if subleaf == NO_SUBLEAF else subleaf
        if self.section.leaves.setdefault(key, (a, b, c, d)) != (a, b, c, d):
            raise HostFileError(self.where, f"leaf {leaf:#x} for the second time in one policy, with other values")

    def _msr(self, match: re.Match[str]) -> None:
        index, value = int(match[1], 16), int(match[2], 16)
        # Elsewhere, logs of Xen have lines of this form.
        if self.section is not None and self.section.msrs.setdefault(index, value) != value:
            raise HostFileError(self.where, f"MSR {index:#x} for the second time in one policy, with another value")

    def _damaged(self, match: re.Match[str]) -> None:
        raise HostFileError(
            self.where,
            f"expected leaf:subleaf -> eax:ebx:ecx:edx in hexadecimal, found {_shown(match.string)}",
        )

    def _close(self) -> None:
        """The policy that was being printed is over."""
        section, self.section = self.section, None
        if section is None:
            return
        if len(section.msrs) != section.msr_count or len(section.leaves) > section.most_leaves:
            raise HostFileError(
                section.where,
                f"the {section.name} policy should have {count(section.msr_count, 'MSR')} and "
                f"{count(section.most_leaves, 'leaf', 'leaves')} at most; {len(section.msrs)} and "
                f"{len(section.leaves)} are there: was it cut off?",
            )
        if section.name not in PolicyName.__members__.values():
            self.remarks.setdefault(_ONE_DOMAIN, HostFileError(section.where, _ONE_DOMAIN))
            return
        self.facts.put_policy(PolicyName(section.name), Policy(section.leaves, section.msrs), section.where)
        self.useful = True

    def _nodes(self, match: re.Match[str]) -> None:
        self.in_nodes = True

    def _node(self, match: re.Match[str]) -> None:
        if self.in_nodes:
            self.facts.put_node(Node(*map(int, match.groups())), self.where)
            self.useful = True

    def _key(self, match: re.Match[str]) -> None:
        key, value = match[1], (match[2] or "").strip()
        self._close()
        self.in_nodes = False
        try:
            known = _VALUES[key](value)
        except ValueError as error:
            raise HostFileError(self.where, f"{key}: expected {error}, found {_shown(value)}") from None
        if key == "free_memory":
            self.facts.put_least(key, known, self.where)
            self.useful = True
        else:
            self._put(key, known)

    def _put(self, name: str, value: Any) -> None:
        self.facts.put(name, value, self.where)
        self.useful = True

    def foreign(self, data: bytes) -> HostFileError:
        """What to say of an input in which nothing of a host was found."""
        if self.no_json:
            return self.no_json
        for number, line in enumerate(_lines(data), 1):
            if line.strip():
                return HostFileError(Where(self.source, number), f"{_WANTED}, found {_shown(line)}")
        return HostFileError(Where(self.source), f"{_WANTED}, and it is empty")


# What tells a line without a look at the rest, its form, and what is done with it; the first that fits counts.
_LINES: tuple[tuple[str, re.Pattern[str], Callable[[_Reader, re.Match[str]], None]], ...] = (
    ("->", _LEAF, _Reader._leaf),
    ("->", _MSR, _Reader._msr),
    ("->", _DAMAGED, _Reader._damaged),
    (" policy: ", _POLICY, _Reader._policy),
    ("not supported by Xen", _UNSUPPORTED, _Reader._unsupported),
    ("Xen reports", _BOUNDS, _Reader._bounds),
    ("memsize", _NODES, _Reader._nodes),
    (": ", _NODE, _Reader._node),
    (":", _KEY, _Reader._key),
)


def _lines(data: bytes) -> Iterable[str]:
    """The lines of a text, whichever way they end, in UTF-8 or what Windows makes of it."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = io.TextIOWrapper(
        io.BytesIO(data),
        encoding="utf-16" if utf_16 else "utf-8-sig",
        errors="replace",
        newline="\n" if b"\n" in data else "\r",
    )
    return (line.rstrip("\r\n") for line in text)


def _shown(text: str) -> str:
    text = text.strip()
    if "\0" in text or "\ufffd" in text:
        return "binary data"
    return f"'{safe(text if len(text) <= _LONGEST_SHOWN else f'{text[:_LONGEST_SHOWN]}…')}'"
