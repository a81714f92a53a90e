"""The configuration in an xl file: `libxl_domain_config` as JSON since Xen 4.5, the text of xl.cfg before.

Sources: libxl's `libxl_types.idl`, `libxl_json.c` and `libxl_create.c`, xl's `xl_parse.c` and `xl_vmcontrol.c`.
"""

from __future__ import annotations

import json
import re
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
    ValueKind,
    integer,
    text_of,
    too_many_vcpus,
)
from streams.values import replace

_UNSPECIFIED, _NO_BUILD_KIND = "domain type unspecified", "invalid domain type"
_DEVICE_MODELS = frozenset({"unknown", TRADITIONAL, QEMU_XEN, "none"})
_TSC_MODES = frozenset({"default", "always_emulate", "native", "native_paravirt"})
_VGA_KINDS = frozenset({"unknown", "cirrus", "std", "none", "qxl"})
_BIOSES = frozenset({"unknown", "rombios", "seabios", "ovmf"})
_LONGEST_NUMBER = 4000  # digits; Python converts 4300
DEFBOOL = {"<default>": None, "True": True, "False": False}  # by how the text begins
# Least memory of a graphics card, in KiB, and libxl's words where it is less.
_LEAST_VIDEO = {
    "cirrus": (8 << 10, "videoram must be at least 8 MB for CIRRUS on QEMU_XEN"),
    "std": (16 << 10, "videoram must be at least 16 MB for STDVGA on QEMU_XEN"),
    "qxl": (128 << 10, "128 Mib videoram is the minimum for qxl default"),
}


def read_json(raw: bytes) -> DomainConfig:
    """Read `libxl_domain_config` JSON, as xl writes it behind its header since 4.5."""
    try:
        top = parsed(text_of(raw))
    except Unusable as error:
        message = f"the configuration is no libxl_domain_config JSON: {error}"
        # xl reports the parser's failure and goes on with an empty configuration.
        return DomainConfig(ConfigSource.JSON, problems=(Problem(message, "libxl", _UNSPECIFIED),))
    return _Json(top).config()


def parsed(text: str) -> dict[str, Any]:
    """The object in a JSON text; of a key that is there twice the first counts, as it does for libxl.

    Raises Unusable.
    """

    def no_constant(name: str) -> Any:
        raise Unusable(f"{name} is no JSON number")

    def whole(digits: str) -> Any:
        return int(digits) if len(digits) <= _LONGEST_NUMBER else float("inf")

    def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    try:
        value = json.loads(
            text, parse_constant=no_constant, parse_int=whole, parse_float=_Fraction, object_pairs_hook=first_wins
        )
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


class _Fraction(float):
    """A number with a point or an exponent, and how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[Any] | None:
    return value if isinstance(value, list) else None


def _integer(value: object) -> int | None:
    """What libxl takes for an integer: a number without a point, up to its exponent, that fits 64 bits."""
    if isinstance(value, _Fraction) and "." not in value.text:
        value = int(re.split("[eE]", value.text)[0][:_LONGEST_NUMBER])
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -(1 << 63) <= value < 1 << 63 else None


def _int(value: object) -> int | None:
    number = _integer(value)
    if number is not None and not -(1 << 31) <= number < 1 << 31:
        raise Unusable(f"is {number}, which does not fit 32 bits")
    return number


def _memory(value: object) -> int | None:
    number = _integer(value)
    if number is not None and number < 0:
        raise Unusable(f"is {number}; expected KiB")
    return number


def _defbool(value: object) -> bool | None:
    if not isinstance(value, str):
        return None
    for begins, means in DEFBOOL.items():
        if value.startswith(begins):
            return means
    raise Unusable(f"is {value[:40]!r}; expected {BOOL.expects}")


def _one_of(known: frozenset[str]) -> ValueKind:
    expects = f"one of {', '.join(sorted(known))}"

    def read(value: object) -> str | None:
        if not isinstance(value, str):
            return None
        if value.lower() not in known:
            raise Unusable(f"is {value[:40]!r}; expected {expects}")
        return value.lower()

    return ValueKind(read, str, expects)


TEXT, LIST = ValueKind(_text, str, "a text"), ValueKind(_list, list, "a list")
INTEGER = ValueKind(_integer, int, "a whole number")
BOOL = ValueKind(_defbool, str, '"True", "False" or "<default>"')
_INT, _KIB = ValueKind(_int, int, "a whole number of 32 bits"), ValueKind(_memory, int, "a number of KiB")
_CREATE, _BUILD, _TYPED = "c_info", "b_info", "b_info.type.*"
_VGA = f"{_TYPED}.vga"
KEYS = {
    f"{holder}.{key}": kind
    for holder, keys in {
        _CREATE: {"type": _one_of(frozenset({"invalid", *KINDS})), "hap": BOOL, "name": TEXT},
        _BUILD: {
            "max_vcpus": _INT,
            "avail_vcpus": LIST,
            "tsc_mode": _one_of(_TSC_MODES),
            "max_memkb": _KIB,
            "target_memkb": _KIB,
            "video_memkb": _KIB,
            "device_model_version": _one_of(_DEVICE_MODELS),
            "nested_hvm": BOOL,
            "altp2m": TEXT,
        },
        _TYPED: {
            "bios": _one_of(_BIOSES),
            "viridian": BOOL,
            "viridian_enable": LIST,
            "nested_hvm": BOOL,
            "altp2m": BOOL,
        },
        _VGA: {"kind": _one_of(_VGA_KINDS)},
    }.items()
    for key, kind in keys.items()
}
"""The keys that are read, and what each takes; `type.*` stands for type.pv, type.hvm and type.pvh."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _uuid(value: object) -> str | None:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise Unusable(f"is {value[:40]!r}; expected a UUID")
    return _text(value)


def _at_least_1(value: object) -> int | None:
    number = _int(value)
    if number is not None and number < 1:
        raise Unusable(f"is {number}; expected at least 1")
    return number


WRITTEN = {
    "c_info.uuid": ValueKind(_uuid, str, "a UUID"),
    "b_info.max_vcpus": ValueKind(_at_least_1, int, "a whole number of 32 bits, at least 1"),
}
"""What is asked of a value that is set beyond what is asked of one that is read."""
NEEDED = frozenset({"c_info.name"})
"""Keys without which no domain is created."""


class _Json:
    """Reads the keys that are wanted, in libxl's order, as what it generates from its IDL does.

    A value of another JSON type than the key's is passed over. One that the type's own parser refuses ends the reading,
    and xl goes on with what was read until there.
    """

    def __init__(self, top: dict[str, Any]) -> None:
        self._objects = {name: self._map(top, name) for name in (_CREATE, _BUILD)} | {_TYPED: {}, _VGA: {}}

    def config(self) -> DomainConfig:
        found = DomainConfig(ConfigSource.JSON)
        problem: Problem | None = None
        try:
            for part in (self._kind, self._created, self._built, self._build_kind, self._of_kind):
                found = replace(found, **part())
        except Unusable as error:
            problem = _ends_early(found, str(error))
        return replace(found, problems=(problem,) if problem and problem.by else (*_problems(found, problem),))

    def _kind(self) -> dict[str, Any]:
        return {"kind": KINDS.get(self._read(_CREATE, "type") or "")}

    def _created(self) -> dict[str, Any]:
        return {"hap": self._read(_CREATE, "hap"), "name": self._read(_CREATE, "name")}

    def _built(self) -> dict[str, Any]:
        online = self._read(_BUILD, "avail_vcpus")
        return {
            "max_vcpus": self._read(_BUILD, "max_vcpus"),
            "online_vcpus": None if online is None else len(set(map(str, online))),
            "tsc_mode": self._read(_BUILD, "tsc_mode"),
            "max_kib": self._read(_BUILD, "max_memkb"),
            "target_kib": self._read(_BUILD, "target_memkb"),
            "video_kib": self._read(_BUILD, "video_memkb"),
            "device_model": self._read(_BUILD, "device_model_version"),
            "nested": self._read(_BUILD, "nested_hvm"),
        }

    def _build_kind(self) -> dict[str, Any]:
        build = self._objects[_BUILD]
        kinds = [kind for kind in GuestKind if isinstance(build.get(f"type.{kind}"), dict)]
        if kinds:
            self._objects[_TYPED] = build[f"type.{kinds[0]}"]
            self._objects[_VGA] = self._map(self._objects[_TYPED], "vga")
        return {"build_kind": kinds[0] if kinds else None}

    def _of_kind(self) -> dict[str, Any]:
        viridian = self._read(_TYPED, "viridian")
        if viridian is None and self._read(_TYPED, "viridian_enable"):
            viridian = True
        # Nested virtualisation moved from here to the common part in 4.10, and altp2m from a flag to a mode.
        nested = self._read(_TYPED, "nested_hvm")
        mode = self._read(_BUILD, "altp2m")
        return {
            "bios": self._read(_TYPED, "bios"),
            "viridian": viridian,
            "altp2m": self._read(_TYPED, "altp2m") if mode is None else mode != "disabled",
            "vga": self._read(_VGA, "kind"),
        } | ({} if nested is None else {"nested": nested})

    @staticmethod
    def _map(of: dict[str, Any], key: str) -> dict[str, Any]:
        value = of.get(key)
        return value if isinstance(value, dict) else {}

    def _read(self, holder: str, key: str) -> Any:
        try:
            return KEYS[f"{holder}.{key}"].read(self._objects[holder].get(key))
        except Unusable as error:
            raise Unusable(f"{key} {error}") from None


def _ends_early(found: DomainConfig, why: str) -> Problem:
    """What comes of a value at which libxl stops: it depends on what it has read by then."""
    message = f"libxl stops reading the configuration at a value: {why}"
    if found.kind is None:
        return Problem(message, "libxl", _UNSPECIFIED)
    if found.build_kind is None:
        return Problem(message, "libxl", _NO_BUILD_KIND)
    return Problem(f"{message}; xl goes on without what follows, the guest's disks and other devices among it")


def _problems(config: DomainConfig, before: Problem | None = None) -> list[Problem]:
    """What libxl objects to on every release, in its order; the rest depends on the release and the host."""
    if config.kind is None:
        return [Problem("c_info.type is not set", "libxl", _UNSPECIFIED)]
    if config.build_kind is None:
        return [Problem("b_info has none of type.pv, type.hvm and type.pvh", "libxl", _NO_BUILD_KIND)]
    problems = [] if before is None else [before]
    problems += too_many_vcpus(config.kind, config.max_vcpus)
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
    if config.nested and config.altp2m:
        message = "nested_hvm and altp2m are both on"
        return [Problem(message, "libxl", "nestedhvm and altp2mhvm cannot be used together")]
    if config.nested and config.hap is False:
        return [Problem("nested_hvm is on, and hap off: Xen refuses the one without the other", "libxl")]
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
