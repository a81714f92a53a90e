"""Small inputs of every kind to begin with: built guests, and real streams without most of their memory."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

import zstandard

from migrate.building.builder import StreamBuilder
from migrate.building.configuration import domain_xml, libxl_json
from migrate.building.hvm_contexts import EVERYTHING, hvm_context
from migrate.building.qemu_state import QemuStateBuilder
from streams.bodies import HvmContext
from streams.encoder import decode, encode
from streams.opening import open_transport
from streams.pages import PageType, PfnWords
from streams.records import LibxlRecord, PageData
from streams.wire.framing import (
    EMULATOR_HEADER,
    LIBXL_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    SHARED_INFO_SIZE,
    XAPI_MAGIC,
    XL_HEADER,
    LibxlRecordType,
)
from streams.wire.legacy import CHUNK_KIND, CHUNK_SIZE, INFO_BLOCK, INFO_EXTENDED, INFO_VCPU, UINT32, VCPU_INFO, Chunk
from streams.wire.libvirt import decode_image
from streams.wire.vcpu import CONTEXT

SAMPLES = Path(__file__).parents[2] / "sample_streams"
LOGS = Path(__file__).parents[1] / "data" / "logs"
PVH, XL, REMUS = "x417-pvh.plain.libxc", "x417-pvh.xl", "x417-pvh.remus.libxc"
GENUINE = SAMPLES / "genuine-hvm" / "hvm-x4200-virall-2vcpu.xl.zst"
EMULATOR_CONTEXT = LibxlRecordType.EMULATOR_CONTEXT
# PAGE_DATA records of a real stream that are kept, and pages of each.
KEPT_PAGES = 4
KEPT_BATCHES = 3
# Pages of the guest in an old stream.
LEGACY_PFNS = 0x800


def _old(b: StreamBuilder) -> None:
    b.image["version"] = 2
    b.domain["xen_minor"] = 11


def _live(b: StreamBuilder) -> None:
    b.rounds = [[2, 3], [3, b.absent_pfn]]
    b.batch = 4


def _verified(b: StreamBuilder) -> None:
    b.verify = True


def _checkpointed(b: StreamBuilder) -> None:
    b.checkpoints = 2


def _followed(b: StreamBuilder) -> None:
    b.trailing = b"go ahead"


GUESTS: dict[str, Callable[[], StreamBuilder]] = {
    "pv32": lambda: StreamBuilder.pv(4, vcpus=2),
    "pv64": lambda: StreamBuilder.pv(8),
    "hvm": lambda: StreamBuilder.hvm(vcpus=2),
}
KINDS: dict[str, Callable[[StreamBuilder], None]] = {
    "plain": lambda b: None,
    "old": _old,
    "live": _live,
    "verified": _verified,
    "checkpointed": _checkpointed,
    "followed": _followed,
}


def built(guest: str, kind: str = "plain", container: str = "libxc") -> bytes:
    """A built stream."""
    b = GUESTS[guest]()
    KINDS[kind](b)
    b.wrap(container)
    return b.build()


@cache
def skeleton(name: str) -> bytes:
    """A real stream of an HVM guest, with no more than a few of its pages."""
    with open_transport(SAMPLES / f"{name}.zst") as transport:
        items = decode(transport.give(1 << 30)).items
    batches = [item for item in items if isinstance(item, PageData)]
    kept = {item.place: _thin(item) for item in batches[:KEPT_BATCHES]}
    return encode(
        kept[item.place] if isinstance(item, PageData) else item
        for item in items
        if not isinstance(item, PageData) or item.place in kept
    )


def _thin(record: PageData) -> PageData:
    """A record's last pages and their words."""
    kept = [word for word in _words(record) if word[7] >> 4 == PageType.NOTAB][-KEPT_PAGES:]
    pages = b"".join(data for _, data in record.runs)[-len(kept) * PAGE_SIZE :] if kept else b""
    return replace(record, count=len(kept), words=PfnWords(b"".join(kept)), runs=((0, pages),), padding=b"")


def _words(record: PageData) -> Iterator[bytes]:
    raw = record.words.raw
    return (raw[at : at + PFN_WORD_SIZE] for at in range(0, len(raw), PFN_WORD_SIZE))


def streams() -> Iterator[bytes]:
    """Streams of all guests and kinds, and in all containers."""
    yield b""
    yield StreamBuilder.pv(4, vcpus=2, roots=2).build()
    yield StreamBuilder.pv(4, extended=True).build()
    for guest in GUESTS:
        yield from (built(guest, kind) for kind in KINDS)
        yield from (built(guest, container=container) for container in ("libxl", "xl", "libvirt", "xapi"))
        yield built(guest, "checkpointed", "libxl")
    yield from map(skeleton, (PVH, XL, REMUS))


# What would be a command to a terminal, or markup, where it is printed as it is.
TELLING = "\x1b[2J\u202e<script>&\"'\x9b"


def talking() -> Iterator[bytes]:
    """Streams of all kinds, and such with words of others in them, which are shown."""
    yield from streams()
    for container in ("libxl", "xl", "libvirt", "xapi"):
        b = GUESTS["hvm"]()
        b.wrap(container)
        b.xl_config = json.dumps({"c_info": {"type": "hvm", "name": TELLING}, TELLING: 1}).encode()
        b.domain_xml = f"<domain><name>{escape(TELLING[1:])}</name></domain>".encode()
        b.xapi_blocks = [(id, body.replace(b"(", b"(" + TELLING.encode(), 1)) for id, body in b.xapi_blocks]
        yield b.build()


def packed() -> Iterator[bytes]:
    """Compressed streams, in one member or frame and in two."""
    stream = built("hvm")
    half = len(stream) // 2
    for pack in (gzip.compress, lzma.compress, zstandard.ZstdCompressor(write_checksum=True).compress):
        yield pack(stream)
        yield pack(stream[:half]) + pack(stream[half:])
    yield zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20) + stream)
    yield b"\x50\x2a\x4d\x18" + UINT32.pack(4) + b"skip" + zstandard.compress(stream)


# -- what follows a fixed header ------------------------------------------------------------------------


def libxl_payloads() -> Iterator[bytes]:
    """libxl records."""
    for guest in GUESTS:
        yield from (built(guest, kind, "libxl")[LIBXL_HEADER.size :] for kind in ("plain", "checkpointed"))
    real = skeleton(XL)
    yield real[real.index(b"LibxlFmt") + LIBXL_HEADER.size :]


def xl_payloads() -> Iterator[bytes]:
    """The length of the optional data of an xl file, they, and libxl records."""
    for stream in (*(built(guest, container="xl") for guest in GUESTS), skeleton(XL)):
        length = XL_HEADER.unpack_from(stream)[-1]
        optional = stream[XL_HEADER.size :][:length]
        yield UINT32.pack(length) + optional + stream[XL_HEADER.size + length + LIBXL_HEADER.size :]


def libvirt_payloads() -> Iterator[bytes]:
    """The length of libvirt's XML, it, and libxl records."""
    for guest in GUESTS:
        _, xml, stream = decode_image(built(guest, container="libvirt"))
        yield UINT32.pack(len(xml)) + xml + stream[LIBXL_HEADER.size :]


def xapi_payloads() -> Iterator[bytes]:
    """xapi blocks."""
    for guest in GUESTS:
        yield built(guest, container="xapi")[len(XAPI_MAGIC) :]


def legacy_payloads(word: int) -> Iterator[bytes]:
    """What follows the first two words of an old PV stream of no more than 2048 pages."""
    for width, vcpus in ((4, 1), (4, 2), (8, 1)):
        context = bytes(CONTEXT[width].size)
        info = INFO_BLOCK.pack(INFO_VCPU, len(context)) + context + INFO_BLOCK.pack(INFO_EXTENDED, 0)
        words = [(kind << 28 | pfn).to_bytes(word, "little") for pfn, kind in enumerate((0, 0xB, 0xA, 9, 3, 0xF, 0xD))]
        yield b"".join(
            [
                UINT32.pack(len(info)) + info,
                bytes(word * (LEGACY_PFNS * width // PAGE_SIZE)),
                CHUNK_KIND.pack(Chunk.TSC_INFO) + bytes(CHUNK_SIZE[Chunk.TSC_INFO]),
                CHUNK_KIND.pack(len(words)) + b"".join(words) + bytes(5 * PAGE_SIZE),
                CHUNK_KIND.pack(Chunk.VCPU_INFO) + VCPU_INFO.pack(vcpus - 1) + ((1 << vcpus) - 1).to_bytes(8, "little"),
                CHUNK_KIND.pack(Chunk.TOOLSTACK) + UINT32.pack(4) + b"tool",
                CHUNK_KIND.pack(Chunk.END) + UINT32.pack(1) + bytes(word),
                (context + bytes(128)) * vcpus + bytes(SHARED_INFO_SIZE),
            ]
        )


def device_models() -> Iterator[bytes]:
    """States of QEMU: small ones, one with all that QEMU writes elsewhere, and a genuine guest's."""
    yield QemuStateBuilder.of("timer", "0000:00:02.0/platform").build()
    yield QemuStateBuilder().build()
    elsewhere = QemuStateBuilder.of("timer", "ide", "slirp", "0000:00:02.0/platform")
    elsewhere.machine, elsewhere.footers, elsewhere.description = "xenfv", True, True
    yield elsewhere.build()
    with open_transport(GENUINE) as transport:
        items = decode(bytes(transport.give(64 << 20))).items
    (record,) = (item for item in items if isinstance(item, LibxlRecord) and item.type == EMULATOR_CONTEXT)
    yield record.body[EMULATOR_HEADER.size :]


def configurations() -> Iterator[bytes]:
    """Configurations of xl, libvirt and xenopsd."""
    for kind in ("pv", "hvm", "pvh"):
        yield libxl_json(kind, 2, 4096)
        yield domain_xml(kind, 2, 4096)
    yield b'builder = "hvm"\nname = "guest"\nvcpus = 2\nmemory = 64\n'
    yield StreamBuilder.pv(8).xapi_blocks[0][1]


def contexts() -> Iterator[bytes]:
    """HVM contexts: small ones, a real one, and one with an entry of every type."""
    yield from (hvm_context(vcpus) for vcpus in (1, 2))
    yield next(record.content for record in decode(skeleton(PVH)).records if isinstance(record, HvmContext))
    yield hvm_context(1, EVERYTHING)


def around_context() -> tuple[bytes, bytes]:
    """The bytes of an HVM stream before and after its HVM_CONTEXT record."""
    b = GUESTS["hvm"]()
    record = b.record("HVM_CONTEXT").build()
    before, _, after = b.build().partition(record)
    return before, after


def logs() -> Iterator[bytes]:
    """Real lines of failed restores, as libxc and Xen's console give them, and among others."""
    restores = [json.loads(line) for line in (LOGS / "restores.jsonl").read_text("utf-8").splitlines()]
    texts = ["\n".join([f"xc: error: {one['error']}", *map("(XEN) {}".format, one["console"])]) for one in restores]
    yield from ("\n".join(texts[at : at + 5]).encode() for at in range(0, len(texts), 5))
    yield b"\x1b[1mxl: Loading new save file x\x1b[0m\r\n\xff\xfe" + texts[0].encode() + b"\0" * 5000
