"""Many streams at a glance: what is refused first, and those together that share a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from migrate.reports.html.naming import common_folder
from migrate.reports.html.states import WORDS, State, headline

if TYPE_CHECKING:
    from migrate.reports.html.section import Section

# Longer lists are folded on wide pages, too.
MOST_UNFOLDED = 12


class Row(NamedTuple):
    """A stream: a link to its part or page, None where there is no more to see."""

    label: str
    link: str | None
    section: Section


@dataclass(frozen=True, slots=True)
class Group:
    """Streams of which the same is told for the same reason."""

    state: State
    rows: list[Row]

    @property
    def by_rule(self) -> bool:
        """Whether it is only the rule that they share: each then has words of its own."""
        first = self.rows[0].section
        return first.rule is not None and any(row.section.sentence != first.sentence for row in self.rows)

    @property
    def reason(self) -> str:
        """What is told of all."""
        first = self.rows[0].section
        if self.by_rule and first.rule is not None:
            return f"{first.rule.id} {first.rule.slug}: {first.rule.title}"
        return first.sentence

    @property
    def short(self) -> bool:
        """Whether there are so few that all can be seen at once."""
        return len(self.rows) <= MOST_UNFOLDED

    @property
    def sign(self) -> str:
        """What became of them, in a character."""
        return WORDS[self.state].sign

    @property
    def headline(self) -> str:
        """How many they are, and what became of them."""
        return headline([self.state] * len(self.rows))


@dataclass(frozen=True, slots=True)
class Overview:
    """All streams, and the folder below which they lie; empty where that is not one."""

    headline: str
    folder: str
    groups: list[Group]

    @property
    def of_first_host(self) -> bool:
        """Whether several hosts were asked about: what is told is then about the first."""
        return any(row.section.hosts for group in self.groups for row in group.rows)


def overview(sections: Sequence[Section], links: Sequence[str | None]) -> Overview:
    """Streams by what became of them and why; `links` has one for each."""
    folder = common_folder([section.name for section in sections if not section.lost])
    together: dict[tuple[State, str], list[Row]] = {}
    for section, link in zip(sections, links, strict=True):
        reason = section.rule.id if section.rule is not None else section.sentence
        together.setdefault((section.state, reason), []).append(Row(section.name.removeprefix(folder), link, section))
    worst_first = list(State)
    ranked = sorted(together, key=lambda key: (worst_first.index(key[0]), -len(together[key]), key[1]))
    groups = [Group(key[0], together[key]) for key in ranked]
    return Overview(headline(section.state for section in sections), folder, groups)
