"""All messages, and which of them a line is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter

from migrate.rules.messages.declaring import WORD, Facts, Role, Rules, Says, Voice, expression, key_word
from migrate.rules.messages.libxc import LIBXC
from migrate.rules.messages.libxc_pv import LIBXC_PV
from migrate.rules.messages.libxl import LIBXL
from migrate.rules.messages.others import LIBVIRT, QEMU, XENOPSD, XL
from migrate.rules.messages.xen_hvm import XEN_HVM
from migrate.rules.messages.xen_pv import XEN_PV

# libxl says some things in libxc's words, and more around them.
MESSAGES: tuple[Says, ...] = (*LIBXL, *LIBXC, *LIBXC_PV, *XL, *QEMU, *XEN_PV, *XEN_HVM, *LIBVIRT, *XENOPSD)
"""Every message, in the order in which they are tried."""

# The forms by a word of theirs: of most lines no word is one of these, and nothing is left to do.
_FORMS: dict[str, list[tuple[int, re.Pattern[str], Says]]] = {}
for _order, (_message, _form) in enumerate((known, form) for known in MESSAGES for form in known.says):
    _FORMS.setdefault(key_word(_form), []).append((_order, expression(_form), _message))
_WORDS = frozenset(_FORMS)


@dataclass(frozen=True)
class Sighting:
    """A line of a log that is a known message.

    Attributes
    ----------
    line:
        its number, from 1.
    text:
        the line, free of control sequences.
    rules:
        ids of the rules that it can mean by itself, the likeliest first.
    """

    line: int
    text: str
    message: Says
    facts: Facts
    rules: Rules

    @property
    def voice(self) -> Voice:
        """Who wrote it."""
        return self.message.voice

    @property
    def role(self) -> Role:
        """What it is to the failure."""
        return self.message.role

    @property
    def doing(self) -> str:
        """What was going on, with what the line says filled in."""
        return self._filled(self.message.doing)

    @property
    def look(self) -> str:
        """A command that shows the thing in question, without `migrate`; empty where there is none."""
        return "" if "?" in (command := self._filled(self.message.look)) else command

    def _filled(self, text: str) -> str:
        words = self.message.words(self.facts) if self.message.words else {}
        return text.format_map(_Known({**self.facts, **words}))


class _Known(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def recognise(text: str, line: int = 1) -> Sighting | None:
    """The message that a line is, None where it is none that is known."""
    words = _WORDS.intersection(WORD.findall(text))
    for _, pattern, known in sorted((form for word in words for form in _FORMS[word]), key=itemgetter(0)):
        if match := pattern.search(text):
            facts = known.facts(match)
            return Sighting(line, text, known, facts, known.candidates(facts))
    return None
