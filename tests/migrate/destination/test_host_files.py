"""Host files: whatever stands around what the two commands print, the host is the same; or there is a clear error."""

import io
import json
import subprocess
import sys
from itertools import pairwise

import pytest
from host_texts import (
    AMD,
    INTEL,
    REAL,
    XEN_CPUID,
    XEN_CPUID_P,
    XL_INFO_N,
    info,
    parsed,
    policy_text,
    real,
    some_hosts,
    version,
    xen_cpuid,
    xl_info,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.destination.host import Host, PolicyName, XenVersion
from migrate.destination.host_facts import HostFileError
from migrate.destination.host_files import MOST_BYTES, parse_host, read_host
from migrate.destination.host_json import facts_object
from migrate.destination.host_memory import Node
from migrate.destination.policy_ranges import most_leaves, most_policy_msrs
from migrate.destination.releases import pv32_off_by_default, resolve
from migrate.guest.cpu_policy import Policy
from migrate.reports.inspection.host import QUESTIONS

AMD_TEXT = AMD.read_text()
POLICY = Policy({(0x0, None): (0xD, 1, 2, 3), (0x7, 0): (2, 0, 0, 1)}, {0xCE: 0x8000_0000, 0x10A: 0})

RAW = policy_text("Raw", POLICY)

# Nothing that a host file could say: banners, prompts, logs, other commands.
_NOISE = [
    "",
    "Last login: Wed Nov 25 17:29:12 2026 from 192.0.2.1",
    "[root@a ~]# xl info | tee /tmp/host.txt; xen-cpuid -p",
    "root@a:~# ",
    "\tWARNING: unauthorised access is prohibited -> go away",
    "Nov 25 17:29:12 a kernel: [  1.000] xen:events: Xen HVM callback vector",
    "\x1b[0;32muser@host\x1b[0m:\x1b[0;34m~\x1b[0m$ exit",
    "xen_changeset          : ",
    "(XEN) d1v0 Unhandled read: c0010063 -> 00000000",
    "(XEN) [12:30] memory 00000000 -> bfffffff",
    "Name                                        ID   Mem VCPUs\tState\tTime(s)",
    "host: example.org",
    "\N{SNOWMAN} | naïve",
    "x" * 10000,
]
known_hosts = some_hosts().filter(lambda host: host != Host())
noise = st.lists(st.sampled_from(_NOISE), max_size=2)


def error(*texts):
    with pytest.raises(HostFileError) as raised:
        parsed(*texts)
    return str(raised.value)


# -- the same host ------------------------------------------------------------------------------------


def test_a_real_host_is_read():
    host = real("amd 4.17")
    assert host.xen == XenVersion(4, 17, ".7")
    assert host.xen_caps == (
        *("xen-3.0-x86_64", "xen-3.0-x86_32p"),
        *("hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"),
    )
    assert host.virt_caps == ("pv", "hvm", "hap", "shadow", "gnttab-v1", "gnttab-v2")
    assert (host.name, host.total_memory, host.free_memory, host.nr_cpus) == ("(none)", 6143, 5555, 1)
    assert host.hw_caps[:2] == (0x0FCB_F3FD, 0xF6D8_320B)
    assert (host.command_line[:12], host.command_line[-9:]) == ("console=com1", "eager-fpu")
    assert (host.most_leaves, host.most_msrs) == (120, 2)
    assert list(host.policies) == list(PolicyName)
    most = host.policies[PolicyName.HVM_MAX]
    assert most.leaf(0xD, 0) == (0x21F, 0, 0xA88, 0)
    assert most.leaf(0x8000_0021) == (0x24, 0, 0, 0)
    assert most.msrs == {0xCE: 0x8000_0000, 0x10A: 0}


def test_nodes_come_with_xl_info_n():
    assert real("amd 4.20").nodes == (Node(0, 7168, 5555),)
    assert real("amd 4.17").nodes == ()


@given(known_hosts)
@settings(max_examples=40)
def test_what_the_commands_print_of_a_host_is_that_host(host):
    assert parsed(xl_info(host) + xen_cpuid(host)) == parsed(xen_cpuid(host) + xl_info(host)) == host


@pytest.mark.parametrize("name", REAL)
@given(data=st.data())
@settings(max_examples=15)
def test_order_and_surroundings_do_not_matter(name, data):
    text = "".join(path.read_text() for path in REAL[name])
    cut = text.index("Xen reports")
    parts = [text[:cut], text[cut:]]
    # Policies can stand in any order and in files of their own.
    first, *policies = parts.pop().split("\n", 1)
    pieces = data.draw(st.permutations([parts[0], f"{first}\n", *_policy_blocks(policies[0])]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    prefix = data.draw(st.sampled_from(["", "[2026-11-25 17:29:12] ", "host: ", "Nov 25 17:29:12 a | ", "\t"]))
    files, per_file = [], data.draw(st.integers(1, len(pieces)))
    for start in range(0, len(pieces), per_file):
        lines = []
        for line in "".join(pieces[start : start + per_file]).splitlines():
            lines += [*data.draw(noise), prefix + line]
        files.append(end.join(lines).encode())
    assert parsed(*files) == real(name)


def _policy_blocks(text):
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if " policy: " in line] + [len(lines)]
    return ["".join(lines[start:stop]) for start, stop in pairwise(starts)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_the_encoding_does_not_matter(encoding):
    assert parsed(f"# f\xfcr den Umzug\n{AMD_TEXT}".encode(encoding)) == real("amd 4.17")


def test_tabs_are_blanks():
    assert parsed(AMD_TEXT.replace("  ", "\t")) == real("amd 4.17")


def test_colours_are_no_part_of_a_line():
    assert parsed("".join(f"\x1b[1;31m{line}\x1b[0m\n" for line in AMD_TEXT.splitlines())) == real("amd 4.17")


def test_the_same_output_twice_is_one_host_with_the_least_free_memory():
    later = AMD_TEXT.replace("free_memory            : 5555", "free_memory            : 4000")
    assert parsed(AMD_TEXT, later) == parsed(later, AMD_TEXT) == parsed(later)


def test_a_host_is_known_by_xl_info_alone():
    host = parsed(AMD_TEXT[: AMD_TEXT.index("Xen reports")])
    assert host.policies == {}
    assert host.xen == XenVersion(4, 17, ".7")


def test_a_host_is_known_by_xen_cpuid_alone():
    host = parsed(XEN_CPUID_P.read_text())
    assert host.xen is None
    assert len(host.policies) == 6


def test_a_policy_may_be_unknown_to_xen():
    text = policy_text("Raw", POLICY) + "HVM Max policy not supported by Xen\n" + policy_text("PV Max", POLICY)
    assert parsed(text).policies == {PolicyName.RAW: POLICY, PolicyName.PV_MAX: POLICY, PolicyName.HVM_MAX: None}


def test_xen_4_14_0_has_one_msr():
    one = Policy(POLICY.leaves, {0xCE: 0})
    text = f"Xen reports there are maximum 114 leaves and 1 MSRs\n{policy_text('PV Max', one)}"
    host = parsed(text)
    assert (host.most_leaves, host.most_msrs, host.policies[PolicyName.PV_MAX]) == (114, 1, one)


def test_a_word_before_a_colon_is_no_host_name():
    assert parsed("host: example.org\n" + AMD_TEXT[AMD_TEXT.index("nr_cpus") :]).name is None


def test_the_version_in_one_line_is_enough():
    assert parsed(info(xen_version="4.21-rc2")).xen == XenVersion(4, 21, "-rc2")


# -- what each release prints --------------------------------------------------------------------------

# Words of virt_caps that came later, each to the end of the line or before the last ones.
_VMTRACE, _GRANTS = ("vmtrace",), ("vpmu", "gnttab-v1", "gnttab-v2")
_MORE_WORDS = {
    **dict.fromkeys(("4.14.0", "4.14.1", "4.14.5"), ()),
    **dict.fromkeys(("4.15.0", "4.15.3"), _VMTRACE),
    **dict.fromkeys(("4.16.0", "4.17.7", "4.18.0", "4.19.0", "4.20.0", "4.21.0", "4.22.0"), _VMTRACE + _GRANTS),
}
_VIRT_CAPS = ("pv", "hvm", "hvm_directio", "pv_directio", "hap", "shadow", "iommu_hap_pt_share")
_XEN_CAPS = ("xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64")
# From 4.16 on Xen has no 32-bit PV unless it is built so.
_PV32 = ("xen-3.0-x86_64", "xen-3.0-x86_32p")


@pytest.mark.parametrize("release", _MORE_WORDS)
@pytest.mark.parametrize("with_nodes", [False, True], ids=["xl info", "xl info -n"])
def test_what_a_release_prints_leaves_nothing_open(release, with_nodes):
    target = resolve(release)
    msrs = {0xCE: 1 << 31, 0x10A: 0} if most_policy_msrs(target) > 1 else {0xCE: 1 << 31}
    leaf_0 = (0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)
    sizes = (0x3028, 0, 0, 0)
    made = Policy({(0, None): leaf_0, (0x8000_0008, None): sizes}, msrs)
    off_by_default = target.has(pv32_off_by_default)
    host = Host(
        name="dom0.example.org",
        xen=XenVersion(target.major, target.minor, f".{target.point}"),
        xen_caps=_XEN_CAPS if off_by_default else _PV32 + _XEN_CAPS[1:],
        virt_caps=_VIRT_CAPS + _MORE_WORDS[release],
        total_memory=130724,
        free_memory=54067,
        nr_cpus=48,
        hw_caps=(0,) * 8,
        command_line="placeholder dom0_mem=4096M pv-l1tf=domu",
        nodes=(Node(0, 66560, 20000), Node(1, 65536, 34067)) if with_nodes else (),
        most_leaves=most_leaves(target),
        most_msrs=most_policy_msrs(target),
        policies=dict.fromkeys(PolicyName, made),
    )
    read = parsed(_AROUND + xl_info(host) + _TOPOLOGY * with_nodes + xen_cpuid(host))
    assert read == host
    assert read.release.value == target
    assert read.pv32.value is not off_by_default
    assert {name for name, question in QUESTIONS.items() if question.ask(read).open} == set()


_AROUND = "Warning: Permanently added 'dom0' (ED25519) to the list of known hosts.\nroot@dom0:~# xl info\n"
_TOPOLOGY = """\
cpu_topology           :
cpu:    core    socket     node
  0:       0        0        0
  1:       0        0        0
device topology        :
device           node
0000:00:00.0      0
xend_config_format     : 4
"""


# -- JSON ---------------------------------------------------------------------------------------------


def as_json(host):
    return json.dumps({"schema": 1, "facts": facts_object(host)})


@given(known_hosts)
@settings(max_examples=40)
def test_a_host_survives_json(host):
    assert parsed(as_json(host)) == host


@given(known_hosts)
@settings(max_examples=40)
def test_json_and_text_of_one_host_go_together(host):
    assert parsed(as_json(host), xl_info(host) + xen_cpuid(host)) == host


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("[]", "file0, line 1: expected what `xl info` and `xen-cpuid -p` print, found '[]'"),
        ("{}", 'file0: expected what `migrate host --json` writes: a JSON object with "facts" in it'),
        ('{"facts": 1}', 'file0: expected what `migrate host --json` writes: a JSON object with "facts" in it'),
        ('{"facts": {"pv": true}}', "file0: facts.pv: no fact of a host; expected name, xen, xen_caps, virt_caps"),
        ('{"facts": {"name": 1}}', "file0: facts.name: expected text"),
        ('{"facts": {"total_memory": -1}}', "file0: facts.total_memory: expected a number of 63 bits"),
        ('{"facts": {"nr_cpus": true}}', "file0: facts.nr_cpus: expected a number of 63 bits"),
        ('{"facts": {"hw_caps": ["0x1"]}}', "file0: facts.hw_caps: expected a list of 8"),
        ('{"facts": {"xen_caps": "pv"}}', "file0: facts.xen_caps: expected a list"),
        ('{"facts": {"xen": {"major": 4}}}', "file0: facts.xen.minor: expected a number of 32 bits"),
        ('{"facts": {"policies": {"Max": null}}}', "file0: facts.policies.Max: expected one of Raw, Host, PV Max"),
        ('{"facts": {"policies": {"Raw": 1}}}', "file0: facts.policies.Raw: expected an object"),
        (
            '{"facts": {"policies": {"Raw": {"leaves": {"0": {"-": [1]}}, "msrs": {}}}}}',
            "file0: facts.policies.Raw.leaves.0: expected a list of 4",
        ),
        ('{\n"facts": }', "file0, line 2: not JSON: Expecting value"),
    ],
)
def test_a_bad_document_is_told_by_what_was_expected(document, told):
    assert error(document).startswith(told)


# -- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "file0: expected what `xl info` and `xen-cpuid -p` print, and it is empty"),
        ("\n\nroot:x:0\n", "file0, line 3: expected what `xl info` and `xen-cpuid -p` print, found 'root:x:0'"),
        ("total_memory : much\n", "file0, line 1: total_memory: expected a number, found 'much'"),
        ("\nxen_version : Xen\n", "file0, line 2: xen_version: expected a version such as 4.17.7, found 'Xen'"),
        ("hw_caps : 1:2\n", "file0, line 1: hw_caps: expected 8 words of 8 hexadecimal digits"),
        ("xen_caps : xen-3.0-aarch64 \n", "file0, line 1: xen_caps: expected an x86 host, found 'xen-3.0-aarch64'"),
        (
            "  00000000:ffffffff -> 0000000d:68747541:444d4163:69746e65\n",
            "file0, line 1: a leaf of no policy: expected a line 'Raw policy: …'",
        ),
        (
            "Raw policy: 1 leaves, 0 MSRs\n  00000000:ffffffff -> 0000000d:6874\n",
            "file0, line 2: expected leaf:subleaf -> eax:ebx:ecx:edx in hexadecimal, found '00000000:ffffffff ->",
        ),
        (
            "Raw policy: 1 leaves, 2 MSRs\n  000000ce -> 0000000000000000\n",
            "file0, line 1: the Raw policy should have 2 MSRs and 1 leaf at most; 1 and 0 are there: was it cut off?",
        ),
        (
            policy_text("Raw", POLICY, leaves=1),
            "file0, line 1: the Raw policy should have 2 MSRs and 1 leaf at most; 2 and 2 are there: was it cut off?",
        ),
        (
            "Raw policy: 9 leaves, 0 MSRs\n"
            "  00000000:ffffffff -> 00000001:00000000:00000000:00000000\n"
            "  00000000:ffffffff -> 00000002:00000000:00000000:00000000\n",
            "file0, line 3: leaf 0x0 for the second time in one policy, with other values",
        ),
        (
            "Raw policy: 9 leaves, 1 MSRs\n  000000ce -> 0000000000000000\n  000000ce -> 0000000000000001\n",
            "file0, line 3: MSR 0xce for the second time in one policy, with another value",
        ),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_what_was_expected(text, told):
    assert error(text).startswith(told)


def test_a_policy_that_another_output_cuts_off_is_told():
    text = "Raw policy: 1 leaves, 1 MSRs\n" + info(total_memory="1")
    assert error(text).startswith("file0, line 1: the Raw policy should have 1 MSR and ")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (info(total_memory="1"), info(total_memory="2"), "total_memory is 2, and 1 in file0, line 1"),
        (info(xen_caps="xen-3.0-x86_64"), info(xen_caps=""), "xen_caps is , and xen-3.0-x86_64 in file0, line 1"),
        (info(host="a"), info(host="b"), "host is b, and a in file0, line 1"),
        (
            policy_text("Raw", POLICY),
            policy_text("Raw", Policy({}, {})),
            "the Raw policy is not the same in file0, line 1",
        ),
        (
            RAW,
            policy_text("Raw", Policy({(0x7, 0): (1, 0, 0, 0)}, {})),
            "the Raw policy is not the same (leaf 0x7) in file0, line 1",
        ),
        (
            "Raw policy not supported by Xen\n",
            policy_text("Raw", POLICY),
            "the Raw policy is there, and unknown to Xen in file0, line 1",
        ),
    ],
)
def test_two_hosts_in_one_input_are_told_apart(first, second, told):
    assert error(first, second) == f"file1, line 1: {told}: are these two hosts?"


def test_two_real_hosts_are_told_apart():
    assert error(AMD_TEXT, INTEL.read_text()).endswith("are these two hosts?")


def test_a_version_that_contradicts_its_parts_is_told():
    text = version("4.17.7").replace("xen_version            : 4.17.7", "xen_version            : 4.18.0")
    assert error(text) == (
        "file0, line 4: xen_version is 4.18.0, and xen_major, xen_minor and xen_extra say 4.17.7: are these two hosts?"
    )


def test_features_by_name_are_recognised_and_not_enough():
    assert error(XEN_CPUID.read_text()) == (
        "file0, line 1: the features that `xen-cpuid` prints are not enough; `xen-cpuid -p` prints the policies"
    )


def test_the_policy_of_one_domain_is_recognised_and_not_enough():
    assert error("\n" + policy_text("Domain 3", POLICY)) == (
        "file0, line 2: the policy of one domain (`xen-cpuid -p DOMID`) says nothing of the host; `xen-cpuid -p` does"
    )


@pytest.mark.parametrize(
    "other", [XEN_CPUID.read_text(), policy_text("Domain 3", POLICY), "bash: xen-cpuid: command not found\n"]
)
def test_an_output_that_is_not_enough_is_a_remark_beside_xl_info(other):
    reading = parse_host([("a", XL_INFO_N.read_bytes()), ("b", other.encode())])
    assert (reading.host.xen, reading.host.policies) == (XenVersion(4, 20, ".0"), {})
    (remark,) = reading.remarks
    assert remark.startswith("b, line 1: ")


def test_there_is_nothing_to_remark_of_a_complete_host():
    reading = parse_host([("a", AMD.read_bytes()), ("b", XEN_CPUID.read_bytes())])
    assert reading.remarks == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bash: line 1: xl: command not found", "file0, line 1: xl was not found there"),
        ("cannot init xl context", "file0, line 1: xl failed there: it needs root, on a Xen host"),
        ("xen-cpuid: xc_interface_open: Permission denied", "file0, line 1: xen-cpuid failed there: it needs root"),
    ],
)
def test_a_command_that_failed_is_recognised(line, told):
    assert error(f"{line}\n").startswith(told)


def test_a_foreign_file_beside_a_good_one_is_an_error():
    assert error(AMD_TEXT, "\x7fELF\0\0").startswith("file1, line 1: expected what `xl info` and `xen-cpuid -p` print")


def test_too_long_an_input_is_not_read_on():
    class Endless(io.RawIOBase):
        name = "endless"
        given = 0

        def read(self, count=-1):
            self.given += count
            return b"\n" * count

    endless = Endless()
    with pytest.raises(HostFileError, match="endless: longer than 16 MiB"):
        read_host(endless)
    assert endless.given == MOST_BYTES + 1


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_anything_else_is_an_error_of_the_file(data):
    with pytest.raises(HostFileError):
        parsed(data)


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_file_is_a_host_or_an_error(data):
    text = bytearray(AMD.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(start + 200, len(text))))
        text[start:stop] = data.draw(
            st.binary(max_size=20)
            | st.sampled_from([b"->", b":", b"\n", b"99999999999999999999", b" policy: ", b"\x1b["])
        )
    try:
        host = parsed(bytes(text))
    except HostFileError:
        return
    assert isinstance(host, Host)


@given(some_hosts(), st.data())
@settings(max_examples=40)
def test_a_damaged_document_is_a_host_or_an_error(host, data):
    document = as_json(host)
    start = data.draw(st.integers(0, len(document)))
    stop = data.draw(st.integers(start, min(start + 10, len(document))))
    damaged = (
        document[:start]
        + data.draw(st.sampled_from(["", "0", "null", "[", '"', "-", "{}", "9" * 5000]))
        + document[stop:]
    )
    try:
        host = parsed(damaged)
    except HostFileError:
        return
    assert isinstance(host, Host)


def test_deep_nesting_is_an_error_of_the_file():
    assert "file0" in error('{"facts":' + "[" * 100_000)


def test_reading_a_host_needs_neither_numpy_nor_construct():
    code = (
        "import sys; from migrate.destination.host_files import read_host; "
        f"read_host({str(AMD)!r}); print([m for m in ('numpy', 'construct', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
