"""Which rules a user's words mean, and which a user wants to hear of."""

from __future__ import annotations

from collections.abc import Sequence

from migrate.rules.catalogue import NOT_RULES, RULES
from migrate.rules.declaring import Rule


def matching(word: str) -> list[str]:
    """Ids of the rules that a word means: an id, the beginning of ids (HYP, HYP-2), or a slug; in any case.

    A word that is an id means that rule alone, not those whose ids it also begins.

    Raises
    ------
    ValueError
        where it means none, with a hint at what may have been meant.
    """
    slugs = {rule.slug: id for id, rule in RULES.items()}
    word = word.strip()
    id = word.upper()
    if id in RULES:
        return [id]
    if word.lower() in slugs:
        return [slugs[word.lower()]]
    if id in NOT_RULES:
        raise ValueError(f"{id} is not a rule: {NOT_RULES[id]}")
    found = [known for known in RULES if id and known.startswith(id)]
    if not found:
        from difflib import get_close_matches

        by_fold = {name.casefold(): name for name in (*RULES, *slugs)}
        close = [by_fold[name] for name in get_close_matches(word.casefold(), by_fold, n=3)]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"no rule is called {word!r}{hint}")
    return found


def resolve_rules(asked: Sequence[str]) -> tuple[str, ...]:
    """Ids of all rules that words mean, which may be joined by commas.

    Raises
    ------
    ValueError
        as `matching` does.
    """
    asked = [asked] if isinstance(asked, str) else asked
    words = filter(None, (word.strip() for some in asked for word in some.split(",")))
    return tuple(dict.fromkeys(id for word in words for id in matching(word)))


class Selection:
    """Rules selected and not ignored; all, where none is selected."""

    def __init__(self, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
        self._selected = frozenset(resolve_rules(select))
        self._ignored = frozenset(resolve_rules(ignore))

    def wants(self, rule: Rule) -> bool:
        """Whether findings of a rule are to be told."""
        return rule.id not in self._ignored and (not self._selected or rule.id in self._selected)
