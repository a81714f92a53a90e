"""The document as such: templates, what they are made safe by, and what holds the streams' sections together.

Bytes of a stream can become neither markup nor script. Every value that a template prints is escaped (autoescape),
after what is not printable has been spelt out (`finalize`); values stand in text and in quoted attributes alone,
never in a script or a style. Should one slip through all the same, the browser would not obey: the policy allows the
one script and the one style sheet of the document by their hashes, and nothing to be loaded.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import IO, TYPE_CHECKING

from migrate.reports.html.explanations import explanations
from migrate.reports.html.section import Section
from migrate.reports.html.templating import environment, inline
from migrate.rules import version
from migrate.rules.catalogue import RULES

if TYPE_CHECKING:
    from migrate.reports.html.explanations import Explanation
    from migrate.reports.html.section import Section


def _policy() -> str:
    hashes = {name: b64encode(sha256(inline(name).encode()).digest()).decode() for name in ("report.css", "report.js")}
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['report.css']}'; script-src 'sha256-{hashes['report.js']}'; "
        "base-uri 'none'; form-action 'none'"
    )


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
        "style": inline("report.css"),
        "script": inline("report.js"),
        "policy": _policy(),
        "tool": f"{version.NAME} {version.installed()}",
        "rule_set": version.rule_set(),
    }
    yield from environment().get_template("document.html.j2").generate(**values)


def write(sections: Sequence[Section], out: IO[bytes]) -> int:
    """Write the document that some sections make; returns its size in bytes."""
    told = explanations(frozenset[str]().union(*(one.rules for one in sections)))
    size = 0
    for piece in render(sections, told, len(RULES) - len(told)):
        size += out.write(piece.encode())
    return size
