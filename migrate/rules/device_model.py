"""What can be wrong with a device model's state in a stream: libxl's records of it, and what QEMU reads in them."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.containers import add_libxl_record
from migrate.rules.declaring import Effect, rule
from streams.wire.framing import EMULATOR_HEADER, LibxlRecordType, XapiBlockId
from streams.wire.qemu import OBSOLETE_VERSION, XAPI_LONGEST_STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder
    from migrate.building.qemu_state import QemuStateBuilder


def _with_state(b: StreamBuilder, state: QemuStateBuilder, cut: int = 0) -> None:
    """An HVM guest with this state of its device model, the last `cut` bytes of it missing."""
    b.become_hvm()
    b.wrap("libxl")
    built = state.build()
    b.libxl_after[0].body[EMULATOR_HEADER.size :] = built[: len(built) - cut]


def _small_state() -> QemuStateBuilder:
    from migrate.building.qemu_state import QemuStateBuilder

    return QemuStateBuilder.of("timer", "dma")


@rule(
    "CON-13", "emulator-record-unexpected", Effect.REFUSED, "libxl: process_record", since=releases.emulator_needs_hvm
)
def emulator_record_unexpected(b: StreamBuilder) -> None:
    """A device model's record in the stream of a guest that has none.

    What: an EMULATOR_XENSTORE_DATA or EMULATOR_CONTEXT record stands in the stream of a guest that is not of type
        HVM by its configuration, or, where no configuration is at hand, by its image.
    Why: PV and PVH guests have no device model to restore. libxl takes the record for a sign of a stream of the
        wrong kind and aborts, after memory and vcpus have been restored already. From 4.7 to 4.9 it does so only
        for an HVM guest whose configuration asks for no device model, as PVH guests of those days did.
    Repair: remove the record; or give the guest its own type, if it is the configuration that is wrong.
    Source: libxl_stream_read.c, process_record.
    """
    b.wrap("libxl")
    add_libxl_record(b, LibxlRecordType.EMULATOR_CONTEXT, EMULATOR_HEADER.pack(2, 0))


@rule("CON-14", "emulator-record-short", Effect.REFUSED, "libxl: process_record")
def emulator_record_short(b: StreamBuilder) -> None:
    """A device-model record is too short for its own header.

    What: the body of an EMULATOR_* record has fewer than 8 bytes.
    Why: the body begins with the emulator's id and index, and libxl requires both before it does anything
        with the rest.
    Repair: fetch the record again from the source; without its contents the device model cannot resume.
    Source: libxl_stream_read.c, process_record; struct libxl__sr_emulator_hdr.
    """
    b.become_hvm()
    b.wrap("libxl")
    add_libxl_record(b, LibxlRecordType.EMULATOR_XENSTORE_DATA, bytes(4))


@rule("CON-15", "emulator-id", Effect.SPEC, "verify-stream-v2")
def emulator_id(b: StreamBuilder) -> None:
    """A device-model record names an emulator that is not defined.

    What: emulator_id is none of 0 (unknown), 1 (QEMU traditional) and 2 (QEMU upstream).
    Why: libxl does not look at the id; it hands the contents to whatever device model the configuration names,
        which may not make sense of them. Only the verifier objects.
    Repair: write 2 for upstream QEMU, the only device model since Xen 4.21.
    Source: libxl migration stream, section EMULATOR_CONTEXT.
    """
    b.become_hvm()
    b.wrap("libxl")
    EMULATOR_HEADER.pack_into(b.libxl_after[0].body, 0, 3, 0)


@rule("CON-16", "emulator-xenstore-keys", Effect.REFUSED, "libxl: libxl__restore_emulator_xenstore_data")
def emulator_xenstore_keys(b: StreamBuilder) -> None:
    """The device model's xenstore data is malformed.

    What: the contents are not pairs of NUL-terminated key and value, or a key is empty or begins with a slash.
    Why: libxl walks the pairs and writes each below the device model's own xenstore path. It refuses keys that
        could reach outside of that path, and strings that run past the end of the record.
    Repair: make it `key NUL value NUL ...` with relative keys, such as physmap/<hex>/start_addr.
    Source: libxl__restore_emulator_xenstore_data; libxl migration stream, EMULATOR_XENSTORE_DATA.
    """
    b.become_hvm()
    b.wrap("libxl")
    add_libxl_record(b, LibxlRecordType.EMULATOR_XENSTORE_DATA, EMULATOR_HEADER.pack(2, 0) + b"a")


@rule("CON-23", "emulator-context-missing", Effect.REFUSED, "QEMU, at its start")
def emulator_context_missing(b: StreamBuilder) -> None:
    """An HVM guest's libxl stream has no device-model state.

    What: the stream of an HVM guest holds no EMULATOR_CONTEXT record, and its configuration says that the guest has a
        device model.
    Why: the stream reader does not miss it. But the device model of the restored guest is started with the
        contents of that record as its incoming state, and gives up where there is no file to load (measured on
        4.20: "-incoming fd:-1: Invalid file descriptor"). Guests without a device model (PVH) are saved in the same
        way and need none.
    Repair: take the record from the source.
    Source: libxl migration stream, section Layout; libxl_dm.c, libxl__build_device_model_args.
    """
    b.become_hvm()
    b.wrap("xl")  # whose configuration says that it is no PVH guest
    b.libxl_after.pop(0)


@rule("CON-41", "qemu-state-unknown", Effect.REFUSED, "QEMU: qemu_loadvm_state")
def qemu_state_unknown(b: StreamBuilder) -> None:
    """The device model's state does not begin as QEMU's does.

    What: the state of an HVM guest's device model does not begin with QEVM and version 3; it may be empty, all
        zeros, or of version 2.
    Why: libxl and xenopsd never look into it, and memory and vcpus are restored by the time QEMU is started on it.
        QEMU compares the magic, and reads no other version than 3 (version 2 was given up in 2015); it exits, and
        the toolstack destroys the guest.
    Repair: take the record from the source again. A state of qemu-xen-traditional has no way into today's QEMU.
    Source: QEMU migration/savevm.c, qemu_loadvm_state_header.
    """
    state = _small_state()
    state.version = OBSOLETE_VERSION
    _with_state(b, state)


@rule("CON-42", "qemu-state-cut", Effect.REFUSED, "QEMU: qemu_loadvm_state")
def qemu_state_cut(b: StreamBuilder) -> None:
    """The device model's state ends before its end.

    What: the bytes of the state are used up inside a section, or where a section or the final zero byte should follow.
    Why: QEMU reads on until it meets the byte that ends the state, fails with an I/O error where there is none, and
        exits; the toolstack destroys the guest. A stream that itself ends in the record is another matter: libxl takes
        what is missing for zeros, and a zero ends the state (CON-35).
    Repair: take the record from the source again.
    Source: QEMU migration/savevm.c, qemu_loadvm_state_main.
    """
    _with_state(b, _small_state(), cut=2)


@rule("CON-43", "qemu-section-refused", Effect.REFUSED, "QEMU: qemu_loadvm_section_start_full")
def qemu_section_refused(b: StreamBuilder) -> None:
    """QEMU refuses a section of the device model's state.

    What: a section is of a device that QEMU does not know, or in a version that it does not read; or what stands
        where a section should is none; or a section's footer is damaged.
    Why: QEMU looks each section up among the guest's devices and stops at the first one it cannot load. The guest's
        memory is of no use without it. A state by a newer QEMU may have versions that an older one does not read:
        what is known here are those of QEMU 7.2 and 10.0.
    Repair: restore with the QEMU that wrote the state, or a newer one; where the name makes no sense, take the record
        from the source again.
    Source: QEMU migration/savevm.c, qemu_loadvm_section_start_full, check_section_footer.
    """
    state = _small_state()
    state.sections[1].version = 99
    _with_state(b, state)


@rule("CON-44", "qemu-section-length", Effect.HOST, "QEMU: vmstate_load")
def qemu_section_length(b: StreamBuilder) -> None:
    """A section of the device model's state is not as long as QEMU reads it.

    What: the data of a section are longer or shorter than QEMU 7.2 and 10.0 have them by their own descriptions.
    Why: no length is written beside a section, so that a QEMU with other descriptions takes what follows for
        something else, and stops. Whether the QEMU of the destination is such a one, the state does not tell.
    Repair: restore with the QEMU that wrote the state.
    Source: QEMU migration/vmstate.c, vmstate_load_state; its descriptions by -dump-vmstate.
    """
    state = _small_state()
    state.sections[0].data = bytes(40)
    _with_state(b, state)


@rule("CON-45", "xapi-device-model-long", Effect.REFUSED, "xapi: consume_qemu_record")
def xapi_device_model_long(b: StreamBuilder) -> None:
    """A device model's record is longer than xenopsd reads.

    What: the length of a Qemu_trad block is more than 1048576 bytes (1 MiB).
    Why: xenopsd passes the record on to a file in the guest's device-model chroot, and limits what may end up there. A
        longer one raises Suspend_image_failure, after memory and vcpus have been restored already.
    Repair: none here, unless the length is damage: states of QEMU have some 10 to 200 KiB.
    Source: xenopsd, domain.ml, consume_qemu_record.
    """
    b.become_hvm()
    b.wrap("xapi")
    at = next(at for at, (kind, _) in enumerate(b.xapi_blocks) if kind == XapiBlockId.QEMU_TRAD)
    b.xapi_blocks[at] = (XapiBlockId.QEMU_TRAD, b.xapi_blocks[at][1].ljust(XAPI_LONGEST_STATE + 1, b"\0"))
