"""What holds of the views of any bytes: `migrate show`, and the document of `migrate report`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from itertools import islice
from typing import Any
from zlib import crc32

from laws import holds, question
from limits import bounded, compressed

from migrate.cli.show import views
from migrate.destination.destination import Destination
from migrate.inspection.reading import Inspection, NotInStream, inspect
from migrate.judging.report_json import dumps
from migrate.reports.html.document import write
from migrate.reports.html.section import section
from migrate.reports.html.templating import inline
from migrate.reports.inspection.records import damage_object, elsewhere_object
from migrate.reports.verdict.text import console_for

Asked = dict[str, Any]
NOTHING: Asked = dict.fromkeys(("record", "vcpu", "pfn", "walk", "against")) | dict.fromkeys(
    ("hexdump", "rounds", "tables", "p2m", "map_", "config", "everything"), False
)
ADDRESSES = (0, 0x1000, 0xC000_0000, 0xF57F_F000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_8000_0000)
# Of an input's views beside the table of records; by turns these come to be all.
VIEWS_OF_ONE = 3
# Names of JSON members that say where something lies.
PLACES = frozenset({"offset"})

# -- show ---------------------------------------------------------------------------------------------


def _wanted(inspection: Inspection, turn: int) -> Iterator[Asked]:
    """All views of a stream, of a record, a page and an address among them that it has or nearly has."""
    log = inspection.log
    record = log[turn % len(log)]
    words = next((words for _, words in inspection.words() if len(words)), None)
    pfn = turn % 64 if words is None else int(words.pfns[turn % len(words)])
    yield {"everything": bool(turn % 2)}
    yield {"record": f"@{record.offset:#x}", "hexdump": True, "everything": bool(turn % 3)}
    yield {"record": str(turn % (len(log) + 1))}
    yield {"vcpu": "all"}
    yield {"vcpu": turn % 3}
    yield {"pfn": pfn + turn % 2}
    yield {"walk": ADDRESSES[turn % len(ADDRESSES)] + pfn * 0x1000}
    yield from ({view: True} for view in ("rounds", "tables", "p2m", "map_", "config"))


def shows(data: bytes) -> None:
    """Every view ends, as text and as JSON alike; neither harms a terminal, and all places are inside the stream."""
    if not compressed(data):
        destination = Destination(*question(data).values())
        bounded(inspect, data, destination, then=lambda inspection: _shown(inspection, data))


def _name(data: bytes) -> str:
    """A file name of an input's own."""
    return data[-24:].decode("utf-8", "surrogateescape")


def _shown(inspection: Inspection, data: bytes) -> None:
    inspection.judgement.facts.name = _name(data)
    for entry in inspection.log:
        # libxl takes what is missing of a header for zeros.
        holds(0 <= entry.offset <= len(data), "a record begins outside of the stream")
        holds(entry.cut or entry.body <= len(data), "a record's body begins outside of the stream")
    _objects([damage_object(inspection), elsewhere_object(inspection)], len(data))
    if not len(inspection.log):
        return
    turn = crc32(data)
    contents, *others = _wanted(inspection, turn)
    for asked in (contents, *islice((others + others), turn % len(others), turn % len(others) + VIEWS_OF_ONE)):
        for view in views(**NOTHING | asked):
            drawn, absent = _drawn(view.render, inspection), _absent(view.object, inspection, len(data))
            holds((drawn is None) == absent, f"as text {asked} is in the stream, as JSON it is not; or the reverse")
            lines = () if drawn is None else drawn.split("\n")
            holds(all(line.isprintable() for line in lines), f"the text of {asked} has control characters")


def _drawn(render: Any, inspection: Inspection) -> str | None:
    out = io.StringIO()
    try:
        render(inspection, console_for(out))
    except NotInStream:
        return None
    return out.getvalue()


def _absent(made: Any, inspection: Inspection, size: int) -> bool:
    try:
        found = made(inspection)
    except NotInStream:
        return True
    _objects(found if isinstance(found, Iterator) else [found], size)
    return False


def _objects(found: Any, size: int) -> None:
    """JSON objects: a document each, in ASCII, and what they say of places is about places in the stream."""
    for one in found:
        text = dumps(one)
        holds(text.isascii(), "the JSON is not ASCII")
        for key, value in _members(json.loads(text)):
            if key in PLACES and value is not None:
                holds(isinstance(value, int) and 0 <= value <= size, f"an {key} outside of the stream")


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    left = [value]
    while left:
        match left.pop():
            case dict() as found:
                yield from found.items()
                left += found.values()
            case list() as found:
                left += found


# -- report -------------------------------------------------------------------------------------------

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
OPTIONAL_END = frozenset({"li", "p", "td", "th", "tr", "dt", "dd", "option", "thead", "tbody"})
LOADS = frozenset({"src", "srcset", "style", "action", "formaction", "data", "poster", "xlink:href", "background"})
UNPRINTABLE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@cache
def _vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Elements and attributes of the templates, and of what makes markup without one."""
    folder = files("migrate.reports.html")
    texts = [one.read_text("utf-8") for one in folder.joinpath("templates").iterdir() if one.name.endswith(".j2")]
    texts += [one.read_text("utf-8") for one in folder.iterdir() if one.name.endswith(".py")]
    whole = "\n".join(texts)
    elements = re.findall(r"<([a-z][a-z0-9]*)", whole)
    return frozenset(elements), frozenset(re.findall(r"[\s\"]([a-z-]+)\b", whole.lower()))


class Page(HTMLParser):
    """A document, read strictly: what opens is closed, and nothing is in it that no template has."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.raw: dict[str, str] = {}
        self.feed(text)
        self.close()
        holds(not self.open, f"never closed: {self.open}")
        holds(self.links <= self.ids, f"links lead nowhere: {sorted(self.links - self.ids)[:3]}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        elements, known = _vocabulary()
        holds(tag in elements, f"an element <{tag}> that no template has")
        for name, value in attrs:
            holds(
                name in {one.lower() for one in known} and not name.startswith("on"), f"an attribute {name} of <{tag}>"
            )
            holds(name not in LOADS, f"<{tag}> loads: {name}")
            match name:
                case "href":
                    holds(value is not None and value.startswith("#"), f"a link leads out: {value}")
                    self.links.add((value or "")[1:])
                case "id":
                    holds(value not in self.ids, f"two elements are {value}")
                    self.ids.add(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in OPTIONAL_END:
            self.open.pop()
        holds(self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}")
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.raw[self.open[-1]] = self.raw.get(self.open[-1], "") + data
        else:
            holds(not set("<&") & set(data), f"text that is not escaped: {data[:40]!r}")

    def handle_comment(self, data: str) -> None:
        holds(False, "a comment")

    def handle_pi(self, data: str) -> None:
        holds(False, "a processing instruction")

    def unknown_decl(self, data: str) -> None:
        holds(False, "a declaration")


def reports(data: bytes) -> None:
    """The document about any bytes, whatever their name, is sound HTML of ours alone, and loads nothing."""
    if compressed(data):
        return
    page = bounded(_written, data, _name(data))
    holds(UNPRINTABLE.search(page) is None, "the document has control characters")
    found = Page(page)
    for kind, ours in (("style", "report.css"), ("script", "report.js")):
        holds(found.raw.get(kind) == inline(ours), f"the {kind} is not ours")


def _written(data: bytes, name: str) -> str:
    out = io.BytesIO()

    def told(inspection: Inspection) -> None:
        inspection.report.stream.name = name
        size = write([section(inspection, name, 1)], out)
        holds(size == len(out.getvalue()), "the document has another size than was said")

    inspect(data, Destination(*question(data).values()), then=told)
    return out.getvalue().decode()
