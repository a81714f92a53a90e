"""The document as such: templates, what they are made safe by, and what holds the streams' sections together.

Bytes of a stream can become neither markup nor script. Every value that a template prints is escaped (autoescape),
after what is not printable has been spelt out (`finalize`); values stand in text and in quoted attributes alone,
never in a script or a style. Should one slip through all the same, the browser would not obey: the policy allows the
one script and the one style sheet of the document by their hashes, and nothing to be loaded.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import IO, TYPE_CHECKING

from migrate.reports.html.explanations import explanations
from migrate.reports.html.overview import overview
from migrate.reports.html.templating import environment, inline
from migrate.rules import version
from migrate.rules.catalogue import RULES

if TYPE_CHECKING:
    from migrate.reports.html.section import Section


def _policy() -> str:
    hashes = {name: b64encode(sha256(inline(name).encode()).digest()).decode() for name in ("report.css", "report.js")}
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['report.css']}'; script-src 'sha256-{hashes['report.js']}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _document(template: str, sections: Sequence[Section], out: IO[bytes], **values: object) -> int:
    common = {
        "sections": sections,
        "style": inline("report.css"),
        "script": inline("report.js"),
        "policy": _policy(),
        "tool": f"{version.NAME} {version.VERSION}",
        "rule_set": version.rule_set(),
    }
    size = 0
    for piece in environment().get_template(template).generate(**common, **values):
        size += out.write(piece.encode())
    return size


def write(sections: Sequence[Section], out: IO[bytes], *, index: str = "") -> int:
    """Write the document that some sections make; returns its size in bytes.

    Parameters
    ----------
    index:
        the page that lists this stream among others, if there is one.
    """
    texts = explanations(frozenset[str]().union(*(one.rules for one in sections)))
    return _document(
        "document.html.j2",
        sections,
        out,
        index=index,
        start=sections[0].prefix if len(sections) == 1 else "overview",
        seen=overview(sections, [f"#{one.prefix}" for one in sections]),
        explanations=texts,
        explained=frozenset(one.rule.id for one in texts),
        untold=len(RULES) - len(texts),
    )


def write_index(sections: Sequence[Section], pages: Sequence[str | None], out: IO[bytes]) -> int:
    """Write the page that leads to the pages of single streams; returns its size in bytes.

    Parameters
    ----------
    pages:
        file name of each one's page; None for one that has none.
    """
    return _document("index.html.j2", sections, out, index="", start="overview", seen=overview(sections, pages))
