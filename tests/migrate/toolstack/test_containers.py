"""Verdicts on xapi suspend images, and what is told of streams from before Xen 4.6."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from asking import check
from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.building.parts import built
from migrate.cli.main import main
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity
from migrate.toolstack.old_streams import LEFT, MOVED, NOT_CONCERNED
from streams.encoder import decode, encode
from streams.wire.framing import (
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_VERSION,
    RECORD_HEADER,
    XL_HEADER,
    XL_MAGIC,
    LibxlRecordType,
    XapiBlockId,
)
from streams.wire.vcpu import CONTEXT

CONVERTERS = sorted(Path("/usr/lib").glob("xen-*/bin/convert-legacy-stream"))
GUESTS = {
    "pv32": lambda: StreamBuilder.pv(4),
    "pv32-roots": lambda: StreamBuilder.pv(4, vcpus=2, roots=3),
    "pv64": lambda: StreamBuilder.pv(8, vcpus=2),
    "hvm": lambda: StreamBuilder.hvm(vcpus=2),
}
every_guest = pytest.mark.parametrize("guest", GUESTS)


def xapi(guest: str = "pv32") -> StreamBuilder:
    b = GUESTS[guest]()
    b.wrap("xapi")
    return b


def failure(b: StreamBuilder) -> tuple[str, str]:
    found = check(b.build()).failure
    assert found is not None
    return found.rule, found.call


# -- xapi -------------------------------------------------------------------------------------------


@every_guest
def test_a_suspend_image_is_judged_as_the_image_in_it(guest):
    bare, wrapped = check(GUESTS[guest]().build(), placement="high"), check(xapi(guest).build(), placement="high")
    assert wrapped.stream.container == "xapi"
    assert (wrapped.verdict, wrapped.reason) == (bare.verdict, bare.reason)
    assert [(f.rule.id, f.record) for f in wrapped.findings] == [(f.rule.id, f.record) for f in bare.findings]


@every_guest
def test_a_sound_suspend_image_is_silent_above_info(guest):
    report = check(xapi(guest).build(), target="4.20", placement="low")
    assert report.verdict == "accept"
    loud = {f.rule.id for f in report.findings if f.severity is not Severity.INFO}
    assert loud == ({"REC-32"} if guest.startswith("pv32") else set()) | ({"L3C-1"} if guest == "pv32-roots" else set())


def test_the_violation_of_a_wrapped_image_is_found_at_its_offset_in_the_file():
    bare = StreamBuilder.pv(4)
    bare.record("X86_TSC_INFO").body[0] = 9
    wrapped = StreamBuilder.pv(4)
    wrapped.record("X86_TSC_INFO").body[0] = 9
    wrapped.wrap("xapi")
    data = wrapped.build()
    (inside,) = [f for f in check(data).findings if f.rule.id == "REC-102"]
    (alone,) = [f for f in check(bare.build()).findings if f.rule.id == "REC-102"]
    assert inside.offset == alone.offset + data.index(b"\xff" * 8 + b"XENF")


@pytest.mark.parametrize("id", [1, XapiBlockId.LIBXL, XapiBlockId.QEMU_XEN])
@pytest.mark.parametrize("at", [0, 2])
def test_a_block_that_xapi_does_not_read_fails_the_resume(id, at):
    b = xapi()
    b.xapi_blocks.insert(at, (id, b"payload"))
    assert failure(b) == ("CON-31", "xapi")


def test_blocks_of_zeros_are_said_to_be_a_file_that_was_not_written_to_its_end():
    b = xapi()
    data = b.build()
    half = len(data) // 2
    report = check(data[:half] + bytes(len(data) - half), placement="low")
    assert any("unknown id 0x0: only zeros" in finding.message for finding in report.findings)


@pytest.mark.parametrize("id", sorted(set(XapiBlockId) - {0xF, 0xF0, 0xF1, 0xF2, 0xF01, 0xFFFF}))
def test_the_other_blocks_are_taken_in_any_place(id):
    b = xapi()
    b.xapi_blocks.insert(0, (id, b"payload"))
    assert check(b.build()).verdict == "accept"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"time word_size",
        b"((time now))",
        b"((word_size 64))",
        b"((time now)(word_size (64)))",
        b"((time now)(word_size 64)(vm_str (a)))",
        b"((time now)(word_size 64)(xs_subtree ((a b c))))",
        b"((time now)(word_size 64)",
        b"\xff" * 40,
    ],
)
def test_a_record_of_xenopsd_that_is_none_fails_the_resume(text):
    b = xapi()
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, text)
    assert failure(b) == ("CON-32", "xapi")


@pytest.mark.parametrize(
    "text",
    [
        b'((time "2024-01-01 00:00")(word_size 64)(vm_str "{}")(xs_subtree ((data/updated "")("a b" c))))\n',
        b"((word_size 32)(time now)(since_then (something new)))",
    ],
)
def test_a_record_of_xenopsd_is_recognised_loosely(text):
    b = xapi()
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, text)
    assert check(b.build()).verdict == "accept"


def test_an_image_without_its_last_block_is_refused_by_xapi():
    b = xapi()
    b.xapi_blocks.pop()
    assert failure(b) == ("FRM-08", "xapi")


def test_bytes_after_a_suspend_image_are_told_as_those_after_a_bare_one():
    b = xapi()
    b.trailing = b"junk"
    report = check(b.build())
    assert report.verdict == "accept"
    (told,) = (f.message for f in report.findings if f.rule.id == "FRM-09")
    assert told == "4 bytes follow the end of the stream, text, 'junk' first"


def test_zeros_after_a_libxl_stream_without_an_image_are_told():
    stream = LIBXL_HEADER.pack(LIBXL_IDENT, LIBXL_VERSION, 0) + RECORD_HEADER.pack(LibxlRecordType.END, 0) + bytes(9)
    said = {f.rule.id: f.message for f in check(stream).findings}
    assert said["CON-22"] == "9 bytes follow the end of the stream, all of them zeros"


@pytest.mark.parametrize("container", ["libxl", "xl", "xapi"])
def test_the_device_models_state_is_named(container):
    b = StreamBuilder.hvm()
    b.wrap(container)
    assert check(b.build()).stream.device_model == "QEMU state version 3, first section timer"


@pytest.mark.parametrize("container", ["libxl", "xl", "xapi"])
def test_a_pv_guest_has_no_device_model(container):
    b = StreamBuilder.pv(4)
    b.wrap(container)
    assert check(b.build()).stream.device_model is None


@pytest.mark.parametrize("id", ["CON-30", "CON-31", "CON-32", "CON-33"])
def test_the_rules_of_suspend_images_are_rules(id):
    assert RULES[id].enforced_by.startswith("xapi: ")
    assert RULES[id].severity is Severity.ERROR


@every_guest
def test_a_built_suspend_image_is_encoded_as_it_was_decoded(guest):
    data = xapi(guest).build()
    assert encode(decode(data)) == data


# -- before 4.6 -------------------------------------------------------------------------------------


def legacy(b: StreamBuilder, word: int = 4) -> bytes:
    """The stream that libxc up to 4.5 would have written of a guest."""

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(word, "little") for value in values)

    assert b.records  # which writes start_info into its page
    contexts = [built(CONTEXT[b.width], vcpu.basic) for vcpu in b.vcpus]
    info = b"vcpu" + struct.pack("<I", len(contexts[0])) + contexts[0]
    pages = sorted(b.memory.items())
    contents = b"".join(bytes(page.data() or b"") for _, page in pages)
    online = (1 << len(contexts)) - 1
    return b"".join(
        [
            words(b.max_pfn + 1, (1 << 8 * word) - 1),
            struct.pack("<I", len(info)) + info,
            words(*b.p2m_frames),
            struct.pack("<i", len(pages)) + words(*(page.type << 28 | pfn for pfn, page in pages)) + contents,
            struct.pack("<iIQII", -7, 0, 1_000_000_000, 2_400_000, 1),
            struct.pack("<iiQ", -2, len(contexts) - 1, online),
            struct.pack("<iI", 0, 0),
            *contexts,
            bytes(b.shared_info),
        ]
    )


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize(
    ("guest", "high_l3", "sentence"),
    [
        (lambda: StreamBuilder.pv(4, vcpus=2, roots=3), MOVED, "would have moved all that landed above 4 GiB"),
        (lambda: StreamBuilder.pv(4, vcpus=2, roots=3, extended=True), LEFT, "pae_extended_cr3 is enabled"),
        (lambda: StreamBuilder.pv(8, vcpus=2, roots=3), NOT_CONCERNED, "64-bit guest may lie anywhere"),
    ],
    ids=["pv32", "pv32-extended", "pv64"],
)
def test_what_became_of_high_l3_tables_in_a_pre_4_6_restore_is_told(guest, high_l3, sentence, word):
    b = guest()
    report = check(legacy(b, word))
    assert (report.verdict, report.findings) == ("unjudged", [])
    facts = report.stream
    assert (facts.container, facts.guest, facts.width, facts.vcpus) == ("legacy", "pv", b.width, 2)
    assert facts.max_pfn == b.max_pfn
    assert facts.extended_cr3 is bool(b.vcpus[0].basic.vm_assist & 8)
    level3 = {pfn: bool(page.type & 8) for pfn, page in b.memory.items() if page.is_table and page.type & 7 == 3}
    assert facts.legacy["l3"] == [{"pfn": pfn, "pinned": pinned} for pfn, pinned in sorted(level3.items())]
    assert (facts.legacy["high_l3"], facts.legacy["toolstack_word"], facts.legacy["complete"]) == (high_l3, word, True)
    assert report.reason.startswith("a pre-4.6 stream; ")
    assert sentence in report.reason


@pytest.mark.parametrize(
    ("head", "container", "where"),
    [
        (XL_HEADER.pack(XL_MAGIC, 0x01020304, 1, 0, 8) + struct.pack("<I", 4) + b"{}\n\0", "xl", " in an xl file"),
        (b"XenSavedDomain\n", "xapi-legacy", " in a xapi suspend image"),
        (b"XenSavedDomv2-\n" + struct.pack("<QQ", 0xF2, 0), "xapi", " in a xapi suspend image"),
    ],
)
def test_a_pre_4_6_stream_inside_another_is_told_of_likewise(head, container, where):
    report = check(head + legacy(StreamBuilder.pv(4, roots=2)))
    assert (report.verdict, report.stream.container) == ("unjudged", container)
    assert report.reason.startswith(f"a pre-4.6 stream{where}; a 32-bit PV guest of ")
    assert len(report.stream.legacy["l3"]) == 2


def test_a_truncated_pre_4_6_stream_says_where_it_stops():
    report = check(legacy(StreamBuilder.pv(4))[:-1])
    assert report.verdict == "unjudged"
    assert report.reason.endswith("it was not read to its end: the input ends in shared_info")


def test_a_pre_4_6_hvm_stream_is_named():
    report = check(struct.pack("<Iii", 0x40000, 16, 0) + bytes(64))
    assert report.reason == "a pre-4.6 stream; a HVM guest of 0x40000 pfns, saved by a 32-bit toolstack"


def test_check_ends_with_3_on_a_pre_4_6_stream(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(legacy(StreamBuilder.pv(4)))
    for form in ("text", "json"):
        done = CliRunner().invoke(main, ["check", "--format", form, str(path)])
        assert done.exit_code == 3
        assert "pre-4.6" in done.output


# -- Xen's own converter ----------------------------------------------------------------------------


def converted(data: bytes, word: int, tmp_path: Path) -> bytes:
    source, target = tmp_path / "old", tmp_path / "new"
    source.write_bytes(data)
    library = CONVERTERS[-1].parents[1] / "lib" / "python"
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    command = [python, str(CONVERTERS[-1]), "-i", str(source), "-o", str(target), "-w", str(8 * word), "-g", "pv"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(library)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not CONVERTERS, reason="Xen's converter is not installed")
@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("width", [4, 8])
def test_xens_converter_reads_what_is_read_here_and_the_result_is_accepted(width, word, tmp_path):
    b = StreamBuilder.pv(width, vcpus=2, roots=3, extended=True)
    report = check(converted(legacy(b, word), word, tmp_path), target="4.20", placement="high")
    assert (report.verdict, report.stream.converted, report.stream.vcpus) == ("accept", True, 2)


@pytest.mark.slow
@pytest.mark.skipif(not CONVERTERS, reason="Xen's converter is not installed")
def test_the_l3_tables_that_nobody_moves_any_more_fail_the_converted_stream(tmp_path):
    b = StreamBuilder.pv(4, roots=3)
    data = legacy(b)
    assert check(data).stream.legacy["high_l3"] == MOVED
    report = check(converted(data, 4, tmp_path), target="4.20", placement="high")
    assert (report.verdict, report.failure.rule) == ("refuse", "HYP-22")


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl", "libvirt", "xapi"])
def test_a_second_save_behind_the_first_is_a_warning_that_says_where_it_begins(container):
    b = StreamBuilder.hvm()
    b.wrap(container)
    data = b.build()
    report = check(data + data, target="4.20", placement="low")
    (warning,) = (finding for finding in report.findings if finding.severity is Severity.WARNING)
    assert f"another stream ({container}) begins at byte {len(data)}" in warning.message
    assert report.verdict == "accept"
