"""Reports as pages, and what holds of every page."""

import io
import re
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise

import lxml.html

from migrate.inspection.reading import inspect
from migrate.reports.html.document import write
from migrate.reports.html.section import section

REFERENCES = ("aria-labelledby", "aria-describedby", "data-table", "data-unfold", "for")
NAMED = ("section", "nav", "form")


def written(*sections):
    out = io.BytesIO()
    size = write(sections, out)
    assert size == len(out.getvalue())
    return out.getvalue().decode()


def page(*streams, name="guest.libxc", **question):
    """The report about some streams (paths or bytes), as text."""
    return written(
        *(
            inspect(stream, then=lambda found, number=number: section(found, name, number), **question)
            for number, stream in enumerate(streams, 1)
        )
    )


def parsed(text):
    """The document as a tree; cells of a row are set apart, as they are on screen."""
    root = lxml.html.document_fromstring(text)
    for cell in root.iter("td", "th", "dt", "dd"):
        cell.tail = f" {cell.tail or ''}"
    return root


def skeleton(text):
    """Elements in document order, each with its attributes' names, ids, classes and roles: all but the text."""
    return [
        (one.tag, sorted(one.keys()), one.get("id"), one.get("class"), one.get("role"), one.get("href"))
        for one in parsed(text).iter()
        if isinstance(one.tag, str)
    ]


def assert_sound(text, beside=frozenset()):
    """What holds of every report: it stands alone, its links lead somewhere, and it is accessible.

    `beside` has the names of the pages that it may lead to.
    """
    root = parsed(text)
    ids = [one.get("id") for one in root.iter() if one.get("id") is not None]
    assert len(ids) == len(set(ids)), sorted(id for id in ids if ids.count(id) > 1)[:4]
    inside = {link for link in root.xpath("//@href") if link.startswith("#")}
    assert {link[1:] for link in inside} <= set(ids)
    assert set(root.xpath("//@href")) - inside <= set(beside)
    assert not root.xpath("//@src | //@srcset | //@style | //@action | //link | //iframe | //object | //embed | //img")
    assert not [name for name in root.xpath("//@*/..") for key in name.attrib if key.startswith("on")]
    for attribute in REFERENCES:
        named = [id for value in root.xpath(f"//@{attribute}") for id in value.split()]
        assert set(named) <= set(ids), attribute
    (style,), (script,) = root.xpath("//style"), root.xpath("//script")
    assert "url(" not in style.text
    assert "@import" not in style.text
    (policy,) = root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy.startswith("default-src 'none'; ")
    for kind, block in (("style", style), ("script", script)):
        assert f"{kind}-src 'sha256-{b64encode(sha256(block.text.encode()).digest()).decode()}'" in policy
    assert root.get("lang") == "en"
    assert [len(root.xpath(f"//{landmark}")) for landmark in ("main", "body/header", "body/footer", "h1")] == [1] * 4
    assert [one for one in root.xpath("//*") if one.tag in NAMED and not label(one)] == []
    levels = [int(one.tag[1]) for one in root.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in root.iter("table"):
        assert table.find("caption") is not None
        assert [one for one in table.iter("th") if one.get("scope") is None] == []
    # A drawing is told in words, or what it draws stands beside it.
    for drawing in root.iter("svg"):
        assert drawing.get("aria-hidden") == "true"
    for drawing in root.xpath("//*[@role='img']"):
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert root.get_element_by_id(drawing.get(attribute)).text_content()
    for box in root.find_class("scroll"):
        assert (box.get("role"), box.get("tabindex")) == ("region", "0")
        assert label(box)
    assert [field for field in root.xpath("//input | //select") if field.getparent().tag != "label"] == []
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text) is None


def label(element):
    return element.get("aria-labelledby") or element.get("aria-label")
