"""What the wrappers around a libxc image demand: xl's file header, libxl's records and xapi's blocks.

Sources: `xl_vmcontrol.c` (create_domain), `libxl_stream_read.c`, xenopsd's `suspend_image.ml`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from migrate.rules.declaring import GuestKind, Severity, Stage
from streams.wire.framing import (
    EMULATOR_HEADER,
    XL_BYTEORDER,
    XL_CONFIG_LENGTH,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    EmulatorHeader,
    LibxlHeader,
    LibxlRecordType,
    XapiBlockId,
    XlHeader,
)
from streams.wire.qemu import device_state

if TYPE_CHECKING:
    from migrate.toolstack.session import Session
    from streams.records import LibxlRecord, XapiBlock

_KNOWN_EMULATORS = 2  # 0 unknown, 1 QEMU traditional, 2 QEMU upstream
# Longer configurations and xenopsd records are not read: real ones are some KiB, and a text takes many times its
# length once it is parsed.
LONGEST_TEXT = 1 << 20
_KEY_SHOWN = 40  # bytes


class ContainerChecks:
    """Checks of xl and libxl, in the order in which they read.

    The number of vcpus in an xl file's config becomes the session's, unless the caller has given one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._report = session.report
        self._facts = session.facts
        self._guest: GuestKind | None = None
        self.colo = False  # control records of COLO were seen
        self._images = 0
        self._emulators = 0
        self._is_libxl = False

    def _xl(self, rule: str, message: str, offset: int) -> None:
        self._report(rule, message, offset=offset, step=Stage.HEADERS, call="xl")

    def xl_header(self, header: XlHeader, optional_data: bytes) -> None:
        """CON-02 to CON-06."""
        if header.byteorder != XL_BYTEORDER:
            self._xl("CON-02", f"byte order word 0x{header.byteorder:08x}; expected 0x{XL_BYTEORDER:08x}", 32)
        unknown = header.mandatory_flags & ~(XL_FLAG_JSON | XL_FLAG_LIBXL_V2)
        if unknown:
            self._xl("CON-03", f"unknown mandatory flags 0x{unknown:08x}", 36)
        if header.optional_flags:
            self._xl("CON-04", f"optional flags 0x{header.optional_flags:08x}; none are defined", 40)
        if not header.optional_data_len:
            self._xl("CON-06", "the file carries no domain config: xl needs one given by hand", 44)
            return
        start = XL_HEADER.size
        if header.optional_data_len < XL_CONFIG_LENGTH.size:
            self._xl("CON-05", f"optional data of {header.optional_data_len} bytes; at least 4", 44)
        elif len(optional_data) == header.optional_data_len:
            (length,) = XL_CONFIG_LENGTH.unpack_from(optional_data)
            if length > len(optional_data) - XL_CONFIG_LENGTH.size:
                self._xl("CON-05", f"config of {length} bytes in {len(optional_data)} bytes of optional data", start)
            else:
                self._config(optional_data[XL_CONFIG_LENGTH.size :][:length])

    def _config(self, raw: bytes) -> None:
        """The vcpu count of `libxl_domain_config` JSON, where it has one."""
        if len(raw) > LONGEST_TEXT:
            return
        try:
            config: Any = json.loads(raw.rstrip(b"\0").decode("utf-8", "replace"))
            self._session.domain_type = config["c_info"]["type"]
            count = config["b_info"]["max_vcpus"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if self._session.vcpus is None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
            self._session.vcpus = count

    def libxl_header(self, header: LibxlHeader, offset: int) -> None:
        """CON-11."""
        self._is_libxl = True
        if header.options >> 2:
            self._report(
                "CON-11",
                f"reserved option bits are set: 0x{header.options:08x}",
                offset=offset + 12,
                step=Stage.HEADERS,
                call="libxl",
            )

    def guest_is(self, guest: GuestKind | None) -> None:
        """The kind of guest the libxc image holds."""
        self._guest = guest

    def libxl_record(self, record: LibxlRecord, *, checkpointed: bool) -> None:
        """CON-12 to CON-21, one record."""

        def report(rule: str, message: str) -> None:
            self._report(rule, f"libxl record {record.index}: {message}", offset=record.offset, call="libxl")

        name = _name(record.type)
        match record.type:
            case LibxlRecordType.END | LibxlRecordType.CHECKPOINT_END | LibxlRecordType.LIBXC_CONTEXT:
                if record.length:
                    report("CON-20", f"{name} carries {record.length} bytes; it should be empty")
                if record.type == LibxlRecordType.CHECKPOINT_END and not checkpointed:
                    report("CON-18", "CHECKPOINT_END outside a checkpoint")
                if record.type == LibxlRecordType.LIBXC_CONTEXT:
                    self._images += 1
                    if self._images > 1 or self._emulators:
                        report("CON-21", "LIBXC_CONTEXT should come once, before the emulator's records")
            case LibxlRecordType.EMULATOR_XENSTORE_DATA | LibxlRecordType.EMULATOR_CONTEXT:
                self._emulator(record, report)
            case LibxlRecordType.CHECKPOINT_STATE:
                self.colo |= checkpointed
                if not checkpointed:
                    report("CON-19", "CHECKPOINT_STATE outside a COLO checkpoint")
            case _:
                report("CON-12", f"unknown libxl record type {name}; libxl tolerates none")

    def _emulator(self, record: LibxlRecord, report: Any) -> None:
        name = _name(record.type)
        self._emulators += 1
        if self._guest == GuestKind.PV:
            report("CON-13", f"{name} for a PV guest")
            return
        if record.length < EMULATOR_HEADER.size:
            report("CON-14", f"{name} of {record.length} bytes; at least {EMULATOR_HEADER.size}")
            return
        header = EmulatorHeader._make(EMULATOR_HEADER.unpack_from(record.body))
        if header.emulator_id > _KNOWN_EMULATORS:
            report("CON-15", f"unknown emulator id {header.emulator_id}")
        if record.type == LibxlRecordType.EMULATOR_CONTEXT:
            self._device_model(record.body[EMULATOR_HEADER.size : record.length])
        else:
            self._xenstore(record.body[EMULATOR_HEADER.size : record.length], report)

    def _xenstore(self, data: bytes, report: Any) -> None:
        if not data:
            return
        if data[-1] or data.count(b"\0") % 2:
            report("CON-16", "xenstore data: a key or value does not end with NUL")
            return
        at = 0
        while at < len(data):
            end = data.index(b"\0", at)
            if end == at or data[at] == ord("/"):
                key = data[at : min(end, at + _KEY_SHOWN)]
                report("CON-16", f"xenstore data: key {key!r}{'…' * (end - at > _KEY_SHOWN)} is empty or absolute")
                return
            at = data.index(b"\0", end + 1) + 1

    def _device_model(self, head: bytes) -> None:
        state = device_state(head)
        if state is not None:
            self._facts.device_model = str(state)

    def xapi_block(self, block: XapiBlock) -> None:
        """CON-31 to CON-33, one block."""

        def report(rule: str, message: str) -> None:
            self._report(rule, f"xapi block {block.index}: {message}", offset=block.offset, call="xapi")

        match block.id:
            case XapiBlockId.LIBXC | XapiBlockId.LIBXC_LEGACY:
                self._images += 1
            case XapiBlockId.XENOPS if len(block.body) == block.length <= LONGEST_TEXT:
                objection = _xenops_objection(block.body)
                if objection:
                    report("CON-32", f"xenopsd's own record: {objection}")
            case XapiBlockId.QEMU_TRAD:
                self._device_model(block.body)
            case XapiBlockId.END_OF_IMAGE if not self._images:
                report("CON-33", "the image ends without a Libxc block: there is no guest in it")
            case XapiBlockId.LIBXL | XapiBlockId.QEMU_XEN:
                report("CON-31", f"id {block.id:#x} is reserved, and read by no one")
            case id if id not in XapiBlockId.__members__.values():
                report("CON-31", f"unknown id {id:#x}")

    def finish(self) -> None:
        """CON-21 and CON-23, at the end of a libxl stream, whose image has come to its END or whose bytes broke off."""
        if not self._is_libxl:
            return
        course = self._session.course
        if not self._images and not course.broke_off:
            self._report("CON-21", "the libxl stream ends without a libxc image: the guest's memory stays empty")
        if course.ended and self._guest is GuestKind.HVM and not self._emulators and not self._facts.checkpoints:
            if self._session.domain_type == "pvh":
                return  # it has no device model
            severity = None if self._session.domain_type == "hvm" else Severity.INFO
            self._report(
                "CON-23",
                "an HVM stream without EMULATOR_CONTEXT: the device model has no state to load",
                severity=severity,
            )


def _name(kind: int) -> str:
    try:
        return LibxlRecordType(kind).name
    except ValueError:
        return f"0x{kind:08x}"


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
