"""The grammar of what is put around a libxc image: xl's file, libvirt's and xapi's image, the libxl stream in them.

Which of them it is, the first bytes say. What is none of them is named where it can be, and looked through for the
beginning of a stream.
"""

from __future__ import annotations

from collections.abc import Generator

from streams.consumer import Reading, cut
from streams.counting import count
from streams.records import (
    Breach,
    LibvirtStart,
    LibxlRecord,
    LibxlStart,
    Recognised,
    Unread,
    XapiBlock,
    XapiStart,
    XlStart,
)
from streams.requests import Answer, Decoding, Request
from streams.wire.framing import (
    EMULATOR_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_OPTION_BIG_ENDIAN,
    LIBXL_VERSION,
    MIGRATE_BANNER,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XAPI_LEGACY_MAGIC,
    XAPI_LENGTH_UNREAD,
    XAPI_MAGIC,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    XL_MAGIC,
    LibxlHeader,
    LibxlRecordType,
    XapiBlockId,
    XlHeader,
    padded,
)
from streams.wire.legacy import RECOGNISED_BY, recognise
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_LEGACY, LIBVIRT_MAGIC, decode_header
from streams.wire.qemu import HEAD_SIZE

# A libxl record, xapi block or configuration that could be worth keeping whole is at most this long. Real ones are
# below 200 KiB.
BODY_LIMIT = 8 << 20


class ContainerDecoder(Reading):
    """Decodes containers; the image in them is for a subclass."""

    def _image_headers(self, head: bytes, start: int) -> Decoding:
        raise NotImplementedError

    def _records(self, *, inside_libxl: bool) -> Generator[Request, Answer, bool | None]:
        raise NotImplementedError

    # -- which container it is ---------------------------------------------------------------------

    def _container(self) -> Decoding:
        start = self.position
        head = yield from self._take(8)
        if not head:
            return self._nothing(start)
        if head not in _CONTAINERS:
            head = yield from self._up_to(RECOGNISED_BY, head)
            if not head[:8].strip(b"\xff") or head[8:] == IMAGE_ID.to_bytes(4, "big"):
                self.consumer.event(Recognised("libxc"))
                return (yield from self._libxc(head))
            from streams.other_files import is_signed

            if recognise(head) and not is_signed(head):
                self.consumer.event(Recognised("legacy"))
                return (yield from self._legacy(head))
        container = _CONTAINERS.get(head)
        if container is None:
            from streams.other_files import MAGICS_TOLD_BY, damaged_magic

            head = yield from self._up_to(MAGICS_TOLD_BY, head)
            container = damaged_magic(head)
        match container:
            case "xl":
                return (yield from self._xl(head))
            case "libvirt":
                return (yield from self._libvirt(head))
            case "xapi":
                return (yield from self._xapi(head))
            case "libxl":
                self.consumer.event(Recognised("libxl"))
                return (yield from self._libxl(head))
        return (yield from self._other(head, start))

    def _nothing(self, start: int) -> bool:
        where = f"the input ends at byte {start}" if start else "the input is empty"
        return self._damaged(Breach.IMAGE_HEADER_CUT, f"{where}; expected the 24-byte image header of a stream", start)

    def _other(self, head: bytes, start: int) -> Decoding:
        """What is no stream, or not from here on; never complete."""
        from streams.other_files import MAGICS_TOLD_BY, SEARCHED, explain

        self.consumer.event(Recognised("banner" if head.startswith(MIGRATE_BANNER[: len(head)]) else "unknown"))
        head = yield from self._up_to(SEARCHED + MAGICS_TOLD_BY, head)
        self.consumer.event(Unread(explain(head, start)))
        return False

    def _libxc(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        head = yield from self._up_to(IMAGE_HEADER.size, head)
        if not (yield from self._image_headers(head, start)):
            return False
        return bool((yield from self._records(inside_libxl=False)))

    def _legacy(self, head: bytes, inside: str = "") -> Decoding:
        """A stream from before 4.6, as far as it says what it is; never complete, for it is not judged."""
        head = yield from self._up_to(RECOGNISED_BY, head)
        self.consumer.event(Unread(f"a pre-4.6 stream{inside}"))
        kind = recognise(head)
        if kind is not None:
            from streams.legacy import LegacyReader

            self.consumer.event((yield from LegacyReader(kind, head, self._take, self._pass).run()))
        return False

    # -- xapi --------------------------------------------------------------------------------------

    def _xapi(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        head = yield from self._up_to(len(XAPI_MAGIC), head)
        if head == XAPI_LEGACY_MAGIC:
            self.consumer.event(Recognised("xapi-legacy"))
            return (yield from self._legacy(b"", " in a xapi suspend image"))
        self.consumer.event(Recognised("xapi"))
        if head != XAPI_MAGIC:
            found = head[: len(XAPI_MAGIC)]
            head += yield from self._take(1)  # a newline that has become two bytes
            what = f"the signature is {found!r}; expected {XAPI_MAGIC!r}{_translated(head)}"
            return self._damaged(Breach.XAPI_SIGNATURE, what, start, reader="xapi")
        self.consumer.event(XapiStart(start))
        index = 0
        while True:
            start = self.position
            raw = yield from self._take(XAPI_BLOCK_HEADER.size)
            if len(raw) < XAPI_BLOCK_HEADER.size:
                what = cut("a block header", raw, XAPI_BLOCK_HEADER.size) if raw else "no End_of_image block here"
                return self._damaged(Breach.RECORD_HEADER_CUT if raw else Breach.NO_END, what, start, reader="xapi")
            kind, length = XAPI_BLOCK_HEADER.unpack(raw)
            size = 0 if kind in XAPI_LENGTH_UNREAD else length
            body = yield from self._take(_kept(size, HEAD_SIZE))
            got = len(body) + (yield from self._pass(size - len(body)))
            if got < size:
                what = f"the input ends in block {index} (id {kind:#x}): {got} of {count(size, 'byte')}"
                return self._damaged(Breach.RECORD_CUT, what, start, reader="xapi")
            self.consumer.event(XapiBlock(start, index, kind, length, body))
            index += 1
            if kind == XapiBlockId.END_OF_IMAGE:
                return True
            if kind == XapiBlockId.LIBXC_LEGACY:
                return (yield from self._legacy(b"", " in a xapi suspend image"))
            if kind == XapiBlockId.LIBXC and not (yield from self._libxc(b"")):
                return False

    # -- xl and libvirt ----------------------------------------------------------------------------

    def _xl(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        self.consumer.event(Recognised("xl"))
        head = yield from self._up_to(XL_HEADER.size, head)
        if not head.startswith(XL_MAGIC) and len(head) >= len(XL_MAGIC):
            what = f"the xl magic does not match in all of its {len(XL_MAGIC)} bytes{_translated(head)}"
            return self._damaged(Breach.XL_MAGIC, what, start, reader="xl")
        if len(head) < XL_HEADER.size:
            return self._damaged(
                Breach.XL_MAGIC, cut("the xl header", head, XL_HEADER.size), self.position, reader="xl"
            )
        header = XlHeader._make(XL_HEADER.unpack(head))
        size = header.optional_data_len
        optional = yield from self._take(min(size, BODY_LIMIT))
        self.consumer.event(XlStart(start, header, optional))
        got = len(optional) + (yield from self._pass(size - len(optional)))
        if got < size:
            what = f"the input ends in the optional data: {got} of {count(size, 'byte')}"
            return self._damaged(Breach.OPTIONAL_DATA_CUT, what, self.position, reader="xl")
        return (yield from self._payload(legacy=not header.mandatory_flags & XL_FLAG_LIBXL_V2, of="an xl file"))

    def _libvirt(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        self.consumer.event(Recognised("libvirt"))
        head = yield from self._up_to(LIBVIRT_HEADER.size, head)
        if not head.startswith(LIBVIRT_MAGIC) and len(head) >= len(LIBVIRT_MAGIC):
            what = f"image magic is incorrect: {head[: len(LIBVIRT_MAGIC)]!r}; expected {LIBVIRT_MAGIC!r}"
            return self._damaged(Breach.LIBVIRT_HEADER, what + _translated(head), start, reader="libvirt")
        if len(head) < LIBVIRT_HEADER.size:
            what = cut("the libvirt header", head, LIBVIRT_HEADER.size)
            return self._damaged(Breach.LIBVIRT_HEADER, what, self.position, reader="libvirt")
        header = decode_header(head)
        size = header.xml_length
        xml = yield from self._take(min(size, BODY_LIMIT))
        self.consumer.event(LibvirtStart(start, header, xml))
        got = len(xml) + (yield from self._pass(size - len(xml)))
        if got < size:
            what = f"the input ends in the domain's XML: {got} of {count(size, 'byte')}"
            return self._damaged(Breach.LIBVIRT_XML_CUT, what, self.position, reader="libvirt")
        return (yield from self._payload(legacy=header.version == LIBVIRT_LEGACY, of="a libvirt image"))

    def _payload(self, *, legacy: bool, of: str) -> Decoding:
        """What follows a configuration; a libxl stream is read even where its container announces another."""
        start = self.position
        head = yield from self._take(8)
        if head == LIBXL_IDENT:
            return (yield from self._libxl(head))
        if legacy:
            return (yield from self._legacy(head, f" in {of}"))
        found = f"begins with {head.hex(' ')}" if head else "is missing"
        what = f"the payload {found}; expected a libxl stream (LibxlFmt)"
        return self._damaged(Breach.NO_LIBXL_STREAM, what, start, reader="libxl")

    # -- libxl -------------------------------------------------------------------------------------

    def _libxl(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        head = yield from self._up_to(LIBXL_HEADER.size, head)
        if len(head) < LIBXL_HEADER.size:
            what = cut("the libxl header", head, LIBXL_HEADER.size)
            return self._damaged(Breach.LIBXL_HEADER_CUT, what, start, reader="libxl")
        header = LibxlHeader._make(LIBXL_HEADER.unpack(head[: LIBXL_HEADER.size]))
        if header.ident != LIBXL_IDENT:
            what = f"the ident is {header.ident!r}; expected {LIBXL_IDENT!r}"
            return self._damaged(Breach.LIBXL_HEADER_CUT, what, start, reader="libxl")
        self.consumer.event(LibxlStart(start, header))
        if header.version != LIBXL_VERSION:
            what = f"libxl version {header.version}; expected {LIBXL_VERSION}"
            return self._damaged(Breach.LIBXL_VERSION, what, start + 8, reader="libxl")
        if header.options & LIBXL_OPTION_BIG_ENDIAN:
            what = "the libxl stream is big-endian, which no x86 host can read"
            return self._damaged(Breach.LIBXL_BIG_ENDIAN, what, start + 12, reader="libxl")
        index = 0
        image = None  # the libxc image, while it is interrupted by a checkpoint
        whole = False  # an image has come to its END
        while True:
            record = yield from self._libxl_record(index, behind_image=whole)
            index += 1
            if record.missing:
                return False
            if record.type == LibxlRecordType.END:
                return True
            if record.type == LibxlRecordType.LIBXC_CONTEXT:
                first = self.position
                image = yield from self._image_headers((yield from self._take(IMAGE_HEADER.size)), first)
                if not image:
                    return False
            elif record.type != LibxlRecordType.CHECKPOINT_END or not image:
                continue
            ended = yield from self._records(inside_libxl=True)
            if ended is None:
                continue  # a checkpoint: libxl's turn
            if not ended:
                return False
            image, whole = None, True

    def _libxl_record(self, index: int, *, behind_image: bool) -> Generator[Request, Answer, LibxlRecord]:
        """The next record, told. What the input does not have of it any more, libxl takes for zeros."""
        start = self.position
        raw = yield from self._take(RECORD_HEADER.size)
        kind, length = RECORD_HEADER.unpack(raw.ljust(RECORD_HEADER.size, b"\0"))
        keep = _kept(length, EMULATOR_HEADER.size + HEAD_SIZE)
        body = yield from self._take(keep)
        passed = yield from self._pass(padded(length) - keep)
        missing = RECORD_HEADER.size - len(raw) + padded(length) - len(body) - passed
        if missing:
            # Without an image there is no guest; of one that should follow, libxc misses the header.
            harmless = behind_image and kind != LibxlRecordType.LIBXC_CONTEXT
            breach = Breach.LIBXL_RECORD_CUT if harmless else Breach.RECORD_HEADER_CUT
            if not raw:
                what = "the libxl stream stops here, without an END record"
            elif len(raw) < RECORD_HEADER.size:
                what = cut("a libxl record header", raw, RECORD_HEADER.size)
            else:
                got = f"{padded(length) - missing} of {count(padded(length), 'byte')}"
                what = f"the input ends in libxl record {index} (type {kind}): {got}"
            self._damaged(breach, what, start, reader="libxl")
        record = LibxlRecord(start, index, kind, length, body[:length], missing=missing)
        self.consumer.event(record)
        return record


# What the first 8 bytes tell.
_CONTAINERS = {
    XAPI_MAGIC[:8]: "xapi",
    XL_MAGIC[:8]: "xl",
    LIBVIRT_MAGIC[:8]: "libvirt",
    LIBXL_IDENT: "libxl",
}


def _kept(length: int, head: int) -> int:
    """How much of something of a length is kept: all of it, or its head where no saver writes so much."""
    return length if length <= BODY_LIMIT else head


def _translated(head: bytes) -> str:
    """What became of the newlines in a magic, as the end of a sentence."""
    from streams.other_files import translated_newlines

    found = translated_newlines(head)
    return "" if found is None else f": {found.what}; transfer it again in binary mode"
