"""What can be wrong with the framing of libxc records: header, length, padding, type."""

from __future__ import annotations

from migrate.rules.declaring import Effect, rule
from streams.wire.framing import FREE_RECORD_TYPE, PV_INFO, RECORD_OPTIONAL, RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {}


@rule("FRM-01", "record-header-truncated", Effect.REFUSED, "libxc: read_record; libxl")
def record_header_truncated(b: StreamBuilder) -> None:
    """The input ends inside a record header.

    What: between 1 and 7 bytes are left where an 8-byte record header should be; in a libxl stream also none,
        where libxl's END has not come.
    Why: libxc, or libxl, cannot tell what follows and gives up; everything restored so far is torn down with
        the domain.
    Repair: fetch the rest of the stream. The source still has the guest, as long as it was not told otherwise.
    Source: xg_sr_common.c, read_record; libxl_stream_read.c, stream_continue.
    """
    b.cut = -4


@rule("FRM-02", "record-too-long", Effect.REFUSED, "libxc: read_record")
def record_too_long(b: StreamBuilder) -> None:
    """A record is longer than libxc reads.

    What: a record's length field says more than 128 MiB (8 MiB before Xen 4.10).
    Why: libxc allocates the body before it reads it, and guards itself with this limit. The test comes before
        any look at the type, so an optional record is not spared. Savers stay near 4 MiB.
    Repair: a length like this is nearly always damage, or the reader has lost step in the record before.
    Source: xg_sr_common.c, read_record; REC_LENGTH_MAX.
    """
    b.record(RecordType.END).length = (128 << 20) + 1


@rule("FRM-03", "record-truncated", Effect.REFUSED, "libxc: read_record; libxl")
def record_truncated(b: StreamBuilder) -> None:
    """The input ends inside a record.

    What: the body of a record, or the padding that rounds it up to 8 bytes, is not all there.
    Why: libxc reads body and padding in one go and gives up when they are cut short. The padding counts: a
        stream without its last pad byte is refused as well. libxl does the same with its own records, and sets no
        limit to their length: a damaged length field makes it take all that follows for one record.
    Repair: fetch the rest of the stream, or correct the length of the record.
    Source: xg_sr_common.c, read_record; libxl_stream_read.c, record_header_done.
    """
    b.cut = -12  # END, and the last bytes before it


@rule("FRM-04", "padding-not-zero", Effect.SPEC, "verify-stream-v2")
def padding_not_zero(b: StreamBuilder) -> None:
    """The padding of a record is not zero.

    What: a byte between the end of a body and the next multiple of 8 is set.
    Why: libxc reads the padding and never looks at it. The verifier does, since set padding often shows that
        a length field is too small.
    Repair: zero the padding, or correct the length.
    Source: libxc migration stream, section Records.
    """
    b.vcpus[0].extended.size = 56
    rec = b.record(RecordType.X86_PV_VCPU_EXTENDED)
    del rec.body[-4:]
    rec.padding = b"\1\1\1\1"


@rule("FRM-05", "record-type-unknown", Effect.REFUSED, "libxc: process_record")
def record_type_unknown(b: StreamBuilder) -> None:
    """A mandatory record is of a type that libxc does not know.

    What: the type is not defined and its bit 31 is clear.
    Why: without bit 31 a record may hold state that the guest cannot do without, so libxc refuses to go on
        over one that it does not understand.
    Repair: restore with the release that defined the type. If the type looks random, the reader has lost step:
        look at the length of the record before.
    Source: xg_sr_restore.c, process_record; libxc migration stream, section Records.
    """
    b.insert(FREE_RECORD_TYPE)


@rule("FRM-06", "optional-record-skipped", Effect.TOLERATED, "verify-stream-v2")
def optional_record_skipped(b: StreamBuilder) -> None:
    """An optional record of an unknown type is skipped.

    What: the type is not defined, and bit 31 marks the record as one that may be ignored.
    Why: libxc passes over it, as the specification asks. The verifier rejects it all the same. No release has
        defined any optional record so far.
    Repair: none needed, unless the stream has to pass the verifier.
    Source: xg_sr_restore.c, process_record; REC_TYPE_OPTIONAL.
    """
    b.insert(RECORD_OPTIONAL | 1)


@rule("FRM-07", "optional-record-in-checkpoint", Effect.REFUSED, "libxc: handle_checkpoint")
def optional_record_in_checkpoint(b: StreamBuilder) -> None:
    """An optional record in a later checkpoint fails the restore.

    What: a checkpointed stream has a record of unknown optional type after its first CHECKPOINT.
    Why: from there on libxc buffers records and replays them when the next CHECKPOINT comes. The replay passes
        on the result "not processed", and the caller takes it for the CHECKPOINT record itself, which is
        mandatory. The message then blames record 0xe.
    Repair: remove the record.
    Source: xg_sr_restore.c, handle_checkpoint and process_record.
    """
    b.checkpoints = 2
    b.insert(RECORD_OPTIONAL | 1)


@rule("FRM-08", "end-missing", Effect.REFUSED, "libxc: read_record")
def end_missing(b: StreamBuilder) -> None:
    """The stream stops without an END record.

    What: the input ends at a record boundary, and END has not come.
    Why: everything that makes a guest of the pages (vcpu contexts, pins, the p2m) is done when END arrives, so
        without it there is nothing to run. A checkpointed stream may stop like this after its first CHECKPOINT:
        then libxc fails over to the last complete checkpoint.
    Repair: fetch the rest of the stream. Adding an END by hand is safe only if vcpu state and SHARED_INFO are
        there, since those come last.
    Source: xg_sr_restore.c, restore; xg_sr_common.c, read_record.
    """
    b.drop(RecordType.END)


@rule("FRM-09", "data-after-end", Effect.TOLERATED, "nobody")
def data_after_end(b: StreamBuilder) -> None:
    """Bytes follow the END record.

    What: the input goes on after libxc's END.
    Why: libxc stops reading there, so they change nothing. Within a wrapper the next record of the wrapper
        begins at that place; in a bare image nothing is expected.
    Repair: none needed; cut them off if they are not wanted.
    Source: xg_sr_restore.c, restore.
    """
    b.trailing = b"junk"


@rule("FRM-10", "signal-record-with-body", Effect.SPEC, "verify-stream-v2")
def signal_record_with_body(b: StreamBuilder) -> None:
    """A record that should be empty has a body.

    What: END, VERIFY, CHECKPOINT or STATIC_DATA_END has a length other than 0.
    Why: libxc reads the body and drops it without a look. The specification gives these records none, and the
        verifier refuses them.
    Repair: set the length to 0 and remove the body.
    Source: libxc migration stream, sections END, VERIFY, CHECKPOINT and STATIC_DATA_END.
    """
    b.record(RecordType.END).body.extend(bytes(8))


@rule("FRM-11", "record-of-other-guest-type", Effect.REFUSED, "libxc: x86_pv_process_record, x86_hvm_process_record")
def record_of_other_guest_type(b: StreamBuilder) -> None:
    """A record belongs to the other kind of guest.

    What: a PV record (0x02 to 0x07, 0x0c) stands in an HVM stream, or an HVM record (0x09, 0x0a) in a PV one.
    Why: each kind of restore knows its own records only. The others are unknown to it, and being mandatory
        they end the restore. The verifier has no notion of this.
    Repair: check the type in the domain header: if every record is of the other kind, that field is wrong.
    Source: xg_sr_restore_x86_pv.c, x86_pv_process_record; xg_sr_restore_x86_hvm.c, x86_hvm_process_record.
    """
    b.become_hvm()
    b.insert(RecordType.X86_PV_INFO, PV_INFO.pack(b.width, b.levels, bytes(6)))


@rule("FRM-12", "toolstack-record", Effect.REFUSED, "libxc: process_record")
def toolstack_record(b: StreamBuilder) -> None:
    """The stream has a TOOLSTACK record, which no release restores.

    What: a record of type 0x0b.
    Why: the type was withdrawn before the format was released. The number is reserved, no restorer handles it,
        and being mandatory it ends the restore. The verifier stops with an internal error.
    Repair: remove the record; its contents belong into libxl's EMULATOR_XENSTORE_DATA.
    Source: xg_sr_restore.c, process_record; libxc migration stream, section TOOLSTACK.
    """
    b.insert(RecordType.TOOLSTACK, bytes(8))


@rule("FRM-13", "dirty-pfn-list-forward", Effect.REFUSED, "libxc: process_record")
def dirty_pfn_list_forward(b: StreamBuilder) -> None:
    """The stream has a CHECKPOINT_DIRTY_PFN_LIST record.

    What: a record of type 0x0f in a stream from source to destination.
    Why: the record travels the other way only, from a COLO secondary back to its primary. A restorer does not
        handle it and refuses it as mandatory; before Xen 4.7 the type was simply unknown.
    Repair: remove the record. A capture full of them is that of a back channel, which is no migration stream.
    Source: xg_sr_restore.c, process_record; xg_sr_save.c, colo_merge_secondary_dirty_bitmap.
    """
    b.insert(RecordType.CHECKPOINT_DIRTY_PFN_LIST, bytes(8))
