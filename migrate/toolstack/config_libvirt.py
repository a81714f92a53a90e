"""The domain XML in an image of libvirt's Xen driver.

Sources: libvirt's `domain_conf.c`, `libxl_conf.c` and `libxl_domain.c`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from migrate.toolstack.config import (
    LONGEST_CONFIG,
    QEMU_XEN,
    TRADITIONAL,
    ConfigSource,
    DomainConfig,
    GuestKind,
    Problem,
    Unusable,
    ValueKind,
    integer,
    too_many_vcpus,
)
from streams.counting import count

_DEEPEST = 256
"""Source: libxml2's XML_MAX_DEPTH (parserInternals.h), which libvirt does not lift."""
_OS_TYPES = {"hvm": GuestKind.HVM, "xenpvh": GuestKind.PVH, "linux": GuestKind.PV, "xen": GuestKind.PV}
_UNITS = {"b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    unit: 1 << shift
    for shift, units in ((10, ("k", "kib")), (20, ("m", "mib")), (30, ("g", "gib")), (40, ("t", "tib")))
    for unit in units
}


def read_xml(raw: bytes) -> DomainConfig:
    """Read the domain XML of a libvirt image."""
    source = ConfigSource.XML
    try:
        return _domain(_element(raw))
    except Unusable as error:
        return DomainConfig(source, problems=(Problem(f"the XML is no domain's: {error}", "libvirt"),))


def _element(raw: bytes) -> Any:
    if len(raw) > LONGEST_CONFIG:
        raise Unusable(f"it has {count(len(raw), 'byte')}; at most {LONGEST_CONFIG} are read")
    from xml.etree.ElementTree import ParseError, TreeBuilder

    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import XMLParser
    except ImportError:
        raise Unusable("it cannot be read: the Python package defusedxml is missing") from None

    class Shallow(TreeBuilder):
        """Elements in elements, as deep as libvirt's parser goes."""

        depth = 0

        def start(self, tag: Any, attrs: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise Unusable(f"elements lie more than {_DEEPEST} deep in each other")
            return super().start(tag, attrs)

        def end(self, tag: Any) -> Any:
            self.depth -= 1
            return super().end(tag)

    parser = XMLParser(target=Shallow(), forbid_dtd=True)
    try:
        parser.feed(raw.partition(b"\0")[0])
        return parser.close()
    except DefusedXmlException as error:
        raise Unusable(f"it declares entities or a document type ({type(error).__name__})") from None
    except (ParseError, ValueError, LookupError) as error:
        raise Unusable(str(error)) from None


def _text(value: object) -> str | None:
    return str(value)


def _number(value: object) -> int | None:
    return integer(str(value).strip())


def _above_0(value: object) -> int | None:
    number = _number(value)
    return number if number and number > 0 else None


def _one_of(meanings: Mapping[str, Any], *, any_case: bool = False) -> ValueKind:
    """One of some words."""

    def read(value: object) -> Any:
        word = str(value).strip()
        return meanings.get(word.lower() if any_case else word)

    return ValueKind(read, str, f"one of {', '.join(meanings)}")


def _device_model(value: object) -> str | None:
    return TRADITIONAL if str(value).strip().rpartition("/")[2] == "qemu-dm" else QEMU_XEN


_TEXT = ValueKind(_text, str, "a text")
_COUNT = ValueKind(_above_0, str, "a number above 0")
_UNIT = _one_of(_UNITS, any_case=True)
KEYS = {
    "name": _TEXT,
    "os/type": _one_of(_OS_TYPES),
    "vcpu": _COUNT,
    "vcpu@current": _COUNT,
    "memory": _COUNT,
    "memory@unit": _UNIT,
    "currentMemory": _COUNT,
    "currentMemory@unit": _UNIT,
    "features/hap@state": _one_of({"on": True, "off": False}),
    "devices/emulator": ValueKind(_device_model, str, "a path"),
    "devices/video/model@vram": ValueKind(_number, str, "a number of KiB"),
    "devices/video/model@type": _TEXT,
}
"""The elements' texts and the attributes that are read, and what each takes."""

# Source: `virUUIDParse`, which takes hyphens and blanks between any two bytes.
_UUID = re.compile(r"\s*(?:[- ]*[0-9a-f]{2}){16}\s*", re.ASCII | re.IGNORECASE)
WRITTEN = {
    "name": ValueKind(lambda value: str(value) or None, str, "a text that is not empty"),
    "uuid": ValueKind(lambda value: str(value) if _UUID.fullmatch(str(value)) else None, str, "a UUID"),
}
"""What is asked of a value that is set beyond what is asked of one that is read."""
NEEDED = frozenset({"name"})
"""Elements without which no domain is created."""


def _read(root: Any, key: str) -> Any:
    path, _, attribute = key.partition("@")
    element = root.find(path)
    value = None if element is None else element.get(attribute) if attribute else element.text or ""
    return None if value is None else KEYS[key].read(value)


def _domain(root: Any) -> DomainConfig:
    if root.tag != "domain":
        raise Unusable(f"its root is {root.tag[:40]!r}; expected domain")
    problems = []
    if root.get("type") != "xen":
        message = f"it is a domain of type {str(root.get('type'))[:40]!r}; expected xen"
        problems.append(Problem(message, "libvirt"))
    kind = _read(root, "os/type")
    if kind is None:
        os_type = (root.findtext("os/type") or "").strip()
        problems.append(Problem(f"os type is {os_type[:40]!r}; expected {KEYS['os/type'].expects}", "libvirt"))
    most = 1 if root.find("vcpu") is None else _read(root, "vcpu")
    if most is None:
        problems.append(Problem(f"the number of vcpus is no {_COUNT.expects.removeprefix('a ')}", "libvirt"))
    if kind is not None:
        problems += too_many_vcpus(kind, most)
    memory = _kib(root, "memory")
    current = _kib(root, "currentMemory")
    if memory is None:
        problems.append(Problem("the memory is no amount above 0", "libvirt"))
    hap = root.find("features/hap")
    vga = _read(root, "devices/video/model@type")
    return DomainConfig(
        ConfigSource.XML,
        kind=kind,
        build_kind=kind,
        name=_read(root, "name"),
        max_vcpus=most,
        online_vcpus=_read(root, "vcpu@current") or most,
        target_kib=current or memory,
        max_kib=memory,
        device_model=_read(root, "devices/emulator"),
        viridian=root.find("features/viridian") is not None,
        hap=None if hap is None else hap.get("state") is None or _read(root, "features/hap@state"),
        video_kib=_read(root, "devices/video/model@vram"),
        vga={"vga": "std", "xen": "std"}.get(vga, vga),
        problems=tuple(problems),
    )


def _kib(root: Any, key: str) -> int | None:
    number = _read(root, key)
    element = root.find(key)
    scale = 1 << 10 if element is None or element.get("unit") is None else _read(root, f"{key}@unit")
    return None if number is None or scale is None else -(-number * scale >> 10)
