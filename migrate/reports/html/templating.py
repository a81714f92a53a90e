"""Templates of the HTML report, and what may be printed in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from migrate.reports.verdict.sentences import link_text
from migrate.safe import safe
from streams.counting import count

# Characters of one value; what is longer did not come from us.
LONGEST_VALUE = 2000


_PACKAGE = "migrate.reports.html"


_TEMPLATES = "templates"


_WHOLE = re.compile(r"(-E[A-Z0-9]+|\b[A-Z0-9]{3}-\d+\b)")


_CODE = re.compile(r"`([^`]+)`|\b([A-Z0-9]{3}-\d+)\b")


def _harmless(value: Any) -> Any:
    """A value as it may be printed: what a stream says is spelt out, and cut where it is endless."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _spelt(value)


def _spelt(text: str) -> str:
    return safe(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " …")


@cache
def inline(name: str) -> Markup:
    """A style sheet or script of ours, as it goes into the document."""
    return Markup(files(_PACKAGE).joinpath(_TEMPLATES, name).read_text("utf-8"))


def _prose(text: str, linked: Iterable[str] = ()) -> Markup:
    """Text of the rule catalogue, in which `code` is code and ids of rules that are explained are links."""
    known = frozenset(linked)
    parts, at = [Markup()], 0
    for match in _CODE.finditer(text):
        parts.append(Markup.escape(safe(text[at : match.start()])))
        code, rule = match.groups()
        if code is not None:
            parts.append(Markup("<code>{}</code>").format(safe(code)))
        elif rule in known:
            parts.append(Markup('<a href="#rule-{0}">{0}</a>').format(rule))
        else:
            parts.append(Markup.escape(rule))
        at = match.end()
    return Markup().join([*parts, Markup.escape(safe(text[at:]))])


def _message(text: str) -> Markup:
    """A finding's message, in which no line breaks before an errno or within a rule's id."""
    parts = _WHOLE.split(_spelt(text))
    return Markup().join(
        Markup('<span class="nowrap">{}</span>').format(part) if at % 2 else Markup.escape(part)
        for at, part in enumerate(parts)
    )


@cache
def environment() -> Environment:
    """Where the templates are found, and how values are printed in them."""
    made = Environment(
        loader=PackageLoader(_PACKAGE, _TEMPLATES),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["prose"] = _prose
    made.filters["message"] = _message
    made.filters["counted"] = partial(count, form=",")
    made.filters["number"] = lambda number: f"{number:,}"
    made.filters["link"] = link_text
    made.filters["hex"] = lambda number: f"{number:#x}"
    return made


def render_part(template: str, **values: Any) -> Markup:
    """A part of the document: what a template makes of some values."""
    return Markup(environment().get_template(template).render(**values))
