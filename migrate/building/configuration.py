"""Configurations of a built guest, as toolstacks put them in front of its stream."""

from __future__ import annotations

import json

_OS_TYPES = {"pv": "linux", "hvm": "hvm", "pvh": "xenpvh"}


def libxl_json(kind: str, vcpus: int, memory_kib: int) -> bytes:
    """`libxl_domain_config` as JSON, without its NUL, for a guest of kind pv, hvm or pvh."""
    config = {
        "c_info": {"type": kind, "name": "built"},
        "b_info": {
            "max_vcpus": vcpus,
            "avail_vcpus": list(range(vcpus)),
            "max_memkb": memory_kib,
            "target_memkb": memory_kib,
            f"type.{kind}": {},
        },
    }
    text = json.dumps(config).encode()
    return text + b"\n" * (len(text) % 2)  # an even length puts the libxc image at an odd offset


def domain_xml(kind: str, vcpus: int, memory_kib: int) -> bytes:
    """libvirt's XML of a domain, without its NUL."""
    return (
        f"<domain type='xen'>\n  <name>built</name>\n  <memory unit='KiB'>{memory_kib}</memory>\n"
        f"  <currentMemory unit='KiB'>{memory_kib}</currentMemory>\n  <vcpu placement='static'>{vcpus}</vcpu>\n"
        f"  <os>\n    <type>{_OS_TYPES[kind]}</type>\n  </os>\n</domain>\n"
    ).encode()
