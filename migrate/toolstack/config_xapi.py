"""What xenopsd keeps of a virtual machine in a xapi image.

Sources: xenopsd's `suspend_image.ml` and `xenops_interface.ml`.
"""

from __future__ import annotations

import re

from migrate.toolstack.config import LONGEST_CONFIG, ConfigSource, DomainConfig, GuestKind, Problem
from streams.counting import count
from streams.sexp import SexpError, fields, parse

_XENOPS_KINDS = {b"HVM": GuestKind.HVM, b"PV": GuestKind.PV, b"PVinPVH": GuestKind.PVH, b"PVH": GuestKind.PVH}


def read_xenops(raw: bytes) -> DomainConfig:
    """Read the virtual machine in a xapi image's Xenops block, where one is; xenopsd restores by its own database."""
    source = ConfigSource.XENOPSD
    if len(raw) > LONGEST_CONFIG:
        message = f"xenopsd's record has {count(len(raw), 'byte')}; at most {LONGEST_CONFIG} are read"
        return DomainConfig(source, problems=(Problem(message),))
    try:
        vm_str = fields(parse(raw)).get(b"vm_str")
    except SexpError as error:
        return DomainConfig(source, problems=(Problem(f"xenopsd's record is no s-expression: {error}", "xapi"),))
    if not isinstance(vm_str, bytes) or not vm_str.lstrip().startswith(b"("):
        return DomainConfig(source)
    try:
        vm = fields(parse(vm_str))
    except SexpError:
        return DomainConfig(source)
    ty = vm.get(b"ty")
    kind = _XENOPS_KINDS.get(ty[0]) if isinstance(ty, list) and ty and isinstance(ty[0], bytes) else None
    name = vm.get(b"name")
    return DomainConfig(
        source,
        kind=kind,
        build_kind=kind,
        name=name.decode("utf-8", "replace") if isinstance(name, bytes) else None,
        max_vcpus=_atom(vm.get(b"vcpu_max")),
        online_vcpus=_atom(vm.get(b"vcpus")),
        target_kib=_kib_of(vm.get(b"memory_dynamic_max")),
        max_kib=_kib_of(vm.get(b"memory_static_max")),
    )


def _atom(value: object) -> int | None:
    return int(value) if isinstance(value, bytes) and re.fullmatch(rb"\d{1,18}", value) else None


def _kib_of(value: object) -> int | None:
    number = _atom(value)
    return None if number is None else number >> 10
