"""The domain configuration in front of a stream: read as its toolstack reads it, and changed with its lengths."""

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.toolstack.config import LONGEST_CONFIG, SLACK_KIB, ConfigSource, DomainConfig, GuestKind
from migrate.toolstack.config_edit import EditError, read_front, set_json, set_xml
from migrate.toolstack.config_libvirt import read_xml
from migrate.toolstack.config_libxl import read_cfg, read_json
from migrate.toolstack.config_xapi import read_xenops
from streams.wire.framing import XL_HEADER
from streams.wire.libvirt import decode_image, encode_image

KINDS = list(GuestKind)


def config(kind="hvm", create=None, build=None, typed=None):
    return {
        "c_info": {"type": kind, "name": "guest", **(create or {})},
        "b_info": {
            "max_vcpus": 2,
            "avail_vcpus": [0, 1],
            "max_memkb": 8192,
            "target_memkb": 4096,
            f"type.{kind}": typed or {},
            **(build or {}),
        },
    }


def text(value):
    return json.dumps(value).encode() + b"\n\0"


def problems(found):
    return [(problem.by, problem.says) for problem in found.problems]


# -- libxl's JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_configuration_is_read_without_a_problem(kind):
    found = read_json(text(config(kind)))
    assert found == DomainConfig(
        ConfigSource.JSON, kind, kind, "guest", max_vcpus=2, online_vcpus=2, target_kib=4096, max_kib=8192
    )


def test_the_configuration_of_a_whole_hvm_guest_is_read():
    typed = {"bios": "seabios", "viridian": "True", "vga": {"kind": "std"}, "nested_hvm": "False", "altp2m": "True"}
    build = {"device_model_version": "qemu_xen", "video_memkb": 16384, "tsc_mode": "native"}
    found = read_json(text(config(create={"hap": "False"}, build=build, typed=typed)))
    assert (found.device_model, found.bios, found.vga, found.video_kib) == ("qemu_xen", "seabios", "std", 16384)
    assert (found.viridian, found.nested, found.altp2m, found.hap, found.tsc_mode) == (
        True,
        False,
        True,
        False,
        "native",
    )
    assert found.problems == ()


@pytest.mark.parametrize(
    ("build", "typed", "field"),
    [
        ({"nested_hvm": "True"}, {}, "nested"),
        ({}, {"nested_hvm": "True"}, "nested"),
        ({"altp2m": "external"}, {}, "altp2m"),
        ({}, {"altp2m": "True"}, "altp2m"),
        ({}, {"viridian": "True"}, "viridian"),
        ({}, {"viridian_enable": [0, 1]}, "viridian"),
    ],
)
def test_what_moved_between_releases_is_read_in_both_places(build, typed, field):
    assert getattr(read_json(text(config(build=build, typed=typed))), field) is True
    assert getattr(read_json(text(config())), field) is None


def test_altp2m_that_is_switched_off_is_off():
    assert read_json(text(config(build={"altp2m": "disabled"}))).altp2m is False


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'name = "guest"\nmemory = 64\n\0',
        b"{",
        b"{} {}",
        b'{"c_info": {"type": "pv"}, "b_info": {"max_vcpus": NaN}}',
        b'{"c_info": \xff}',
        b"[1]",
        b'"pv"',
        b"null",
        b"[" * 200_000,
        b'{"a":' * 150_000,
        b"1" * 100_000,
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_leaves_the_domain_type_unspecified(raw):
    found = read_json(raw)
    assert (found.kind, problems(found)) == (None, [("libxl", "domain type unspecified")])


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({"create": {"type": "solaris"}}, "type is 'solaris'", "domain type unspecified"),
        ({"create": {"hap": "yes"}}, "hap is 'yes'", "invalid domain type"),
        ({"create": {"hap": "true"}}, "hap is 'true'", "invalid domain type"),
        ({"build": {"max_vcpus": 1 << 31}}, "max_vcpus is 2147483648", "invalid domain type"),
        ({"build": {"target_memkb": -1}}, "target_memkb is -1", "invalid domain type"),
        ({"build": {"device_model_version": "bochs"}}, "device_model_version is 'bochs'", "invalid domain type"),
    ],
)
def test_a_value_that_libxl_cannot_read_leaves_what_follows_unsaid(change, words, says):
    found = read_json(text(config(**change)))
    assert words in found.problems[0].message
    assert problems(found) == [("libxl", says)]


def test_a_value_that_libxl_cannot_read_behind_the_type_costs_the_guest_its_devices():
    found = read_json(text(config("hvm", typed={"bios": "award", "viridian": "True"})))
    assert (found.build_kind, found.viridian) == (GuestKind.HVM, None)
    assert problems(found) == [(None, None)]
    assert "disks" in found.problems[0].message


@pytest.mark.parametrize(
    "change",
    [
        *({"build": {"max_vcpus": value}} for value in ("2", True, None, 2.5, [2], 10**30)),
        {"build": {"target_memkb": "a lot"}},
        {"build": {"avail_vcpus": 3}},
        {"create": {"hap": True}},
        {"typed": {"vga": []}},
    ],
    ids=str,
)
def test_a_value_of_another_json_type_is_passed_over(change):
    ((part, values),) = change.items()
    without = config("hvm")
    where = {"create": without["c_info"], "build": without["b_info"], "typed": without["b_info"]["type.hvm"]}[part]
    for key in values:
        where.pop(key, None)
    assert read_json(text(config("hvm", **change))) == read_json(text(without))


def test_a_type_of_another_json_type_is_none():
    assert problems(read_json(text(config(create={"type": 1})))) == [("libxl", "domain type unspecified")]
    assert problems(read_json(b'{"c_info": {"type": "pv"}, "b_info": {"type.pv": 1}}')) == [
        ("libxl", "invalid domain type")
    ]


@pytest.mark.parametrize(("number", "read"), [(b"1e999", 1), (b"3E2", 3), (b"2.5e0", None)])
def test_a_number_without_a_point_is_read_up_to_its_exponent(number, read):
    assert read_json(text(config()).replace(b'"max_vcpus": 2', b'"max_vcpus": ' + number)).max_vcpus == read


def test_a_number_that_libxl_cannot_read_is_written_as_it_was():
    before = text(config(build={"shadow_memkb": (1 << 64) - 1}))
    assert b"18446744073709551615" in set_json(before, "c_info.name", "other")


@pytest.mark.parametrize(("kind", "most"), [("pv", 8192), ("hvm", 128), ("pvh", 128)])
def test_more_vcpus_than_xen_has_are_no_domain(kind, most):
    assert read_json(text(config(kind, build={"max_vcpus": most}))).refused is None
    for refused in (most + 1, -1):
        found = read_json(text(config(kind, build={"max_vcpus": refused})))
        assert problems(found) == [("libxl", "domain creation fail: Invalid argument")]


def test_keys_that_nobody_knows_are_passed_over():
    assert read_json(text(config(build={"from_the_future": [1]}) | {"pvdevs": {}})).problems == ()


def test_of_a_key_that_is_there_twice_the_first_counts():
    found = read_json(b'{"c_info": {"type": "pv"}, "c_info": {"type": "hvm"}, "b_info": {"type.pv": {}}}')
    assert found.kind == GuestKind.PV


def test_what_stands_behind_the_nul_is_not_read():
    assert read_json(text(config()) + b"garbage").problems == ()


def test_enumerations_are_read_in_any_case():
    assert read_json(text(config(create={"type": "HVM"}))).kind == GuestKind.HVM


def test_a_configuration_without_a_type_leaves_it_unspecified():
    assert problems(read_json(b"{}")) == [("libxl", "domain type unspecified")]


def test_a_configuration_without_the_part_of_its_type_has_an_invalid_one():
    value = config()
    del value["b_info"]["type.hvm"]
    assert problems(read_json(text(value))) == [("libxl", "invalid domain type")]


@pytest.mark.parametrize(
    ("create", "build", "says"),
    [("pv", "hvm", "Couldn't set HVM_PARAM_HPET_ENABLED"), ("pvh", "hvm", None), ("hvm", "pv", None)],
)
def test_two_types_that_differ_are_told(create, build, says):
    found = read_json(text(config(build, create={"type": create})))
    assert (found.kind, found.build_kind) == (create, build)
    assert found.problems[0].message == f"c_info.type is {create}, and b_info has type.{build}"
    assert found.problems[0].says == says


@pytest.mark.parametrize(
    ("build", "typed", "says"),
    [
        ({"device_model_version": "qemu_xen"}, {"bios": "rombios"}, "qemu-xen does not support bios=rombios."),
        (
            {"device_model_version": "qemu_xen_traditional"},
            {"bios": "seabios"},
            "qemu-xen-traditional requires bios=rombios.",
        ),
        ({"video_memkb": 8191}, {}, "videoram must be at least 8 MB for CIRRUS on QEMU_XEN"),
        ({"video_memkb": 8192}, {"vga": {"kind": "std"}}, "videoram must be at least 16 MB for STDVGA on QEMU_XEN"),
        ({"video_memkb": 8192}, {"vga": {"kind": "qxl"}}, "128 Mib videoram is the minimum for qxl default"),
    ],
)
def test_a_hvm_guest_that_libxl_refuses_is_refused_in_its_words(build, typed, says):
    found = read_json(text(config(build=build, typed=typed)))
    assert problems(found) == [("libxl", says)]
    assert found.refused.says == says


@pytest.mark.parametrize(
    ("build", "typed"),
    [
        ({"video_memkb": 8192}, {}),
        ({"video_memkb": 0}, {"vga": {"kind": "none"}}),
        ({"video_memkb": 4096, "device_model_version": "qemu_xen_traditional"}, {}),
        ({"device_model_version": "qemu_xen_traditional"}, {"bios": "rombios"}),
    ],
)
def test_a_hvm_guest_that_libxl_builds_has_no_problem(build, typed):
    assert read_json(text(config(build=build, typed=typed))).problems == ()


def test_the_limit_is_the_target_and_what_libxl_adds():
    assert read_json(text(config())).limit_kib == 4096 + SLACK_KIB


def test_without_a_target_the_limit_is_the_maximum():
    value = config()
    del value["b_info"]["target_memkb"]
    assert read_json(text(value)).limit_kib == 8192 + SLACK_KIB
    del value["b_info"]["max_memkb"]
    assert read_json(text(value)).limit_kib == (32 << 10) + SLACK_KIB


def test_all_ones_of_memory_are_no_amount():
    assert read_json(text(config(build={"target_memkb": (1 << 64) - 1}))).target_kib is None


def test_a_guest_of_no_said_number_of_vcpus_has_one():
    assert read_json(text(config(build={"max_vcpus": 0}))).vcpus == 1
    assert read_json(b"no JSON").vcpus is None


def test_a_configuration_longer_than_any_is_not_parsed():
    found = read_json(b" " * LONGEST_CONFIG + text(config()))
    assert f"at most {LONGEST_CONFIG} are read" in found.problems[0].message


def test_what_the_builder_writes_is_read():
    builder = StreamBuilder.pv(4, vcpus=2)
    found = read_json(builder.xl_config)
    assert (found.kind, found.max_vcpus, found.target_kib) == (GuestKind.PV, 2, found.max_kib)


@given(st.binary(max_size=200))
def test_no_bytes_raise_in_any_reader(raw):
    for read in (read_json, read_cfg, read_xml, read_xenops):
        assert isinstance(read(raw), DomainConfig)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*config()["b_info"], "device_model_version", "video_memkb", "nested_hvm"]), JSON)
def test_no_value_of_a_known_key_raises(key, value):
    found = read_json(text(config(build={key: value})))
    assert found.max_vcpus is None or isinstance(found.max_vcpus, int)


# -- the text of xl.cfg --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'type = "pvh"', "pvh"),
        (b"type='hvm'", "hvm"),
        (b'builder = "hvm"', "hvm"),
        (b'name = "guest"', "pv"),
    ],
)
def test_the_type_of_an_old_configuration_is_read(raw, kind):
    assert read_cfg(raw).kind == kind


def test_the_memory_of_an_old_configuration_is_in_mebibytes():
    found = read_cfg(b'name = "old"\nmemory = 64\nmaxmem = 0x80 # comment\nvcpus=2\nmaxvcpus=4\n\0')
    assert (found.name, found.target_kib, found.max_kib) == ("old", 64 << 10, 128 << 10)
    assert (found.max_vcpus, found.online_vcpus) == (4, 2)


# -- libvirt's XML -------------------------------------------------------------------------------------------

XML = b"""<domain type='xen' id='3'>
  <name>guest</name>
  <memory unit='KiB'>524288</memory>
  <currentMemory unit='MiB'>256</currentMemory>
  <vcpu placement='static' current='1'>2</vcpu>
  <os><type arch='x86_64' machine='xenfv'>hvm</type></os>
  <features><acpi/><hap state='off'/><viridian/></features>
  <devices>
    <emulator>/usr/lib/xen/bin/qemu-system-i386</emulator>
    <video><model type='vga' vram='16384'/></video>
  </devices>
</domain>\0"""


def test_the_xml_of_a_hvm_guest_is_read():
    found = read_xml(XML)
    assert found == DomainConfig(
        ConfigSource.XML,
        GuestKind.HVM,
        GuestKind.HVM,
        "guest",
        max_vcpus=2,
        online_vcpus=1,
        target_kib=262144,
        max_kib=524288,
        device_model="qemu_xen",
        viridian=True,
        hap=False,
        video_kib=16384,
        vga="std",
    )


@pytest.mark.parametrize(("os_type", "kind"), [("linux", "pv"), ("xen", "pv"), ("xenpvh", "pvh"), ("hvm", "hvm")])
def test_the_guest_is_what_the_os_type_says(os_type, kind):
    assert read_xml(XML.replace(b">hvm<", f">{os_type}<".encode())).kind == kind


def test_the_traditional_device_model_is_told_by_its_program():
    assert read_xml(XML.replace(b"qemu-system-i386", b"qemu-dm")).device_model == "qemu_xen_traditional"


@pytest.mark.parametrize(
    ("unit", "kib"),
    [("b", 1), ("KB", 1), ("KiB", 1), ("k", 1), ("MiB", 1024), ("M", 1024), ("MB", 977), ("GiB", 1 << 20)],
)
def test_memory_is_read_in_every_unit(unit, kib):
    assert read_xml(XML.replace(b"'KiB'>524288", f"'{unit}'>1".encode())).max_kib == kib


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"type='xen'", b"type='kvm'", "a domain of type 'kvm'; expected xen"),
        (b">hvm<", b">exe<", "os type is 'exe'"),
        (b">2</vcpu>", b">0</vcpu>", "number of vcpus"),
        (b">524288<", b">lots<", "memory is no amount"),
        (b"domain", b"network", "its root is 'network'"),
        (b"</domain>", b"", "no element found"),
        (b"<domain", b"<!DOCTYPE domain [<!ENTITY a 'b'>]><domain", "declares entities or a document type"),
    ],
)
def test_xml_that_libvirt_does_not_take_is_told(old, new, words):
    found = read_xml(XML.replace(old, new))
    assert words in found.problems[0].message
    assert found.refused.by == "libvirt"


def test_a_bomb_of_entities_does_not_go_off():
    levels = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))
    bomb = b'<!DOCTYPE d [<!ENTITY l0 "x">' + levels + b"]><domain type='xen'>&l11;</domain>"
    assert "document type" in read_xml(bomb).problems[0].message


def test_xml_nested_ever_deeper_is_told_or_read():
    found = read_xml(b"<domain type='xen'>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</domain>")
    assert found.refused is not None


# -- xenopsd's record ----------------------------------------------------------------------------------------

VM = (
    '((id u)(name "my guest")(ty(HVM((hap true))))(memory_static_max 536870912)(memory_dynamic_max 268435456)'
    "(vcpu_max 4)(vcpus 2))"
)


def xenops(vm_str):
    quoted = vm_str.replace("\\", "\\\\").replace('"', '\\"')
    return f'((time 20240101T00:00:00Z)(word_size 64)(vm_str "{quoted}"))'.encode()


def test_the_virtual_machine_in_xenopsds_record_is_read():
    found = read_xenops(xenops(VM))
    assert (found.kind, found.name, found.max_vcpus, found.online_vcpus) == ("hvm", "my guest", 4, 2)
    assert (found.target_kib, found.max_kib) == (262144, 524288)


@pytest.mark.parametrize("raw", [b"((time now)(word_size 64))", xenops("{}"), xenops("(("), xenops("atom")])
def test_a_record_without_a_virtual_machine_says_nothing(raw):
    assert read_xenops(raw) == DomainConfig(ConfigSource.XENOPSD)


def test_a_record_that_is_none_is_told():
    assert read_xenops(b"((time").refused.by == "xapi"


# -- changes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("b_info.max_vcpus", "4", 4),
        ("b_info.type.hvm.vga.kind", "std", "std"),
        ("b_info.type.hvm.nested_hvm", "true", "True"),
        ("c_info.name", "4", "4"),
        ("c_info.name", "new name", "new name"),
        ("b_info.avail_vcpus", "[0]", [0]),
        ("b_info.type.hvm.bios", "ovmf", "ovmf"),
        ("b_info.type.hvm.viridian", "<default>", "<default>"),
    ],
)
def test_a_key_of_the_json_is_set(key, value, found):
    changed = json.loads(set_json(text(config()), key, value).rstrip(b"\0"))
    for part in re.findall(r"type\.hvm|[^.]+", key):
        changed = changed[part]
    assert changed == found


def test_all_other_keys_and_what_ends_the_text_stay():
    changed = set_json(text(config()) + b"behind", "c_info.type", "pvh")
    assert changed.endswith(b"}\n\0behind")
    assert json.loads(changed.partition(b"\0")[0]) == config() | {"c_info": {"type": "pvh", "name": "guest"}}


def test_a_key_of_the_json_is_taken_away():
    assert read_json(set_json(text(config()), "b_info.max_vcpus", None)).max_vcpus is None


@pytest.mark.parametrize(
    ("raw", "key", "value", "words"),
    [
        (b"no JSON", "a", "1", "no JSON"),
        (text(config()), "b_info.max_vcpus.x", "1", "b_info.max_vcpus is no object"),
        (text(config()), "b_info..x", "1", "is no key"),
        (text(config()), "", "1", "is no key"),
        (text(config()), "b_info.absent", None, "there is no b_info.absent"),
        (text(config()), "b_info.max_vcpus", "many", "b_info.max_vcpus is 'many'; expected a whole number of 32 bits"),
        (text(config()), "b_info.max_vcpus", "4.5", "expected a whole number of 32 bits"),
        (text(config()), "b_info.max_vcpus", "true", "expected a whole number of 32 bits"),
        (text(config()), "b_info.max_vcpus", str(1 << 31), "does not fit 32 bits"),
        (text(config()), "b_info.max_memkb", "1e999", "expected a number of KiB"),
        (text(config()), "b_info.max_memkb", "-1", "b_info.max_memkb is -1; expected KiB"),
        (text(config()), "b_info.type.hvm.nested_hvm", "yes", 'is \'yes\'; expected "True", "False" or "<default>"'),
        (text(config()), "b_info.type.hvm.bios", "uefi", "expected one of ovmf, rombios, seabios, unknown"),
        (text(config()), "c_info.type", "solaris", "expected one of hvm, invalid, pv, pvh"),
        (text(config()), "b_info.avail_vcpus", "2", "expected a list"),
        (text(config()), "b_info", "2", "expected an object"),
        (text(config(create={"flag": "True"})), "c_info.flag", "perhaps", 'expected "True", "False" or "<default>"'),
        (text(config(create={"number": 1})), "c_info.number", "one", "expected a whole number"),
        (
            text(config()),
            "b_info.max_vcpu",
            "4",
            "has no b_info.max_vcpu, and it is no key that is known here",
        ),
        (text(config()), "b_info.max_vcpu", "4", "did you mean b_info.max_vcpus?"),
        (text(config()), "b_info.type.hvm.vga.knd", "std", "did you mean b_info.type.hvm.vga.kind?"),
        (text(config()), "on_crash", "preserve", "it is no key that is known here (--any-key sets it)"),
    ],
)
def test_a_change_of_the_json_that_cannot_be_made_is_told(raw, key, value, words):
    with pytest.raises(EditError, match=re.escape(words)):
        set_json(raw, key, value)


def test_a_key_that_nobody_knows_here_is_set_where_that_is_meant():
    assert json.loads(set_json(text(config()), "on_crash", "preserve", any_key=True).rstrip(b"\0"))["on_crash"] == (
        "preserve"
    )
    with pytest.raises(EditError, match="did you mean vcpu@current"):
        set_xml(XML, "vcpu@curent", "1")
    assert b'curent="1"' in set_xml(XML, "vcpu@curent", "1", any_key=True)


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("vcpu", "4", b">2</vcpu>", b">4</vcpu>"),
        ("os/type", "xenpvh", b">hvm<", b">xenpvh<"),
        ("name", "a<b&c", b">guest<", b">a&lt;b&amp;c<"),
        ("vcpu@current", "2", b"current='1'", b'current="2"'),
        ("memory@unit", "MiB", b"unit='KiB'", b'unit="MiB"'),
        ("features/acpi", "x", b"<acpi/>", b"<acpi>x</acpi>"),
        ("features/hap@state", "on", b"state='off'", b'state="on"'),
        ("devices/video", None, b"<video><model type='vga' vram='16384'/></video>", b""),
        ("vcpu@current", None, b" current='1'", b""),
    ],
)
def test_a_change_of_the_xml_leaves_all_else_as_it_was(key, value, old, new):
    assert set_xml(XML, key, value) == XML.replace(old, new, 1)


@pytest.mark.parametrize(
    ("raw", "key", "value", "words"),
    [
        (b"<domain", "name", "x", "no XML"),
        (XML, "absent", "x", "there is no absent"),
        (XML, "vcpu@absent", None, "there is no vcpu@absent"),
        (XML, "os//type", "x", "is no path"),
        (XML, "os", "x", "holds elements"),
        (XML, "vcpu", "many", "vcpu is 'many'; expected a number above 0"),
        (XML, "vcpu@current", "0", "expected a number above 0"),
        (XML, "os/type", "solaris", "expected one of hvm, xenpvh, linux, xen"),
        (XML, "memory@unit", "pages", "expected one of b, bytes"),
        (XML, "features/hap@state", "maybe", "expected one of on, off"),
        (XML, "devices/video/model@vram", "big", "expected a number of KiB"),
        (XML, "memory@dumpCore", "on", "the configuration has no memory@dumpCore"),
        (XML, "name", "\x01", "no XML"),
        (b"<!DOCTYPE d>" + XML, "name", "x", "document type"),
        (XML[:-1].decode().encode("utf-16"), "name", "x", "no XML"),
    ],
)
def test_a_change_of_the_xml_that_cannot_be_made_is_told(raw, key, value, words):
    with pytest.raises(EditError, match=re.escape(words)):
        set_xml(raw, key, value)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co"]), min_size=1, max_size=20))
def test_any_text_that_is_set_is_the_one_read(value):
    assert read_xml(set_xml(XML, "name", value)).name == value
    assert (
        json.loads(set_json(text(config()), "c_info.name", json.dumps(value)).rstrip(b"\0"))["c_info"]["name"] == value
    )


def xl_stream():
    builder = StreamBuilder.pv(4)
    builder.container = "xl"
    builder.xl_config = text(config("pv"))[:-1]
    return builder.build()


def test_an_unchanged_front_is_what_it_was():
    for image in (xl_stream(), encode_image(XML, b"LibxlFmt")):
        front = read_front(io.BytesIO(image))
        assert front.build() + image[front.size :] == image


def test_a_changed_front_has_the_lengths_of_its_configuration():
    image = xl_stream()
    front = read_front(io.BytesIO(image)).with_key("c_info.name", "a much longer name than before")
    changed = front.build() + image[front.size :]
    again = read_front(io.BytesIO(changed))
    assert changed[again.size :] == image[front.size :]
    assert read_json(again.config).name == "a much longer name than before"


def test_a_changed_xml_has_its_length_in_the_header():
    image = encode_image(XML, b"LibxlFmt")
    front = read_front(io.BytesIO(image)).with_key("name", "longer")
    header, xml, stream = decode_image(front.build() + image[front.size :])
    assert (header.xml_length, xml[-1:], stream) == (len(XML) + 1, b"\0", b"LibxlFmt")


def test_bytes_behind_the_configuration_stay():
    builder = StreamBuilder.pv(4)
    builder.container = "xl"
    raw = text(config("pv"))
    builder.optional_data = len(raw).to_bytes(4, "little") + raw + b"behind"
    front = read_front(io.BytesIO(builder.build())).with_key("c_info.name", "x")
    assert front.build().endswith(b"\0behind")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "begins as neither"),
        (b"LibxlFmt" + bytes(100), "begins as neither"),
        (xl_stream()[:40], "ends in the header: 8 of 16 bytes"),
        (xl_stream()[:60], "ends in the configuration"),
        (encode_image(XML, b"")[:50], "ends in the header"),
        (encode_image(XML, b"")[:100], "ends in the configuration"),
        (encode_image(b"", b""), "invalid XML length: 0"),
        (encode_image(XML, b"", 9), "version is not supported"),
        (XL_HEADER.pack(*XL_HEADER.unpack(xl_stream()[:48])[:4], 1 << 31), "at most"),
        (XL_HEADER.pack(*XL_HEADER.unpack(xl_stream()[:48])[:4], 0), "carries no configuration"),
        (XL_HEADER.pack(*XL_HEADER.unpack(xl_stream()[:48])[:4], 5) + b"\2\0\0\0a", "2 bytes in 5 bytes"),
    ],
)
def test_a_file_without_a_configuration_to_change_is_told(image, words):
    with pytest.raises(EditError, match=re.escape(words)):
        read_front(io.BytesIO(image))


def test_a_text_of_xl_cfg_is_not_changed():
    image = bytearray(xl_stream())
    image[36] &= ~1
    with pytest.raises(EditError, match=r"text of xl\.cfg"):
        read_front(io.BytesIO(bytes(image))).with_key("memory", "1")


@pytest.mark.parametrize(("depth", "refused"), [(254, False), (255, True)])
def test_elements_lie_as_deep_in_each_other_as_libvirt_reads_them(depth, refused):
    inside = b"<a>" * depth + b"</a>" * depth
    text = (
        b"<domain type='xen'><os><type>hvm</type></os><vcpu>1</vcpu><memory>64</memory><metadata>%b</metadata></domain>"
    )
    found = read_xml(text % inside)
    assert bool(found.problems) == refused
    if refused:
        assert "256 deep" in found.problems[0].message


@pytest.mark.parametrize(("vcpus", "refused"), [(128, False), (129, True)])
def test_more_vcpus_than_xen_has_are_no_domain_of_libvirts(vcpus, refused):
    text = b"<os><type>hvm</type></os><vcpu>%d</vcpu><memory>64</memory>" % vcpus
    assert bool(read_xml(b"<domain type='xen'>%b</domain>" % text).problems) == refused
