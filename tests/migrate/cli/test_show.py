"""`migrate show` as its users meet it."""

import gzip
import io
import json
import struct
import subprocess
import sys

import pytest
from click.testing import CliRunner
from many import KINDS
from project import SAMPLES
from rich.console import Console

from migrate.building.builder import StreamBuilder
from migrate.building.shapes import pv_guest
from migrate.cli.main import main
from migrate.corpus.expectations import Shelf
from migrate.inspection import reading
from migrate.inspection.reading import inspect
from migrate.reports.inspection.hexdump import hexdump
from migrate.reports.inspection.records import DUMPED, render_contents
from migrate.reports.inspection.vcpus import render_vcpus
from streams.compressed import CompressedTransport
from streams.wire.framing import LibxlRecordType

REAL = sorted(path.name for path in SAMPLES.glob("x417-*.zst"))
SAMPLE = SAMPLES / "x417-pv32.plain.libxc.zst"
DAMAGED = sorted((SAMPLES / "oracle").glob("*.zst"))
# Every view, as far as the options of one call go.
VIEWS = (
    (),
    ("--all",),
    ("--record", "0"),
    ("--record", "@0x1000", "--hexdump"),
    ("--record", "image"),
    ("--record", "libxl:0"),
    ("--vcpu", "all"),
    ("--vcpu", "1"),
    ("--rounds",),
    ("--pfn", "0x19"),
    ("--walk", "0xc0001000", "--vcpu", "0"),
    ("--tables",),
    ("--p2m",),
    ("--map",),
)
ENDINGS = {0, 2, 3}


def run(*args, **options):
    return CliRunner().invoke(main, ["show", *map(str, args)], **options)


def shown(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(*args):
    return json.loads(shown(*args, "--json"))


@pytest.fixture
def write(tmp_path):
    def to_file(data, name="stream"):
        path = tmp_path / name
        path.write_bytes(data.build() if isinstance(data, StreamBuilder) else data)
        return path

    return to_file


def lines_of(text, what):
    return [line for line in text.splitlines() if what in line]


# -- the table of records -------------------------------------------------------------------------------


def test_the_head_tells_the_facts_that_check_tells():
    name, *facts = shown(SAMPLE).partition("\n\n")[0].splitlines()
    assert name == str(SAMPLE)
    checked = CliRunner().invoke(main, ["check", "-v", str(SAMPLE)]).stdout
    assert [line.strip() for line in facts] == checked.rpartition("\n\n")[2].splitlines()


def test_marks_are_explained_where_there_are_some(write):
    text = shown(SAMPLE, "--target", "4.20")
    assert text.endswith("! an error, ? a warning, . for information: migrate explain RULE tells of each\n")
    b = StreamBuilder.hvm()
    text = shown(write(b.build()), "--target", "4.20")
    assert "! an error" not in text


def test_what_lies_in_no_record_says_when_it_comes():
    text = shown(SAMPLE, "--target", "4.20")
    assert "of no one record" not in text
    assert lines_of(text, ". among the records: the destination must run 32-bit PV guests") or lines_of(
        text, "? among the records: the destination must run 32-bit PV guests"
    )


def test_every_record_has_a_line():
    text = shown(SAMPLE, "--all")
    names = [line[2:].split()[2] for line in text.partition("\n\n")[2].splitlines()[2:18]]
    expected = []
    for record in Shelf().entry(SAMPLE).facts["records"]:
        name, _, times = record.partition(" x")
        expected += [name] * int(times or 1)
    assert names == expected


def test_the_record_at_fault_is_marked_with_its_rule():
    text = shown(SAMPLE, "--target", "4.20", "--placement", "high")
    (line,) = [line for line in lines_of(text, "0x7fe128") if "VCPU_BASIC" in line]
    assert line.startswith("! ")
    assert line.endswith("vcpu 1: eip 0xc00023a7, cr3 pfn 0x19  <- HYP-22")
    assert not [line for line in lines_of(text, "VCPU_BASIC") if "vcpu 0" in line and "<-" in line]


def test_an_older_xen_has_nothing_against_that_record():
    assert "HYP-22" not in shown(SAMPLE, "--target", "4.17", "--placement", "high")


def test_where_the_grammar_breaks_is_the_last_line_about_records(write):
    data = StreamBuilder.pv(4).build()
    text = shown(write(data[:-20]))
    (line,) = lines_of(text, "the stream cannot be read on")
    assert line.startswith("! ")
    assert line.endswith("(FRM-03)")
    assert lines_of(text, "the input ends in it  <- FRM-03")


def test_findings_of_one_rule_about_no_record_share_a_line():
    text = shown(SAMPLE, "--target", "4.20", "--placement", "high")
    (line,) = lines_of(text, "! pfn 0x13: L3")
    assert line.endswith("(HYP-22, and 5 more like it)")


def test_the_json_document_has_the_same_records():
    told = document(SAMPLE, "--all", "--target", "4.20", "--placement", "high")
    records = [record for record in told["records"] if record["index"] is not None]
    assert [record["index"] for record in records] == list(range(16))
    assert [record["index"] for record in records if any(f["rule"] == "HYP-22" for f in record["findings"])] == [12]
    assert (told["verdict"], told["damage"], told["stream"]["width"]) == ("refuse", None, 4)


def test_folded_page_data_tells_its_range_and_types_in_json():
    (pages,) = [record for record in document(SAMPLE)["records"] if record["name"] == "PAGE_DATA"]
    assert (pages["index"], pages["last_index"], pages["count"]) == (5, 6, 2)
    assert (pages["pages"]["lowest"], pages["pages"]["highest"], pages["pages"]["words"]) == (0, 0x7FF, 2048)
    assert pages["pages"]["types"]["L3TAB_PINNED"] == 7


def test_many_records_make_few_lines(write):
    b = StreamBuilder.pv(4)
    for _ in range(5000):
        b.insert(0x8000_0042)
    path = write(b)
    assert len(shown(path).splitlines()) < 60
    assert len(shown(path, "--all").splitlines()) > 5000


def test_the_libxl_layer_is_around_the_image():
    records = document(SAMPLES / "x417-pv32.xl.zst")["records"]
    assert [(r["layer"], r["depth"]) for r in records[:4]] == [("xl", 0), ("libxl", 1), ("libxl", 1), ("libxc", 2)]
    assert records[2]["type"] == LibxlRecordType.LIBXC_CONTEXT


def test_text_of_a_stream_reaches_no_terminal_unescaped(write):
    b = StreamBuilder.hvm()
    b.wrap("xl")
    b.xl_config = b'{"c_info": {"name": "a\\u001b[31mb", "type": "hvm"}}'
    path = write(b, "name\x1b[2J")
    for args in ((), ("--record", "xl"), ("--record", "libxl:1"), ("--record", "libxl:1", "--hexdump")):
        text = shown(path, *args)
        assert "\x1b" not in text
    assert "a\\x1b[31mb, hvm" in shown(path)


def test_on_a_terminal_meanings_wrap_beside_their_records():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, highlight=False)
    inspect(str(SAMPLE), then=lambda inspection: render_contents(inspection, console))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    after = lines[next(n for n, line in enumerate(lines) if "PAGE_DATA" in line) + 1]
    assert after.startswith(" " * 40)


# -- one record -------------------------------------------------------------------------------------------


def field(record, *path):
    found = record["fields"]
    for name in path:
        (one,) = [part for part in found if part["name"] == name]
        found = one.get("fields", [])
    return one


def test_a_record_is_shown_with_all_its_fields():
    record = document(SAMPLE, "--record", 12)["record"]
    assert (record["name"], record["offset"], record["length"]) == ("X86_PV_VCPU_BASIC", 0x7FE128, 2808)
    assert field(record, "vcpu_id")["value"] == 1
    assert field(record, "user_regs", "eip")["value"] == 0xC00023A7
    assert field(record, "ctrlreg")["value"][3] == 0x19000
    assert field(record, "flags")["meaning"] == "in_kernel online"


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("0", "X86_PV_INFO"),
        ("libxc:15", "END"),
        ("libxl:0", "LIBXC_CONTEXT"),
        ("libxl:1", "END"),
        ("xl", "xl header"),
        ("libxl", "libxl header"),
        ("image", "image header"),
        ("domain", "domain header"),
        ("@0", "xl header"),
    ],
)
def test_a_record_goes_by_its_number_layer_name_or_place(selector, name):
    assert document(SAMPLES / "x417-pv32.xl.zst", "--record", selector)["record"]["name"] == name


def test_an_offset_within_a_record_means_that_record():
    records = document(SAMPLE, "--all")["records"]
    basic = next(record for record in records if record["index"] == 12)
    for offset in (basic["offset"], basic["offset"] + 8, basic["offset"] + 8 + basic["length"] - 1):
        assert document(SAMPLE, "--record", f"@{offset:#x}")["record"]["index"] == 12


def test_xapi_blocks_have_their_own_numbers(write):
    b = StreamBuilder.pv(4)
    b.wrap("xapi")
    path = write(b)
    assert document(path, "--record", "xapi:0")["record"]["layer"] == "xapi"
    assert shown(path, "--record", "xapi:0").startswith("xapi block 0 ")


def test_the_config_of_an_xl_file_is_taken_apart():
    record = document(SAMPLES / "x417-pv32.xl.zst", "--record", "xl")["record"]
    assert field(record, "config", "c_info", "type")["value"] == "pv"
    assert field(record, "config", "b_info", "max_vcpus")["value"] == 2


def test_a_hexdump_shows_the_bytes_where_they_lie():
    text = shown(SAMPLE, "--record", "0", "--hexdump")
    assert text.splitlines()[-1] == ("00000028  02 00 00 00 08 00 00 00  04 03 00 00 00 00 00 00  |................|")


def test_a_long_hexdump_says_how_much_it_leaves_out(write):
    b = StreamBuilder.pv(4)
    body = bytes(n * n % 251 for n in range(2 * DUMPED))
    b.insert(0x8000_0042, body)
    path, (number, _) = write(b), next((n, r) for n, r in enumerate(b.records) if r.name == "0x80000042")
    assert shown(path, "--record", number, "--hexdump").splitlines()[-1] == (
        f"… {DUMPED + 8} bytes more (--all shows them)"
    )
    record = document(path, "--record", number)["record"]
    raw = struct.pack("<II", 0x8000_0042, len(body)) + body
    assert shown(path, "--record", number, "--hexdump", "--all").splitlines()[-len(raw) // 16 :] == list(
        hexdump(raw, record["offset"])
    )
    assert document(path, "--record", number, "--hexdump", "--all")["record"]["bytes"] == body.hex()


def test_the_contents_of_a_page_lie_where_page_data_says(write):
    b = pv_guest(4, pages=64)
    data = b.build()
    path = write(data)
    number = next(n for n, record in enumerate(b.records) if record.name == "PAGE_DATA")
    words = field(document(path, "--record", number)["record"], "words")["fields"]
    first = {part["name"]: part["value"] for part in words[0]["fields"]}
    assert first["first_pfn"] == 0
    assert data[first["contents"] : first["contents"] + 4096] == b.memory[0].data()


def test_a_record_that_the_stream_has_not_is_an_error():
    result = run(SAMPLE, "--record", "99")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"migrate: {SAMPLE}: there is no libxc record 99 in the stream\n"


@pytest.mark.parametrize("asked", ["x", "libxl:", "-1", "@zz", "9" * 40, "1²", "@0x" + "f" * 30])
def test_a_selector_that_means_nothing_is_wrong_usage(asked):
    result = run(SAMPLE, "--record", asked)
    assert result.exit_code == 2
    assert "@OFFSET" in result.stderr


# -- vcpus ------------------------------------------------------------------------------------------------


def test_the_root_of_vcpu_1_is_explained():
    (line,) = lines_of(shown(SAMPLE, "--vcpu", "1", "--placement", "source"), "cr3=")
    assert line.split("cr3=")[1] == "00019000  pfn 0x19, source mfn 0xbfbf6, in the stream the pfn stands for the mfn"


def test_registers_stand_four_to_a_line():
    text = shown(SAMPLES / "x417-pv64.plain.libxc.zst", "--vcpu", "0")
    assert [part.split("=")[0] for part in lines_of(text, "rax=")[0].split()[1:]] == ["rax", "rbx", "rcx", "rdx"]


def test_on_a_narrow_terminal_registers_stand_in_fewer_columns():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=70, color_system=None, highlight=False)
    inspect(str(SAMPLES / "x417-pv64.plain.libxc.zst"), then=lambda i: render_vcpus(i, console, [0]))
    lines = out.getvalue().splitlines()
    assert [part.split("=")[0] for part in lines_of(out.getvalue(), "rax=")[0].split()[1:]] == ["rax", "rbx"]
    assert max(map(len, lines)) <= 70


def test_all_vcpus_are_shown_in_their_order():
    told = document(SAMPLE, "--vcpu", "all")["vcpus"]
    assert [vcpu["vcpu"] for vcpu in told] == [0, 1]
    assert [vcpu["registers"]["control"]["cr3"]["pfn"] for vcpu in told] == [0x16, 0x19]
    assert told[1]["registers"]["control"]["cr3"]["source_mfn"] == 785398


def test_the_number_of_the_new_domains_vcpus_is_another_option():
    told = document(SAMPLE, "--vcpu", "1", "--vcpus", "1")
    assert (told["verdict"], told["vcpus"][0]["vcpu"]) == ("refuse", 1)


def test_a_vcpu_that_the_stream_has_not_is_an_error():
    result = run(SAMPLE, "--vcpu", "7", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("the stream has nothing of vcpu 7; it has vcpus 0-1\n")


# -- passes, and several views at once ----------------------------------------------------------------------


def test_the_passes_of_a_live_migration_are_a_table():
    sample = SAMPLES / "x417-pv64.live4.libxc.zst"
    told = document(sample, "--rounds")["rounds"]
    assert [done["kind"] for done in told["passes"]] == ["first", "dirty", "dirty", "dirty", "final"]
    facts = Shelf().entry(sample).facts
    assert sum(done["pages"] for done in told["passes"]) == facts["page_entries_sent"]
    text = shown(sample, "--rounds")
    assert len(lines_of(text, "NOTAB")) == 5
    assert "Pages sent once: " in text


def test_views_are_keys_of_one_document():
    told = document(SAMPLE, "--vcpu", "0", "--rounds", "--record", "0", "--pfn", "0x16")
    assert {"record", "vcpus", "rounds", "pfn"} <= told.keys()
    assert "records" not in told


def test_views_of_one_call_are_apart():
    text = shown(SAMPLE, "--record", "0", "--rounds")
    assert text.startswith("record 0 X86_PV_INFO\n")
    assert "\n\npass  kind" in text


# -- endings ----------------------------------------------------------------------------------------------


def test_a_refused_stream_is_shown_all_the_same():
    assert run(SAMPLE, "--target", "4.20", "--placement", "high").exit_code == 0


def test_what_is_no_stream_has_nothing_to_show(write):
    for data in (b"not a stream at all, by no means", b"", b"\xff" * 10):
        result = run(write(data))
        assert (result.exit_code, result.stdout) == (3, "")
        assert "nothing to show" in result.stderr


def test_what_is_no_stream_is_a_document_without_views(write):
    result = run(write(b"not a stream at all, by no means"), "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["verdict"] == "unjudged"


def test_a_file_that_is_not_there_cannot_be_shown(tmp_path):
    result = run(tmp_path / "nothing")
    assert result.exit_code == 2
    assert result.stderr.endswith("No such file or directory\n")


@pytest.mark.parametrize(
    "args",
    [
        ("--hexdump",),
        ("--vcpu", "x"),
        ("--vcpu", "all", "--walk", "0"),
        ("--pfn", "0xzz"),
        ("--pfn", str(1 << 64)),
        ("--walk", "-1"),
        ("--placement", "nowhere"),
        ("--placement", "file:/nowhere/map"),
        ("--target", "3.1"),
    ],
)
def test_wrong_usage_is_told_in_a_line(args):
    result = run(SAMPLE, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "internal error" not in result.stderr


@pytest.mark.parametrize("command", ["check", "show", "trace"])
def test_a_map_that_cannot_be_read_is_what_is_complained_about(command):
    result = CliRunner().invoke(main, [command, str(SAMPLE), "--placement", "file:/nowhere/map"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"migrate: {SAMPLE}: /nowhere/map: No such file or directory\n"


def test_a_map_that_is_none_is_wrong_usage(tmp_path):
    (tmp_path / "map").write_text("1 2\nno numbers\n")
    result = run(SAMPLE, "--placement", f"file:{tmp_path / 'map'}", "--p2m")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 2" in result.stderr


def test_a_pipe_and_a_compressed_file_show_the_same(write):
    data = StreamBuilder.pv(4).build()
    plain, packed = write(data), write(gzip.compress(data), "packed")
    command = [sys.executable, "-m", "migrate", "show", "-", "--vcpu", "0"]
    piped = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)
    assert piped.stdout.decode() == shown(plain, "--vcpu", "0") == shown(packed, "--vcpu", "0")


@pytest.fixture(scope="module")
def long_and_packed(tmp_path_factory):
    """Four times as long as what is looked at more than once may be."""
    path = tmp_path_factory.mktemp("packed") / "long"
    path.write_bytes(gzip.compress(KINDS["records of one page, PV"][1](256), 1))
    return path


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_a_compressed_file_is_decoded_once_more_at_most(view, long_and_packed, monkeypatch):
    again, decodings = CompressedTransport.again, []

    def counted(transport):
        decodings.append(transport)
        return again(transport)

    monkeypatch.setattr(CompressedTransport, "again", counted)
    monkeypatch.setattr(reading, "_DECODED", 1 << 18)
    assert run(long_and_packed, *view).exit_code in ENDINGS
    assert len(decodings) <= 1


# -- whatever the stream ------------------------------------------------------------------------------------


def check_all_views(path):
    for view in VIEWS:
        for form in ((), ("--json",)):
            result = run(path, *view, *form)
            assert result.exit_code in ENDINGS, (view, result.output)
            assert "internal error" not in result.stderr, (view, result.stderr)
            if form and result.exit_code == 0:
                json.loads(result.stdout)
            if result.exit_code == 2:
                assert result.stdout == ""
                assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["x417-pv32.xl.zst", "x417-pv64.plain.libxc.zst", "x417-pv32.remus.libxc.zst"])
def test_all_views_of_a_sample_are_shown(name):
    check_all_views(SAMPLES / name)


@pytest.mark.parametrize("name", REAL)
def test_every_sample_is_shown(name):
    for view in ((), ("--vcpu", "all"), ("--rounds",)):
        assert shown(SAMPLES / name, *view)


@pytest.mark.parametrize("path", DAMAGED[::96], ids=lambda path: path.name.split(".libxc")[0])
def test_all_views_of_a_damaged_stream_are_shown_as_far_as_it_goes(path):
    check_all_views(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.name.split(".libxc")[0])
def test_all_views_of_every_damaged_stream_are_shown_as_far_as_it_goes(path):
    check_all_views(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REAL, "pv32.migrate.bin.zst"])
def test_all_views_of_every_sample_are_shown(name):
    check_all_views(SAMPLES / name)


def test_the_example_of_the_help_runs(write):
    b = StreamBuilder.pv(4, vcpus=2)
    b.wrap("xl")
    path = write(b)
    (example,) = lines_of(run("--help").stdout, "Example: migrate show guest.xl")
    assert "record 12 " in shown(path, *example.split("guest.xl")[1].split())


def test_an_endless_pipe_that_is_no_stream_is_not_waited_for():
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as endless:
        command = [sys.executable, "-m", "migrate", "show", "-"]
        done = subprocess.run(command, stdin=endless.stdout, capture_output=True, text=True, timeout=60)
        endless.stdout.close()
    assert done.returncode == 3
    assert "not a Xen stream" in done.stderr + done.stdout
