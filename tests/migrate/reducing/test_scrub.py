"""Scrubbing: the guest's memory is gone, and the judgement is the same."""

import io
import shutil

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import SAMPLES, restless
from trying import examples
from violating import violating

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.parts import entry
from migrate.building.shapes import hvm_guest, pv_guest
from migrate.cli.main import main
from migrate.reducing.scrub import ScrubError, changed, comparable, scrub
from migrate.rules.catalogue import RULES
from migrate.rules.hypervisor import NEEDS_PLACEMENT
from migrate.testing import strategies
from streams.encoder import decode
from streams.pages import PageType
from streams.records import PageData
from streams.wire.hvm_cpu import CPU
from streams.wire.paging import P
from streams.wire.start_info import START_INFO

SECRET = b"the guest's secret, sixteen words of it"
BIG = {"L3C-6"}


def scrubbed(source):
    out = io.BytesIO()
    return scrub(source, out), out.getvalue()


def memory(stream):
    """Contents by pfn: the last version."""
    found = {}
    for record in decode(stream).records:
        if isinstance(record, PageData):
            data = b"".join(content for _, content in record.runs)
            pfns = record.words.pfns[record.words.has_data].tolist()
            found |= {pfn: data[i * 4096 : (i + 1) * 4096] for i, pfn in enumerate(pfns)}
    return found


def with_secrets(b):
    """Put a secret into every place where a guest may have one."""
    b.new_page(content=SECRET)
    for pfn in (b.store_pfn, b.console_pfn):
        b.memory[pfn].content[:100] = SECRET.ljust(100)
    return b


@pytest.fixture(params=[4, 8])
def pv(request):
    b = with_secrets(StreamBuilder.pv(request.param, vcpus=2, roots=2))
    b.rounds = [sorted(b.memory)]
    b.start_info.cmd_line = b"root=/dev/xvda1 password=" + SECRET
    b.start_info.cmd_line = b.start_info.cmd_line.ljust(1024, b"\0")
    b.memory[b.start_info_pfn].content[-100:] = SECRET.ljust(100)
    b.shared_info[-100:] = SECRET.ljust(100)
    for vcpu in b.vcpus:
        vcpu.basic.fpu_ctxt = vcpu.basic.fpu_ctxt[:160] + SECRET.ljust(64) + bytes(288)
    return b


# -- what goes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
def test_no_secret_of_a_pv_guest_is_left(pv, container):
    pv.wrap(container)
    stream = pv.build()
    assert stream.count(SECRET[:16]) > 6
    assert SECRET[:16] not in scrubbed(stream)[1]


def test_no_secret_of_a_pv_guest_of_unknown_width_is_left(pv):
    pv.drop("X86_PV_INFO")
    stream = pv.build()
    _, clean = scrubbed(stream)
    assert SECRET[:16] in stream
    assert SECRET[:16] not in clean
    assert changed(stream, clean) is None


def test_no_secret_of_an_hvm_guest_is_left():
    b = with_secrets(hvm_guest(pages=32, vcpus=2, rounds=2))
    b.wrap("xl")
    b.libxl_after[0].body += bytes(8192) + SECRET
    at = b.hvm_context.index(b"\x7f\x03")  # fcw, the first field of a vcpu's FPU image
    b.hvm_context[at + 160 : at + 160 + len(SECRET)] = SECRET
    b.trailing = SECRET
    stream = b.build()
    assert stream.count(SECRET) >= 5
    assert SECRET[:16] not in scrubbed(stream)[1]


def test_the_extended_state_of_a_vcpu_goes_but_for_its_header():
    b = StreamBuilder.pv(8)
    words = (7).to_bytes(8, "little") * 2  # x87, SSE and AVX
    header = (7).to_bytes(8, "little") + bytes(56)
    b.vcpus[0].xsave = bytearray(words + b"F" * 512 + header + b"Y" * 256)
    _, stream = scrubbed(b.build())
    record = next(r for r in decode(stream).records if r.place.name == "X86_PV_VCPU_XSAVE")
    assert record.content == words + bytes(512) + header + bytes(256)


def test_a_record_that_no_restore_reads_goes():
    b = StreamBuilder.pv(4)
    b.insert(0x8000_0042, SECRET, before="END")
    assert SECRET not in scrubbed(b.build())[1]


def test_what_is_left_of_a_stream_that_breaks_off_goes():
    stream = with_secrets(StreamBuilder.pv(4)).build()
    cut = stream[: stream.index(SECRET) + 20]
    told, clean = scrubbed(cut)
    assert SECRET[:16] not in clean
    assert told.size == len(clean) == len(cut)
    rest = told.zeroed["byte from where the stream breaks off"]
    assert (clean[:-rest], clean[-rest:]) == (cut[:-rest], bytes(rest))
    assert changed(cut, clean) is None


def test_of_an_fpu_that_is_said_not_to_be_used_one_byte_shows_that_something_is_in_it():
    b = StreamBuilder.hvm()
    at = b.hvm_context.index(b"\x7f\x03")
    b.hvm_context[at + 160 : at + 160 + len(SECRET)] = SECRET
    flags = at + CPU.offset("flags")
    b.hvm_context[flags : flags + 4] = bytes(4)
    stream = b.build()
    assert "HVM-24" in {finding.rule.id for finding in check(stream).findings}
    _, clean = scrubbed(stream)
    assert SECRET[:2] not in clean
    assert changed(stream, clean) is None


def test_a_xapi_block_that_the_input_ends_in_keeps_its_length():
    b = with_secrets(StreamBuilder.hvm())
    b.wrap("xapi")
    b.xapi_blocks[0] = (0xFFF, SECRET)
    stream = b.build()
    cut = stream[: stream.index(SECRET) + 8]
    _, clean = scrubbed(cut)
    assert SECRET[:8] not in clean
    assert changed(cut, clean) is None


# -- what stays ---------------------------------------------------------------------------------------


def test_tables_the_p2m_and_gdts_stay_as_they_are(pv):
    stream = pv.build()
    before, after = memory(stream), memory(scrubbed(stream)[1])
    tables = [pfn for pfn, page in pv.memory.items() if page.is_table]
    kept = [*tables, *pv.p2m_frames, pv.gdt_pfn]
    assert {pfn: after[pfn] for pfn in kept} == {pfn: before[pfn] for pfn in kept}
    assert all(not any(after[pfn]) for pfn in after.keys() - kept - {pv.start_info_pfn})


def test_start_info_stays_without_the_command_line(pv):
    layout = START_INFO[pv.width]
    stream = pv.build()
    before = layout.read(memory(stream)[pv.start_info_pfn])
    after = layout.read(memory(scrubbed(stream)[1])[pv.start_info_pfn])
    assert not any(after.cmd_line)
    assert (after.magic, after.store_mfn, after.console_mfn) == (before.magic, before.store_mfn, before.console_mfn)


def test_what_is_left_and_what_went_is_counted(pv):
    told, stream = scrubbed(pv.build())
    tables = sum(page.is_table for page in pv.memory.values())
    assert told.size == len(stream)
    assert told.left["page table"] == 2 * tables  # in both rounds
    assert told.left["p2m page"] == told.left["GDT page"] == 2
    assert told.zeroed["vcpu's FPU registers"] == 2


def test_a_page_that_a_table_takes_for_one_stays():
    # An L2 names an ordinary page, which Xen reads as an L1; its entries are machine frames.
    b = StreamBuilder.pv(4)
    page = b.new_page()
    b.table(page)[7] = 0x5000 << 12 | P
    _, l2, _ = b.chain(b.roots[0])
    b.table(l2)[9] = entry(page)
    told, stream = scrubbed(b.build())
    assert memory(stream)[page] == bytes(b.memory[page].content)
    assert told.left["page that a table names as a table"] == 1


def test_an_older_version_of_a_table_that_is_data_now_goes_as_data():
    b = StreamBuilder.pv(4)
    page = b.new_page(content=SECRET)
    old = StreamBuilder.pv(4)
    table = old.new_table(1)
    from migrate.building.parts import page_data

    b.insert("PAGE_DATA", page_data([(page, PageType.L1TAB, old.memory[table].data())]), before="PAGE_DATA")
    told, stream = scrubbed(b.build())
    assert not any(memory(stream)[page])
    assert told.left["page table"] == 1 + sum(p.is_table for p in b.memory.values())


# -- the law: judged the same -------------------------------------------------------------------------


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.streams())
def test_a_sound_stream_is_judged_the_same(stream):
    assert changed(stream, scrubbed(stream)[1]) is None


@settings(max_examples=examples(20), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_stream_is_judged_the_same(data):
    stream, _ = data.draw(strategies.damaged_streams())
    assert changed(stream, scrubbed(stream)[1]) is None


@pytest.mark.parametrize("id", [id for id, rule in RULES.items() if rule.violation and id not in BIG])
def test_every_violation_is_judged_the_same(id):
    stream = violating(id)
    try:
        clean = scrubbed(stream)[1]
    except ScrubError:
        assert check(stream).verdict == "unjudged"
        return
    assert len(clean) == len(stream)
    wanted = check(stream, placement=NEEDS_PLACEMENT.get(id, "source"))
    told = check(clean, placement=NEEDS_PLACEMENT.get(id, "source"))
    assert comparable(told.findings) == comparable(wanted.findings)


@pytest.mark.parametrize(
    "name",
    [
        "x417-pv32.remus.libxc.zst",
        "x417-pv32.xl.zst",
        "x417-pv64.verify.libxc.zst",
        "x417-pvh.xl.zst",
        "pv32.migrate.bin.zst",
        "oracle/pv32.plain__l2_points_at_p2m_page.libxc.zst",
        "oracle/pv64.plain__l1_tagged_notab.libxc.zst",
    ],
)
def test_a_genuine_stream_is_judged_the_same(tmp_path, name):
    with open(tmp_path / "clean", "w+b") as out:
        told = scrub(SAMPLES / name, out)
    assert changed(SAMPLES / name, tmp_path / "clean") is None
    assert told.zeroed["page"] > 1000


def test_a_scrubbed_stream_has_nothing_left_to_scrub(pv):
    once = scrubbed(pv.build())[1]
    assert scrubbed(once)[1] == once


def test_a_change_is_noticed():
    stream = pv_guest(4, vcpus=2, roots=2).build()
    other = pv_guest(4, vcpus=2, roots=2, high_roots=True).build()
    assert "under placement source, the verdict was accept and is refuse" in changed(stream, other)


# -- the command --------------------------------------------------------------------------------------


def command(*args):
    return CliRunner().invoke(main, ["corpus", "scrub", *map(str, args)])


@pytest.fixture
def stream(tmp_path):
    file = tmp_path / "guest.libxc"
    file.write_bytes(with_secrets(StreamBuilder.pv(4)).build())
    return file


def test_the_command_says_what_is_left(stream, tmp_path):
    result = command(stream, "-o", tmp_path / "clean")
    assert result.exit_code == 0
    assert SECRET not in (tmp_path / "clean").read_bytes()
    assert "page tables" in result.output
    assert "verdict and findings are those of the original" in result.output


def test_the_command_takes_the_place_of_the_stream_by_force(stream):
    assert command(stream, "-o", stream).exit_code == 2
    assert command(stream, "-o", stream, "--force").exit_code == 0
    assert SECRET not in stream.read_bytes()


def test_the_command_writes_the_stream_alone_to_standard_output(stream):
    result = command(stream, "-o", "-")
    assert result.stdout_bytes == scrubbed(stream)[1]


@pytest.mark.parametrize("what", ["junk", "nothing", "a directory"])
def test_the_command_leaves_no_file_where_it_cannot_scrub(tmp_path, what):
    source = tmp_path / what
    if what == "junk":
        source.write_bytes(b"hello, world")
    elif what == "a directory":
        source.mkdir()
    assert command(source, "-o", tmp_path / "clean").exit_code == 2
    assert not (tmp_path / "clean").exists()


def test_a_file_that_is_changed_while_it_is_read_leaves_nothing(tmp_path):
    stream, out = tmp_path / "guest.zst", tmp_path / "out"
    shutil.copy(SAMPLES / "x417-pv32.plain.libxc.zst", stream)
    with restless(stream):
        result = command(stream, "-o", out)
    assert result.exit_code == 2
    assert result.output == f"migrate: {stream}: the file was changed while it was read\n"
    assert not out.exists()
