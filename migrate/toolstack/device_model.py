"""A device model's records and state: what libxl asks of the records, and what QEMU reads in the state.

Sources: `libxl_stream_read.c` (process_record, write_emulator_blob), xenopsd's `domain.ml`, QEMU's
`migration/savevm.c`.
"""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, GuestKind, Severity, Stage
from migrate.toolstack import config
from streams.containers import BODY_LIMIT
from streams.counting import count
from streams.qemu_sections import FaultKind
from streams.wire.framing import (
    EMULATOR_HEADER,
    XAPI_BLOCK_HEADER,
    EmulatorHeader,
    LibxlRecordType,
    libxl_record_name,
)
from streams.wire.framing import RECORD_HEADER as LIBXL_RECORD_HEADER
from streams.wire.qemu import XAPI_LONGEST_STATE, device_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from migrate.toolstack.session import Session
    from streams.qemu_sections import Fault, QemuState
    from streams.records import LibxlRecord, XapiBlock

    Report = Callable[..., object]

_KNOWN_EMULATORS = 2  # 0 unknown, 1 QEMU traditional, 2 QEMU upstream
_KEY_SHOWN = 40  # bytes
_NO_DEVICE_MODEL = "none"

_RULES = dict.fromkeys(FaultKind, "CON-43") | {
    FaultKind.MAGIC: "CON-41",
    FaultKind.VERSION: "CON-41",
    FaultKind.CUT: "CON-42",
    FaultKind.LENGTH: "CON-44",
}


class DeviceModelChecks:
    """Checks of a device model's records as they come; what QEMU says to the last state is for the end.

    Attributes
    ----------
    records:
        how many there were.
    guest:
        the kind of guest that the image holds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.records = 0
        self.guest: GuestKind | None = None
        self._state: tuple[QemuState, int] | None = None  # the last one, and where in the stream it begins
        self._told = False

    # -- libxl -------------------------------------------------------------------------------------

    def libxl_record(self, record: LibxlRecord, report: Report) -> None:
        """CON-13 to CON-16, and take the state."""
        self.records += 1
        if self._unexpected(libxl_record_name(record.type), report):
            return
        if record.length < EMULATOR_HEADER.size:
            name = libxl_record_name(record.type)
            report("CON-14", f"{name} of {count(record.length, 'byte')}; at least {EMULATOR_HEADER.size}")
            return
        body = record.body
        if record.missing:
            body = body.ljust(min(record.length, BODY_LIMIT), b"\0")
        header = EmulatorHeader._make(EMULATOR_HEADER.unpack_from(body))
        if header.emulator_id > _KNOWN_EMULATORS:
            report("CON-15", f"unknown emulator id {header.emulator_id}")
        content = body[EMULATOR_HEADER.size :]
        if record.type == LibxlRecordType.EMULATOR_CONTEXT:
            start = record.offset + LIBXL_RECORD_HEADER.size + EMULATOR_HEADER.size
            self._take(content, record.length - EMULATOR_HEADER.size, start)
        elif (objection := _xenstore_objection(content, whole=len(body) >= record.length)) is not None:
            report("CON-16", f"xenstore data: {objection}")
        elif len(body) < record.length:
            name = libxl_record_name(record.type)
            self._session.give_up(
                f"{name} of {count(record.length, 'byte')}: no more than {BODY_LIMIT >> 20} MiB are read"
            )

    def _unexpected(self, name: str, report: Report) -> bool:
        """CON-13: whether the guest is of a kind without a device model; who says so depends on the release."""
        found = self._session.config
        kind = found.build_kind if found is not None else None
        if kind is None and self.guest == GuestKind.PV:
            kind = config.GuestKind.PV
        if kind is not None and kind != config.GuestKind.HVM:
            report("CON-13", f"{name} for a {kind.upper()} guest, when none was expected")
            return True
        if found is not None and found.device_model == _NO_DEVICE_MODEL:
            report(
                "CON-13",
                f"{name} for a guest without a device model, when none was expected",
                since=releases.emulator_needs_device_model,
                until=releases.emulator_needs_hvm,
            )
        return False

    # -- xapi --------------------------------------------------------------------------------------

    def xapi_block(self, block: XapiBlock, report: Report) -> None:
        """CON-45, and take the state."""
        self.records += 1
        if block.length > XAPI_LONGEST_STATE:
            report("CON-45", f"a device model's record of {count(block.length, 'byte')}; at most {XAPI_LONGEST_STATE}")
            return
        self._take(block.body, block.length, block.offset + XAPI_BLOCK_HEADER.size)

    # -- QEMU --------------------------------------------------------------------------------------

    def _take(self, state: bytes, size: int, start: int) -> None:
        """A state, or as much of it as is kept, which begins at an offset of the stream: the last one counts."""
        from streams.qemu_state import walk

        begins = device_state(state)
        if begins is not None:
            self._session.facts.device_model = str(begins)
        self._state = walk(state, size), start

    def finish(self) -> None:
        """CON-41 to CON-44, once: QEMU is started on the state that came last, but for a PV guest not at all."""
        if self._state is None or self._told or self.guest == GuestKind.PV:
            return
        self._told = True
        state, start = self._state
        for fault in (state.fault, state.doubt):
            if fault is not None:
                self._report(fault, start)

    def missing(self, end: int | None) -> None:
        """CON-23, at the end of a libxl stream that came to the END of its image."""
        found = self._session.config
        fields: dict[str, Any] = {"step": Stage.DEVICE_MODEL, "call": "qemu", "offset": end}
        message = "an HVM stream without EMULATOR_CONTEXT: the device model has no state to load"
        kind = None if found is None else found.build_kind
        if kind == config.GuestKind.HVM and found is not None and found.device_model != _NO_DEVICE_MODEL:
            self._session.report("CON-23", message, errno="EINVAL", **fields)
        elif kind is None:
            what = f"{message}, unless the guest is a PVH one"
            self._session.report("CON-23", what, effect=Effect.HOST, severity=Severity.INFO, **fields)

    def _report(self, fault: Fault, start: int) -> None:
        certain = fault.kind is not FaultKind.LENGTH
        self._session.report(
            _RULES[fault.kind],
            f"the device model's state, byte {fault.offset}: {fault.message}",
            offset=start + fault.offset,
            errno=fault.errno if certain else None,
            step=Stage.DEVICE_MODEL,
            call="qemu",
        )


def _xenstore_objection(data: bytes, *, whole: bool) -> str | None:
    """What libxl has against keys and values, or as much of them as is at hand; None for nothing.

    How long they are is no matter: that xenstore does not take one is passed over.
    """
    at = 0
    while at < len(data):
        if data[at] in b"\0/":
            end = data.find(b"\0", at)
            key = data[at : min(end if end >= 0 else len(data), at + _KEY_SHOWN)]
            return f"key {key!r}{'…' * (end - at != len(key))} is empty or absolute"
        end = data.find(b"\0", data.find(b"\0", at) + 1 or len(data))
        if end < 0:
            return "a key or value does not end with NUL" if whole else None
        at = end + 1
    return None
