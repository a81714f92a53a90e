"""`migrate verify-stream-v2` stands in for Xen's verifier: its command line, its exit codes, where it stops reading."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import at_once
import pytest
import zstandard
from project import SAMPLES

from migrate.building.builder import Rec, StreamBuilder
from migrate.judging.stand_in import verify
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Layer
from streams.opening import open_transport
from streams.wire.framing import EMULATOR_HEADER, LibxlRecordType

EVERY_SAMPLE = sorted([*SAMPLES.glob("*.zst"), *SAMPLES.glob("oracle/*.zst")])
AFTER = b"domain is yours, you are cleared to unpause\0"
STRUCTURE = (Layer.CON, Layer.HDR, Layer.FRM, Layer.REC, Layer.ORD)

GUESTS = {
    "pv32": lambda: StreamBuilder.pv(4, vcpus=2),
    "pv64": lambda: StreamBuilder.pv(8),
    "hvm": lambda: StreamBuilder.hvm(),
}


def built(guest: str = "pv32", form: str = "libxc") -> StreamBuilder:
    b = GUESTS[guest]()
    b.wrap(form)
    return b


def run(*args: str, fds: tuple[int, ...] = (), stdin: bytes | int = b"") -> subprocess.CompletedProcess[bytes]:
    given = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
    if not fds:
        return at_once.run("verify-stream-v2", *args, **given)
    command = [sys.executable, "-m", "migrate", "verify-stream-v2", *args]
    return subprocess.run(command, capture_output=True, pass_fds=fds, timeout=60, **given)


def good(data: bytes, form: str, tmp_path: Path) -> bool:
    path = tmp_path / "stream"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        return verify(file.fileno(), form).good


def into_pipe(data: bytes) -> int:
    """A descriptor that a writer of its own feeds."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as output:
            output.write(data)

    threading.Thread(target=write, daemon=True).start()
    return reader


def rest_of(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as left:
        return left.read()


# The verifier knows no xapi images.
VIOLATED = [rule for rule in RULES.values() if rule.violation and not rule.enforced_by.startswith("xapi")]
every_violation = pytest.mark.parametrize("rule", VIOLATED, ids=lambda rule: rule.id)
every_form = pytest.mark.parametrize("form", ["libxc", "libxl", "xl"])
every_guest = pytest.mark.parametrize("guest", GUESTS)


# -- where it stops reading -------------------------------------------------------------------------


@every_form
@every_guest
def test_not_a_byte_behind_the_end_is_read(guest, form):
    reader = into_pipe(built(guest, form).build() + AFTER)
    assert verify(reader, form).good
    assert rest_of(reader) == AFTER


@pytest.mark.parametrize(("guest", "form"), [("pv32", "libxc"), ("hvm", "xl")])
def test_what_follows_the_end_stays_in_the_pipe(guest, form):
    reader = into_pipe(built(guest, form).build() + AFTER)
    done = run("-i", str(reader), "-f", form, fds=(reader,))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert rest_of(reader) == AFTER


def test_a_files_descriptor_is_left_behind_the_end(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(b"before" + built("pv64", "libxl").build() + AFTER)
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, len(b"before"), os.SEEK_SET)
    assert run("--in", str(fd), "--format", "libxl", fds=(fd,)).returncode == 0
    assert rest_of(fd) == AFTER


def test_standard_input_is_read_by_default_and_only_to_the_end(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(built("hvm").build() + AFTER)
    fd = os.open(path, os.O_RDONLY)
    assert run(stdin=fd).returncode == 0
    assert rest_of(fd) == AFTER


def test_images_that_follow_one_another_are_verified_one_by_one():
    image = built("pv64").build()
    reader = into_pipe(image * 2 + AFTER)
    for _ in range(2):
        assert verify(reader).good
    assert rest_of(reader) == AFTER


@pytest.mark.parametrize("sample", ["x417-pvh.plain.libxc.zst", "x417-pv32.live4.libxc.zst"])
def test_a_genuine_stream_from_a_pipe_is_good(sample):
    data = zstandard.ZstdDecompressor().stream_reader((SAMPLES / sample).read_bytes()).read()
    reader = into_pipe(data + AFTER)
    assert verify(reader).good
    assert rest_of(reader) == AFTER


def test_reading_goes_on_to_the_end_after_an_objection():
    b = built()
    b.record("X86_TSC_INFO").body.append(0)
    reader = into_pipe(b.build() + AFTER)
    assert [finding.rule.id for finding in verify(reader).objections] == ["REC-101"]
    assert rest_of(reader) == AFTER


# -- command line -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(built().build())
    return path


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(built().build()[:-4])
    return path


def test_a_bad_stream_ends_with_1_and_a_line_on_stderr(bad):
    done = run("-i", str(bad))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"FRM-01 ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_says_nothing(option, bad):
    done = run("-v", option, "-i", str(bad))
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_quiet_says_nothing_of_what_cannot_be_read_either(tmp_path):
    done = run("-q", "-i", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_tells_every_record_and_pages_together(option, tmp_path):
    b = built("pv32", "xl")
    b.batch = 3
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    done = run(option, "-f", "xl", "-i", str(path))
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert lines[:3] == [
        f"xl header: {len(b.xl_config) + 5} bytes of optional data",
        "libxl header: version 2, options 0x0",
        "libxl record 0: LIBXC_CONTEXT, 0 bytes",
    ]
    batches = -(-len(b.memory) // 3)
    assert f"libxc records: {batches} of PAGE_DATA" in lines
    assert [line for line in lines if "SHARED_INFO" in line] == [f"libxc record {6 + batches}: SHARED_INFO, 4096 bytes"]
    assert lines[-2:] == [f"libxc record {len(b.records) - 1}: END, 0 bytes", "libxl record 1: END, 0 bytes"]


def test_with_syslog_errors_are_told_on_stderr_too_and_the_rest_is_not(bad):
    done = run("--syslog", "-v", "-i", str(bad))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"FRM-01 ")


@pytest.mark.parametrize(
    "args", [["-f", "xapi"], ["--nonsense"], ["-i"], ["-i", "/nonexistent/stream"], ["-i", "/"], ["-i", "99"]]
)
def test_wrong_usage_and_unreadable_input_end_with_2(args):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr


@every_form
@pytest.mark.parametrize("asked", ["libxc", "libxl", "xl"])
def test_a_stream_of_another_format_than_asked_for_is_bad(form, asked, tmp_path):
    assert good(built("hvm", form).build(), asked, tmp_path) is (form == asked)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF" + bytes(60),
        struct.pack("<QQ", 0x40000, (1 << 64) - 1),
        b"XenSavedDomv2-\n" + struct.pack("<QQ", 0xFFFF, 0),
        zstandard.ZstdCompressor().compress(built().build()),
    ],
    ids=["nothing", "a program", "before 4.6", "xapi", "compressed"],
)
@every_form
def test_what_is_no_such_stream_is_bad(data, form, tmp_path):
    assert not good(data, form, tmp_path)


def test_called_by_a_link_of_that_name_it_is_the_verifier(path, tmp_path):
    link = tmp_path / "verify-stream-v2"
    link.write_text("from migrate.cli.main import main\nmain()\n", "utf-8")
    done = subprocess.run([sys.executable, str(link), "-v", "-i", str(path)], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith(b"libxc image header: version 3")


# -- what it judges ---------------------------------------------------------------------------------


@every_form
@every_guest
def test_a_sound_stream_is_good(guest, form, tmp_path):
    assert good(built(guest, form).build(), form, tmp_path)


# What only the configuration tells; the verifier passes it over.
BY_CONFIGURATION = {"CON-37", "CON-38", "CON-39", "CON-40"}


@every_violation
def test_a_violation_is_bad_exactly_if_it_is_one_of_structure(rule, tmp_path):
    b = StreamBuilder.pv(4)
    rule.violation(b)
    objected = rule.effect.fatal or (rule.effect is Effect.SPEC and rule.enforced_by.startswith("verify-stream-v2"))
    of_form = rule.layer in STRUCTURE and (rule.effect is not Effect.HYPERCALL or rule.layer is Layer.ORD)
    of_form = of_form and rule.id not in BY_CONFIGURATION and not rule.enforced_by.startswith("QEMU")
    assert good(b.build(), b.container, tmp_path) is not (of_form and objected)


@pytest.mark.parametrize(
    "rule", ["REC-63", "REC-64", "REC-74", "REC-83", "REC-92", "REC-102", "REC-106", "REC-109", "REC-111"]
)
def test_what_the_hypervisor_thinks_of_contents_is_no_matter_of_form(rule, tmp_path):
    b = StreamBuilder.pv(4)
    RULES[rule].violation(b)
    assert good(b.build(), b.container, tmp_path)


def test_that_an_hvm_guest_has_a_context_is_a_matter_of_form(tmp_path):
    b = StreamBuilder.pv(4)
    RULES["ORD-17"].violation(b)
    assert not good(b.build(), b.container, tmp_path)


@pytest.mark.parametrize(("checkpoints", "expected"), [(0, True), (2, False)])
def test_an_optional_record_is_good_until_libxc_replays_it_in_a_checkpoint(checkpoints, expected, tmp_path):
    b = built()
    b.checkpoints = checkpoints
    b.insert(0x8000_0001, b"ignore me")
    assert good(b.build(), "libxc", tmp_path) is expected


def test_a_toolstack_record_makes_a_bad_stream_and_no_failure_of_the_program(tmp_path):
    b = built()
    b.insert(0x0B, bytes(8))
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    done = run("-i", str(path))
    assert (done.returncode, done.stderr[:7]) == (1, b"FRM-12 ")


def test_the_incumbents_strictness_about_the_page_shift_is_kept(tmp_path):
    b = built()
    b.domain["page_shift"] = 44
    assert not good(b.build(), "libxc", tmp_path)


def test_xenstore_data_of_the_device_model_is_good(tmp_path):
    b = built("hvm", "libxl")
    body = EMULATOR_HEADER.pack(2, 0) + b"physmap/1f000000/start_addr\x00f0000000\0"
    b.libxl_after.insert(0, Rec(LibxlRecordType.EMULATOR_XENSTORE_DATA, bytearray(body)))
    assert good(b.build(), "libxl", tmp_path)


@pytest.mark.parametrize("form", ["libxc", "libxl"])
def test_a_checkpointed_stream_that_just_stops_is_good(form, tmp_path):
    b = built("pv32", form)
    b.checkpoints = 2
    assert good(b.build(), form, tmp_path)


@every_guest
def test_a_stream_of_end_alone_is_bad(guest, tmp_path):
    b = built(guest)
    b.records[:-1] = []
    assert not good(b.build(), "libxc", tmp_path)


def test_where_a_root_may_land_is_no_matter_of_structure(tmp_path):
    assert good(StreamBuilder.pv(4, roots=3).build(), "libxc", tmp_path)


# -- Xen's own verifier -----------------------------------------------------------------------------

VERIFIERS = sorted(Path("/usr/lib").glob("xen-*/bin/verify-stream-v2"))
incumbent = pytest.mark.skipif(not VERIFIERS, reason="Xen's verifier is not installed")


def xens_verdict(path: Path, form: str) -> int:
    library = VERIFIERS[-1].parents[1] / "lib" / "python"
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    command = [python, str(VERIFIERS[-1]), "-q", "-f", form, "-i", str(path)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(library)}, timeout=300).returncode


def compare(path: Path, form: str, *, excused: bool = False) -> None:
    """Both agree; or only ours objects, and then to what fails a restore (or, to reserved bits, with more right)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        ours = verify(fd, form)
    finally:
        os.close(fd)
    theirs = xens_verdict(path, form)
    if ours.good == (theirs == 0) or (excused and ours.good):
        return
    assert theirs == 0, "the incumbent objects, and ours does not"
    assert all(finding.fatal or finding.rule.id == "CON-11" for finding in ours.objections)


@pytest.mark.slow
@incumbent
@pytest.mark.parametrize("sample", EVERY_SAMPLE, ids=lambda path: path.stem)
def test_a_sample_that_the_incumbent_refuses_is_refused(sample, tmp_path):
    path = tmp_path / "stream"
    with open_transport(sample) as transport, path.open("wb") as output:
        while piece := transport.give(1 << 20):
            output.write(piece)
    with path.open("rb") as file:
        head = file.read(8)
    form = {b"Xen save": "xl", b"LibxlFmt": "libxl"}.get(head, "libxc")
    # A capture of a checkpointed stream stops after a checkpoint; the incumbent waits for an END.
    compare(path, form, excused=".remus." in sample.name)


@pytest.mark.slow
@incumbent
@every_violation
def test_a_violation_that_the_incumbent_refuses_is_refused(rule, tmp_path):
    b = StreamBuilder.pv(4)
    rule.violation(b)
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    # libxc skips optional records, as the specification asks; the incumbent refuses them.
    compare(path, b.container, excused=rule.id == "FRM-06")


@pytest.mark.slow
@incumbent
@every_form
@every_guest
def test_a_sound_stream_is_good_to_both(guest, form, tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(built(guest, form).build())
    assert xens_verdict(path, form) == 0
    compare(path, form)
