"""The document as such: templates, what they are made safe by, and what holds the streams' sections together.

Bytes of a stream can become neither markup nor script. Every value that a template prints is escaped (autoescape),
after what is not printable has been spelt out (`finalize`); values stand in text and in quoted attributes alone,
never in a script or a style. Should one slip through all the same, the browser would not obey: the policy allows the
one script and the one style sheet of the document by their hashes, and nothing to be loaded.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from migrate.counting import count
from migrate.rules import version
from migrate.safe import safe

if TYPE_CHECKING:
    from migrate.reports.html.explanations import Explanation
    from migrate.reports.html.section import Section

# Characters of one value; what is longer did not come from us.
LONGEST_VALUE = 2000
_PACKAGE = "migrate.reports.html"
_TEMPLATES = "templates"
_ERRNO = re.compile(r"(-E[A-Z0-9]+)")
_CODE = re.compile(r"`([^`]+)`|\b([A-Z0-9]{3}-\d+)\b")


def _harmless(value: Any) -> Any:
    """A value as it may be printed: what a stream says is spelt out, and cut where it is endless."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _spelt(value)


def _spelt(text: str) -> str:
    return safe(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " …")


@cache
def _inline(name: str) -> Markup:
    """A style sheet or script of ours, as it goes into the document."""
    return Markup(files(_PACKAGE).joinpath(_TEMPLATES, name).read_text("utf-8"))


def _policy() -> str:
    hashes = {name: b64encode(sha256(_inline(name).encode()).digest()).decode() for name in ("report.css", "report.js")}
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['report.css']}'; script-src 'sha256-{hashes['report.js']}'; "
        "base-uri 'none'; form-action 'none'"
    )


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
    """A finding's message, in which no line breaks before an errno."""
    parts = _ERRNO.split(_spelt(text))
    return Markup().join(
        Markup('<span class="nowrap">{}</span>').format(part) if at % 2 else Markup.escape(part)
        for at, part in enumerate(parts)
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, _TEMPLATES),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.filters["message"] = _message
    environment.filters["counted"] = partial(count, form=",")
    environment.filters["number"] = lambda number: f"{number:,}"
    environment.filters["hex"] = lambda number: f"{number:#x}"
    return environment


def render_part(template: str, **values: Any) -> Markup:
    """A part of the document: what a template makes of some values."""
    return Markup(_environment().get_template(template).render(**values))


def render(sections: Sequence[Section], explanations: Sequence[Explanation], untold: int) -> Iterator[str]:
    """The whole document, piece by piece.

    Parameters
    ----------
    explanations:
        of the rules that the sections name.
    untold:
        how many rules there are beside.
    """
    values = {
        "sections": sections,
        "explanations": explanations,
        "explained": frozenset(one.rule.id for one in explanations),
        "untold": untold,
        "style": _inline("report.css"),
        "script": _inline("report.js"),
        "policy": _policy(),
        "tool": f"{version.NAME} {version.version()}",
        "rule_set": version.rule_set(),
    }
    yield from _environment().get_template("document.html.j2").generate(**values)
