"""What the wrappers around a libxc image demand: xl's and libvirt's headers, libxl's records and xapi's blocks.

Sources: `xl_vmcontrol.c` (create_domain), libvirt's `libxl_domain.c`, `libxl_stream_read.c`, xenopsd's
`suspend_image.ml`.
"""

from __future__ import annotations

from migrate.rules.declaring import GuestKind, Stage
from migrate.toolstack.config import LONGEST_CONFIG, ConfigSource
from migrate.toolstack.configuration import ConfigChecks, read
from migrate.toolstack.device_model import DeviceModelChecks
from streams.counting import count
from streams.wire.framing import (
    LIBXL_IDENT,
    XL_BYTEORDER,
    XL_CONFIG_LENGTH,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    LibxlHeader,
    LibxlRecordType,
    XapiBlockId,
    libxl_record_name,
)
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_LEGACY, header_objection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.toolstack.session import Session
    from streams.records import Damage, LibvirtStart, LibxlRecord, XapiBlock, XlStart

_FLAGS_AT, _OPTIONAL_FLAGS_AT, _OPTIONAL_LENGTH_AT = 36, 40, 44  # in xl's header
_LIBVIRT_VERSION_AT = 16


class ContainerChecks:
    """Checks of xl, libvirt, libxl and xapi, in the order in which they read."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._report = session.report
        self._facts = session.facts
        self.config = ConfigChecks(session)
        self.device_model = DeviceModelChecks(session)
        self.colo = False  # control records of COLO were seen
        self._images = 0
        self._is_libxl = False
        self._end: int | None = None  # where libxl's END is, or would be
        self._legacy_said_at: int | None = None  # where a header announces a stream from before 4.6

    # -- xl and libvirt ----------------------------------------------------------------------------

    def _xl(self, rule: str, message: str, offset: int) -> None:
        self._report(rule, message, offset=offset, step=Stage.HEADERS, call="xl")

    def xl_header(self, start: XlStart) -> None:
        """CON-02 to CON-06, and the configuration."""
        header, at = start.header, start.offset
        if header.byteorder != XL_BYTEORDER:
            self._xl("CON-02", f"byte order word 0x{header.byteorder:08x}; expected 0x{XL_BYTEORDER:08x}", at + 32)
        unknown = header.mandatory_flags & ~(XL_FLAG_JSON | XL_FLAG_LIBXL_V2)
        if unknown:
            self._xl("CON-03", f"unknown mandatory flags 0x{unknown:08x}", at + _FLAGS_AT)
        if header.optional_flags:
            message = f"optional flags 0x{header.optional_flags:08x}; none are defined"
            self._xl("CON-04", message, at + _OPTIONAL_FLAGS_AT)
        if not header.mandatory_flags & XL_FLAG_LIBXL_V2:
            self._legacy_said_at = at + _FLAGS_AT
        self._optional_data(start)

    def _optional_data(self, start: XlStart) -> None:
        header, data, at = start.header, start.optional_data, start.offset
        if not header.optional_data_len:
            message = "the file carries no domain config: xl needs one given by hand"
            self._xl("CON-06", message, at + _OPTIONAL_LENGTH_AT)
        elif header.optional_data_len < XL_CONFIG_LENGTH.size:
            message = f"optional data of {count(header.optional_data_len, 'byte')}; at least {XL_CONFIG_LENGTH.size}"
            self._xl("CON-05", message, at + _OPTIONAL_LENGTH_AT)
        elif len(data) == header.optional_data_len:
            (length,) = XL_CONFIG_LENGTH.unpack_from(data)
            config = data[XL_CONFIG_LENGTH.size :]
            if length > len(config):
                message = f"config of {count(length, 'byte')} in {count(len(data), 'byte')} of optional data"
                self._xl("CON-05", message, at + XL_HEADER.size)
            else:
                source = ConfigSource.JSON if header.mandatory_flags & XL_FLAG_JSON else ConfigSource.CFG
                self.config.take(config[:length], source, at + XL_HEADER.size + XL_CONFIG_LENGTH.size)

    def libvirt_header(self, start: LibvirtStart) -> None:
        """CON-36, and the domain's XML."""
        header, at = start.header, start.offset
        objection = header_objection(header)
        if objection is not None:
            fields: dict[str, Any] = {"offset": at + objection.offset, "step": Stage.HEADERS, "call": "libvirt"}
            self._report("CON-36", objection.message, **fields)
        if header.version == LIBVIRT_LEGACY:
            self._legacy_said_at = at + _LIBVIRT_VERSION_AT
        if header.xml_length and len(start.xml) == header.xml_length:
            self.config.take(start.xml, ConfigSource.XML, at + LIBVIRT_HEADER.size)

    # -- libxl -------------------------------------------------------------------------------------

    def libxl_header(self, header: LibxlHeader, offset: int) -> None:
        """CON-11 and CON-34."""
        self._is_libxl = True
        fields: dict[str, Any] = {"step": Stage.HEADERS, "call": "libxl"}
        if self._legacy_said_at is not None:
            what = (
                "version 1" if self._facts.container == "libvirt" else "mandatory flag 1 is clear, which is version 1"
            )
            message = (
                f"{what}, but a libxl stream of version {header.version} ({LIBXL_IDENT.decode()}) follows: libxl has "
                "it converted as one from before Xen 4.6 (convert-legacy-stream), which fails"
            )
            self._report("CON-34", message, offset=self._legacy_said_at, **fields)
        if header.options >> 2:
            message = f"reserved option bits are set: 0x{header.options:08x}"
            self._report("CON-11", message, offset=offset + 12, **fields)

    def image_is(self, guest: GuestKind | None, offset: int) -> None:
        """The kind of guest the libxc image holds, by the domain header at an offset."""
        self.device_model.guest = guest
        self.config.image_is(guest, offset)

    def libxl_record(self, record: LibxlRecord, *, checkpointed: bool) -> None:
        """CON-12 to CON-21, one record."""
        if record.missing and checkpointed:
            return  # a checkpointed stream just stops
        self._end = record.offset

        def report(rule: str, message: str, **fields: Any) -> None:
            what = f"libxl record {record.index}: {message}"
            self._report(rule, what, offset=record.offset, call="libxl", **fields)

        name = libxl_record_name(record.type)
        match record.type:
            case LibxlRecordType.END | LibxlRecordType.CHECKPOINT_END | LibxlRecordType.LIBXC_CONTEXT:
                if record.length:
                    report("CON-20", f"{name} carries {count(record.length, 'byte')}; it should be empty")
                if record.type == LibxlRecordType.CHECKPOINT_END and not checkpointed:
                    report("CON-18", "CHECKPOINT_END outside a checkpoint")
                if record.type == LibxlRecordType.LIBXC_CONTEXT:
                    self._images += 1
                    if self._images > 1 or self.device_model.records:
                        report("CON-21", "LIBXC_CONTEXT should come once, before the emulator's records")
                elif record.type == LibxlRecordType.END:
                    self.device_model.finish()
            case LibxlRecordType.EMULATOR_XENSTORE_DATA | LibxlRecordType.EMULATOR_CONTEXT:
                self.device_model.libxl_record(record, report)
            case LibxlRecordType.CHECKPOINT_STATE:
                self.colo |= checkpointed
                if not checkpointed:
                    report("CON-19", "CHECKPOINT_STATE outside a COLO checkpoint")
            case _:
                report("CON-12", f"unknown libxl record type {name}; libxl tolerates none")

    def libxl_cut(self, damage: Damage) -> None:
        """CON-35: the input ends in libxl's own part of the stream."""
        whole = "the guest's memory came whole, and migrate extract gives it; " if self._session.course.ended else ""
        message = f"{damage.message}: {whole}libxl does not notice, takes what is missing for zeros, and goes on"
        self._report("CON-35", message, offset=damage.offset, call="libxl")

    # -- xapi --------------------------------------------------------------------------------------

    def xapi_block(self, block: XapiBlock) -> None:
        """CON-31 to CON-33, one block."""

        def report(rule: str, message: str) -> None:
            self._report(rule, f"xapi block {block.index}: {message}", offset=block.offset, call="xapi")

        match block.id:
            case XapiBlockId.LIBXC | XapiBlockId.LIBXC_LEGACY:
                self._images += 1
            case XapiBlockId.XENOPS if len(block.body) == block.length <= LONGEST_CONFIG:
                objection = _xenops_objection(block.body)
                if objection:
                    report("CON-32", f"xenopsd's own record: {objection}")
                else:  # by which xenopsd does not restore: it has a database
                    self._session.config = read(block.body, ConfigSource.XENOPSD)
            case XapiBlockId.QEMU_TRAD:
                self.device_model.xapi_block(block, report)
            case XapiBlockId.END_OF_IMAGE:
                if not self._images:
                    report("CON-33", "the image ends without a Libxc block: there is no guest in it")
                self.device_model.finish()
            case XapiBlockId.LIBXL | XapiBlockId.QEMU_XEN:
                report("CON-31", f"id {block.id:#x} is reserved, and read by no one")
            case id if id not in XapiBlockId.__members__.values():
                zeros = not id and not block.length
                hint = (
                    ": only zeros, as in a file that was not written to its end (a full disk, or a hole)"
                    if zeros
                    else ""
                )
                report("CON-31", f"unknown id {id:#x}{hint}")

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """CON-21, CON-23 and what QEMU says, at the end of a stream or where its bytes broke off."""
        course = self._session.course
        if course.ended or self._facts.checkpoints:
            self.device_model.finish()
        if not self._is_libxl:
            return
        if not self._images and not course.broke_off:
            self._report("CON-21", "the libxl stream ends without a libxc image: the guest's memory stays empty")
        guest = self.device_model.guest
        if course.ended and guest == GuestKind.HVM and not self.device_model.records and not self._facts.checkpoints:
            self.device_model.missing(self._end)


def _xenops_objection(text: bytes) -> str | None:
    """What keeps xenopsd from reading its own record: an s-expression with two atoms and two optional fields."""
    from streams.sexp import SexpError, fields, parse

    try:
        found = fields(parse(text))
    except SexpError as error:
        return str(error)
    for name in (b"time", b"word_size"):
        if not isinstance(found.get(name), bytes):
            return f"it has no {name.decode()}"
    if not isinstance(found.get(b"vm_str", b""), bytes):
        return "its vm_str is a list"
    pairs = found.get(b"xs_subtree", [])
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        return "its xs_subtree is no list of pairs"
    return None


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, bytes) for part in value)
