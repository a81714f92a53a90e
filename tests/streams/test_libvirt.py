"""Images of libvirt's Xen driver: what is written is read back, and what libvirt refuses is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.wire.libvirt import (
    LIBVIRT_HEADER,
    LIBVIRT_MAGIC,
    LibvirtHeader,
    decode_header,
    decode_image,
    encode_image,
    header_objection,
)

XML = b"<domain type='xen'><name>built</name></domain>\0"


def header(**fields):
    return LibvirtHeader(LIBVIRT_MAGIC, 2, len(XML), bytes(40))._replace(**fields)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(1, 2))
def test_what_is_encoded_is_decoded(xml, stream, version):
    found, read_xml, read_stream = decode_image(encode_image(xml, stream, version))
    assert (found.version, found.xml_length, read_xml, read_stream) == (version, len(xml), xml, stream)


@given(st.binary(min_size=64, max_size=64))
def test_any_header_is_encoded_as_it_was(raw):
    assert LIBVIRT_HEADER.pack(*decode_header(raw)) == raw


def test_the_fields_lie_where_libvirt_has_them():
    image = encode_image(XML, b"LibxlFmt")
    assert image[:16].hex(" ") == "6c 69 62 76 69 72 74 2d 78 6d 6c 0a 20 00 20 0d"
    assert image[16:24] == b"\2\0\0\0" + len(XML).to_bytes(4, "little")
    assert image.index(b"<domain") == 64


def test_an_image_that_ends_in_its_header_says_so():
    with pytest.raises(ValueError, match="ends in the header: 63 of 64 bytes"):
        decode_image(encode_image(b"", b"")[:63])


@pytest.mark.parametrize("version", [1, 2])
def test_the_versions_that_libvirt_reads_are_read(version):
    assert header_objection(header(version=version)) is None


@pytest.mark.parametrize(
    ("fields", "words", "offset"),
    [
        ({"magic": LIBVIRT_MAGIC.replace(b"\n", b"\r")}, "magic is incorrect", 0),
        ({"version": 3}, "version is not supported (3 > 2)", 16),
        ({"version": 0x02000000}, "big-endian", 16),
        ({"xml_length": 0}, "invalid XML length: 0", 20),
    ],
)
def test_what_libvirt_refuses_is_refused_with_its_words(fields, words, offset):
    objection = header_objection(header(**fields))
    assert words in objection.message
    assert objection.offset == offset
