"""What stands around a libxc image is told apart, and found behind what is in front of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from streams.decoder import LOOKED_BEHIND, Consumer, Decoder, drive
from streams.encoder import DecodeError, decode, encode
from streams.feeder import Feeder
from streams.other_files import SEARCHED
from streams.records import (
    Breach,
    Damage,
    LibvirtStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Recognised,
    Record,
    Trailing,
    Unread,
    XlStart,
)
from streams.transports import BytesTransport
from streams.wire.framing import LIBXL_IDENT, XL_MAGIC, LibxlRecordType
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_MAGIC

CONTAINERS = ("libxc", "libxl", "xl", "libvirt", "xapi")
every_container = pytest.mark.parametrize("container", CONTAINERS)


def stream(container, kind="hvm"):
    b = StreamBuilder.hvm() if kind == "hvm" else StreamBuilder.pv(4)
    b.wrap(container)
    return b.build()


class Listener(Consumer):
    def __init__(self):
        self.told = []

    def event(self, item):
        self.told.append(item)

    def wants_body(self, place):
        return True

    def wants_pages(self, place, words):
        return ()

    def all(self, kind):
        return [item for item in self.told if isinstance(item, kind)]


def listen(data, **options):
    listener = Listener()
    drive(Decoder(listener, **options).run(), BytesTransport(data))
    return listener


def reason(data, **options):
    (unread,) = listen(data, **options).all(Unread)
    return unread.reason


# -- libvirt ---------------------------------------------------------------------------------------------------


@every_container
@pytest.mark.parametrize("kind", ["pv", "hvm"])
def test_every_container_comes_back_byte_for_byte(container, kind):
    data = stream(container, kind)
    assert encode(decode(data)) == data


guests = st.fixed_dictionaries(
    {
        "container": st.sampled_from(CONTAINERS),
        "kind": st.sampled_from(["pv", "hvm", "pvh"]),
        "vcpus": st.integers(1, 3),
        "verify": st.booleans(),
        "checkpoints": st.integers(0, 2),
        "trailing": st.binary(max_size=20),
        "state": st.binary(max_size=100),
    }
)


def built(container, kind, vcpus, verify, checkpoints, trailing, state):
    b = StreamBuilder.pv(8, vcpus=vcpus) if kind == "pv" else getattr(StreamBuilder, kind)(vcpus=vcpus)
    b.wrap(container)
    b.verify, b.trailing = verify, trailing
    if container in ("libxc", "libxl"):  # as they go over a wire: files have no checkpoints
        b.checkpoints, b.trailing = checkpoints, b"" if checkpoints else trailing  # nor have those an end
    b.libxl_after[0].body += state
    return b.build()


@given(guests)
@settings(max_examples=60, deadline=None)
def test_any_guest_in_any_container_comes_back_byte_for_byte(guest):
    data = built(**guest)
    assert encode(decode(data)) == data


@every_container
def test_every_truncation_of_a_container_is_damage_inside_of_it(container):
    data = stream(container)
    pages = data.index(b"XENF") + 200
    for length in [*range(pages), *range(pages, len(data), 331), *range(len(data) - 500, len(data))]:
        with pytest.raises(DecodeError) as error:
            decode(data[:length])
        assert 0 <= error.value.offset <= length


@given(st.binary(max_size=300), st.binary(min_size=40, max_size=40))
def test_an_image_of_libvirt_comes_back_whatever_its_xml_is(xml, unused):
    libxl = stream("libxl")
    data = LIBVIRT_HEADER.pack(LIBVIRT_MAGIC, 2, len(xml), unused) + xml + libxl
    found = decode(data)
    assert encode(found) == data
    assert (found.items[0].xml, found.items[0].header.unused) == (xml, unused)


def test_an_image_of_libvirt_is_its_header_its_xml_and_a_libxl_stream():
    told = listen(stream("libvirt")).told
    assert [type(item) for item in told[:3]] == [Recognised, LibvirtStart, LibxlStart]
    assert told[0].container == "libvirt"
    assert told[1].xml.startswith(b"<domain type='xen'>")
    assert told[1].header.xml_length == len(told[1].xml)
    assert told[2].offset == LIBVIRT_HEADER.size + len(told[1].xml)


@pytest.mark.parametrize(
    ("length", "breach", "words"),
    [
        (20, Breach.LIBVIRT_HEADER, "the input ends in the libvirt header: 20 of 64 bytes"),
        (70, Breach.LIBVIRT_XML_CUT, "the input ends in the domain's XML: 6 of"),
    ],
)
def test_an_image_of_libvirt_that_is_cut_says_where(length, breach, words):
    (damage,) = listen(stream("libvirt")[:length]).all(Damage)
    assert (damage.breach, damage.reader) == (breach, "libvirt")
    assert damage.message.startswith(words)


def test_a_damaged_libvirt_magic_is_libvirts_to_refuse():
    (damage,) = listen(stream("libvirt").replace(b"\n \0 \r", b"\n \0 !", 1)).all(Damage)
    assert (damage.breach, damage.reader, damage.offset) == (Breach.LIBVIRT_HEADER, "libvirt", 0)


def test_a_libxl_stream_is_read_even_where_libvirt_announces_an_older_one():
    b = StreamBuilder.hvm()
    b.wrap("libvirt")
    b.libvirt["version"] = 1
    listener = listen(b.build())
    assert listener.all(LibxlStart)
    assert [record.type for record in listener.all(Record | PageData)][-1] == 0


def test_a_stream_from_before_4_6_in_an_image_of_libvirt_is_recognised_as_one():
    legacy = (0x400).to_bytes(8, "little") + b"\xff" * 8 + bytes(60)
    data = LIBVIRT_HEADER.pack(LIBVIRT_MAGIC, 1, 4, bytes(40)) + b"<a/>" + legacy
    assert reason(data) == "a pre-4.6 stream in a libvirt image"


# -- libxl's own part, cut -------------------------------------------------------------------------------------


def libxl_records(data):
    return [(r.type, r.length, len(r.body), r.missing) for r in listen(data).all(LibxlRecord)]


def test_what_is_missing_of_libxls_records_is_told_with_them():
    data = stream("libxl")
    body = len(StreamBuilder.hvm().libxl_after[0].body)
    padding = -body % 8
    assert libxl_records(data)[1:] == [(3, body, body, 0), (0, 0, 0, 0)]
    assert libxl_records(data[:-8])[1:] == [(3, body, body, 0), (0, 0, 0, 8)]
    assert libxl_records(data[:-3])[1:] == [(3, body, body, 0), (0, 0, 0, 3)]
    assert libxl_records(data[: -8 - padding - 10])[1:] == [(3, body, body - 10, 10 + padding)]


@pytest.mark.parametrize("cut", range(1, 380, 7))
def test_an_end_in_libxls_part_is_damage_once_and_no_stream_to_edit(cut):
    data = stream("libxl")[:-cut]
    (damage,) = listen(data).all(Damage)
    assert (damage.breach, damage.reader) == (Breach.LIBXL_RECORD_CUT, "libxl")
    with pytest.raises(DecodeError):
        decode(data)


def test_a_cut_record_that_announces_an_image_is_damage_like_any_other():
    data = stream("libxl")
    (damage,) = listen(data[: data.index(b"\xff" * 8) - 5]).all(Damage)
    assert damage.breach is Breach.RECORD_HEADER_CUT


# -- something in front ----------------------------------------------------------------------------------------

PREFIXES = [
    bytes(512),
    b"\n",
    b"Last login: Mon\n",
    b"migration target: Ready to receive domain.\n",
    bytes(SEARCHED - 1),
]


def test_the_signature_of_another_file_is_no_size_of_an_old_stream():
    assert "a zip archive" in reason(b"PK\3\4\x14\0\0\0\x08\0" + bytes(100))


@every_container
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: f"{len(prefix)}-{prefix[:9]!r}")
def test_a_stream_behind_something_is_found(container, prefix):
    words = reason(prefix + stream(container))
    assert f"a stream ({container}) begins at byte {len(prefix)} ({len(prefix):#x})" in words
    assert f"--offset {len(prefix)}" in words


@every_container
def test_a_stream_is_read_from_an_offset_with_all_its_offsets(container):
    data = stream(container)
    plain, behind = listen(data).told, listen(b"12345" + data, offset=5).told
    assert len(plain) == len(behind)

    def offsets(told):
        return [
            item.place.offset if isinstance(item, Record | PageData) else getattr(item, "offset", 0) for item in told
        ]

    shifted = [at + 5 for item, at in zip(plain, offsets(plain), strict=True) if not isinstance(item, Recognised)]
    assert [at for item, at in zip(behind, offsets(behind), strict=True) if not isinstance(item, Recognised)] == shifted


def test_an_offset_behind_the_input_is_its_end():
    (damage,) = listen(b"abc", offset=10).all(Damage)
    assert damage.message == "the input ends at byte 3; expected the 24-byte image header of a stream"


def test_a_stream_deeper_than_is_searched_is_not_found():
    assert "not a Xen stream" in reason(bytes(SEARCHED + 100) + stream("xl"))


def test_a_fed_stream_behind_something_is_found_when_the_input_is_over():
    listener = Listener()
    feeder = Feeder(Decoder(listener).run())
    data = b"motd\n" + stream("xl")
    for at in range(0, len(data), 999):
        feeder.feed(data[at : at + 999])
    assert not listener.all(Unread)
    feeder.close()
    assert "--offset 5 " in listener.all(Unread)[0].reason


# -- damaged magics --------------------------------------------------------------------------------------------


@given(st.integers(0, len(XL_MAGIC) - 1), st.integers(1, 255))
def test_an_xl_magic_with_a_damaged_byte_is_still_one(at, flip):
    data = bytearray(stream("xl"))
    data[at] ^= flip
    (damage,) = listen(bytes(data)).all(Damage)
    assert (damage.breach, damage.reader) == (Breach.XL_MAGIC, "xl")


@pytest.mark.parametrize(
    ("container", "breach"),
    [
        ("xl", Breach.XL_MAGIC),
        ("libvirt", Breach.LIBVIRT_HEADER),
        ("xapi", Breach.XAPI_SIGNATURE),
        ("libxl", Breach.LIBXL_HEADER_CUT),
    ],
)
def test_a_damaged_first_byte_of_a_magic_is_damage(container, breach):
    assert [damage.breach for damage in listen(b"?" + stream(container)[1:]).all(Damage)] == [breach]


@pytest.mark.parametrize("container", ["xl", "libvirt", "xapi"])
def test_changed_newlines_are_named_where_the_magic_is_refused(container):
    (damage,) = listen(stream(container).replace(b"\n", b"\r\n")).all(Damage)
    assert "CR LF" in damage.message
    assert damage.message.endswith("transfer it again in binary mode")


# -- something behind ------------------------------------------------------------------------------------------


def test_of_what_follows_the_end_the_beginning_is_told():
    data = stream("xl")
    (trailing,) = listen(data + data).all(Trailing)
    assert (trailing.offset, trailing.length) == (len(data), len(data))
    assert trailing.content == data[:LOOKED_BEHIND]


def test_a_flag_that_says_legacy_does_not_hide_a_libxl_stream():
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.xl["mandatory_flags"] = 1
    data = b.build()
    assert LIBXL_IDENT in data
    (start,) = listen(data).all(XlStart)
    assert start.header.mandatory_flags == 1
    assert [record.type for record in listen(data).all(LibxlRecord)][-1] == LibxlRecordType.END
    assert encode(decode(data)) == data
