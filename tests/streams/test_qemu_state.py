"""QEMU's state: every section found, and what stops QEMU is found where it stops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.qemu_state import GUEST, QemuStateBuilder, SectionRec, blank
from streams.qemu_sections import FaultKind, unknown_to
from streams.qemu_state import LONGEST_SEARCH, MOST_SECTIONS, walk
from streams.wire.qemu import HEADER, SectionType, device_state
from streams.wire.qemu_devices import DEVICES, STRUCTURES, SUBSECTIONS

SMALL = ("timer", "0000:00:02.0/platform")
WHOLE = QemuStateBuilder().build()


def names(state):
    return [section.name for section in walk(state).sections]


def fault(state):
    found = walk(state).fault
    return found and (found.kind, found.errno)


def start_of(state, name):
    return next(section for section in walk(state).sections if section.name == name)


# -- sound states --------------------------------------------------------------------------------------


def test_every_section_of_a_guest_is_found_and_measured():
    state = walk(WHOLE)
    assert [section.name for section in state.sections] == list(GUEST)
    assert all(section.measured for section in state.sections)
    assert (state.fault, state.doubt, state.end, state.trailing) == (None, None, len(WHOLE), 0)


def test_a_section_says_where_it_is_and_what_it_holds():
    data = b"\1" * 277
    state = QemuStateBuilder([SectionRec("0000:00:02.0/platform", 0, 4, data, id=33)]).build()
    (section,) = walk(state).sections
    assert (section.offset, section.id, section.version, section.device) == (8, 33, 4, "platform")
    assert state[section.data : section.data + section.length] == data


# Lengths that QEMU 7.2 and 10.0 gave in the description at the end of their states, or wrote under Xen.
MEASURED = [
    ("timer", 24),
    ("apic", 181),
    ("I440FX", 277),
    ("PIIX3", 292),
    ("platform", 277),
    ("piix4_pm", 312),
    ("ide", 430),
    ("fdc", 545),
    ("vga", 1407),
    ("cirrus_vga", 1870),
    ("rtl8139", 642),
    ("e1000", 67608),
    ("xhci", 5343),
    ("usb-ptr", 298),
    ("ich9_ahci", 4168),
    ("hda-audio", 1176),
]


@pytest.mark.parametrize(("device", "length"), MEASURED)
def test_a_device_writes_as_much_as_qemu_says(device, length):
    assert len(blank(device)) == length


def test_what_a_layout_names_is_declared():
    parts = [part for device in DEVICES.values() for layout in device.layouts for part in layout]
    parts += [part for layout in (*STRUCTURES.values(), *SUBSECTIONS.values()) for part in layout]
    assert {part for part in parts if isinstance(part, str)} == STRUCTURES.keys()


def test_the_minimum_of_a_version_is_not_above_it():
    assert [name for name, device in DEVICES.items() if device.minimum > device.version] == []


@pytest.mark.parametrize(
    ("name", "data", "subsection"),
    [
        ("0000:00:01.3/piix4_pm", None, ("piix4_pm/memhp", b"\0\0\0\2")),
        ("cpu", None, ("cpu/poll_control_msr", bytes(8))),
        ("apic", None, ("apic_sipi", bytes(8))),
        ("pckbd", None, ("pckbd/extended_state", bytes(10))),
        ("PCIBUS", (128).to_bytes(4, "big") + bytes(512), None),
        ("cpu", bytes(1713), None),
        ("0000:00:01.3/piix4_pm", bytes(360), None),
        ("0000:00:01.3/piix4_pm", bytes(2408), None),
    ],
)
def test_what_a_device_adds_belongs_to_its_data(name, data, subsection):
    rec = SectionRec(name, data=data, subsections=[subsection] if subsection else [])
    state = walk(QemuStateBuilder([rec, SectionRec("ioapic")]).build())
    assert state.sections[0].length == len(rec.body())
    assert [section.name for section in state.sections] == [name, "ioapic"]
    assert state.doubt is None


def test_the_identification_of_an_ide_disk_belongs_to_its_drive():
    drive = bytes(4) + b"\0\0\0\1" + bytes(512) + bytes(20)
    data = bytes(276 + 38 + 4) + drive + bytes(28 * 3)
    state = walk(QemuStateBuilder([SectionRec("0000:00:01.1/ide", data=data)]).build())
    assert (state.sections[0].length, state.fault) == (len(data), None)


def test_a_device_without_a_layout_ends_where_the_next_section_begins():
    builder = QemuStateBuilder.of("timer", "0000:00:04.0/virtio-net", "ioapic")
    builder.section("virtio-net").data = bytes(46143)
    state = walk(builder.build())
    assert [(s.name, s.length, s.measured) for s in state.sections[1:]] == [
        ("0000:00:04.0/virtio-net", 46143, False),
        ("ioapic", 206, True),
    ]


def test_the_end_behind_a_device_without_a_layout_is_not_known():
    builder = QemuStateBuilder.of("timer", "0000:00:04.0/virtio-net")
    builder.section("virtio-net").data = bytes(1000)
    state = walk(builder.build())
    assert (state.end, state.fault, state.sections[-1].length) == (None, None, None)


def test_a_qemu_of_other_descriptions_is_walked_on_and_doubted():
    builder = QemuStateBuilder()
    builder.section("hpet").data = bytes(151 + 16)
    state = walk(builder.build())
    assert [section.name for section in state.sections] == list(GUEST)
    assert state.fault is None
    assert state.doubt.kind == FaultKind.LENGTH
    assert "167 bytes of data; QEMU 7.2 and 10.0 read 151" in state.doubt.message


@pytest.mark.parametrize("name", ["0000:00:03.0/rtl8139", "ps2kbd", "timer"])
def test_an_older_version_that_qemu_still_reads_is_sound(name):
    builder = QemuStateBuilder.of("cpu_common", name, "ioapic")
    builder.sections[1].version = DEVICES[name.rpartition("/")[2]].minimum
    assert fault(builder.build()) is None


def test_bytes_behind_the_end_are_counted_and_not_read():
    state = walk(WHOLE + b"\x7d" * 7)
    assert (state.end, state.trailing, state.fault) == (len(WHOLE), 7, None)


def test_a_second_state_behind_the_end_is_not_read():
    state = walk(WHOLE + WHOLE)
    assert (len(state.sections), state.end) == (len(GUEST), len(WHOLE))


def test_sections_may_be_missing_repeated_and_numbered_at_will():
    # As tried on QEMU 7.2: it looks at none of that.
    builder = QemuStateBuilder.of("ioapic", "timer", "timer")
    builder.sections[0].id, builder.sections[2].id = 0xFF000000, 0
    assert fault(builder.build()) is None


def test_machine_footers_and_description_are_read_where_a_qemu_writes_them():
    builder = QemuStateBuilder(machine="pc-i440fx-7.2", footers=True, description=True)
    data = builder.build()
    state = walk(data)
    assert (state.machine, state.footers, state.end, state.fault) == ("pc-i440fx-7.2", True, len(data), None)
    assert [device["name"] for device in state.description["devices"]] == list(GUEST)


def test_the_description_at_the_end_measures_devices_without_a_layout():
    builder = QemuStateBuilder.of("timer", "0000:00:04.0/virtio-net")
    builder.section("virtio-net").data = bytes(1000)
    builder.description = True
    state = walk(builder.build())
    assert (state.sections[1].length, state.sections[1].measured) == (1000, True)


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"devices": 1}', b'{"devices": [{}]}', b"{" + b'"a":[' * 100_000])
def test_a_description_that_is_none_is_passed_over(text):
    data = QemuStateBuilder.of(*SMALL).build()
    state = walk(data + b"\6" + len(text).to_bytes(4, "big") + text)
    assert (state.description, state.fault, state.end) == (None, None, len(data))


@pytest.mark.parametrize("size", [0, 5, 25, 10**30, -3])
def test_a_description_that_is_wrong_has_no_say(size):
    built = QemuStateBuilder.of(*SMALL)
    built.description = True
    sound, _, text = built.build().partition(bytes([SectionType.VMDESCRIPTION]))
    text = text[4:].replace(b'"size": 24', b'"size": %d' % size)
    state = walk(sound + bytes([SectionType.VMDESCRIPTION]) + len(text).to_bytes(4, "big") + text)
    assert state.description is not None
    assert [section.length for section in state.sections] == [24, 277]
    assert (state.fault, state.doubt) == (None, None)


def test_memory_in_a_state_not_of_xen_ends_at_its_footer():
    ram = bytes([SectionType.START]) + b"\0\0\0\2\3ram" + bytes(7) + b"\4" + b"\x55" * 999 + b"\x7e\0\0\0\2"
    rest = bytes([SectionType.END]) + b"\0\0\0\2" + b"\x55" * 8 + b"\x7e\0\0\0\2"
    devices = QemuStateBuilder.of(*SMALL)
    devices.footers = True
    state = walk(HEADER.pack(b"QEVM", 3) + ram + rest + devices.build()[HEADER.size :])
    assert [(s.name, s.length) for s in state.sections[:2]] == [("ram", 999), ("ram", 8)]
    assert (len(state.sections), state.fault) == (4, None)


# -- what stops QEMU ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [b"", b"QE", b"XEVM" + WHOLE[4:], bytes(len(WHOLE))])
def test_what_has_no_magic_is_refused_with_einval(state):
    assert fault(state) == (FaultKind.MAGIC, "EINVAL")


@pytest.mark.parametrize(("state", "word"), [(b"", "empty"), (bytes(500), "all zeros"), (b"<xml>", "3c 78 6d 6c")])
def test_what_stands_in_place_of_the_magic_is_named(state, word):
    assert word in walk(state).fault.message


@pytest.mark.parametrize("version", [0, 2, 4, 3 << 24])
def test_another_version_is_refused_with_enotsup(version):
    assert fault(QemuStateBuilder(version=version).build()) == (FaultKind.VERSION, "ENOTSUP")


@pytest.mark.parametrize("size", [4, 6, 7])
def test_a_version_that_is_cut_is_another_version(size):
    assert fault(WHOLE[:size]) == (FaultKind.VERSION, "ENOTSUP")


def test_a_name_that_no_device_has_is_refused_with_einval():
    state = WHOLE.replace(b"\5timer", b"\5tiner")
    found = walk(state).fault
    assert (found.kind, found.errno, found.section.name) == (FaultKind.UNKNOWN_SECTION, "EINVAL", "tiner")
    assert state[found.offset :].startswith(b"tiner")


def test_the_sections_behind_an_unknown_one_are_listed_all_the_same():
    assert names(WHOLE.replace(b"\5timer", b"\5tiner"))[1:] == list(GUEST[1:])


@pytest.mark.parametrize("version", [0, 3, 99])
def test_a_section_version_that_qemu_does_not_read_is_refused_with_einval(version):
    builder = QemuStateBuilder()
    builder.section("timer").version = version
    state = builder.build()
    found = walk(state).fault
    assert (found.kind, found.errno) == (FaultKind.SECTION_VERSION, "EINVAL")
    assert state[found.offset : found.offset + 4] == version.to_bytes(4, "big")


@pytest.mark.parametrize("byte", [0x05, 0x06, 0x09, 0x7D, 0xFF])
def test_another_byte_in_place_of_the_end_is_refused_with_einval(byte):
    found = walk(WHOLE[:-1] + bytes([byte])).fault
    assert (found.kind, found.errno, found.offset) == (FaultKind.SECTION_TYPE, "EINVAL", len(WHOLE) - 1)


@pytest.mark.parametrize("name", GUEST)
def test_another_type_of_a_section_is_refused_with_einval(name):
    at = start_of(WHOLE, name).offset
    found = walk(WHOLE[:at] + b"\x7d" + WHOLE[at + 1 :]).fault
    assert (found.kind, found.errno, found.offset) == (FaultKind.SECTION_TYPE, "EINVAL", at)


def test_a_zero_in_place_of_a_section_is_the_end():
    at = start_of(WHOLE, "ioapic").offset
    state = walk(WHOLE[:at] + b"\0" + WHOLE[at + 1 :])
    assert (state.fault, state.end, state.trailing) == (None, at + 1, len(WHOLE) - at - 1)


@pytest.mark.parametrize("name", GUEST)
@pytest.mark.parametrize(
    ("into", "errno"),
    [("type", "EIO"), ("id", "EINVAL"), ("name", "EINVAL"), ("version", "EIO"), ("data", "EIO"), ("last", "EIO")],
)
def test_a_cut_state_gives_the_errno_that_qemu_gives_there(name, into, errno):
    # As tried on QEMU 7.2: a cut in a section's name is EINVAL, everything else EIO.
    section = start_of(WHOLE, name)
    size = {
        "type": section.offset,
        "id": section.offset + 3,
        "name": section.offset + 7,
        "version": section.data - 3,
        "data": section.data,
        "last": section.data + section.length - 1,
    }[into]
    found = walk(WHOLE[:size]).fault
    assert (found.kind, found.errno, found.offset) == (FaultKind.CUT, errno, size)


def test_a_state_without_its_last_byte_is_cut():
    assert fault(WHOLE[:-1]) == (FaultKind.CUT, "EIO")


def test_a_cut_section_is_named():
    assert "in the data of section '0000:00:02.0/platform' 0" in walk(WHOLE[:-16]).fault.message


def test_what_was_not_kept_is_no_cut():
    assert walk(WHOLE[:1000], total=len(WHOLE)).fault is None
    assert walk(WHOLE[:2], total=len(WHOLE)).fault is None


def test_a_missing_footer_is_refused_with_einval():
    state = QemuStateBuilder(footers=True).build()
    at = state.index(b"\x7e\0\0\0\1")
    found = walk(state[:at] + state[at + 5 :]).fault
    assert (found.kind, found.errno, found.offset) == (FaultKind.FOOTER, "EINVAL", at)


def test_a_footer_of_another_section_is_refused_with_einval():
    state = QemuStateBuilder(footers=True).build().replace(b"\x7e\0\0\0\1", b"\x7e\0\0\0\x55")
    assert fault(state) == (FaultKind.FOOTER, "EINVAL")


def test_a_footer_in_a_state_without_footers_is_refused_with_einval():
    at = start_of(WHOLE, "cpu").offset
    assert fault(WHOLE[:at] + b"\x7e\0\0\0\1" + WHOLE[at:])[0] in (FaultKind.SECTION_TYPE, FaultKind.FOOTER)


def test_an_empty_name_is_refused_with_einval():
    assert fault(WHOLE.replace(b"\5timer", b"\0")) == (FaultKind.SECTION_NAME, "EINVAL")


@pytest.mark.parametrize(
    ("command", "found"), [(0, (FaultKind.COMMAND, "EINVAL")), (2, None), (99, (FaultKind.COMMAND, "EINVAL"))]
)
def test_a_command_that_qemu_does_not_know_is_refused_with_einval(command, found):
    state = WHOLE[: HEADER.size] + b"\x08" + command.to_bytes(2, "big") + b"\0\2ab" + WHOLE[HEADER.size :]
    assert fault(state) == found


@pytest.mark.parametrize("size", [2, 4, 6])
def test_a_command_that_is_cut_is_refused_with_eio(size):
    assert fault((HEADER.pack(b"QEVM", 3) + b"\x08\0\2\0\2ab")[: 8 + size]) == (FaultKind.CUT, "EIO")


def test_a_section_that_goes_on_without_having_begun_is_refused_with_einval():
    assert fault(HEADER.pack(b"QEVM", 3) + b"\2\0\0\0\7") == (FaultKind.UNKNOWN_SECTION, "EINVAL")


# -- two states ----------------------------------------------------------------------------------------------


def test_what_another_qemu_does_not_know_is_told():
    newer, older = QemuStateBuilder(), QemuStateBuilder()
    newer.sections.insert(3, SectionRec("0000:00:05.0/xen-pvdevice"))
    older.section("hpet").version = 1
    differences = unknown_to(walk(newer.build()), walk(older.build()))
    assert [str(difference) for difference in differences] == [
        "section '0000:00:05.0/xen-pvdevice' 0 is not there",
        "section 'hpet' 0 has version 2, later than 1",
    ]


def test_two_states_of_the_same_qemu_know_each_other():
    assert unknown_to(walk(WHOLE), walk(WHOLE)) == []


# -- laws ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([*GUEST, "0000:00:03.0/vga", "0000:00:04.0/rtl8139", "serial"]), max_size=12))
def test_any_measured_sections_are_found_as_they_were_built(chosen):
    data = QemuStateBuilder.of(*chosen).build()
    state = walk(data)
    assert ([s.name for s in state.sections], state.end, state.fault) == (chosen, len(data), None)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_is_always_noticed_and_lies_at_the_end(size):
    found = walk(WHOLE[:size]).fault
    assert found is not None
    assert found.offset <= size


@given(st.binary(max_size=600), st.booleans())
def test_no_bytes_raise_and_every_offset_lies_within(data, headed):
    data = HEADER.pack(b"QEVM", 3) + data if headed else data
    state = walk(data)
    offsets = [section.offset for section in state.sections]
    assert offsets == sorted(offsets)
    assert all(offset < len(data) for offset in offsets)
    assert state.fault is None or 0 <= state.fault.offset <= len(data)


@given(st.integers(8, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_nothing(at, byte):
    state = walk(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :])
    assert state.fault is None or state.fault.offset <= len(WHOLE)


# -- bounds ----------------------------------------------------------------------------------------------------


def test_more_sections_than_any_guest_has_are_not_listed():
    one = SectionRec("port92").build(0)
    state = walk(HEADER.pack(b"QEVM", 3) + one * (MOST_SECTIONS + 9) + b"\0")
    assert (len(state.sections), state.end) == (MOST_SECTIONS, None)


@pytest.mark.parametrize(("length", "found"), [(LONGEST_SEARCH - 100, True), (LONGEST_SEARCH, False)])
def test_the_next_section_is_looked_for_so_far_and_no_farther(length, found):
    builder = QemuStateBuilder.of("0000:00:04.0/virtio-net", "ioapic")
    builder.sections[0].data = bytes(length)
    state = walk(builder.build())
    assert (len(state.sections), state.end is not None) == (2 if found else 1, found)


def test_what_looks_like_headers_is_looked_at_once():
    state = walk(HEADER.pack(b"QEVM", 3) + SectionRec("0000:00:04.0/virtio-net").build(0) + b"\4\0\0\4\4\4" * 200_000)
    assert (len(state.sections), state.end) == (1, None)


def test_the_beginning_of_a_state_is_told_from_its_first_bytes():
    assert str(device_state(WHOLE[:600])) == "QEMU state version 3, first section timer"
