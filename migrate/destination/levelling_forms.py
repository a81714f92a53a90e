"""A levelled policy in the words of xl, libvirt and xapi.

Sources: `libxl_cpuid_parse_config` and `libxl_cpuid_parse_config_xend` (`tools/libs/light/libxl_cpuid.c`),
`xc_cpuid_xend_policy` (`tools/libs/guest/xg_cpuid_x86.c`), libvirt's `xenTranslateCPUFeature`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from migrate.destination.levelling import FEATURESET, Levelled
from migrate.guest.cpu_policy import Policy
from streams.wire.cpu_features import FEATURES, NO_NAME, REGISTERS, Word, set_bits

_AS_IT_IS = "x"

# libxl's names where they are not those of this program with dashes for underscores.
_RENAMED = {
    "ds_cpl": "dscpl",
    "cnxt_id": "cntxid",
    "cx16": "cmpxchg16",
    "cx8": "cmpxchg8",
    "sse4_1": "sse4_1",
    "sse4_2": "sse4_2",
    "clflush": "clfsh",
    "tsc_adjust": "tsc_adjust",
    "pqm": "cmt",
    "ibrs_ibpb": "ibrsb",
    "psfd": "intel-psfd",
    "lahf_lm": "lahfsahf",
    "cmp_legacy": "cmplegacy",
    "cr8_legacy": "altmovcr8",
    "nodeid_msr": "nodeid",
    "perfctr_core": "perfctr_core",
    "perfctr_nb": "perfctr_nb",
    "itsc": "invtsc",
    "amd_ppin": "ppin",
    "amd_psfd": "psfd",
}
# Features for which libxl has no name, or has none in some release since 4.14; by register, those of `_NAMED_WORDS`.
_NAMELESS_BY_REGISTER = {
    "0x1.ecx": "sdbg",
    "0x7.ebx": "sgx fdp_excptn_only zero_fcs_fds pqe pcommit intel_pt",
    "0x7.ecx": "waitpkg tme la57 kl bus_lock_detect movdiri movdir64b enqcmd sgx_lc pks",
    "0x7.edx": """
        sgx_keys fsrm uintr avx512_vp2intersect rtm_always_abort tsx_force_abort hybrid pconfig arch_lbr amx_bf16
        avx512_fp16 amx_tile amx_int8""",
    "0x80000001.edx": "mp",
    "0x80000001.ecx": "tce perfctr_llc dbext ptsc monitorx addr_mask_ext",
    "0x80000008.ebx": "irperf invlpgb rdpru mcommit int_wbinvd no_lmsl cppc",
}
_NAMELESS = frozenset(name for names in _NAMELESS_BY_REGISTER.values() for name in names.split())
_NAMED_WORDS = frozenset(
    {
        Word(0x1, None, "edx"),
        Word(0x1, None, "ecx"),
        Word(0x7, 0, "ebx"),
        Word(0x7, 0, "ecx"),
        Word(0x7, 0, "edx"),
        Word(0x8000_0001, None, "edx"),
        Word(0x8000_0001, None, "ecx"),
        Word(0x8000_0008, None, "ebx"),
    }
)
_NAMED_ALONE = frozenset({"avx512_bf16", "psfd", "itsc", "lfence+"})

# libvirt's names where they are not libxl's; it hands all others through.
_LIBVIRT = {
    "cmpxchg16": "cx16",
    "cntxid": "cid",
    "dscpl": "ds_cpl",
    "pclmulqdq": "pclmuldq",
    "sse3": "pni",
    "htt": "ht",
    "psn": "pn",
    "clfsh": "clflush",
    "sysenter": "sep",
    "cmpxchg8": "cx8",
    "nodeid": "nodeid_msr",
    "altmovcr8": "cr8legacy",
    "lahfsahf": "lahf_lm",
    "cmplegacy": "cmp_legacy",
    "ffxsr": "fxsr_opt",
    "page1gb": "pdpe1gb",
    "ibrsb": "spec-ctrl",
}


def libxl_name(word: Word, bit: int) -> str | None:
    """How libxl calls a feature in every release from the last 4.14 on, None where it has no such name."""
    names = FEATURES.get(word, ())
    name = names[bit] if bit < len(names) else NO_NAME
    if name == NO_NAME or name in _NAMELESS or not (word in _NAMED_WORDS or name in _NAMED_ALONE):
        return None
    return _RENAMED.get(name, name.replace("_", "-"))


def xl_strings(levelled: Levelled) -> list[str]:
    """The strings of `cpuid = [...]`, one per leaf: a digit for every bit of a register, from bit 31 down.

    0 and 1 set a bit, x leaves it as the host's Default policy has it. Only leaves that every one of the hosts has are
    named: xl cannot create a guest whose configuration names another.
    """
    registers: dict[tuple[int, int | None], dict[str, str]] = {}
    for word, bits in levelled.masked.items():
        text = "".join("0" if bits >> bit & 1 else _AS_IT_IS for bit in reversed(range(32)))
        registers.setdefault((word.leaf, word.subleaf), {})[word.register] = text
    for place, last in levelled.lasts.items():
        registers.setdefault(place, {})["eax"] = f"{last:032b}"
    sizes = (0x8000_0008, None)
    if levelled.physical_bits is not None and sizes in levelled.policy.leaves:
        registers.setdefault(sizes, {})["eax"] = f"{_AS_IT_IS * 24}{levelled.physical_bits:08b}"
    places = sorted(registers, key=lambda place: (place[0], place[1] or 0))
    return [_xl_string(*place, registers[place]) for place in places]


def _xl_string(leaf: int, subleaf: int | None, registers: Mapping[str, str]) -> str:
    place = f"{leaf:#x}" if subleaf is None else f"{leaf:#x},{subleaf}"
    return f"{place}:" + ",".join(f"{name}={registers[name]}" for name in REGISTERS if name in registers)


def xl_cpuid(levelled: Levelled) -> str:
    """The `cpuid = [...]` of an xl.cfg."""
    strings = xl_strings(levelled)
    if not strings:
        return "cpuid = []"
    lines = ",\n".join(f'    "{string}"' for string in strings)
    return f"cpuid = [\n{lines}\n]"


def xl_key_values(levelled: Levelled) -> str:
    """The `cpuid = "host,…"` of an xl.cfg, in names instead of bits. It cannot say all: see `unnamed`."""
    last = levelled.lasts.get((0x0, None))
    words = ["host", *(f"{name}=0" for name, _ in _names(levelled))]
    return f'cpuid = "{",".join(words + ([] if last is None else [f"maxleaf={last:#x}"]))}"'


def libvirt_cpu(levelled: Levelled) -> str:
    """The `<cpu>` of a libvirt domain. It cannot say all: see `unnamed`; and it cuts no leaves."""
    names = (_LIBVIRT.get(name, name) for name, _ in _names(levelled))
    features = "".join(f"  <feature policy='disable' name='{name}'/>\n" for name in names)
    return f"<cpu mode='host-passthrough'>\n{features}</cpu>"


def unnamed(levelled: Levelled) -> list[str]:
    """What of a levelled policy has no name in libxl and libvirt: features as register and bit, and leaf 7's last."""
    bits = [f"{word}[{bit}]" for word, bit in _bits(levelled) if libxl_name(word, bit) is None]
    lasts = [f"the last of leaf {leaf:#x} ({last:#x})" for (leaf, _), last in levelled.lasts.items() if leaf]
    return bits + lasts


def featureset(policy: Policy) -> str:
    """A policy as xapi writes it: the words of `FEATURESET`, in hexadecimal with dashes between them."""
    return "-".join(f"{policy.word(word):08x}" for word in FEATURESET)


def _bits(levelled: Levelled) -> Iterator[tuple[Word, int]]:
    return ((word, bit) for word, bits in levelled.masked.items() for bit in set_bits(bits))


def _names(levelled: Levelled) -> Iterator[tuple[str, Word]]:
    named = ((libxl_name(word, bit), word) for word, bit in _bits(levelled))
    return ((name, word) for name, word in named if name is not None)
