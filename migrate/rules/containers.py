"""What can be wrong with the wrappers around a libxc image: `xl save` files, libxl streams, xapi suspend images."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule
from streams.values import replace
from streams.wire.framing import XL_CONFIG_LENGTH, XL_FLAG_LIBXL_V2, LibxlRecordType, XapiBlockId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "CON-17": "a fault of the verifier under Python 3, which says nothing about the stream",
    "CON-24": "two number spaces share a checkpointed stream by design; the decoder switches between them",
    "CON-25": "libxl sets no limit to a record's length; what a damaged one leads to is FRM-03",
}


def add_libxl_record(b: StreamBuilder, type: int, body: bytes = b"") -> None:
    """Put a libxl record right after the libxc image."""
    b.libxl_after.insert(0, replace(b.libxl_after[-1], type=type, body=bytearray(body)))


@rule("CON-01", "xl-magic", Effect.REFUSED, "xl: create_domain")
def xl_magic(b: StreamBuilder) -> None:
    r"""The xl magic does not match in all of its 32 bytes.

    What: the file begins like an `xl save` file, but the magic is damaged or the header is cut off.
    Why: xl compares all 32 bytes before it reads anything else and gives up at once. The last five bytes
        (newline, space, NUL, space, carriage return) are there to catch text-mode transfers.
    Repair: transfer the file again in binary mode. If only the magic is damaged, write it anew.
    Source: xl_vmcontrol.c, create_domain; the header is struct save_file_header.
    """
    b.wrap("xl")
    b.xl["magic"] = b.xl["magic"][:-1] + b"\n"


@rule("CON-02", "xl-byteorder", Effect.REFUSED, "xl: create_domain")
def xl_byteorder(b: StreamBuilder) -> None:
    """The byte order mark of the xl header is not this machine's.

    What: the word after the magic is not 0x01020304 when read in native order.
    Why: the header is written in the saver's native order. xl takes any other value for a file from a machine
        of the other endianness and refuses it. x86 has one byte order, so in practice this is damage.
    Repair: restore the word to 04 03 02 01.
    Source: xl_vmcontrol.c, create_domain.
    """
    b.wrap("xl")
    b.xl["byteorder"] = 0x0403_0201


@rule("CON-03", "xl-mandatory-flag", Effect.REFUSED, "xl: create_domain")
def xl_mandatory_flag(b: StreamBuilder) -> None:
    """The xl header sets a mandatory flag that nobody has defined.

    What: mandatory_flags has a bit other than 0 (the configuration is JSON) and 1 (the payload is a libxl
        stream).
    Why: a mandatory flag announces something without which the file cannot be understood, so xl refuses
        every flag that it does not know.
    Repair: restore with the xl that wrote the file; if the bit is damage, clear it.
    Source: xl_vmcontrol.c, create_domain; XL_MANDATORY_FLAG_ALL.
    """
    b.wrap("xl")
    b.xl["mandatory_flags"] |= 1 << 2


@rule("CON-04", "xl-optional-flag", Effect.TOLERATED, "nobody")
def xl_optional_flag(b: StreamBuilder) -> None:
    """The xl header sets an optional flag that nobody has defined.

    What: optional_flags is not zero. No release has defined any.
    Why: the comment beside the field asks readers to refuse unknown bits, but xl never looks at it, so the
        file restores as if the field were zero.
    Repair: none needed. It is a sign of a foreign writer or of damage to the header.
    Source: xl_vmcontrol.c, create_domain and struct save_file_header.
    """
    b.wrap("xl")
    b.xl["optional_flags"] = 1


@rule("CON-05", "xl-config-length", Effect.REFUSED, "xl: create_domain")
def xl_config_length(b: StreamBuilder) -> None:
    """The optional data of the xl header is too short for its configuration.

    What: the optional data is shorter than the 4-byte length that it begins with, or than the configuration
        announced by that length, or the file ends within it.
    Why: xl copies the configuration out of the optional data and checks both bounds first. Past this point
        it could not tell where the libxl stream begins either.
    Repair: make optional_data_len 4 plus the length of the configuration.
    Source: xl_vmcontrol.c, create_domain.
    """
    b.wrap("xl")
    b.optional_data = XL_CONFIG_LENGTH.pack(1)


@rule("CON-06", "xl-config-missing", Effect.REFUSED, "xl: create_domain")
def xl_config_missing(b: StreamBuilder) -> None:
    """The xl file carries no domain configuration.

    What: there is no optional data, or the configuration in it is empty.
    Why: memory size, number of vcpus and devices of the new domain come from the configuration. Without one
        xl has nothing to create a domain from, unless a configuration file is given on its command line.
    Repair: xl restore CONFIG FILE.
    Source: xl_vmcontrol.c, create_domain.
    """
    b.wrap("xl")
    b.optional_data = b""


@rule("CON-07", "xl-payload-kind", Effect.REFUSED, "libxl: stream_header_done")
def xl_payload_kind(b: StreamBuilder) -> None:
    """The payload of the file is not the libxl stream it announces.

    What: mandatory flag 1 of an xl file is set, or the version of a libvirt image is 2, but what follows the
        configuration does not begin with LibxlFmt.
    Why: libxl is told to read the payload as a libxl stream, and stops at its first eight bytes; for any other flag or
        version it would hand the payload to the converter for streams of Xen before 4.6. Measured on 4.20: xl itself
        dies of it (SIGSEGV), once libxl has told of the ident.
    Repair: wrap a bare libxc image in a libxl stream, or clear the flag for a legacy payload. A wrong length of the
        configuration shows up here too, since the payload is then looked for in the wrong place.
    Source: xl_vmcontrol.c, create_domain; libxl_stream_read.c, stream_header_done.
    """
    b.wrap("xl")
    b.libxl["ident"] = b"not-that"


@rule("CON-08", "libxl-ident", Effect.REFUSED, "libxl: stream_header_done")
def libxl_ident(b: StreamBuilder) -> None:
    """The libxl header is damaged or cut off.

    What: the 16-byte libxl header does not begin with LibxlFmt, or the input ends inside it.
    Why: libxl compares the identifier before all else and aborts the restore; no domain memory has been
        touched by then.
    Repair: fetch the stream again from its source.
    Source: libxl_stream_read.c, stream_header_done; libxl migration stream, section Header.
    """
    b.wrap("libxl")
    b.cut = 12


@rule("CON-09", "libxl-version", Effect.REFUSED, "libxl: stream_header_done")
def libxl_version(b: StreamBuilder) -> None:
    """The libxl stream has a version other than 2.

    What: the big-endian version word of the libxl header is not 2.
    Why: 2 is the only version that ever was (1 stands for the streams without a header). libxl refuses all
        others.
    Repair: a byte-swapped 2 means that the writer took the header for little-endian; correct that.
    Source: libxl_stream_read.c, stream_header_done; RESTORE_STREAM_VERSION.
    """
    b.wrap("libxl")
    b.libxl["version"] = 3


@rule("CON-10", "libxl-big-endian", Effect.REFUSED, "libxl: stream_header_done")
def libxl_big_endian(b: StreamBuilder) -> None:
    """The libxl stream claims to be big-endian.

    What: bit 0 of the options word in the libxl header is set.
    Why: an x86 libxl reads little-endian streams only and refuses the other kind. Xen's own verifier lets it
        through, for its test of the bit never fires.
    Repair: clear the bit if the records are little-endian after all; they are, whenever x86 wrote them.
    Source: libxl_stream_read.c, stream_header_done; RESTORE_OPT_BIG_ENDIAN.
    """
    b.wrap("libxl")
    b.libxl["options"] = 1


@rule("CON-11", "libxl-reserved-options", Effect.SPEC, "verify-stream-v2 (bits 2 to 15)")
def libxl_reserved_options(b: StreamBuilder) -> None:
    """The libxl header sets reserved option bits.

    What: an option bit other than 0 (big-endian) and 1 (came from the legacy converter) is set.
    Why: libxl ignores these bits and restores. The verifier objects to bits 2 to 15 and overlooks the others.
        A later libxl is free to give them a meaning.
    Repair: clear them.
    Source: libxl migration stream, section Header, field options.
    """
    b.wrap("libxl")
    b.libxl["options"] = 1 << 16


@rule("CON-12", "libxl-record-unknown", Effect.REFUSED, "libxl: process_record")
def libxl_record_unknown(b: StreamBuilder) -> None:
    """A libxl record is of a type that libxl does not know.

    What: the record type is none of 0 to 5.
    Why: libxl refuses whatever it does not know. Bit 31, which marks a libxc record as optional, buys nothing
        here although the specification says that it should.
    Repair: remove the record, or restore with the release that defined it.
    Source: libxl_stream_read.c, process_record; libxl migration stream, section Records.
    """
    b.wrap("libxl")
    add_libxl_record(b, 0x8000_0000)


@rule("CON-18", "checkpoint-end-unexpected", Effect.REFUSED, "libxl: process_record")
def checkpoint_end_unexpected(b: StreamBuilder) -> None:
    """A CHECKPOINT_END record stands outside of any checkpoint.

    What: the stream has a libxl CHECKPOINT_END although no libxc CHECKPOINT handed over to libxl before it.
    Why: the record closes libxl's half of a Remus or COLO checkpoint. libxl aborts when it is not within one;
        the verifier accepts it anywhere.
    Repair: remove the record from a plain stream.
    Source: libxl_stream_read.c, process_record.
    """
    b.wrap("libxl")
    add_libxl_record(b, LibxlRecordType.CHECKPOINT_END)


@rule("CON-19", "checkpoint-state-unexpected", Effect.REFUSED, "libxl: process_record", since=releases.colo)
def checkpoint_state_unexpected(b: StreamBuilder) -> None:
    """A CHECKPOINT_STATE record stands where COLO does not wait for one.

    What: the stream has a CHECKPOINT_STATE record outside of COLO's exchange, or one shorter than its 4-byte id.
    Why: the record is one step of the handshake between the two sides of a COLO pair. Elsewhere libxl aborts.
        Where it is expected, an empty body makes libxl follow a null pointer and crash.
    Repair: remove the record from a plain stream.
    Source: libxl_stream_read.c, process_record; libxl_colo_restore.c.
    """
    b.wrap("libxl")
    add_libxl_record(b, LibxlRecordType.CHECKPOINT_STATE, bytes(4))


@rule("CON-20", "libxl-signal-with-body", Effect.SPEC, "verify-stream-v2")
def libxl_signal_with_body(b: StreamBuilder) -> None:
    """A libxl record that should be empty has a body.

    What: END, LIBXC_CONTEXT or CHECKPOINT_END has a length other than 0.
    Why: libxl reads the body and forgets it, so the stream restores. The specification gives these records no
        body, and the verifier insists on that.
    Repair: set the length to 0 and remove the body.
    Source: libxl migration stream, section Records.
    """
    b.wrap("libxl")
    b.libxl_after[-1].body.extend(bytes(8))


@rule("CON-21", "libxc-context-count", Effect.CORRUPT, "nobody")
def libxc_context_count(b: StreamBuilder) -> None:
    """The libxl stream does not have its one LIBXC_CONTEXT, and first.

    What: there is no LIBXC_CONTEXT, or more than one, or a device-model record comes before it.
    Why: LIBXC_CONTEXT hands over to libxc, which restores memory and vcpus. libxl does not count: without one
        it reports success for a domain that has neither memory nor a vcpu state, and the guest never runs.
    Repair: put one LIBXC_CONTEXT, followed by the libxc image, before every EMULATOR_* record.
    Source: libxl_stream_read.c, process_record; libxl migration stream, section Layout.
    """
    b.become_hvm()
    b.wrap("libxl")
    b.libxl_before.insert(0, b.libxl_after.pop(0))  # the device model's record comes first


@rule("CON-22", "data-after-libxl-end", Effect.TOLERATED, "nobody")
def data_after_libxl_end(b: StreamBuilder) -> None:
    """Bytes follow the END of the libxl stream.

    What: the file or pipe goes on after libxl's END record.
    Why: nobody reads them. In a capture of `xl migrate` they are genuine: 44 bytes with which the sender tells
        the receiver that the domain is now its own.
    Repair: none needed.
    Source: libxl_stream_read.c, process_record; xl_migrate.c, migration protocol.
    """
    b.wrap("libxl")
    b.trailing = b"junk"


@rule("CON-34", "legacy-announced", Effect.REFUSED, "libxl: convert-legacy-stream")
def legacy_announced(b: StreamBuilder) -> None:
    """A libxl stream of version 2 is announced as one of before Xen 4.6.

    What: mandatory flag 1 of an xl file is clear, or the version of a libvirt image is 1, and the payload begins with
        LibxlFmt all the same.
    Why: the toolstack believes the header and not the payload: libxl pipes it through convert-legacy-stream, which
        reads the ident as the number of pages of an old stream and fails.
    Repair: set flag 1 of mandatory_flags (the word at byte 36 of an xl file), or write version 2 (the word at byte 16
        of a libvirt image).
    Source: xl_vmcontrol.c, create_domain; libxl_stream_read.c, libxl__stream_read_start; libvirt's libxl_domain.c.
    """
    b.wrap("xl")
    b.xl["mandatory_flags"] &= ~XL_FLAG_LIBXL_V2


@rule("CON-35", "libxl-stream-cut", Effect.SPEC, "verify-stream-v2")
def libxl_stream_cut(b: StreamBuilder) -> None:
    """The input ends in libxl's own part of the stream, or before its END.

    What: behind the libxc image a libxl record is cut off, or no END record comes.
    Why: libxl does not notice the end of its input: what is missing of a record reads as zeros, and a header of zeros
        is END. The guest's memory and vcpus were whole by then, and it is restored, with what came of the device
        model's state and zeros in place of the rest (measured on 4.20). Xen's own verifier does object.
    Repair: none needed for a PV guest; a device model may lack some of its state. Save again if the source is there.
    Source: libxl_aoutils.c, datacopier_check_state; libxl_stream_read.c, record_header_done.
    """
    b.wrap("libxl")
    b.cut = -8


@rule("CON-30", "xapi-signature", Effect.REFUSED, "xapi: read_save_signature")
def xapi_signature(b: StreamBuilder) -> None:
    """The signature of the suspend image is damaged.

    What: the file begins like a xapi suspend image, but its 15 bytes are neither XenSavedDomv2- nor
        XenSavedDomain with a newline after it.
    Why: xenopsd compares the whole signature before anything else and gives up at once. The newline at its end
        catches text-mode transfers.
    Repair: fetch the image again from its source; if only the signature is damaged, write it anew.
    Source: suspend_image.ml, read_save_signature.
    """
    b.wrap("xapi")
    b.xapi_signature = b.xapi_signature[:-1] + b"\r"


@rule("CON-31", "xapi-block-unknown", Effect.REFUSED, "xapi: header_type_of_int64")
def xapi_block_unknown(b: StreamBuilder) -> None:
    """A block of the suspend image has an id that is not read.

    What: the id is none that xenopsd defines, or one of the two (0xf1 and 0xf01) that it reserves and has no
        reader for.
    Why: xenopsd cannot tell what to do with the block, nor whether its length is to be believed, and stops.
    Repair: remove the block, or resume with the release that wrote it. Where the id looks like data, the length of
        the block before it is wrong.
    Source: suspend_image.ml, header_type_of_int64.
    """
    b.wrap("xapi")
    b.xapi_blocks.insert(0, (1, b""))


@rule("CON-32", "xenops-record-malformed", Effect.REFUSED, "xapi: Xenops_record.of_string")
def xenops_record_malformed(b: StreamBuilder) -> None:
    """The record of xenopsd in the suspend image cannot be read.

    What: the payload of the Xenops block is not one s-expression with the fields of a record, time and word_size
        among them.
    Why: xenopsd reads it before it restores memory, for the state of the VM that it kept, and fails the resume
        if that cannot be had.
    Repair: take the block from the source again.
    Source: suspend_image.ml, Xenops_record.
    """
    b.wrap("xapi")
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, b"")


@rule("CON-33", "xapi-without-image", Effect.REFUSED, "xapi: restore")
def xapi_without_image(b: StreamBuilder) -> None:
    """The suspend image has no libxc image in it.

    What: End_of_image comes before any Libxc block.
    Why: every block has been read well, and still there is no memory to resume from; xenopsd calls such an image
        well formed, but useless.
    Repair: none here: suspend the VM again.
    Source: xenopsd, the loop over the headers of a suspend image.
    """
    b.wrap("xapi")
    b.xapi_blocks = [block for block in b.xapi_blocks if block[0] != XapiBlockId.LIBXC]
