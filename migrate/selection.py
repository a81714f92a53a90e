"""Which rules a user wants to hear of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from migrate.rules import RULES, Rule


def matching(pattern: str) -> set[str]:
    """Ids of the rules a pattern names: an id, the beginning of one (HYP, HYP-2), or a slug.

    Raises
    ------
    ValueError
        where it names none, with what may have been meant.
    """
    text = pattern.strip()
    upper = text.upper()
    found = {upper} if upper in RULES else {r.id for r in RULES.values() if r.slug == text.lower()}
    found = found or {id for id in RULES if upper and id.startswith(upper)}
    if not found:
        known = [*RULES, *(r.slug for r in RULES.values())]
        close = difflib.get_close_matches(upper, known, 1) or difflib.get_close_matches(text.lower(), known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"no rule is called {text!r}{hint}")
    return found


def _ids(patterns: Iterable[str]) -> set[str]:
    return {id for some in patterns for pattern in some.split(",") if pattern.strip() for id in matching(pattern)}


class Selection:
    """Rules selected and not ignored; all, where none is selected."""

    def __init__(self, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
        self._selected = _ids(select)
        self._ignored = _ids(ignore)

    def wants(self, rule: Rule) -> bool:
        """Whether findings of a rule are to be told."""
        return rule.id not in self._ignored and (not self._selected or rule.id in self._selected)
