"""What can be wrong with the two headers of a libxc image."""

from __future__ import annotations

from migrate.rules.declaring import Effect, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {}


@rule("HDR-01", "image-header-truncated", Effect.REFUSED, "libxc: read_headers")
def image_header_truncated(b: StreamBuilder) -> None:
    """The input ends inside the image header.

    What: fewer than 24 bytes are there where a libxc image should begin.
    Why: libxc reads the header in one go and gives up when it is cut short.
    Repair: fetch the stream again; an empty file usually means that the save itself failed.
    Source: xg_sr_restore.c, read_headers.
    """
    b.cut = 10


@rule("HDR-02", "image-marker", Effect.REFUSED, "libxc: read_headers")
def image_marker(b: StreamBuilder) -> None:
    """The image header does not begin with eight bytes of 0xff.

    What: a bit of the marker is clear.
    Why: the marker is a value that no stream of Xen before 4.6 can begin with. libxc refuses everything else,
        since it no longer reads those older streams by itself.
    Repair: if the stream is a legacy one, run it through the converter that Xen ships since 4.6; else restore the
        marker.
    Source: xg_sr_restore.c, read_headers; libxc migration stream, section Image Header.
    """
    b.image["marker"] ^= 1


@rule("HDR-03", "image-id", Effect.REFUSED, "libxc: read_headers")
def image_id(b: StreamBuilder) -> None:
    """The image header does not carry the id XENF.

    What: the four bytes after the marker are not 58 45 4e 46.
    Why: libxc compares them as one big-endian word and refuses any other. Byte order never explains it: this
        header is big-endian in every stream.
    Repair: restore the id if the rest of the header is sound.
    Source: xg_sr_restore.c, read_headers; IHDR_ID.
    """
    b.image["id"] |= 0x2000_0000  # xENF


@rule("HDR-04", "image-version", Effect.REFUSED, "libxc: read_headers")
def image_version(b: StreamBuilder) -> None:
    """The image has a version that this release does not read.

    What: the big-endian version word is neither 2 nor 3, or it is 3 and the receiver is older than Xen 4.14.
    Why: Xen 4.6 to 4.13 accept version 2 only; since 4.14 both 2 and 3 are accepted and 3 is written. A guest
        therefore moves to newer releases, and not back from 4.14 or later to 4.13 or earlier.
    Repair: restore on Xen 4.14 or later. A value of 0x02000000 or 0x03000000 is a byte-swapped header.
    Source: xg_sr_restore.c, read_headers.
    """
    b.image["version"] = 4


@rule("HDR-05", "image-big-endian", Effect.REFUSED, "libxc: read_headers")
def image_big_endian(b: StreamBuilder) -> None:
    """The image claims that its records are big-endian.

    What: bit 0 of the options field is set.
    Why: no released toolstack can restore such a stream, and libxc says so at once. The verifier means to test
        the bit too, but masks it with 0.
    Repair: clear the bit; nothing on x86 writes big-endian records.
    Source: xg_sr_restore.c, read_headers; IHDR_OPT_ENDIAN.
    """
    b.image["options"] = 1 << 0


@rule("HDR-06", "image-reserved-options", Effect.SPEC, "verify-stream-v2")
def image_reserved_options(b: StreamBuilder) -> None:
    """The image header sets reserved option bits.

    What: one of bits 1 to 15 of the options field is set.
    Why: libxc looks at bit 0 alone and restores. The specification wants the others clear, and the verifier
        checks that; a later release may give them a meaning.
    Repair: clear them.
    Source: libxc migration stream, section Image Header, field options.
    """
    b.image["options"] = 1 << 1


@rule("HDR-07", "image-reserved-field", Effect.SPEC, "verify-stream-v2")
def image_reserved_field(b: StreamBuilder) -> None:
    """Reserved fields of the image header are not zero.

    What: the two reserved fields after the options (2 and 4 bytes) hold something.
    Why: libxc never looks at them. The verifier refuses them as against the specification.
    Repair: zero them.
    Source: libxc migration stream, section Image Header.
    """
    b.image["reserved1"] = 1


@rule("HDR-08", "domain-header-truncated", Effect.REFUSED, "libxc: read_headers")
def domain_header_truncated(b: StreamBuilder) -> None:
    """The input ends inside the domain header.

    What: fewer than 16 bytes follow the image header.
    Why: libxc needs the guest's type and page size before it can set up a restore, and gives up without them.
    Repair: fetch the stream again from its source.
    Source: xg_sr_restore.c, read_headers.
    """
    b.cut = 30


@rule("HDR-09", "domain-type", Effect.REFUSED, "libxc: x86_pv_setup, x86_hvm_setup")
def domain_type(b: StreamBuilder) -> None:
    """The domain header names a guest type that cannot be restored.

    What: the type is neither 1 (x86 PV) nor 2 (x86 HVM, which includes PVH).
    Why: libxc compares it with the kind of domain that was created for the restore and refuses a mismatch.
        Types 3 and 4 were reserved before Xen 4.14 (x86 PVH, ARM) and never written.
    Repair: correct the type. A sound type that is refused means that the domain's configuration is of the other
        kind.
    Source: xg_sr_restore_x86_pv.c, x86_pv_setup; xg_sr_restore_x86_hvm.c, x86_hvm_setup.
    """
    b.domain["type"] = 3


@rule("HDR-10", "page-shift", Effect.REFUSED, "libxc: x86_pv_setup, x86_hvm_setup")
def page_shift(b: StreamBuilder) -> None:
    """The domain header gives a page size other than 4096.

    What: page_shift is not 12.
    Why: all page contents of the stream are 4096 bytes, and libxc refuses any other size. It shifts 1 by the
        field without a bound, which on x86 lets 44, 76 and so on pass by accident; the verifier insists on 12.
    Repair: set it to 12.
    Source: xg_sr_restore_x86_pv.c, x86_pv_setup; libxc migration stream, section Domain Header.
    """
    b.domain["page_shift"] = 13


@rule("HDR-11", "domain-reserved-field", Effect.SPEC, "verify-stream-v2")
def domain_reserved_field(b: StreamBuilder) -> None:
    """The reserved field of the domain header is not zero.

    What: the two bytes after page_shift hold something.
    Why: libxc never looks at them; the verifier refuses them as against the specification.
    Repair: zero them.
    Source: libxc migration stream, section Domain Header.
    """
    b.domain["reserved"] = 1


@rule("HDR-12", "newer-saver", Effect.TOLERATED, "nobody")
def newer_saver(b: StreamBuilder) -> None:
    """The stream was saved by a Xen newer than any that these rules know.

    What: the release in the domain header lies beyond the newest known one.
    Why: nobody checks it, and a newer Xen may restore on an older one. But it may also write what did not exist
        when these rules were made, so that what is said here of such a stream may be incomplete.
    Repair: none needed in the stream; look for a newer version of this program.
    Source: libxc migration stream, section Domain Header.
    """
    from migrate.destination.releases import NEWEST

    b.domain["xen_minor"] = NEWEST.minor + 1


@rule("HDR-13", "version-against-xen", Effect.SPEC, "nobody")
def version_against_xen(b: StreamBuilder) -> None:
    """The image version does not go with the Xen release that it names.

    What: a version 2 image says that it comes from Xen 4.14 or later, or a version 3 image that it comes from an
        earlier one.
    Why: savers write version 2 up to 4.13 and version 3 since, while the legacy converter names release 0.
        Nobody checks this. But version 2 lets STATIC_DATA_END be missing, so a patched version can hide that
        the guest's CPU policy was lost.
    Repair: find out which tool wrote or edited the header.
    Source: libxc migration stream, sections Image Header and Domain Header.
    """
    b.image["version"] = 2
