"""The harnesses, declared: which law holds of which inputs, where to begin, and where an input's pieces lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import anatomy
import copying
import laws
import seeds
import viewing
from anatomy import Anatomy

from migrate.building.builder import StreamBuilder
from streams.wire.framing import (
    EMULATOR_HEADER,
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_VERSION,
    RECORD_HEADER,
    XAPI_MAGIC,
    XL_BYTEORDER,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    XL_MAGIC,
    RecordType,
    padded,
)
from streams.wire.legacy import UINT32
from streams.wire.libvirt import encode_image

LIBXL_START = LIBXL_HEADER.pack(LIBXL_IDENT, LIBXL_VERSION, 0)
KIB = 1 << 10


@dataclass(frozen=True)
class Harness:
    """One thing to fuzz.

    Attributes
    ----------
    law:
        holds of any bytes, or raises.
    seeds:
        inputs to begin with.
    anatomy:
        where the pieces of such inputs lie.
    longest:
        most bytes of an input that are worth their time.
    """

    law: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    anatomy: Anatomy
    longest: int = 128 * KIB

    def __call__(self, data: bytes) -> None:
        """Raise whatever an input breaks the law with."""
        self.law(data)


def _container(start: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    """The laws of streams, of a payload behind the start of a container."""

    def law(payload: bytes) -> None:
        stream = start(payload)
        laws.decodes(stream)
        laws.answers(stream)

    return law


def _xl(payload: bytes) -> bytes:
    (length,) = UINT32.unpack(payload[: UINT32.size].ljust(UINT32.size, b"\0"))
    optional, rest = payload[UINT32.size :][:length], payload[UINT32.size + length :]
    header = XL_HEADER.pack(XL_MAGIC, XL_BYTEORDER, XL_FLAG_JSON | XL_FLAG_LIBXL_V2, 0, len(optional))
    return header + optional + LIBXL_START + rest


def _libvirt(payload: bytes) -> bytes:
    (length,) = UINT32.unpack(payload[: UINT32.size].ljust(UINT32.size, b"\0"))
    xml, rest = payload[UINT32.size :][:length], payload[UINT32.size + length :]
    return encode_image(xml, LIBXL_START + rest)


def _device_model(state: bytes) -> None:
    laws.device_model_holds(state)
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.libxl_after[0].body[EMULATOR_HEADER.size :] = state
    laws.answers(b.build())


def _configuration(text: bytes) -> None:
    laws.configuration_holds(text)
    for container in ("xl", "libvirt"):
        b = StreamBuilder.hvm()
        b.wrap(container)
        b.xl_config = b.domain_xml = text
        laws.answers(b.build())


def _legacy(word: int) -> Harness:
    start = seeds.LEGACY_PFNS.to_bytes(word, "little") + b"\xff" * word
    return Harness(
        law=_container(lambda payload: start + payload),
        seeds=partial(seeds.legacy_payloads, word),
        anatomy=anatomy.legacy_payload(word),
    )


def _context(body: bytes) -> None:
    laws.context_holds(body)
    before, after = seeds.around_context()
    record = RECORD_HEADER.pack(RecordType.HVM_CONTEXT, len(body)) + body.ljust(padded(len(body)), b"\0")
    laws.answers(before + record + after)


HARNESSES: dict[str, Harness] = {
    "decoder": Harness(laws.decodes, seeds.streams, anatomy.stream),
    "check": Harness(laws.answers_all, seeds.streams, anatomy.stream),
    "filter": Harness(laws.passes, seeds.streams, anatomy.stream),
    # What it decodes to may be 30,000 times as long.
    "compressed": Harness(laws.answers, seeds.packed, anatomy.shapeless, longest=4 * KIB),
    "libxl": Harness(_container(lambda payload: LIBXL_START + payload), seeds.libxl_payloads, anatomy.libxl_payload),
    "xl": Harness(_container(_xl), seeds.xl_payloads, anatomy.configured_payload),
    "libvirt": Harness(_container(_libvirt), seeds.libvirt_payloads, anatomy.configured_payload),
    "xapi": Harness(_container(lambda payload: XAPI_MAGIC + payload), seeds.xapi_payloads, anatomy.xapi_payload),
    "legacy32": _legacy(4),
    "legacy64": _legacy(8),
    "qemu": Harness(_device_model, seeds.device_models, anatomy.device_model, longest=32 * KIB),
    "config": Harness(_configuration, seeds.configurations, anatomy.shapeless, longest=8 * KIB),
    "log": Harness(laws.explained, seeds.logs, anatomy.log, longest=8 * KIB),
    "show": Harness(viewing.shows, seeds.talking, anatomy.stream),
    "report": Harness(viewing.reports, seeds.talking, anatomy.stream),
    "extract": Harness(copying.extracts, seeds.streams, anatomy.stream),
    "shrink": Harness(copying.shrinks, seeds.streams, anatomy.stream),
    "scrub": Harness(copying.scrubs, seeds.streams, anatomy.stream),
    "context": Harness(_context, seeds.contexts, anatomy.hvm_context, longest=32 * KIB),
}


def donors(harness: Harness) -> list[bytes]:
    """Inputs to take pieces from."""
    return [seed for seed in harness.seeds() if seed]


def mutants(harness: Harness, count: int) -> Iterator[bytes]:
    """So many mutations of a harness's seeds, always the same ones."""
    from random import Random

    from mutation import mutate

    rng = Random(count)
    given = donors(harness)
    pool = list(given)
    for _ in range(count):
        mutant = mutate(rng.choice(pool), harness.anatomy, rng, harness.longest, given)
        pool[rng.randrange(len(pool))] = rng.choice((mutant, rng.choice(given)))
        yield mutant
