"""What a word of the command line can become: rules, releases, forms of a rule, placements.

Each function is the `shell_complete` of a parameter: it gets the beginning of a word and gives whole words. What
it needs is imported only then: a shell waits for the answer.
"""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    Suggest = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _items(words: dict[str, str | None], before: str = "") -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(before + word, help=about) for word, about in words.items()]


def _rules(word: str) -> dict[str, str | None]:
    from migrate.rules.catalogue import RULES
    from migrate.rules.declaring import Layer

    layers = list(Layer)
    in_order = sorted(RULES.values(), key=lambda rule: (layers.index(rule.layer), int(rule.id.partition("-")[2])))
    known: dict[str, str | None] = {rule.id: rule.title for rule in in_order if rule.id.startswith(word.upper())}
    if word:  # else each rule would be listed twice
        known |= {rule.slug: f"{rule.id}: {rule.title}" for rule in in_order if rule.slug.startswith(word.lower())}
    return known


def one_rule(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
    """Ids and slugs of rules."""
    return _items(_rules(word))


def several_rules(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
    """Ids and slugs of rules, the last of a list with commas."""
    before, comma, last = word.rpartition(",")
    return _items(_rules(last), before + comma)


def releases(*also: str) -> Suggest:
    """Releases of Xen, newest first, after the words that mean more than one."""

    def suggest(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
        from migrate.destination.releases import RELEASES

        known: dict[str, str | None] = {"newest": f"{RELEASES[-1].short} at present"} | dict.fromkeys(also)
        known |= {release.short: "; ".join(c.what for c in release.changes) or None for release in reversed(RELEASES)}
        return _items({name: about for name, about in known.items() if name.startswith(word)})

    return suggest


def l3_rules(*also: str) -> Suggest:
    """Forms of the 4 GiB rule."""

    def suggest(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
        from migrate.rules.extended_cr3 import L3_RULES

        known: dict[str, str | None] = {id: f"{form.name}: {form.where}" for id, form in L3_RULES.items()}
        known |= dict.fromkeys(also)
        return _items({id: about for id, about in known.items() if id.lower().startswith(word.lower())})

    return suggest


def placements(ctx: click.Context, param: click.Parameter, word: str) -> list[CompletionItem]:
    """Placements by name, and files after `file:`."""
    from migrate.destination.placement import FILE_PREFIX, NAMES

    if not word.startswith(FILE_PREFIX):
        return _items({name: None for name in (*NAMES, FILE_PREFIX) if name.startswith(word)})
    from glob import escape, glob
    from os.path import isdir

    files = sorted(glob(escape(word.removeprefix(FILE_PREFIX)) + "*"))
    return _items({file + "/" * isdir(file): None for file in files}, FILE_PREFIX)
