"""Where a CPU policy comes from: the records of a stream, or a dump of another one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from migrate.guest.cpu_policy import Policy, read_policy
from streams.decoder import Decoder, drive
from streams.opening import open_transport
from streams.pages import PfnWords
from streams.records import Damage, DomainStart, Event, Place, Record, Unread
from streams.values import dataclass
from streams.wire.framing import NO_SUBLEAF, GuestType, RecordType

_POLICIES = frozenset({RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY})
# Policies that come later are never applied.
_LATE = frozenset({RecordType.STATIC_DATA_END, RecordType.PAGE_DATA, RecordType.X86_PV_P2M_FRAMES, RecordType.END})
# A policy has a few hundred entries; a longer record is none.
_MOST_BYTES = 1 << 20
# A dump is text of some ten kilobytes.
_MOST_JSON = 16 << 20
_REGISTERS = 4


class NoPolicyError(ValueError):
    """The source is readable, and has no CPU policy."""


@dataclass(frozen=True, slots=True)
class Found:
    """A policy, the release that wrote it ("4.20"; None where that is not known), and whose it is."""

    policy: Policy
    xen: str | None = None
    guest: GuestType = GuestType.PV


class _EnoughError(Exception):
    """The static data is over."""


class _PolicyReader:
    """A consumer that keeps the last of each policy record, up to the guest's memory."""

    def __init__(self) -> None:
        self.bodies: dict[int, bytes] = {}
        self.xen: str | None = None
        self.guest = GuestType.PV
        self.trouble: str | None = None

    def wants_body(self, place: Place) -> bool:
        if place.type in _LATE:
            raise _EnoughError
        return place.type in _POLICIES and place.length <= _MOST_BYTES

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        return ()

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        return None

    def event(self, item: Event) -> None:
        match item:
            case DomainStart():
                self.guest = GuestType.HVM if item.header.type == GuestType.HVM else GuestType.PV
                if item.header.xen_major:
                    self.xen = f"{item.header.xen_major}.{item.header.xen_minor}"
            case Record() if item.body is not None:
                self.bodies[item.type] = item.body
            case Damage():
                self.trouble = item.message
            case Unread():
                self.trouble = item.reason


def stream_policy(source: str | os.PathLike[str] | int | bytes) -> Found:
    """The policy in a stream, of which nothing is read beyond its static data.

    Raises
    ------
    NoPolicyError
        for a stream without policy records, or one that breaks off before them.
    OSError, TransportError
        for input that cannot be read.
    """
    reader = _PolicyReader()
    with open_transport(source) as transport, suppress(_EnoughError):
        drive(Decoder(reader).run(), transport)
    if RecordType.X86_CPUID_POLICY not in reader.bodies:
        raise NoPolicyError(reader.trouble or "the stream carries no CPUID policy: version 3 streams do, from Xen 4.14")
    policy = read_policy(reader.bodies[RecordType.X86_CPUID_POLICY], reader.bodies.get(RecordType.X86_MSR_POLICY))
    return Found(policy, reader.xen, reader.guest)


def dumped_policy(text: str | bytes) -> Policy:
    """The policy in a JSON text.

    Either what `migrate policy --format json` writes, or no more than the leaves: {leaf: {subleaf: [eax, ebx, ecx,
    edx]}}. Numbers may be JSON's, or text in any base ("0x7", "7"); a subleaf is "-" where the leaf has none.

    Raises
    ------
    NoPolicyError
        for anything else.
    """
    try:
        dump = json.loads(text)
        if not isinstance(dump, dict):
            raise NoPolicyError("a JSON object of CPUID leaves was expected")
        msrs = dump.get("msrs") if "leaves" in dump else None
        leaves = {
            (_number(leaf), _subleaf(subleaf)): _registers(registers)
            for leaf, subleaves in dump.get("leaves", dump).items()
            for subleaf, registers in subleaves.items()
        }
        values = None if msrs is None else {_number(index): _number(value, 64) for index, value in msrs.items()}
    except NoPolicyError:
        raise
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise NoPolicyError(f"no dump of CPUID leaves: {error}") from None
    if not leaves:
        raise NoPolicyError("the dump has no CPUID leaves")
    return Policy(leaves, values)


def any_policy(path: str | os.PathLike[str]) -> Found:
    """The policy in a file, be it a stream or a JSON dump. Raises what `stream_policy` and `dumped_policy` do."""
    with open(path, "rb") as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        if start == b"{":
            return Found(dumped_policy(start + file.read(_MOST_JSON)))
    return stream_policy(path)


def _number(value: Any, bits: int = 32) -> int:
    number = int(value, 0) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << bits:
        raise ValueError(f"{value!r} is not a number of {bits} bits")
    return number


def _subleaf(value: Any) -> int | None:
    if value in ("-", "", "none", None):
        return None
    number = _number(value)
    return None if number == NO_SUBLEAF else number


def _registers(values: Any) -> tuple[int, int, int, int]:
    if not isinstance(values, list) or len(values) != _REGISTERS:
        raise ValueError("a leaf is a list of eax, ebx, ecx and edx")
    a, b, c, d = (_number(value) for value in values)
    return a, b, c, d
