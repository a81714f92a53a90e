"""The domain XML in an image of libvirt's Xen driver.

Sources: libvirt's `domain_conf.c`, `libxl_conf.c` and `libxl_domain.c`.
"""

from __future__ import annotations

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
    integer,
    too_many_vcpus,
)

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
        raise Unusable(f"it has {len(raw)} bytes; at most {LONGEST_CONFIG} are read")
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


def _domain(root: Any) -> DomainConfig:
    if root.tag != "domain":
        raise Unusable(f"its root is {root.tag[:40]!r}; expected domain")
    problems = []
    if root.get("type") != "xen":
        message = f"it is a domain of type {str(root.get('type'))[:40]!r}; expected xen"
        problems.append(Problem(message, "libvirt"))
    os_type = (root.findtext("os/type") or "").strip()
    kind = _OS_TYPES.get(os_type)
    if kind is None:
        problems.append(Problem(f"os type is {os_type[:40]!r}; expected one of {', '.join(_OS_TYPES)}", "libvirt"))
    vcpu = root.find("vcpu")
    most = 1 if vcpu is None else integer((vcpu.text or "").strip())
    if not most:
        problems.append(Problem("the number of vcpus is no number above 0", "libvirt"))
        most = None
    if kind is not None:
        problems += too_many_vcpus(kind, most)
    memory = _kib(root.find("memory"))
    current = _kib(root.find("currentMemory"))
    if not memory:
        problems.append(Problem("the memory is no amount above 0", "libvirt"))
    video = root.find("devices/video/model")
    hap = root.find("features/hap")
    return DomainConfig(
        ConfigSource.XML,
        kind=kind,
        build_kind=kind,
        name=root.findtext("name"),
        max_vcpus=most,
        online_vcpus=most if vcpu is None else integer(vcpu.get("current")) or most,
        target_kib=current or memory or None,
        max_kib=memory or None,
        device_model=_emulator(root.findtext("devices/emulator")),
        viridian=root.find("features/viridian") is not None,
        hap=None if hap is None else hap.get("state", "on") == "on",
        video_kib=None if video is None else integer(video.get("vram")),
        vga=None if video is None else {"vga": "std", "xen": "std"}.get(video.get("type", ""), video.get("type")),
        problems=tuple(problems),
    )


def _emulator(path: str | None) -> str | None:
    if path is None:
        return None
    return TRADITIONAL if path.strip().rpartition("/")[2] == "qemu-dm" else QEMU_XEN


def _kib(element: Any) -> int | None:
    if element is None:
        return None
    number = integer((element.text or "").strip())
    scale = _UNITS.get(element.get("unit", "KiB").lower())
    return None if number is None or scale is None else -(-number * scale >> 10)
