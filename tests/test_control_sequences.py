"""No control sequence of a stream or a file name reaches any output as it is, whatever the command and the format."""

import json
import os
import unicodedata

import at_once
import pytest
from click.testing import CliRunner
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.building.parts import Rec
from migrate.cli.check_outputs import MORE_FORMATS
from migrate.cli.main import main
from migrate.cli.options import FORMATS as FORMATS_OF_ALL
from streams.wire.framing import EMULATOR_HEADER, LibxlRecordType, XapiBlockId

# Seven- and eight-bit forms of what begins a sequence, a bell, a line that could pass for another, and a turn of
# direction; after it a markup of rich, of HTML, of Markdown and of a workflow's log.
SEQUENCE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n::error::\u202e[bold]<script>|`@all"
RAW = SEQUENCE.encode()
ARMOURED = "\x1b\x07\x9b\r\u202e\x7f\x00"


def in_xenstore():
    b = StreamBuilder.hvm()
    b.wrap("xl")
    body = bytearray(EMULATOR_HEADER.pack(2, 0) + b"/" + RAW + b"\0value\0")
    b.libxl_after.insert(0, Rec(LibxlRecordType.EMULATOR_XENSTORE_DATA, body))
    return b


def in_device_model():
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.libxl_after[0].body[:] = EMULATOR_HEADER.pack(2, 0) + RAW * 4
    return b


def in_config():
    b = StreamBuilder.pv(4)
    b.wrap("xl")
    told = {"c_info": {"name": SEQUENCE, "type": SEQUENCE}, "b_info": {"max_vcpus": SEQUENCE, SEQUENCE: 1}}
    b.xl_config = json.dumps(told, ensure_ascii=False).encode()
    return b


def in_broken_config():
    b = StreamBuilder.pv(4)
    b.wrap("xl")
    b.xl_config = RAW
    b.insert(0x33, RAW)
    return b


def in_xenops():
    b = StreamBuilder.pv(8)
    b.wrap("xapi")
    name = b'"' + RAW.replace(b"\n", b"\\n") + b'"'
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, b"((%b a)(%b b))" % (name, name))
    return b


def in_signature():
    b = StreamBuilder.pv(8)
    b.wrap("xapi")
    b.xapi_signature = b.xapi_signature[:8] + RAW[: len(b.xapi_signature) - 8].ljust(len(b.xapi_signature) - 8, b"\x1b")
    return b


def in_start_info():
    b = StreamBuilder.pv(8)
    b.start_info.magic = RAW[:32].ljust(32, b"\0")
    b.start_info.cmd_line = (RAW * 4).ljust(1024, b"\0")
    return b


def in_cpuid():
    b = StreamBuilder.hvm()
    brand = RAW.ljust(48, b"\x1b")
    for number, leaf in enumerate((0x8000_0002, 0x8000_0003, 0x8000_0004)):
        some = brand[16 * number : 16 * number + 16]
        registers = [int.from_bytes(some[at : at + 4], "little") for at in range(0, 16, 4)]
        b.cpuid_policy.append(
            {**b.cpuid_policy[0], "leaf": leaf, **dict(zip(("a", "b", "c", "d"), registers, strict=True))}
        )
    return b


def in_no_stream():
    return RAW * 3


def in_trailing():
    b = StreamBuilder.hvm()
    b.trailing = RAW
    return b


STREAMS = [
    in_xenstore,
    in_device_model,
    in_config,
    in_broken_config,
    in_xenops,
    in_signature,
    in_start_info,
    in_cpuid,
    in_no_stream,
    in_trailing,
]
NAME = f"x{SEQUENCE.replace('/', '')}y"
HOST = SAMPLES / "hosts" / "h417-max.txt"
# How a check is told: markdown is about hosts.
FORMATS = [
    ["--format", form, *(["--host", HOST] if form == "markdown" else [])] for form in (*FORMATS_OF_ALL, *MORE_FORMATS)
]


def data_of(make):
    made = make()
    return made if isinstance(made, bytes) else made.build()


@pytest.fixture(params=STREAMS, ids=lambda make: make.__name__)
def hostile(request, tmp_path):
    """A stream with control sequences in it, in a directory and a file that are named by some."""
    folder = tmp_path / NAME
    folder.mkdir()
    path = folder / f"{NAME}.libxc"
    path.write_bytes(data_of(request.param))
    return path


def harmless(text):
    """Text in which nothing is but what can be printed, and line ends."""
    if isinstance(text, bytes):
        text = text.decode()  # and that is UTF-8
    found = {c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))}
    assert not found, text
    assert not any(line.startswith("::error::") for line in text.splitlines())
    return text


def output(*arguments):
    """All that a command prints."""
    result = CliRunner().invoke(main, [os.fspath(one) for one in arguments], prog_name="migrate")
    assert result.exit_code in (0, 1, 2, 3)
    return result.stdout + result.stderr


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[1])
def test_a_check_prints_none(hostile, form):
    harmless(output("check", hostile, "--placement", "high", *form))


@pytest.mark.parametrize(
    "arguments", [["trace"], ["trace", "--format", "jsonl"], ["policy"], ["verify-stream-v2", "-v", "-i"]]
)
def test_other_commands_print_none(hostile, arguments):
    harmless(output(*arguments, hostile))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[1])
def test_of_a_file_that_is_not_there_none_is_printed(tmp_path, form):
    assert harmless(output("check", tmp_path / NAME, *form))


def test_no_output_of_a_corpus_has_any(hostile, tmp_path):
    written = {name: tmp_path / f"run.{name}" for name in ("junit", "sarif", "markdown", "jsonl")}
    options = [word for name, path in written.items() for word in (f"--{name}", path)]
    harmless(output("corpus", "run", "-j", "1", "--no-cache", "--quiet", *options, hostile.parent))
    for path in written.values():
        assert harmless(path.read_bytes())
    harmless(output("corpus", "merge", written["jsonl"]))
    harmless(output("corpus", "accept", "--yes", hostile.parent))


def test_an_expectation_that_differs_is_shown_without_any(hostile):
    told = f'[[expect]]\nverdict = "accept"\nerrno = {json.dumps(ARMOURED)}\nrules = {{"HYP-22" = 1}}\n'
    (hostile.parent / f"{hostile.name}.expect.toml").write_text(told)
    harmless(output("corpus", "run", "-j", "1", "--no-cache", "--quiet", hostile.parent))


@pytest.mark.parametrize("arguments", [[], ["--guard", "--report", "report", "--stats", "stats"]], ids=["", "guard"])
def test_the_filter_says_none_beside_the_stream_itself(hostile, tmp_path, arguments):
    done = at_once.run("filter", *arguments, input=hostile.read_bytes(), cwd=tmp_path)
    harmless(done.stderr)
    for name in arguments[2::2]:
        assert harmless((tmp_path / name).read_bytes())


def test_options_that_are_refused_are_shown_without_any(tmp_path):
    stream = tmp_path / "stream"
    stream.write_bytes(StreamBuilder.pv(4).build())
    for option in ("--target", "--placement", "--select", "--format"):
        assert harmless(output("check", option, SEQUENCE, stream))


def test_what_is_in_these_streams_is_looked_at_and_shown_as_escapes(tmp_path):
    path = tmp_path / "stream"
    expected = {in_xenstore: "CON-16", in_xenops: "CON-32", in_signature: "CON-30", in_broken_config: "FRM-05"}
    for make, rule in expected.items():
        path.write_bytes(data_of(make))
        told = output("check", "-v", path)
        assert rule in told
        assert make is in_broken_config or r"\x1b" in told
    path.write_bytes(data_of(in_cpuid))
    assert r"\x1b" in output("policy", path)
