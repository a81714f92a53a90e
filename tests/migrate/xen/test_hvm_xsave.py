"""What Xen says to the CPU_XSAVE entries of an HVM context."""

import pytest
from hvm_domains import context, domain, found, policy, told, xsave

from migrate.building.hvm_contexts import Hardware, add, drop, edit, hvm_context
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_context import context_objections
from streams.hvm_context import decode_context
from streams.wire.hvm_names import SaveType

AVX = 0b111
PKRU = 1 << 9 | 3
LAYOUT = {2: (256, 576), 9: (8, 2688)}
RICH = policy("fxsr", "sse", "sse2", "lm", "pae", "xsave", "avx", "pku", layout=LAYOUT)


IMPOSSIBLE = {
    "no x87": (xsave(0, 1), "EINVAL"),
    "nothing": (xsave(0, 0), "EINVAL"),
    "avx without sse": (xsave(0b101, 0b101, area=832), "EINVAL"),
    "beyond accum": (xsave(3, 1), "EINVAL"),
    "bv beyond accum": (xsave(1, 1, bv=2), "EINVAL"),
    "compressed": (xsave(1, 1, xcomp_bv=1 << 63), "EOPNOTSUPP"),
    "reserved": (xsave(1, 1, reserved=b"\1" * 48), "EIO"),
    "last reserved": (xsave(1, 1, reserved=bytes(47) + b"\1"), "EIO"),
}


@pytest.mark.parametrize(("entry", "errno"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_state_is_refused(entry, errno):
    assert found(context(entry), promised=RICH)[0] == ("HVM-06", errno)


@pytest.mark.parametrize("accum", [0b1000111, 0b1011, AVX | 1 << 17], ids=hex)
def test_half_of_a_pair_is_impossible_and_beyond_the_policy_too(accum):
    assert found(context(xsave(accum, accum, area=2696)), promised=RICH) == [("HVM-06", "EINVAL"), ("HVM-05", "EINVAL")]


@pytest.mark.parametrize(
    ("entry", "errno"),
    [
        (xsave(AVX, AVX, area=576), "EINVAL"),
        (xsave(1, AVX, area=831), "EINVAL"),
        (xsave(AVX, AVX, area=832, tail=bytes(7) + b"\1"), "EOPNOTSUPP"),
        (xsave(1, 1, area=576, tail=b"\1"), "EOPNOTSUPP"),
        (xsave(3, PKRU, area=2695), "EINVAL"),
        (xsave(3, PKRU, area=2696, tail=b"\1"), "EOPNOTSUPP"),
    ],
)
def test_area_that_does_not_fit_its_components_is_refused(entry, errno):
    assert found(context(entry), promised=RICH) == [("HVM-07", errno)]


@pytest.mark.parametrize(
    "entry",
    [
        xsave(1, 1),
        xsave(3, 3, bv=3),
        xsave(1, AVX, bv=AVX, area=832),
        xsave(AVX, AVX, area=832, tail=bytes(100)),
        xsave(3, PKRU, area=2696),
        xsave(1, 1, xfeature_mask=2**64 - 1),
    ],
)
def test_sound_state_is_taken(entry):
    assert found(context(entry), promised=RICH) == []


def test_the_first_releases_took_what_is_too_short():
    entry = context(xsave(AVX, AVX, area=576))
    assert [("HVM-07", "EPERM") in found(entry, release, RICH) for release in ("4.7", "4.7.1")] == [False, True]


@pytest.mark.parametrize("accum", [0x10003, 1 << 62 | 3, 1 << 10 | 3, 0xE7], ids=hex)
def test_components_are_held_against_the_policy(accum):
    assert ("HVM-05", "EINVAL") in found(context(xsave(3, accum, area=2696)), promised=RICH)


def test_without_a_policy_the_host_decides_and_knows_where_components_lie():
    [one] = told(context(xsave(3, PKRU, area=840)), promised=None)
    assert (one.rule, one.outcome, one.severity) == ("HVM-05", Effect.HOST, Severity.INFO)


def test_before_policies_the_host_that_is_known_decides():
    entry, amd = context(xsave(3, PKRU, area=2696)), policy("xsave")
    amd.leaves[0xD, 0] = (3, 0, 0, 0)
    there = domain("4.9", None)
    known = there._replace(processor=there.processor._replace(offered=amd))
    for where, certain in ((known, True), (there, False)):
        said = [one for one in context_objections(entry, where) if one.rule == "HVM-05"]
        assert [(one.errno, one.certain) for one in said] == [("EPERM", certain)]


def test_a_host_that_is_known_tells_where_components_lie():
    entry = context(xsave(3, PKRU, area=2440))
    amd = policy("xsave", "pku", layout={9: (8, 2432)})
    there = domain("4.20", RICH)._replace(host=amd)
    assert [one.rule for one in context_objections(entry, there)] == []
    assert found(entry, promised=RICH) == [("HVM-07", "EINVAL")]


# -- state that is lost -----------------------------------------------------------------------------


def with_cpu_behind(bv):
    body = bytearray(hvm_context(hardware=Hardware(xsave=True)))
    edit(body, SaveType.CPU_XSAVE, xstate_bv=bv)
    cpu = decode_context(bytes(body)).of(SaveType.CPU)[0]
    drop(body, SaveType.CPU)
    add(body, SaveType.CPU, cpu.body)
    return body


def test_a_cpu_entry_behind_its_xsave_resets_it():
    assert found(with_cpu_behind(AVX)) == [("HVM-25", None)]


def test_a_cpu_entry_brings_what_it_resets_where_that_is_all():
    assert found(with_cpu_behind(3)) == []


def test_an_xsave_entry_that_comes_again_brings_it_back():
    body = with_cpu_behind(AVX)
    xsave_entry = decode_context(bytes(body)).of(SaveType.CPU_XSAVE)[0]
    add(body, SaveType.CPU_XSAVE, xsave_entry.body)
    assert found(body) == [("HVM-12", None)]
