"""The configuration in an xl file: `libxl_domain_config` as JSON since Xen 4.5, the text of xl.cfg before.

Sources: libxl's `libxl_types.idl`, `libxl_json.c` and `libxl_create.c`, xl's `xl_parse.c` and `xl_vmcontrol.c`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from migrate.toolstack.config import (
    KINDS,
    QEMU_XEN,
    TRADITIONAL,
    ConfigSource,
    DomainConfig,
    GuestKind,
    Problem,
    Unusable,
    integer,
    text_of,
)

_UNSPECIFIED = "domain type unspecified"
_DEVICE_MODELS = frozenset({"unknown", TRADITIONAL, QEMU_XEN, "none"})
_TSC_MODES = frozenset({"default", "always_emulate", "native", "native_paravirt"})
_VGA_KINDS = frozenset({"unknown", "cirrus", "std", "none", "qxl"})
_BIOSES = frozenset({"unknown", "rombios", "seabios", "ovmf"})
_DEFBOOL = {"true": True, "false": False, "<default>": None}
# Least memory of a graphics card, in KiB, and libxl's words where it is less.
_LEAST_VIDEO = {
    "cirrus": (8 << 10, "videoram must be at least 8 MB for CIRRUS on QEMU_XEN"),
    "std": (16 << 10, "videoram must be at least 16 MB for STDVGA on QEMU_XEN"),
    "qxl": (128 << 10, "128 Mib videoram is the minimum for qxl default"),
}


def read_json(raw: bytes) -> DomainConfig:
    """Read `libxl_domain_config` JSON, as xl writes it behind its header since 4.5."""
    source = ConfigSource.JSON
    try:
        return _Json(parsed(text_of(raw))).config()
    except Unusable as error:
        message = f"the configuration is no libxl_domain_config JSON: {error}"
        # xl reports the parser's failure and goes on with an empty configuration.
        return DomainConfig(source, problems=(Problem(message, "libxl", _UNSPECIFIED),))


def parsed(text: str) -> dict[str, Any]:
    """The object in a JSON text; of a key that is there twice the first counts, as it does for libxl.

    Raises Unusable.
    """

    def no_constant(name: str) -> Any:
        raise Unusable(f"{name} is no JSON number")

    def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=first_wins)
    except RecursionError:
        raise Unusable("it is nested too deep") from None
    except ValueError as error:
        raise Unusable(str(error)) from None
    if not isinstance(value, dict):
        raise Unusable(f"it is a {_type(value)}; expected an object")
    return value


def _type(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true or false", int: "number", float: "fraction"}
    return names.get(type(value), "null")


class _Json:
    """Reads the keys that are wanted; one of another type than libxl's makes it refuse the whole text."""

    def __init__(self, top: dict[str, Any]) -> None:
        self._create = self._map(top, "c_info")
        self._build = self._map(top, "b_info", "b_info.")
        self._build_kind, self._typed = None, {}
        for kind in GuestKind:
            if f"type.{kind}" in self._build:
                self._build_kind, self._typed = kind, self._map(self._build, f"type.{kind}", "b_info.")
                break

    def config(self) -> DomainConfig:
        create, build, typed = self._create, self._build, self._typed
        kind = self._enum(create, "type", frozenset({"invalid", *KINDS}))
        vga = self._map(typed, "vga")
        online = self._of(build, "avail_vcpus", list)
        viridian = self._bool(typed, "viridian")
        if viridian is None and self._of(typed, "viridian_enable", list):
            viridian = True
        found = DomainConfig(
            source=ConfigSource.JSON,
            kind=KINDS.get(kind or ""),
            build_kind=self._build_kind,
            name=self._of(create, "name", str),
            max_vcpus=self._number(build, "max_vcpus", 32),
            online_vcpus=None if online is None else len(set(map(str, online))),
            target_kib=self._number(build, "target_memkb"),
            max_kib=self._number(build, "max_memkb"),
            device_model=self._enum(build, "device_model_version", _DEVICE_MODELS),
            bios=self._enum(typed, "bios", _BIOSES),
            # These moved from the HVM part to the common one in 4.10, and altp2m from a flag to a mode.
            nested=self._either(build, typed, "nested_hvm"),
            viridian=viridian,
            hap=self._bool(create, "hap"),
            altp2m=self._altp2m(),
            tsc_mode=self._enum(build, "tsc_mode", _TSC_MODES),
            video_kib=self._number(build, "video_memkb"),
            vga=self._enum(vga, "kind", _VGA_KINDS),
        )
        return replace(found, problems=tuple(_problems(found)))

    def _altp2m(self) -> bool | None:
        mode = self._of(self._build, "altp2m", str)
        return self._bool(self._typed, "altp2m") if mode is None else mode != "disabled"

    def _either(self, first: dict[str, Any], second: dict[str, Any], key: str) -> bool | None:
        found = self._bool(first, key)
        return self._bool(second, key) if found is None else found

    @staticmethod
    def _map(of: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        value = of.get(key, {})
        if not isinstance(value, dict):
            raise Unusable(f"{where}{key} is a {_type(value)}; expected an object")
        return value

    @staticmethod
    def _of(of: dict[str, Any], key: str, kind: type) -> Any:
        value = of.get(key)
        if value is not None and not isinstance(value, kind):
            raise Unusable(f"{key} is a {_type(value)}; expected a {_type(kind())}")
        return value

    @classmethod
    def _number(cls, of: dict[str, Any], key: str, bits: int = 64) -> int | None:
        value = of.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise Unusable(f"{key} is a {_type(value)}; expected a number")
        if not 0 <= value < 1 << bits:
            raise Unusable(f"{key} does not fit {bits} bits")
        # All ones are libxl's own "not said".
        return None if value == (1 << bits) - 1 and bits == 64 else value

    @classmethod
    def _enum(cls, of: dict[str, Any], key: str, known: frozenset[str]) -> str | None:
        value = cls._of(of, key, str)
        if value is None:
            return None
        lower = str(value).lower()
        if lower not in known:
            raise Unusable(f"{key} is {value[:40]!r}; expected one of {', '.join(sorted(known))}")
        return lower

    @classmethod
    def _bool(cls, of: dict[str, Any], key: str) -> bool | None:
        value = cls._of(of, key, str)
        if value is None:
            return None
        if value.lower() not in _DEFBOOL:
            raise Unusable(f'{key} is {value[:40]!r}; expected "True", "False" or "<default>"')
        return _DEFBOOL[value.lower()]


def _problems(config: DomainConfig) -> list[Problem]:
    """What libxl objects to on every release, in its order; the rest depends on the release and the host."""
    if config.kind is None:
        return [Problem("c_info.type is not set", "libxl", _UNSPECIFIED)]
    if config.build_kind is None:
        return [Problem("b_info has none of type.pv, type.hvm and type.pvh", "libxl", "invalid domain type")]
    problems = []
    if config.build_kind != config.kind:
        problems.append(_two_kinds(config.kind, config.build_kind))
    if config.build_kind == GuestKind.HVM:
        problems += _hvm_problems(config)
    return problems


def _two_kinds(created: GuestKind, built: GuestKind) -> Problem:
    message = f"c_info.type is {created}, and b_info has type.{built}"
    if (created, built) == (GuestKind.PV, GuestKind.HVM):
        # Measured on 4.20: the domain has no parameters of an HVM guest.
        return Problem(message, "libxl", "Couldn't set HVM_PARAM_HPET_ENABLED")
    return Problem(message)


def _hvm_problems(config: DomainConfig) -> list[Problem]:
    traditional = config.device_model == TRADITIONAL
    if traditional and config.bios not in (None, "unknown", "rombios"):
        return [Problem(f"bios is {config.bios}", "libxl", "qemu-xen-traditional requires bios=rombios.")]
    if config.device_model == QEMU_XEN and config.bios == "rombios":
        return [Problem("bios is rombios", "libxl", "qemu-xen does not support bios=rombios.")]
    vga = config.vga if config.vga not in (None, "unknown") else "cirrus"
    if not traditional and vga in _LEAST_VIDEO and config.video_kib is not None:
        least, says = _LEAST_VIDEO[vga]
        if config.video_kib < least:
            return [Problem(f"video_memkb is {config.video_kib}; expected at least {least}", "libxl", says)]
    return []


# -- the text of xl.cfg ------------------------------------------------------------------------------------

_ASSIGNMENT = re.compile(
    r"""^[ \t]*(\w+)[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|(0x[0-9a-fA-F]{1,15}|\d{1,18}))""", re.M
)
# Before the first of them only blanks and comments may stand.
_BEGINNING = re.compile(r"(?:[\s;]|#[^\n]*)*(?:\Z|[A-Za-z_]\w*[ \t]*\+?=)")


def read_cfg(raw: bytes) -> DomainConfig:
    """Read what xl wrote before 4.5: the file it had been given, in xl.cfg's syntax."""
    source = ConfigSource.CFG
    try:
        text = text_of(raw)
    except Unusable as error:
        return DomainConfig(source, problems=(Problem(f"the configuration is no xl.cfg: {error}", "xl"),))
    if not _BEGINNING.match(text):
        begins = f"it begins with {text.lstrip()[:20]!r}; expected NAME = VALUE"
        return DomainConfig(source, problems=(Problem(f"the configuration is no xl.cfg: {begins}", "xl"),))
    found = {name: double or single or number for name, double, single, number in _ASSIGNMENT.findall(text)}
    kind = KINDS.get(found.get("type") or ("hvm" if found.get("builder", "").startswith("hvm") else "pv"))
    memory, most, vcpus = (integer(found.get(key)) for key in ("memory", "maxmem", "vcpus"))
    target = None if memory is None else memory << 10
    return DomainConfig(
        source,
        kind=kind,
        build_kind=kind,
        name=found.get("name"),
        max_vcpus=integer(found.get("maxvcpus")) or vcpus or 1,
        online_vcpus=vcpus,
        target_kib=target,
        max_kib=target if most is None else most << 10,
        device_model={"qemu-xen": QEMU_XEN, "qemu-xen-traditional": TRADITIONAL}.get(
            found.get("device_model_version", "")
        ),
        nested=_flag(found.get("nestedhvm")),
        viridian=_flag(found.get("viridian")),
        hap=_flag(found.get("hap")),
    )


def _flag(text: str | None) -> bool | None:
    number = integer(text)
    return None if number is None else bool(number)
