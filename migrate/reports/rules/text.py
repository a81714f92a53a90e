"""Rules for people: the table of all, and the page of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from migrate.reports.rules.commands import check_command, write_command
from migrate.reports.rules.pages import GUEST_SEES, Shown, releases, rules_of
from migrate.reports.verdict.text import SEVERITY_STYLE, hanging
from migrate.rules.catalogue import NOT_RULES, RULES, rule_set_version
from migrate.rules.declaring import Layer, Rule

if TYPE_CHECKING:
    from rich.console import Console

# Prose is read best in lines of this width, also where no terminal sets one.
PROSE_WIDTH = 100
COLUMNS = ("id", "slug", "severity", "effect", "enforced by", "releases")
_GUTTER = 2
_LEAST_RELEASES = 11  # columns: a span of them stays whole
_LEAST_ENFORCED_BY = 16  # columns; with fewer, `migrate explain` is where to read it
_KEY_WIDTH = 13


def render_rules(console: Console, layer: Layer | None = None) -> None:
    """Print the table of all rules, or those of one layer: drawn on a terminal, plain columns elsewhere."""
    groups = [layer] if layer else list(Layer)
    rows = {rule.id: _row(rule) for group in groups for rule in rules_of(group)}
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows.values(), strict=True)]
    draw = _drawn if console.is_terminal else _plain
    draw(console, groups, rows, widths)
    if layer is None:
        console.print()
        console.print(
            f"{len(RULES)} rules, rule set {rule_set_version()}; {len(NOT_RULES)} numbers are no rules. "
            "One of them in full: migrate explain ID",
            soft_wrap=not console.is_terminal,
        )


def _row(rule: Rule) -> tuple[str, ...]:
    return (
        rule.id,
        rule.slug,
        rule.severity.value,
        rule.effect.value,
        rule.enforced_by,
        releases(rule).short,
    )


def _plain(console: Console, groups: list[Layer], rows: dict[str, tuple[str, ...]], widths: list[int]) -> None:
    def line(cells: Iterable[str]) -> None:
        padded = (f"{cell:<{width + _GUTTER}}" for cell, width in zip(cells, widths, strict=True))
        console.print("".join(padded).rstrip(), soft_wrap=True)

    line(COLUMNS)
    for group in groups:
        console.print()
        console.print(_heading(group))
        for rule in rules_of(group):
            line(rows[rule.id])


def _drawn(console: Console, groups: list[Layer], rows: dict[str, tuple[str, ...]], widths: list[int]) -> None:
    # What people look for stays whole; the last two columns share what room is left, or the last one has it all.
    whole = len(COLUMNS) - 2
    room = max(console.width - sum(widths[:whole]) - _GUTTER * (len(COLUMNS) - 1), _GUTTER)
    releases_width = min(widths[-1], max(room // 3, _LEAST_RELEASES))
    limits = dict(
        zip(COLUMNS, [*widths[:whole], min(widths[whole], room - releases_width), releases_width], strict=True)
    )
    if limits["enforced by"] < _LEAST_ENFORCED_BY:
        del limits["enforced by"]
        limits[COLUMNS[-1]] = min(widths[-1], max(room + _GUTTER, 1))
    _narrowed(limits, console.width)
    for number, group in enumerate(groups):
        table = Table(box=None, pad_edge=False, padding=(0, _GUTTER, 0, 0), header_style="dim", show_header=not number)
        for name, width in limits.items():
            table.add_column(name, width=width, overflow="fold")
        for rule in rules_of(group):
            cells = dict(zip(COLUMNS, rows[rule.id], strict=True))
            styled = {"id": "bold", "severity": SEVERITY_STYLE[rule.severity]}
            table.add_row(*(Text(cells[name], styled.get(name, "")) for name in limits))
        if number:
            console.print()
        console.print(Text(_heading(group), "bold"))
        console.print(table)


def _narrowed(limits: dict[str, int], room: int) -> None:
    """Leave out columns that a narrow window has no room for, the last one first; then slugs are folded, ids never."""

    def excess() -> int:
        return sum(limits.values()) + _GUTTER * (len(limits) - 1) - room

    for name in reversed(COLUMNS[2:]):
        if name in limits and (limits[name] < len(name) or excess() > 0):
            del limits[name]
    limits["slug"] = max(limits["slug"] - max(excess(), 0), 1)


def _heading(layer: Layer) -> str:
    return f"{layer.name}  {layer.value}"


def render_explanation(rule: Rule, shown: Shown | None, console: Console) -> None:
    """Print all that is known of one rule; `shown` is None for one that no stream can break."""

    def fact(key: str, value: str, style: str = "") -> None:
        hanging(console, Text(f"{key:<{_KEY_WIDTH}}", "bold"), value, style, width=PROSE_WIDTH)

    def command(words: Iterable[str]) -> None:
        hanging(console, Text("    "), " ".join(words), "cyan")

    hanging(console, Text(f"{rule.id}  {rule.slug}", "bold"), "")
    hanging(console, Text(), rule.title, "bold", width=PROSE_WIDTH)
    console.print()
    fact("severity", rule.severity.value, SEVERITY_STYLE[rule.severity])
    fact("effect", rule.effect.meaning)
    fact("enforced by", rule.enforced_by)
    fact("releases", releases(rule).words)
    if rule.errno is not None:
        fact("errno", rule.errno)
    fact("the guest", GUEST_SEES[rule.effect])
    console.print()
    for heading, text in rule.sections.items():
        fact(heading, text)
    console.print()
    if shown is None:
        hanging(console, Text(), "No stream can show it, so there is none to write.", width=PROSE_WIDTH)
        return
    hanging(console, Text("To see it", "bold"), "")
    command(write_command(rule))
    command(check_command(rule))
    fact("finding", shown.message or "none")
    fact("verdict", shown.verdict)
