"""Files that are no stream are named; a stream with something around it is found."""

import bz2
import gzip
import io
import lzma
import tarfile

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.building.qemu_state import QemuStateBuilder
from streams.other_files import (
    HEAD_SIZE,
    SEARCHED,
    SIGNATURES,
    STREAM_MAGICS,
    Found,
    describe_prefix,
    describe_suffix,
    find_stream,
    recognise,
    translated_newlines,
)
from streams.wire.framing import MIGRATE_BANNER, XL_MAGIC
from streams.wire.libvirt import encode_image


def stream(container="xl"):
    builder = StreamBuilder.pv(4)
    builder.container = container
    return builder.build()


XL = stream()


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def elf(kind, byte_order=1):
    order = "big" if byte_order == 2 else "little"
    return b"\x7fELF\2" + bytes([byte_order]) + bytes(10) + kind.to_bytes(2, order) + bytes(200)


FILES = [
    (b"", "empty"),
    (bytes(5000), "zeros"),
    (tar(("ova.xml", b"<value/>"), ("Ref:4/00000000", bytes(1024))), "xva"),
    (tar(("etc/passwd", b"x")), "tar"),
    (b"conectix" + bytes(504), "vhd"),
    (b"vhdxfile" + bytes(504), "vhdx"),
    (b"QFI\xfb\0\0\0\3" + bytes(100), "qcow2"),
    (b"KDMV\1\0\0\0" + bytes(100), "vmdk"),
    (bytes(1080) + b"\x53\xef" + bytes(3000), "ext"),
    (elf(4), "core"),
    (elf(4, byte_order=2), "core"),
    (elf(2), "elf"),
    (QemuStateBuilder().build(), "qemu"),
    (b"QemuDeviceModelRecord" + b"QEVM\0\0\0\3", "qemu-record"),
    (b"DeviceModelRecord0002\4\0\0\0QEVM", "qemu-record"),
    (b"RemusDeviceModelState\4\0\0\0QEVM", "qemu-record"),
    (b"LibvirtQemudSave\2\0\0\0" + bytes(80), "libvirt-qemu"),
    (b"LibvirtQemudPart\2\0\0\0" + bytes(80), "libvirt-qemu"),
    (b"LinuxGuestRecord\0\0\0\x09(domain)" + bytes(80), "xm-save"),
    (b"\x89LZO\0\r\n\x1a\n" + bytes(80), "lzop"),
    (b"PK\3\4" + bytes(80), "zip"),
    (bz2.compress(b"x"), "bzip2"),
    (lzma.compress(b"x"), "xz"),
    (lzma.compress(b"x", lzma.FORMAT_ALONE), "lzma"),
    (lz4.frame.compress(b"x"), "lz4"),
    (gzip.compress(b"x"), "gzip"),
    (b"<!DOCTYPE html><title>404", "html"),
    (b"\n <HTML><head>", "html"),
    (b'<?xml version="1.0"?><!DOCTYPE html>', "html"),
    (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "xml"),
    (b"<domain type='xen'><name>a</name></domain>", "domain-xml"),
    (b'{"error": "not found"}', "json"),
    (b"[]", "json"),
    (b'{\n  "c_info": {"type": "pv"}}', "domain-json"),
]


@pytest.mark.parametrize(("head", "kind"), FILES, ids=[f"{i}-{kind}" for i, (_, kind) in enumerate(FILES)])
def test_what_is_no_stream_is_named(head, kind):
    assert recognise(head).kind == kind


def test_a_fixed_vhd_is_told_by_its_last_bytes():
    assert recognise(b"\x33\xc0" + bytes(600), tail=b"conectix" + bytes(504)).kind == "vhd"


def test_zeros_with_something_behind_are_not_all_zeros():
    assert recognise(bytes(100), tail=bytes(10) + b"x") is None


@pytest.mark.parametrize("head", [b"name = 'guest'\n", b"\xff" * 100, b"{guest}", b"\x01\x02\x03"])
def test_what_is_nothing_known_is_not_named(head):
    assert recognise(head) is None


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl", "xapi"])
def test_a_stream_is_no_other_file(container):
    assert recognise(stream(container)[:HEAD_SIZE]) is None


def test_every_signature_lies_within_the_head_that_is_asked_for():
    assert max(s.offset + len(magic) for s in SIGNATURES for magic in s.bytes) <= HEAD_SIZE


def test_a_save_of_xm_is_said_to_be_a_guest_of_xens():
    assert "guest of Xen's saved by xm" in str(recognise(b"LinuxGuestRecord" + bytes(100)))


def test_an_xva_says_where_the_image_is():
    assert "Ref:N/" in recognise(tar(("ova.xml", b"<value/>"))).advice


# -- something in front ------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl", "xapi"])
@pytest.mark.parametrize("prefix", [b"", b"motd\n", bytes(512), b"\xff" * 7])
def test_the_beginning_of_a_stream_is_found(container, prefix):
    assert find_stream(prefix + stream(container)) == Found(len(prefix), container)


def test_the_beginning_of_a_libvirt_image_is_found():
    assert find_stream(b"x" + encode_image(b"<domain/>\0", stream("libxl"))) == Found(1, "libvirt")


def test_a_stream_beyond_the_first_mebibyte_is_not_looked_for():
    assert find_stream(bytes(SEARCHED) + XL) == Found(SEARCHED, "xl")
    assert find_stream(bytes(SEARCHED + 1) + XL) is None


@given(st.binary(max_size=300), st.sampled_from(STREAM_MAGICS))
def test_the_first_magic_is_the_one_found(prefix, magic):
    found = find_stream(prefix + magic[0] + XL)
    assert found.offset <= len(prefix)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (bytes(512), "512 zero bytes"),
        (MIGRATE_BANNER, "the greeting of xl migrate-receive"),
        (b"migration target: Ready to receive domain.\n", "'migration target: Ready to receive domain.' of xl"),
        (b"Welcome to host1\r\nlast login\n", "29 bytes of text, 'Welcome to host1' first"),
        (b"\x80\x81", "2 bytes that belong to no stream"),
    ],
)
def test_what_stands_in_front_is_described(prefix, words):
    assert words in describe_prefix(prefix)


@given(st.binary(min_size=1, max_size=200))
def test_any_prefix_is_described_in_one_line(prefix):
    assert describe_prefix(prefix).isprintable()


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        (b"", ""),
        (bytes(8), ", all of them zeros"),
        (b"migration sender: Target has acknowledged transfer.\n", ", text, 'migration sender: Target has acknow"),
        (b"\x80\x81", ""),
        (bytes(8) + StreamBuilder.hvm().build(), "; another stream (libxc) begins at byte 108 (0x6c), which --offset"),
    ],
)
def test_what_stands_behind_the_end_is_described(suffix, words):
    described = describe_suffix(suffix, len(suffix), 100)
    assert described.startswith(words)
    assert bool(described) == bool(words)


def test_of_many_zeros_behind_the_end_the_first_are_told():
    assert describe_suffix(bytes(8), 9, 0) == ", the first of them zeros"


@given(st.binary(max_size=200))
def test_any_suffix_is_described_in_one_line(suffix):
    assert describe_suffix(suffix, len(suffix), 0).isprintable()


# -- newlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), "CR LF"),
        (lambda data: data.replace(b"\r", b"\n"), "carriage return became a newline"),
        (lambda data: data.replace(b"\n", b"\r"), "newline became a carriage return"),
        (lambda data: data.replace(b"\0", b""), "NUL bytes were lost"),
        (lambda data: data.replace(b"\n", b""), "newlines were lost"),
        (lambda data: data.replace(b"\r", b""), "carriage returns were lost"),
    ],
)
def test_changed_line_ends_are_told_by_the_magic(change, words):
    for magic in (XL_MAGIC + b"\4\3\2\1", encode_image(b"<domain/>\0", b"")):
        assert words in translated_newlines(change(magic + b"\1\2\3")).what


def test_another_damage_of_a_magic_is_no_changed_line_end():
    assert translated_newlines(XL_MAGIC[:-1] + b"!\4\3\2\1") is None


def test_changed_line_ends_of_a_xapi_image_are_told_by_its_signature():
    assert "CR LF" in translated_newlines(stream("xapi").replace(b"\n", b"\r\n")).what


def test_the_offset_of_the_changed_magic_is_told():
    assert translated_newlines(b"motd\r\n" + XL.replace(b"\n", b"\r\n")).offset == 6


@pytest.mark.parametrize("data", [XL, stream("xapi"), stream("libxc"), b"Xen saved domain, xl format", b""])
def test_whole_magics_are_not_said_to_be_changed(data):
    assert translated_newlines(data) is None
