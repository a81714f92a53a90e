"""Configurations and states of device models that nobody would write."""

import pytest
from hostile import with_config, with_device_model, with_xml

from migrate.building.qemu_state import QemuStateBuilder
from migrate.toolstack.config import LONGEST_CONFIG
from streams.qemu_state import MOST_SECTIONS
from streams.wire.framing import (
    XL_BYTEORDER,
    XL_CONFIG_LENGTH,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    XL_MAGIC,
)
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_LIBXL_V2, LIBVIRT_MAGIC
from streams.wire.qemu import NUMBER, SectionType

pytestmark = pytest.mark.slow

GIB = 1 << 30
LONGEST_REPORT = 40_000  # characters
COMMANDS = [["check"], ["show"], ["show", "--config"], ["config"], ["report", "-o", "report.html", "--force"]]


@pytest.fixture
def run(confinement, tmp_path, monkeypatch):
    """A command under the law, with the bytes that it gets; short is what it says."""

    def run(command, data):
        (tmp_path / "image").write_bytes(data)
        arguments = [tmp_path / one if one == "report.html" else one for one in command]
        ended = confinement.run([*arguments, tmp_path / "image"], len(data))
        assert len(ended.err) < LONGEST_REPORT
        return ended

    return run


# -- XML -----------------------------------------------------------------------------------------------------


def entities(levels, width):
    """A text that is doubled (or more) with each level."""
    first = b'<!ENTITY a0 "lol">'
    more = (b'<!ENTITY a%d "%b">' % (n, b"&a%d;" % (n - 1) * width) for n in range(1, levels))
    return b"<!DOCTYPE domain [" + first + b"".join(more) + b"]><domain type='xen'>&a%d;</domain>" % (levels - 1)


EXTERNAL = b"<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain type='xen'><name>&a;</name></domain>"
DOMAIN = b"<domain type='xen'><os><type>linux</type></os><vcpu>1</vcpu><memory>9999</memory>%b</domain>"
FILL = LONGEST_CONFIG - len(DOMAIN) - 1
XMLS = {
    "a billion laughs": (entities(30, 10), 1),
    "quadratic": (entities(2, 100_000), 1),
    "a file of the host": (EXTERNAL, 1),
    "deep": (DOMAIN % (b"<a>" * (FILL // 7) + b"</a>" * (FILL // 7)), 1),
    "deep and open": (b"<a>" * (1 << 18), 1),
    "many elements": (DOMAIN % (b"<a/>" * (FILL // 4)), 0),
    "many attributes": (DOMAIN % (b"<a " + b" ".join(b'a%d=""' % n for n in range(80_000)) + b"/>"), 0),
    "one long text": (DOMAIN % (b"a" * FILL), 0),
    "longer than any": (DOMAIN % (b"a" * (4 << 20)), 0),
}


@pytest.mark.parametrize("what", XMLS)
def test_strange_xml_is_judged_in_bounded_memory(run, what):
    xml, code = XMLS[what]
    ended = run(["check", "-v", "--placement", "source"], with_xml(xml))
    assert ended.code == code
    assert len(ended.out) < LONGEST_REPORT


def test_entities_are_refused_by_name_and_nothing_of_the_host_is_read(run):
    for xml in (entities(30, 10), EXTERNAL):
        out = run(["check", "-v", "--placement", "source"], with_xml(xml)).out
        assert "declares entities" in out
        assert "root:" not in out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_expands_a_bomb(run, command):
    assert run(command, with_xml(entities(30, 10))).code in (0, 1)


def test_a_bomb_is_not_edited(run):
    ended = run(["config", "--set", "name=other", "-o", "/dev/null", "--force"], with_xml(entities(30, 10)))
    assert ended.code == 2


@pytest.mark.parametrize("what", ["deep", "many elements", "many attributes", "one long text"])
def test_strange_xml_is_edited_in_bounded_memory(run, what):
    ended = run(["config", "--set", "vcpu=2", "-o", "/dev/null", "--force"], with_xml(XMLS[what][0]))
    assert ended.code in (0, 1, 2)


# -- configurations of a gigabyte ----------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["xl", "libvirt"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_configuration_of_a_gigabyte_is_not_kept(confinement, tmp_path, container, command):
    rest = with_config(b"{}") if container == "xl" else with_xml(b"<domain/>")
    rest = rest[rest.index(b"LibxlFmt") :]
    if container == "xl":
        flags = XL_FLAG_JSON | XL_FLAG_LIBXL_V2
        size = XL_CONFIG_LENGTH.size + GIB
        head = XL_HEADER.pack(XL_MAGIC, XL_BYTEORDER, flags, 0, size) + XL_CONFIG_LENGTH.pack(GIB)
    else:
        head = LIBVIRT_HEADER.pack(LIBVIRT_MAGIC, LIBVIRT_LIBXL_V2, GIB, bytes(40))
    path = tmp_path / "image"
    with path.open("wb") as file:  # all of it a hole
        file.write(head)
        file.seek(len(head) + GIB)
        file.write(rest)
    arguments = [tmp_path / one if one == "report.html" else one for one in command]
    ended = confinement.run([*arguments, path], 64 << 20)
    assert ended.code in (0, 2)
    assert len(ended.out) + len(ended.err) < LONGEST_REPORT


# -- device models -------------------------------------------------------------------------------------------


def opening(name, id=0, version=1):
    """The header of a section."""
    return b"\4" + NUMBER.pack(id) + bytes([len(name)]) + name + NUMBER.pack(0) + NUMBER.pack(version)


def described(text):
    state = QemuStateBuilder.of("timer").build()
    return state + bytes([SectionType.VMDESCRIPTION]) + NUMBER.pack(len(text)) + text


SIZES = b'{"devices": [{"name": "timer", "instance_id": 0, "fields": [{"size": %d, "array_len": %d}]}]}'
HEAD = QemuStateBuilder.of().build()[:8]
TIMER = opening(b"timer", version=2) + bytes(24)
STATES = {
    "half a million sections": (HEAD + opening(b"x") * 500_000 + b"\0", 1),
    "a million sections": (HEAD + opening(b"x") * 1_000_000 + b"\0", 1),
    "many sections of a device": (HEAD + TIMER * 150_000 + b"\0", 0),
    "what looks like headers": (HEAD + opening(b"virtio-net", version=11) + b"\4\0\0\0\0\2aa" * 1_000_000, 0),
    "many commands": (HEAD + b"\x08\0\1\0\0" * 1_500_000 + b"\0", 0),
    "many going on": (HEAD + TIMER + (b"\2" + NUMBER.pack(0)) * 1_000_000 + b"\0", 0),
    "a long machine": (HEAD + b"\x07" + NUMBER.pack(7 << 20) + b"m" * (7 << 20) + b"\0", 0),
    "a machine that claims gigabytes": (HEAD + b"\x07" + NUMBER.pack(0xFFFF_FFFF) + b"\0", 1),
    "a count that claims gigabytes": (HEAD + opening(b"I440FX", version=3) + b"\xff" * 400, 1),
    "a deep description": (described(b'{"devices":' * 80_000), 0),
    "a wide description": (described(b'{"devices": [' + b"{}," * 300_000 + b"{}]}"), 0),
    "sizes beyond all": (described(SIZES % (10**400, 10**400)), 0),
}


@pytest.mark.parametrize("what", STATES)
@pytest.mark.parametrize("command", [["check"], ["show", "--record", "libxl:1"]], ids=" ".join)
def test_a_strange_state_is_read_in_bounded_memory(run, command, what):
    state, code = STATES[what]
    ended = run(command, with_device_model(state))
    assert len(ended.out) < LONGEST_REPORT * (10 if command[0] == "show" else 1)
    if command == ["check"]:
        assert ended.code in {code, 3} if len(state) > 8 << 20 else ended.code == code


def test_more_sections_than_any_guest_has_are_counted_up_to_a_limit(run):
    out = run(["show", "--record", "libxl:1"], with_device_model(HEAD + TIMER * 150_000 + b"\0")).out
    assert f"{MOST_SECTIONS} sections" in out.replace(",", "")


def test_two_states_of_very_many_sections_are_compared_in_bounded_memory(run, tmp_path):
    data = with_device_model(HEAD + opening(b"x") * 500_000 + b"\0")
    (tmp_path / "other").write_bytes(data)
    ended = run(["show", "--against", str(tmp_path / "other")], data)
    assert ended.code == 0
