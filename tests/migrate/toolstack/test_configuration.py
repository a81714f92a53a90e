"""The configuration in front of a stream against the guest that comes: who refuses what, on which release."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.configuration import domain_xml, libxl_json
from migrate.building.hvm_contexts import edit
from migrate.judging.check import judge
from migrate.rules.declaring import SIGABRT, Severity
from migrate.toolstack.config import LONGEST_CONFIG, SLACK_KIB, GuestKind
from streams.pages import PageType
from streams.wire.framing import PAGE_SIZE, XL_FLAG_JSON
from streams.wire.hvm_names import HvmParam, SaveType

KIND = {"pv": lambda: StreamBuilder.pv(8), "hvm": StreamBuilder.hvm, "pvh": StreamBuilder.pvh}
every_kind = pytest.mark.parametrize("kind", KIND)
KIB_PER_PAGE = PAGE_SIZE >> 10


def guest(kind="pv", container="xl"):
    b = KIND[kind]()
    b.wrap(container)
    return b


def with_config(kind, **parts):
    """A guest whose configuration has these keys, by its part."""
    b = guest(kind)
    config = json.loads(b.xl_config)
    for part, keys in parts.items():
        config[part] |= keys
    b.xl_config = json.dumps(config).encode()
    return b


def asked(b, target="4.20", **options):
    return check(b.build(), target=target, placement="low", **options)


def failure(b, target="4.20"):
    found = asked(b, target).failure
    return None if found is None else (found.rule, found.call)


def loud(report):
    return {f.rule.id for f in report.findings if f.severity is not Severity.INFO}


# -- sound ones ------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("container", ["xl", "libvirt"])
def test_a_guest_with_its_own_configuration_is_accepted_in_silence(kind, container):
    report = asked(guest(kind, container))
    assert (report.verdict, loud(report)) == ("accept", set())


@every_kind
@pytest.mark.parametrize("container", ["xl", "libvirt"])
def test_the_configuration_is_the_sessions(kind, container):
    config = judge(guest(kind, container).build(), then=lambda judgement: judgement.session.config)
    assert (config.kind, config.name, config.max_vcpus) == (GuestKind(kind), "built", 1)


# -- what its toolstack refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b'name = "guest"', "JSON"),
        (b'{"c_info": {"type": "pv"', "JSON"),
        (b"{}", "c_info.type is not set"),
        (b'{"c_info": {"type": "pv"}, "b_info": {}}', "invalid domain type"),
        (b'{"c_info": {"type": "box"}, "b_info": {}}', "type is 'box'"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_json_without_a_domain_in_it_is_refused_by_libxl(config, says):
    b = guest()
    b.xl_config = config
    report = asked(b)
    assert (report.verdict, report.failure.rule, report.failure.call) == ("refuse", "CON-37", "libxl")
    assert says in report.failure.message


def test_what_libxl_says_of_an_empty_configuration_is_told():
    b = guest()
    b.xl_config = b"nothing"
    assert "domain type unspecified" in asked(b).failure.message


@pytest.mark.parametrize(
    "xml", [b"<domain", b"<volume/>", b"<domain type='kvm'/>", b"<domain type='xen'><os><type>exe</type></os></domain>"]
)
def test_xml_without_a_xen_domain_in_it_is_refused_by_libvirt(xml):
    b = guest("hvm", "libvirt")
    b.domain_xml = xml
    assert failure(b) == ("CON-37", "libvirt")


def test_json_whose_flag_is_clear_is_read_as_xl_cfg_and_refused_by_xl():
    b = guest()
    b.xl["mandatory_flags"] &= ~XL_FLAG_JSON
    assert failure(b) == ("CON-37", "xl")


def test_the_text_of_xl_cfg_is_taken_where_the_flag_is_clear():
    b = guest()
    b.xl["mandatory_flags"] &= ~XL_FLAG_JSON
    b.xl_config = b'# saved\nname = "old"\nmemory = 8\nvcpus = 1\ndisk = [ "a,xvda,w",\n  "b,xvdb,w" ]\n'
    report = asked(b)
    assert (report.verdict, loud(report)) == ("accept", set())


def test_a_configuration_longer_than_any_is_not_read():
    b = guest()
    b.xl_config = b" " * (LONGEST_CONFIG + 1)
    report = asked(b)
    assert (report.verdict, loud(report)) == ("accept", set())


# -- libvirt's header ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("version", 3, "3 > 2"), ("version", 2 << 24, "big-endian"), ("xml_length", 0, "XML length")],
)
def test_what_libvirt_objects_to_in_its_header_it_refuses(field, value, says):
    b = guest("hvm", "libvirt")
    b.libvirt[field] = value
    report = asked(b)
    assert (report.failure.rule, report.failure.call) == ("CON-36", "libvirt")
    assert says in report.failure.message


def test_version_1_of_libvirt_before_a_libxl_stream_is_refused_by_name():
    b = guest("hvm", "libvirt")
    b.libvirt["version"] = 1
    report = asked(b)
    assert (report.failure.rule, report.failure.call) == ("CON-34", "libxl")
    assert "version 1" in report.failure.message
    assert "convert-legacy-stream" in report.failure.message
    assert report.failure.finding.offset == 16


def test_a_clear_flag_of_xl_before_a_libxl_stream_is_refused_by_name():
    b = guest("hvm")
    b.xl["mandatory_flags"] = XL_FLAG_JSON
    report = asked(b)
    assert (report.failure.rule, report.failure.finding.offset) == ("CON-34", 36)


# -- the kind of guest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image", "configured"), [("pv", "hvm"), ("pv", "pvh"), ("hvm", "pv"), ("pvh", "pv")])
@pytest.mark.parametrize("container", ["xl", "libvirt"])
def test_a_domain_of_another_kind_than_the_image_is_refused_by_libxc(image, configured, container):
    b = guest(image, container)
    b.xl_config, b.domain_xml = libxl_json(configured, 1, 1024), domain_xml(configured, 1, 1024)
    report = asked(b)
    assert (report.failure.rule, report.failure.call, report.failure.step) == ("CON-38", "libxc", "headers")
    assert report.failure.message.startswith(f"the configuration's type is {configured}: unable to restore x86")


@pytest.mark.parametrize(("image", "configured"), [("hvm", "pvh"), ("pvh", "hvm")])
def test_libxc_takes_pvh_and_hvm_for_the_same(image, configured):
    b = guest(image)
    b.xl_config = libxl_json(configured, 1, 1024)
    assert "CON-38" not in {finding.rule.id for finding in asked(b).findings}


def test_two_kinds_that_libxl_is_known_to_fail_over_are_refused():
    b = guest("hvm")
    b.xl_config = b.xl_config.replace(b'"type": "hvm"', b'"type": "pv"')
    report = asked(b)
    assert (report.failure.rule, report.failure.call) == ("CON-37", "libxl")
    assert "HPET" in report.failure.message


def test_the_kind_in_xenopsds_record_refuses_nothing():
    b = guest("hvm", "xapi")
    b.xapi_blocks[0] = (b.xapi_blocks[0][0], b'((time 1)(word_size 64)(vm_str "((ty(PV))(name a))"))')
    assert failure(b) is None


# -- vcpus -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["xl", "libvirt"])
def test_a_vcpu_that_the_configuration_does_not_have_is_refused(container):
    b = StreamBuilder.pv(8, vcpus=2)
    b.wrap(container)
    b.xl_config, b.domain_xml = libxl_json("pv", 1, 1024), domain_xml("pv", 1, 1024)
    report = asked(b)
    assert (report.failure.rule, report.failure.vcpu) == ("REC-52", 1)


def test_the_caller_knows_better_than_the_configuration_how_many_vcpus_there_are():
    b = StreamBuilder.pv(8, vcpus=2)
    b.wrap("xl")
    b.xl_config = libxl_json("pv", 1, 1024)
    assert asked(b, vcpus=2).verdict == "accept"


# -- memory ----------------------------------------------------------------------------------------------------


def with_pages(kind, pages, target_kib):
    b = guest(kind)
    while sum(page.type != PageType.XTAB for page in b.memory.values()) < pages:
        b.new_page()
    b.xl_config = libxl_json(kind, 1, target_kib)
    return b


@every_kind
def test_a_guest_may_need_a_mebibyte_more_than_its_target_and_no_page_more(kind):
    target = 40
    most = (target + SLACK_KIB) // KIB_PER_PAGE
    assert failure(with_pages(kind, most, target)) is None
    report = asked(with_pages(kind, most + 1, target))
    assert (report.failure.rule, report.failure.call, report.failure.errno) == ("CON-39", "populate_physmap", "EBUSY")
    assert report.failure.step == "record"


@every_kind
@given(st.lists(st.lists(st.integers(0, 400), unique=True, min_size=1, max_size=300), max_size=3), st.booleans())
@settings(max_examples=15, deadline=None)
def test_only_a_pfn_that_comes_first_needs_a_frame(kind, rounds, small_batches):
    b = with_pages(kind, 300, 1024 - SLACK_KIB + 300 * KIB_PER_PAGE)
    known = sorted(b.memory)
    b.rounds = [sorted({known[at % len(known)] for at in some}) for some in rounds]
    b.batch = 7 if small_batches else 1024
    assert failure(b) is None


def test_pages_without_a_frame_need_no_memory():
    b = guest("hvm")
    for _ in range(2000):
        b.new_page(PageType.XTAB)
    b.xl_config = libxl_json("hvm", 1, 32)
    assert failure(b) is None


def test_what_only_a_page_table_names_needs_a_frame():
    b = guest("pv")
    absent = [b.new_page(PageType.XTAB) for _ in range(300)]
    table = b.table(b.chain(b.roots[0])[-1])
    for at, pfn in enumerate(absent):
        table[100 + at] = pfn << 12 | 5
    sent = sum(page.type != PageType.XTAB for page in b.memory.values())
    enough = (sent + len(absent)) * KIB_PER_PAGE - SLACK_KIB
    b.xl_config = libxl_json("pv", 1, enough)
    assert "CON-39" not in {finding.rule.id for finding in asked(b).findings}
    b.xl_config = libxl_json("pv", 1, enough - KIB_PER_PAGE)
    assert "CON-39" in {finding.rule.id for finding in asked(b).findings}


def test_a_target_above_the_maximum_is_libxls_to_take():
    assert failure(with_config("pv", b_info={"target_memkb": 1 << 20, "max_memkb": 1024})) is None


# -- the device model that is asked for ------------------------------------------------------------------------

TRADITIONAL = {"device_model_version": "qemu_xen_traditional"}


@pytest.mark.parametrize(("target", "verdict"), [("4.20", "accept"), ("4.21.0", "refuse"), ("4.22", "refuse")])
def test_the_traditional_device_model_is_gone_since_4_21(target, verdict):
    report = asked(with_config("hvm", b_info=TRADITIONAL), target)
    assert report.verdict == verdict
    if verdict == "refuse":
        assert (report.failure.rule, report.failure.signal) == ("CON-40", None)


def test_libxl_dies_of_the_traditional_device_model_where_a_bios_is_set():
    b = with_config("hvm", b_info=TRADITIONAL | {"type.hvm": {"bios": "rombios"}})
    assert asked(b, "4.21").failure.signal == SIGABRT


def test_a_pv_guest_has_no_use_for_a_device_model():
    assert failure(with_config("pv", b_info=TRADITIONAL), "4.22") is None


# -- what the configuration leaves the guest of its processor ------------------------------------------------

VMX, PCID = 1 << 5, 1 << 17  # of leaf 1, ecx
PAE, VMXE, PCIDE = 1 << 5, 1 << 13, 1 << 17  # of cr4


def with_cr4(cr4, promised, **parts):
    """An HVM guest with a bit of cr4, and the feature that it takes promised."""
    b = with_config("hvm", **parts)
    for leaf in b.cpuid_policy:
        leaf["c"] |= promised if leaf["leaf"] == 1 else 0
    edit(b.hvm_context, SaveType.CPU, cr4=PAE | cr4)
    return b


@pytest.mark.parametrize(("nested", "refused"), [(None, True), ("False", True), ("<default>", True), ("True", False)])
@pytest.mark.parametrize("target", ["4.14.3", "4.20"])
def test_a_guest_has_vmx_where_its_configuration_lets_it_have_guests(target, nested, refused):
    b = with_cr4(VMXE, VMX, b_info={} if nested is None else {"nested_hvm": nested})
    assert failure(b, target) == (("HVM-05", "sethvmcontext") if refused else None)


def test_before_4_15_a_parameter_lets_a_guest_have_guests():
    b = with_cr4(VMXE, VMX)
    b.hvm_params[HvmParam.NESTEDHVM] = 1
    assert failure(b, "4.14.3") is None


@pytest.mark.parametrize(("hap", "refused"), [(None, False), ("True", False), ("False", True)])
def test_a_guest_on_shadow_paging_has_no_pcid(hap, refused):
    b = with_cr4(PCIDE, PCID, c_info={} if hap is None else {"hap": hap})
    assert failure(b) == (("HVM-05", "sethvmcontext") if refused else None)


@pytest.mark.parametrize("other", [{"b_info": {"altp2m": "mixed"}}, {"c_info": {"hap": "False"}}], ids=str)
def test_nested_virtualisation_goes_with_hap_and_without_altp2m(other):
    b = with_config("hvm", **{part: {"nested_hvm": "True", **keys} for part, keys in ({"b_info": {}} | other).items()})
    assert failure(b) == ("CON-37", "libxl")
