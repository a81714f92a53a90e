"""`migrate extract`: the file is the guest that the receiver of the stream would have."""

import os
import random
import struct
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import zstandard
from click.testing import CliRunner
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from project import SAMPLES
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import page_data
from migrate.cli.ending import ExitCode
from migrate.cli.main import main
from migrate.corpus.expectations import Shelf
from migrate.testing import strategies
from streams.bodies import Checkpoint, HvmContext, Verify
from streams.encoder import decode
from streams.hvm_context import decode_context
from streams.opening import open_transport
from streams.pages import TABLE_TYPES, PageType
from streams.records import PageData
from streams.wire.constructs import construct_of
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE, RECORD_HEADER, RecordType
from streams.wire.hvm_names import SaveType
from streams.wire.paging import P
from streams.wire.vcpu import CONTEXT, GDT_ENTRIES_PER_FRAME, cr3_to_pfn

REAL = sorted(path.name for path in SAMPLES.glob("*.zst"))
PV = [name for name in REAL if "-pvh" not in name and not name.startswith("pv32.migrate")]
ORACLE = sorted((SAMPLES / "oracle").glob("*.zst"))

# docs/misc/dump-core-format.txt and elfnote.h of Xen.
NOTES = {0x2000000: 0, 0x2000001: 32, 0x2000002: 1280, 0x2000003: 8}
MAGIC_PV, MAGIC_HVM = 0xF00FEBED, 0xF00FEBEE
CONTEXT_ROOM = 5168
LOST_AT_MOST = 32  # good pages, where compressed input turns out to be corrupt
UNKNOWN_FRAME = (1 << 64) - 1
FRAMES = 0x000F_FFFF_FFFF_F000


def run(*args):
    return CliRunner().invoke(main, ["extract", *map(str, args)])


def piped(stream, *args):
    """Run it in a process of its own, which gets the stream through a pipe."""
    command = [sys.executable, "-m", "migrate", "extract", "-", *map(str, args)]
    return subprocess.run(command, input=stream, capture_output=True, check=False)


@cache
def plain(name):
    with open_transport(SAMPLES / name) as transport:
        pieces = []
        while piece := bytes(transport.give(1 << 20)):
            pieces.append(piece)
    return b"".join(pieces)


def received(stream):
    """The guest's pages by pfn, slowly: what came last before VERIFY, up to the last checkpoint if there is one."""
    memory, waiting, checkpointed = {}, [], False
    for item in decode(stream):
        match item:
            case Verify():
                break
            case Checkpoint():
                memory.update(waiting)
                waiting, checkpointed = [], True
            case PageData():
                data = b"".join(run for _, run in item.runs)
                whole = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
                pages = list(zip(item.words.pfns[item.words.has_data].tolist(), whole, strict=True))
                (waiting.extend if checkpointed else memory.update)(pages)
    return memory


def image_of(memory):
    """What the raw image of such a guest is."""
    image = bytearray((max(memory) + 1) * PAGE_SIZE)
    for pfn, page in memory.items():
        image[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE] = page
    return bytes(image)


def differing(raw, memory):
    """Pfns of a raw image, read page by page, that are not as they should be; holes need not be read."""
    wrong = [pfn for pfn, page in memory.items() if os.pread(raw, PAGE_SIZE, pfn * PAGE_SIZE) != page]
    assert os.fstat(raw).st_size == (max(memory) + 1) * PAGE_SIZE
    return wrong


@pytest.fixture
def extracted(tmp_path):
    """Extract from a stream's bytes; gives the ending and the path of the file."""

    def extract(form, stream, *, ending=ExitCode.FINE):
        source, out = tmp_path / "stream", tmp_path / f"guest.{form}"
        source.write_bytes(stream)
        result = run(source, f"--{form}", out, "--force")
        assert result.exit_code == ending, result.output
        extract.told = result.output
        return out

    return extract


class Core:
    """A core, read by another's ELF library and nothing of ours but the layout of a context."""

    def __init__(self, path):
        self.file = open(path, "rb")  # noqa: SIM115
        elf = ELFFile(self.file)
        self.elf = elf
        self.pages = elf.get_section_by_name(".xen_pages")
        table = elf.get_section_by_name(".xen_p2m") or elf.get_section_by_name(".xen_pfn")
        rows = np.frombuffer(table.data(), "<u8")
        self.pv = table.name == ".xen_p2m"
        self.pfns, self.mfns = (rows[0::2], rows[1::2]) if self.pv else (rows, rows)
        self.at_pfn = {pfn: row for row, pfn in enumerate(self.pfns.tolist())}
        self.at_mfn = {mfn: row for row, mfn in enumerate(self.mfns.tolist())}

    def page(self, row):
        return os.pread(self.file.fileno(), PAGE_SIZE, self.pages["sh_offset"] + row * PAGE_SIZE)

    def mfn(self, pfn):
        return int(self.mfns[self.at_pfn[pfn]])

    def pfn(self, mfn):
        return int(self.pfns[self.at_mfn[mfn]])

    def contexts(self, width):
        raw = self.elf.get_section_by_name(".xen_prstatus").data()
        context = construct_of(CONTEXT[width])
        return [context.parse(raw[at : at + CONTEXT_ROOM]) for at in range(0, len(raw), CONTEXT_ROOM)]

    def notes(self):
        raw, found, at = self.elf.get_section_by_name(".note.Xen").data(), {}, 0
        while at < len(raw):
            namesz, descsz, kind = struct.unpack_from("<III", raw, at)
            assert raw[at + 12 : at + 12 + namesz] == b"Xen\0"
            found[kind] = raw[at + 16 : at + 16 + descsz]
            at += 16 + descsz
        return found


# -- raw images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_a_raw_image_has_every_page_as_it_last_came(name, tmp_path):
    out = tmp_path / "guest.raw"
    result = run(SAMPLES / name, "--raw", out)
    assert result.exit_code == ExitCode.FINE, result.output
    with open(out, "rb") as raw:
        assert differing(raw.fileno(), received(plain(name))) == []


def test_what_never_came_reads_as_zeros(extracted):
    b = StreamBuilder.hvm()
    out = extracted("raw", b.build())
    absent = out.read_bytes()[b.absent_pfn * PAGE_SIZE :][:PAGE_SIZE]
    assert absent == bytes(PAGE_SIZE)
    assert out.stat().st_size == (b.max_pfn + 1) * PAGE_SIZE


def test_an_image_of_a_nearly_empty_guest_takes_hardly_any_room(extracted):
    b = StreamBuilder.hvm()
    b.record("PAGE_DATA").body[:] = page_data([(0, 0, b"\1" * PAGE_SIZE), (1 << 20, 0, b"\2" * PAGE_SIZE)])
    out = extracted("raw", b.build())
    assert out.stat().st_size == ((1 << 20) + 1) * PAGE_SIZE  # 4 GiB
    assert out.stat().st_blocks * 512 < 64 * PAGE_SIZE


def test_a_page_of_zeros_replaces_what_came_before(extracted):
    b = StreamBuilder.hvm()
    b.insert("PAGE_DATA", page_data([(0, 0, b"\1" * PAGE_SIZE)]), before="PAGE_DATA")
    b.insert("PAGE_DATA", page_data([(0, 0, bytes(PAGE_SIZE))]), after="PAGE_DATA")
    assert extracted("raw", b.build()).read_bytes()[:PAGE_SIZE] == bytes(PAGE_SIZE)


def test_of_a_page_that_comes_twice_in_a_record_the_later_counts(extracted):
    b = StreamBuilder.hvm()
    twice = [(0, 0, b"\1" * PAGE_SIZE), (0, 0, bytes(PAGE_SIZE)), (1, 0, bytes(PAGE_SIZE)), (1, 0, b"\2" * PAGE_SIZE)]
    b.insert("PAGE_DATA", page_data(twice), after="PAGE_DATA")
    image = extracted("raw", b.build()).read_bytes()
    assert image[: 2 * PAGE_SIZE] == bytes(PAGE_SIZE) + b"\2" * PAGE_SIZE


@pytest.mark.parametrize("kind", [PageType.XTAB, PageType.BROKEN])
def test_a_page_that_is_only_announced_later_keeps_what_was_sent(extracted, kind):
    b = StreamBuilder.hvm()
    b.record("PAGE_DATA").body[:] = page_data([(0, 0, b"\1" * PAGE_SIZE)])
    b.insert("PAGE_DATA", page_data([(0, kind, None)]), after="PAGE_DATA")
    assert extracted("raw", b.build()).read_bytes() == b"\1" * PAGE_SIZE


def test_what_is_sent_to_be_verified_is_not_in_the_image(extracted):
    b = StreamBuilder.hvm()
    b.verify = True
    b.record("PAGE_DATA", 0).body[:] = page_data([(0, 0, b"\1" * PAGE_SIZE)])
    b.record("PAGE_DATA", 1).body[:] = page_data([(0, 0, b"\2" * PAGE_SIZE)])
    assert extracted("raw", b.build()).read_bytes() == b"\1" * PAGE_SIZE


@pytest.mark.parametrize("container", ["libxc", "xl"])
def test_what_comes_after_the_last_checkpoint_is_not_in_the_image(extracted, container):
    b = StreamBuilder.hvm()
    b.checkpoints = 2
    for number, byte in enumerate([b"\1", b"\2"]):
        b.record("PAGE_DATA", number).body[:] = page_data([(0, 0, byte * PAGE_SIZE)])
    b.records.append(type(b.records[0])(RecordType.PAGE_DATA, bytearray(page_data([(0, 0, b"\3" * PAGE_SIZE)]))))
    b.wrap(container)
    assert extracted("raw", b.build()).read_bytes() == b"\2" * PAGE_SIZE
    assert "as at checkpoint 2" in extracted.told
    assert "1 page that came after the last checkpoint: left out" in extracted.told


def test_a_pfn_far_beyond_all_others_makes_no_huge_file(extracted):
    b = StreamBuilder.hvm()
    far = (1 << 52) - 1
    b.insert("PAGE_DATA", page_data([(far, 0, b"\1" * PAGE_SIZE), (0, 0, b"\2" * PAGE_SIZE)]), after="PAGE_DATA")
    out = extracted("raw", b.build(), ending=ExitCode.FOUND)
    assert out.stat().st_size == (b.max_pfn + 1) * PAGE_SIZE
    assert out.read_bytes()[:PAGE_SIZE] == b"\2" * PAGE_SIZE
    assert f"1 page lies far beyond all that the stream has sent (up to pfn {far:#x}): left out" in extracted.told


@settings(max_examples=examples(20), deadline=None)
@given(strategies.streams(containers=["libxc", "libxl", "xl", "xapi"]))
def test_the_image_of_any_guest_is_what_its_stream_says(tmp_path_factory, stream):
    folder = tmp_path_factory.mktemp("any")
    source, out = folder / "stream", folder / "guest.raw"
    source.write_bytes(stream)
    assert run(source, "--raw", out).exit_code == ExitCode.FINE
    assert out.read_bytes() == image_of(received(stream))


@settings(max_examples=25, deadline=None)
@given(strategies.guests())
def test_the_image_of_a_built_guest_is_its_memory(tmp_path_factory, b):
    folder = tmp_path_factory.mktemp("built")
    source, out = folder / "stream", folder / "guest.raw"
    source.write_bytes(b.build())
    assert run(source, "--raw", out).exit_code == ExitCode.FINE
    assert out.read_bytes() == image_of({pfn: bytes(page.data()) for pfn, page in b.memory.items() if page.has_data})


# -- cores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x417-pv32.plain.libxc.zst", "x417-pv64.live4.libxc.zst", "x417-pvh.xl.zst"])
def test_a_core_has_the_sections_and_notes_of_the_format(name, tmp_path):
    out = tmp_path / "guest.core"
    assert run(SAMPLES / name, "--elf", out).exit_code == ExitCode.FINE
    core, pages, pv = Core(out), received(plain(name)), "-pvh" not in name
    assert core.elf.header["e_type"] == "ET_CORE"
    assert core.elf.elfclass == 64
    assert core.elf.num_segments() == 0
    sections = {section.name for section in core.elf.iter_sections()}
    expected = {"", ".shstrtab", ".note.Xen", ".xen_prstatus", ".xen_pages"}
    assert sections == expected | ({".xen_p2m", ".xen_shared_info"} if pv else {".xen_pfn"})
    assert core.pages["sh_size"] == len(pages) * PAGE_SIZE
    notes = core.notes()
    assert {kind: len(body) for kind, body in notes.items()} == NOTES
    vcpus = Shelf().entry(SAMPLES / name).provenance["vcpus"]
    assert struct.unpack("<4Q", notes[0x2000001]) == (MAGIC_PV if pv else MAGIC_HVM, vcpus, len(pages), PAGE_SIZE)
    assert struct.unpack_from("<2Q", notes[0x2000002]) == (4, 17)
    assert notes[0x2000003] == (1).to_bytes(8, "little")


@pytest.mark.parametrize("name", PV)
def test_machine_frames_are_those_that_the_guest_saw(name, tmp_path):
    out, said = tmp_path / "guest.core", Shelf().entry(SAMPLES / name).guest
    assert run(SAMPLES / name, "--elf", out).exit_code == ExitCode.FINE
    core = Core(out)
    roots = {one["pfn"]: one["mfn"] for one in said["roots"] if "mfn" in one}
    assert len(roots) > 1 or "oneroot" in name
    assert {pfn: core.mfn(pfn) for pfn in roots} == roots
    contexts = core.contexts(said["width"])
    cr3 = {one["vcpu"]: one["mfn"] for one in said["cr3"] if "mfn" in one}
    assert {vcpu: cr3_to_pfn(contexts[vcpu].ctrlreg[3], said["width"]) for vcpu in cr3} == cr3


@pytest.mark.parametrize("name", [name for name in PV if ".plain." in name or ".live4." in name])
def test_page_tables_name_the_machine_frames_of_the_pages_they_named(name, tmp_path):
    out = tmp_path / "guest.core"
    assert run(SAMPLES / name, "--elf", out).exit_code == ExitCode.FINE
    core, memory, types = Core(out), received(plain(name)), {}
    for item in decode(plain(name)):
        if isinstance(item, PageData):
            full = item.words.has_data
            types |= dict(zip(item.words.pfns[full].tolist(), item.words.types[full].tolist(), strict=True))
    assert sorted(core.pfns.tolist()) == sorted(memory)
    checked = 0
    for pfn, contents in memory.items():
        kept = core.page(core.at_pfn[pfn])
        if types[pfn] not in TABLE_TYPES:
            assert kept == contents, hex(pfn)
            continue
        for was, now in zip(np.frombuffer(contents, "<u8").tolist(), np.frombuffer(kept, "<u8").tolist(), strict=True):
            if was & P:
                assert now & ~FRAMES == was & ~FRAMES
                assert core.pfn((now & FRAMES) >> 12) == (was & FRAMES) >> 12
                checked += 1
            else:
                assert now == was
    assert checked > 1000


@pytest.mark.parametrize(
    ("name", "slots"), [("x417-pv32.plain.libxc.zst", (3, 0)), ("x417-pv64.plain.libxc.zst", (511, 510, 0))]
)
def test_a_walk_by_machine_frames_ends_at_the_page_that_one_by_pfns_ends_at(name, slots, tmp_path):
    raw, out = tmp_path / "guest.raw", tmp_path / "guest.core"
    run(SAMPLES / name, "--raw", raw)
    run(SAMPLES / name, "--elf", out)
    core, width = Core(out), 4 if "pv32" in name else 8
    said = Shelf().entry(SAMPLES / name).guest["cr3"][0]
    mfn, pfn, image = cr3_to_pfn(core.contexts(width)[0].ctrlreg[3], width), said["pfn"], raw.read_bytes()

    def frame(table, slot):
        return int(np.frombuffer(table, "<u8")[slot]) >> 12 & (1 << 40) - 1

    for slot in slots:
        mfn = frame(core.page(core.at_mfn[mfn]), slot)
        pfn = frame(image[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE], slot)
    leaves = np.frombuffer(image[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE], "<u8")
    mapped = np.flatnonzero(leaves & P)[:50].tolist()
    assert mapped
    for slot in mapped:
        data = frame(leaves.tobytes(), slot)
        by_machine = core.page(core.at_mfn[frame(core.page(core.at_mfn[mfn]), slot)])
        if data not in core.at_pfn or core.page(core.at_pfn[data]) == image[data * PAGE_SIZE : (data + 1) * PAGE_SIZE]:
            assert by_machine == core.page(core.at_pfn[data])


@pytest.mark.parametrize("width", [4, 8])
def test_contexts_speak_of_machine_frames_where_a_saver_puts_pfns(extracted, width):
    b = StreamBuilder.pv(width, vcpus=2, roots=2)
    if width == 8:
        b.vcpus[0].user_root = b.roots[1]
    core = Core(extracted("elf", b.build()))
    first, second = core.contexts(width)
    register = "edx" if width == 4 else "rdx"
    assert core.pfn(first.user_regs[register]) == b.start_info_pfn
    assert [core.pfn(cr3_to_pfn(one.ctrlreg[3], width)) for one in (first, second)] == b.roots
    count = -(-first.gdt_ents // GDT_ENTRIES_PER_FRAME)
    assert [core.pfn(frame) for frame in first.gdt_frames[:count]] == [b.gdt_pfn]
    if width == 8:
        assert core.pfn(cr3_to_pfn(first.ctrlreg[1], width)) == b.roots[1]
        assert second.ctrlreg[1] == 0


def test_the_shared_info_page_is_in_the_core_as_it_came(extracted):
    b = StreamBuilder.pv(8)
    core = Core(extracted("elf", b.build()))
    assert core.elf.get_section_by_name(".xen_shared_info").data() == bytes(b.shared_info)


def test_vcpus_of_an_hvm_guest_have_the_registers_of_its_context(tmp_path):
    name, out = "x417-pvh.xl.zst", tmp_path / "guest.core"
    assert run(SAMPLES / name, "--elf", out).exit_code == ExitCode.FINE
    (saved,) = (item for item in decode(plain(name)) if isinstance(item, HvmContext))
    cpus = [entry.parse() for entry in decode_context(saved.pack()).of(SaveType.CPU)]
    contexts = Core(out).contexts(8)
    assert len(contexts) == len(cpus)
    for cpu, context in zip(cpus, contexts, strict=True):
        assert [context.user_regs[name] for name in ("rip", "rsp", "rflags", "rbx")] == [
            cpu.rip,
            cpu.rsp,
            cpu.rflags,
            cpu.rbx,
        ]
        assert [context.ctrlreg[number] for number in (0, 2, 3, 4)] == [cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4]
        assert context.user_regs.cs == cpu.cs_sel
        assert context.fpu_ctxt[:2] == cpu.fpu_regs.fcw.to_bytes(2, "little")


def test_an_entry_whose_frame_is_not_in_the_p2m_names_no_frame(extracted):
    b = StreamBuilder.pv(8)
    leaf = b.chain(b.roots[0])[-1]
    slots = np.flatnonzero((b.table(leaf) >> np.uint64(12) & np.uint64((1 << 40) - 1)) == b.store_pfn).tolist()
    assert slots == [b.store_pfn]
    b.place(b.store_pfn, None)
    core = Core(extracted("elf", b.build(), ending=ExitCode.FOUND))
    assert core.mfn(b.store_pfn) == UNKNOWN_FRAME
    row = np.frombuffer(core.page(core.at_pfn[leaf]), "<u8")
    assert int(row[slots[0]]) & FRAMES == FRAMES
    assert int(row[slots[0]]) & ~FRAMES == int(b.table(leaf)[slots[0]]) & ~FRAMES
    assert "1 page table entry names a frame that the guest's p2m does not know: all ones now" in extracted.told


def test_without_any_p2m_pfns_stand_for_machine_frames(extracted):
    b = StreamBuilder.pv(4)
    for pfn in b.memory:
        b.place(pfn, None)
    core = Core(extracted("elf", b.build(), ending=ExitCode.FOUND))
    assert (core.mfns == core.pfns).all()
    root = b.roots[0]
    assert core.page(core.at_pfn[root]) == bytes(b.memory[root].data())
    assert "every page has its pfn for a machine frame" in extracted.told


# -- one page, one record ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in REAL if any(x in name for x in (".live4.", ".remus.", ".verify."))])
def test_one_page_is_that_of_the_image(name):
    memory = received(plain(name))
    for pfn in random.Random(name).sample(sorted(memory), 2):
        result = run(SAMPLES / name, "--page", hex(pfn))
        assert (result.exit_code, result.stdout_bytes) == (ExitCode.FINE, memory[pfn])


def test_a_page_that_never_came_is_no_page(tmp_path):
    b = StreamBuilder.hvm()
    (tmp_path / "s").write_bytes(b.build())
    for pfn in (b.absent_pfn, b.max_pfn + 1, (1 << 64) - 1):
        result = run(tmp_path / "s", "--page", pfn, "-o", tmp_path / "page")
        assert result.exit_code == ExitCode.FAILED
        assert f"pfn {pfn:#x} never came with contents" in result.output
    assert not (tmp_path / "page").exists()


def test_a_record_is_its_body_byte_for_byte(tmp_path):
    b = StreamBuilder.hvm()
    b.wrap("xl")
    (tmp_path / "s").write_bytes(b.build())
    for number, record in enumerate(b.records):
        result = run(tmp_path / "s", "--record", number)
        assert (result.exit_code, result.stdout_bytes) == (ExitCode.FINE, bytes(record.body))
    libxl = [*b.libxl_before, *b.libxl_after]
    number = next(i for i, record in enumerate(libxl) if record.body)
    result = run(tmp_path / "s", "--record", f"libxl:{number}")
    assert (result.exit_code, result.stdout_bytes) == (ExitCode.FINE, bytes(libxl[number].body))


def test_a_page_and_a_record_come_out_of_a_pipe_too():
    b = StreamBuilder.pv(8)
    page = piped(b.build(), "--page", b.start_info_pfn)
    assert (page.returncode, page.stdout) == (ExitCode.FINE, bytes(b.memory[b.start_info_pfn].data()))
    record = piped(b.build(), "--record", 0)
    assert (record.returncode, record.stdout) == (ExitCode.FINE, bytes(b.records[0].body))


@pytest.mark.parametrize("asked", ["99", "libxl:0", "xapi:1", "xl", "@0x7fffffff"])
def test_a_record_that_is_not_there_is_said_not_to_be(tmp_path, asked):
    (tmp_path / "s").write_bytes(StreamBuilder.hvm().build())
    result = run(tmp_path / "s", "--record", asked, "-o", tmp_path / "out")
    assert result.exit_code == ExitCode.FAILED
    assert "there is n" in result.output
    assert not (tmp_path / "out").exists()


def test_of_a_record_that_the_input_ends_in_what_came_is_written(tmp_path):
    b = StreamBuilder.hvm()
    whole = b.build()
    body = bytes(b.record("HVM_CONTEXT").body)
    (tmp_path / "s").write_bytes(whole[: whole.index(body) + 100])
    number = [record.type for record in b.records].index(RecordType.HVM_CONTEXT)
    result = run(tmp_path / "s", "--record", number, "-o", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").read_bytes()) == (ExitCode.FOUND, body[:100])
    assert f"100 of {len(body)} bytes" in result.output


# -- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["raw", "elf"])
@pytest.mark.parametrize("width", [4, 8])
def test_of_a_stream_that_breaks_off_all_pages_are_written_that_came_whole(extracted, form, width):
    b = StreamBuilder.pv(width)
    whole, memory = b.build(), {pfn: bytes(page.data()) for pfn, page in b.memory.items() if page.has_data}
    words = len(b.memory)
    start = whole.index(bytes(b.record("PAGE_DATA").body)) + PAGE_DATA_HEADER.size + words * PFN_WORD_SIZE
    out = extracted(form, whole[: start + 3 * PAGE_SIZE + 100], ending=ExitCode.FOUND)
    came = dict(sorted(memory.items())[:3])
    assert "not all is there: the input ends in record" in extracted.told
    assert f"3 pages came; the guest has room for {b.max_pfn + 1}" in extracted.told
    if form == "raw":
        assert out.read_bytes() == image_of(came)
    else:
        assert sorted(Core(out).pfns.tolist()) == sorted(came)
        assert "no vcpu's state came" in extracted.told


def test_compressed_input_that_breaks_off_gives_what_could_be_decoded(tmp_path):
    name, out = "x417-pvh.plain.libxc.zst", tmp_path / "guest.raw"
    half = (SAMPLES / name).read_bytes()
    half = half[: len(half) // 2]
    (tmp_path / "s.zst").write_bytes(half)
    decodable = len(zstandard.ZstdDecompressor().decompressobj().decompress(half))
    result = run(tmp_path / "s.zst", "--raw", out)
    assert result.exit_code == ExitCode.FOUND
    assert "not all is there: the zstd data ends" in result.output
    sure, lost = {}, set()
    for item in decode(plain(name)):
        if isinstance(item, PageData):
            data = b"".join(run for _, run in item.runs)
            for ordinal, pfn in enumerate(item.words.pfns[item.words.has_data].tolist()):
                end = item.data_offset + (ordinal + 1) * PAGE_SIZE
                page = data[ordinal * PAGE_SIZE : (ordinal + 1) * PAGE_SIZE]
                if end <= decodable - LOST_AT_MOST * PAGE_SIZE:
                    sure[pfn] = page
                elif end <= decodable:
                    lost.add(pfn)
    assert len(sure) > 2000
    with open(out, "rb") as raw:
        assert set(differing(raw.fileno(), sure)) <= lost


def test_a_record_without_the_pages_it_announces_is_left_out_and_counted(extracted):
    b = StreamBuilder.hvm()
    lying = bytearray(page_data([(0, 0, b"\1" * PAGE_SIZE)]))
    b.insert("PAGE_DATA", lying[:-8], after="PAGE_DATA")
    out = extracted("raw", b.build(), ending=ExitCode.FOUND)
    assert out.read_bytes()[:PAGE_SIZE] == bytes(b.memory[0].data())
    assert "left out: 1 PAGE_DATA record without all the pages that are announced" in extracted.told


@pytest.mark.parametrize("form", ["raw", "elf"])
@pytest.mark.parametrize(
    ("stream", "ending"),
    [
        (b"", ExitCode.FAILED),
        (b"no stream at all, and long enough to be sure of it", ExitCode.UNJUDGED),
        (StreamBuilder.pv(8).build()[:200], ExitCode.FAILED),
    ],
)
def test_where_there_is_no_page_no_file_appears(tmp_path, form, stream, ending):
    (tmp_path / "s").write_bytes(stream)
    result = run(tmp_path / "s", f"--{form}", tmp_path / "out")
    assert result.exit_code == ending, result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", random.Random(7).sample(ORACLE, 24), ids=lambda path: path.name)
def test_a_damaged_sample_gives_files_or_a_plain_error(path, tmp_path):
    for form in ("raw", "elf"):
        result = run(path, f"--{form}", tmp_path / form)
        assert result.exit_code in (ExitCode.FINE, ExitCode.FOUND, ExitCode.FAILED), result.output
        assert "internal error" not in result.output
        assert (tmp_path / form).exists() == (result.exit_code != ExitCode.FAILED)


@pytest.mark.parametrize("kind", ["pv4", "pv8", "hvm"])
def test_a_stream_with_any_byte_changed_or_cut_anywhere_gives_files_or_a_plain_error(kind, tmp_path):
    b = StreamBuilder.hvm(vcpus=2) if kind == "hvm" else StreamBuilder.pv(int(kind[2]), vcpus=2, roots=2)
    b.checkpoints = 2
    whole, chance, out = b.build(), random.Random(kind), tmp_path / "out"
    at = sorted({whole.index(bytes(rec.body)) - RECORD_HEADER.size for rec in b.records if len(rec.body) > 16})
    for _ in range(60):
        stream = bytearray(whole)
        place = min(chance.choice(at) + chance.randrange(64), len(whole) - 1)
        if chance.random() < 0.3:
            del stream[place:]
        else:
            stream[place] = chance.randrange(256)
        (tmp_path / "s").write_bytes(stream)
        form = chance.choice(["--raw", "--elf"])
        result = run(tmp_path / "s", form, out, "--force")
        assert result.exit_code in (ExitCode.FINE, ExitCode.FOUND, ExitCode.FAILED, ExitCode.UNJUDGED), result.output
        assert "internal error" not in result.output


# -- files ------------------------------------------------------------------------------------------


@pytest.fixture
def stream(tmp_path):
    (tmp_path / "stream").write_bytes(StreamBuilder.hvm().build())
    return tmp_path / "stream"


@pytest.mark.parametrize("options", [["--raw", "OUT"], ["--elf", "OUT"], ["--page", "0", "-o", "OUT"]])
def test_a_file_is_only_overwritten_with_force(stream, tmp_path, options):
    out = tmp_path / "there"
    out.write_bytes(b"mine")
    options = [str(out) if option == "OUT" else option for option in options]
    result = run(stream, *options)
    assert (result.exit_code, out.read_bytes()) == (ExitCode.FAILED, b"mine")
    assert "--force overwrites it" in result.output
    assert run(stream, *options, "--force").exit_code == ExitCode.FINE
    assert len(out.read_bytes()) >= PAGE_SIZE


def test_a_failure_leaves_the_old_file_as_it_was(stream, tmp_path):
    out = tmp_path / "there"
    out.write_bytes(b"mine")
    stream.write_bytes(b"")
    assert run(stream, "--raw", out, "--force").exit_code == ExitCode.FAILED
    assert out.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stream", "there"]


@pytest.mark.parametrize("form", ["raw", "elf"])
def test_a_pipe_and_compression_change_nothing(tmp_path, form):
    b = StreamBuilder.pv(8, vcpus=2)
    (tmp_path / "plain").write_bytes(b.build())
    (tmp_path / "small").write_bytes(zstandard.compress(b.build()))
    assert run(tmp_path / "plain", f"--{form}", tmp_path / "1").exit_code == ExitCode.FINE
    assert run(tmp_path / "small", f"--{form}", tmp_path / "2").exit_code == ExitCode.FINE
    assert piped(b.build(), f"--{form}", tmp_path / "3").returncode == ExitCode.FINE
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == (tmp_path / "3").read_bytes()


def test_the_summary_says_what_was_written(tmp_path):
    b = StreamBuilder.pv(8)
    (tmp_path / "s").write_bytes(b.build())
    pages = [bytes(page.data()) for page in b.memory.values() if page.has_data]
    entries = sum(int(np.count_nonzero(b.table(pfn) & P)) for pfn in b.chain(b.roots[0]))
    result = run(tmp_path / "s", "--elf", tmp_path / "out")
    size = (tmp_path / "out").stat().st_size
    zeros = pages.count(bytes(PAGE_SIZE))
    assert f"out: {len(pages)} pages, {zeros} holes, {size} bytes; 1 vcpu" in result.output
    assert f"machine frames in {entries} page table entries, 0 without one" in result.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "say what to extract: --raw, --elf, --page or --record"),
        (["--page", "1", "--elf", "b"], "--elf and --page are different extracts: choose one"),
        (["--raw", "-"], "needs a file"),
        (["--elf", "/dev/null"], "no regular file"),
        (["--raw", "a", "-o", "b"], "-o is for --page and --record"),
        (["--page", "x"], "is not a number"),
        (["--record", "libxl"], "there is no libxl header"),
    ],
)
def test_wrong_usage_is_told(stream, options, why):
    result = run(stream, *options)
    assert result.exit_code == ExitCode.FAILED
    assert why in result.output
