"""How a message is declared: what the line looks like, what was going on, and which rules it can mean.

A message is written down as it is printed, with names in place of what differs from line to line:

    Message(LIBXC, "pfn {pfn} (index {index}) outside domain maximum", rules=("REC-07", "ORD-03"), doing=…)

`{name}` stands for a number, decimal or hexadecimal, `{name:hex}` for one in hexadecimal whatever it looks like,
`{name:word}` for a word, `{name:text}` for words up to a bracket or a quotation mark, `{name:gap}` for anything.
"""

from __future__ import annotations

import errno as numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# What may stand for a placeholder. All are bounded, so that no line takes longer than its length.
_KINDS = {
    "": r"(?:0x)?[0-9a-fA-F]{1,24}",
    "hex": r"(?:0x)?[0-9a-fA-F]{1,24}",
    "word": r"[^\s'\"():,;]{1,60}",
    "text": r"[^()'\"]{1,80}?",
    "gap": r".{0,120}?",
}
WORD = re.compile(r"[^\W\d]\w+")
_PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
# libxc prints "(22 = Invalid argument)" behind what failed in a call, Xen "rc -22" or "err=-22".
_ERRNO_IN_WORDS = re.compile(r"\((\d{1,4}) = [^)]{0,80}")
_ERRNO = re.compile(rf"{_ERRNO_IN_WORDS.pattern}|\b(?:rc|err)[ =]-(\d{{1,4}})\b|\b(?:Failure|Error) -(\d{{1,4}})\b")
# Python has two names for some numbers; Xen means the first of each.
_PREFERRED = {numbers.EOPNOTSUPP: "EOPNOTSUPP", numbers.EAGAIN: "EAGAIN", numbers.EDEADLK: "EDEADLK"}


class Voice(StrEnum):
    """Who writes a line."""

    LIBXC = "libxc"
    LIBXL = "libxl"
    XL = "xl"
    LIBVIRT = "libvirt"
    XENOPSD = "xenopsd"
    QEMU = "QEMU"
    XEN = "Xen"
    KERNEL = "Linux"


# Their "rc=-3" is libxl's ERROR_FAIL, and so on: numbers of libxl's own, no errno.
_LIBXL_NUMBERS = frozenset({Voice.LIBXL, Voice.XL, Voice.LIBVIRT, Voice.XENOPSD})


class Role(StrEnum):
    """What a line is to the failure of a restore."""

    START = "start"
    """a restore begins: what came before belongs to another"""
    FACT = "fact"
    """says something of the host"""
    CAUSE = "cause"
    """says what was refused"""
    CONSEQUENCE = "consequence"
    """follows from a cause that other lines name"""
    HINT = "hint"
    """decides between rules beside a cause; without one it is nothing unusual"""


class Facts(dict[str, str]):
    """What a line says beside its fixed words, by the names of the placeholders; `errno` where it tells one."""

    @property
    def errno(self) -> str | None:
        """Name of the errno, None where the line has none."""
        return self.get("errno")

    def number(self, name: str) -> int:
        """The number of that name, -1 where there is none."""
        value = self.get(name, "-1")
        return int(value, 16 if re.search("[xa-fA-F]", value) else 10)


Rules = tuple[str, ...]
Choice = Rules | Callable[[Facts], Rules]


@dataclass(frozen=True, kw_only=True)
class Says:
    """One message.

    Attributes
    ----------
    says:
        forms of the line, as releases print them.
    rules:
        ids of the rules that it can mean, the likeliest first, or a function that chooses by what the line says.
    doing:
        what was going on; may name the placeholders.
    decides:
        what tells the rules apart.
    look:
        a command that shows the thing in question, without `migrate`; may name the placeholders.
    words:
        what `doing` may name beside the placeholders.
    """

    voice: Voice
    says: tuple[str, ...]
    doing: str
    rules: Choice = ()
    decides: str = ""
    look: str = ""
    role: Role = Role.CAUSE
    words: Callable[[Facts], Mapping[str, str]] | None = None

    def facts(self, match: re.Match[str]) -> Facts:
        """What a line says that one of the forms has matched."""
        hexadecimal = {name for form in self.says for name, kind in _pieces(form)[1] if kind == "hex"}
        facts = Facts()
        for name, value in match.groupdict().items():
            if value is not None:
                facts[name] = hex(int(value, 16)) if name in hexadecimal else value.strip()
        form = _ERRNO_IN_WORDS if self.voice in _LIBXL_NUMBERS else _ERRNO
        if found := form.search(match.string, match.start()):
            number = int(next(filter(None, found.groups())))
            if number:  # "0 = Success": the input has ended
                facts["errno"] = errno_name(number)
        return facts

    def candidates(self, facts: Facts) -> Rules:
        """The rules that it can mean, the likeliest first."""
        return self.rules(facts) if callable(self.rules) else self.rules


def message(voice: Voice, *says: str, **rest: object) -> Says:
    """A message in its forms."""
    return Says(voice=voice, says=says, **rest)  # type: ignore[arg-type]


def _pieces(form: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The fixed words of a form, and the placeholders between them as name and kind."""
    fixed, places, at = [], [], 0
    for match in _PLACEHOLDER.finditer(form):
        fixed.append(form[at : match.start()])
        places.append((match[1], match[2] or ""))
        at = match.end()
    return [*fixed, form[at:]], places


def key_word(form: str) -> str:
    """The longest word that every line of a form has as a whole word.

    One at an edge may be part of a longer one in the line; at the edges of the form it is taken where there is no
    other.
    """
    fixed = _pieces(form)[0]
    inner, outer = [""], [""]
    for number, text in enumerate(fixed):
        for match in WORD.finditer(text):
            left, right = match.start() == 0, match.end() == len(text)
            if not (left or right):
                inner.append(match[0])
            elif not (left and number) and not (right and number < len(fixed) - 1):
                outer.append(match[0])
    return max(inner, key=len) or max(outer, key=len)


def expression(form: str) -> re.Pattern[str]:
    """The expression that finds a form in a line."""
    fixed, places = _pieces(form)
    text = re.escape(fixed[0])
    for (name, kind), words in zip(places, fixed[1:], strict=True):
        value = _KINDS[kind]
        # Where nothing follows, as much as there is.
        value = value.removesuffix("?") if not words else value
        text += (f"(?:{value})" if name == "_" else f"(?P<{name}>{value})") + re.escape(words)
    return re.compile(text)


def errno_name(number: int) -> str:
    """Name of an errno as Linux and Xen number them; the number where there is none."""
    return _PREFERRED.get(number) or numbers.errorcode.get(number, str(number))


def by_errno(otherwise: Rules, **of: Rules) -> Callable[[Facts], Rules]:
    """A choice by the errno of the line: `otherwise` where it has another one, or none."""
    return lambda facts: of.get(facts.errno or "", otherwise)


def by_word(name: str, otherwise: Rules, of: Mapping[str, Rules]) -> Callable[[Facts], Rules]:
    """A choice by the value of a placeholder."""
    return lambda facts: of.get(facts.get(name, ""), otherwise)
