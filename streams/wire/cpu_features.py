"""Names of what CPUID and two MSRs promise a guest, bit by bit.

Sources: the processor manuals of Intel and AMD; the names are those that operating systems print. Nothing is
imported here but the standard library: a filter looks features up, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from streams.values import NamedTuple
from streams.wire.msrs import POLICY_MSRS, Msr


class Word(NamedTuple):
    """One register of one CPUID leaf; subleaf None where the leaf has none."""

    leaf: int
    subleaf: int | None
    register: str

    def __str__(self) -> str:
        subleaf = "" if self.subleaf is None else f".{self.subleaf}"
        return f"{self.leaf:#x}{subleaf}.{self.register}"


REGISTERS = ("eax", "ebx", "ecx", "edx")

NO_NAME = "-"

# Names from bit 0 up; a dash where a bit is reserved, is no promise, or repeats one of leaf 1.
_NAMES: dict[Word, str] = {
    Word(0x1, None, "edx"): """
        fpu vme de pse tsc msr pae mce cx8 apic - sysenter mtrr pge mca cmov
        pat pse36 psn clflush - ds acpi mmx fxsr sse sse2 ss htt tm ia64 pbe""",
    Word(0x1, None, "ecx"): """
        sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cnxt_id sdbg fma cx16 xtpr pdcm
        - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline aes xsave osxsave avx f16c rdrand hypervisor""",
    Word(0x7, 0, "ebx"): """
        fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm pqm zero_fcs_fds mpx pqe
        avx512f avx512dq rdseed adx smap avx512_ifma pcommit clflushopt
        clwb intel_pt avx512pf avx512er avx512cd sha avx512bw avx512vl""",
    Word(0x7, 0, "ecx"): """
        prefetchwt1 avx512_vbmi umip pku ospke waitpkg avx512_vbmi2 cet_ss
        gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq -
        la57 - - - - - rdpid kl bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks""",
    Word(0x7, 0, "edx"): """
        - sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort
        - tsx_force_abort serialize hybrid tsxldtrk - pconfig arch_lbr cet_ibt - amx_bf16 avx512_fp16
        amx_tile amx_int8 ibrs_ibpb stibp l1d_flush arch_caps core_caps ssbd""",
    Word(0x7, 1, "eax"): """
        sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrcs - - -
        - fred lkgs wrmsrns nmi_src amx_fp16 hreset avx_ifma - - lam msrlist""",
    Word(0x7, 1, "edx"): """
        - - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - utmr prefetchi - - - cet_sss avx10""",
    Word(0x7, 2, "edx"): "psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no",
    Word(0xD, 1, "eax"): "xsaveopt xsavec xgetbv1 xsaves xfd",
    Word(0x8000_0001, None, "edx"): """
        - - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - ffxsr page1gb rdtscp - lm 3dnowext 3dnow""",
    Word(0x8000_0001, None, "ecx"): """
        lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp
        fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - dbext ptsc perfctr_llc monitorx addr_mask_ext""",
    Word(0x8000_0007, None, "edx"): "ts fid vid ttp htc stc 100mhzsteps hwpstate itsc cpb eff_freq_ro",
    Word(0x8000_0008, None, "ebx"): """
        clzero irperf rstr_fp_err_ptrs invlpgb rdpru - - - mcommit wbnoinvd - - ibpb int_wbinvd ibrs amd_stibp
        ibrs_always stibp_always ibrs_fast ibrs_same_mode no_lmsl - - amd_ppin
        amd_ssbd virt_ssbd ssb_no cppc amd_psfd btc_no ibpb_ret""",
    Word(0x8000_0021, None, "eax"): """
        no_nest_bp fs_gs_ns lfence+ - - - nscb - auto_ibrs - - - - - - - - - - - - - - - - - - sbpb ibpb_brtype
        srso_no""",
}

FEATURES: dict[Word, tuple[str, ...]] = {word: tuple(names.split()) for word, names in _NAMES.items()}
"""Names of a register's bits, bit 0 first; `NO_NAME` for a bit that has none."""


MSR_NAMES: dict[int, str] = {msr: msr.name.lower() for msr in POLICY_MSRS}
"""MSRs that a policy has."""

MSR_BITS: dict[int, dict[int, str]] = {
    Msr.PLATFORM_INFO: {31: "cpuid_faulting"},
    Msr.ARCH_CAPABILITIES: {
        0: "rdcl_no",
        1: "eibrs",
        2: "rsba",
        3: "skip_l1dfl",
        4: "intel_ssb_no",
        5: "mds_no",
        6: "if_pschange_mc_no",
        7: "tsx_ctrl",
        8: "taa_no",
        9: "mcu_ctrl",
        10: "misc_pkg_ctrl",
        11: "energy_filtering",
        12: "doitm",
        13: "sbdr_ssdp_no",
        14: "fbsdp_no",
        15: "psdp_no",
        16: "mcu_ext",
        17: "fb_clear",
        18: "fb_clear_ctrl",
        19: "rrsba",
        20: "bhi_no",
        21: "xapic_status",
        22: "mcu_ext_svc",
        23: "ovrclk_status",
        24: "pbrsb_no",
        25: "gds_ctrl",
        26: "gds_no",
        27: "rfds_no",
        28: "rfds_clear",
        29: "ign_umonitor",
        30: "mon_umon_mitg",
    },
}
"""Bits of those MSRs. `rsba` and `rrsba` are warnings: a guest that sees one protects itself."""


def set_bits(value: int) -> Iterator[int]:
    """Numbers of the bits that are set, ascending."""
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1
        value ^= lowest


def word_features(word: Word, value: int) -> Iterator[str]:
    """Names of a register's features; a set bit without a name goes by its number, repeated ones are left out."""
    names = FEATURES[word]
    for bit in set_bits(value):
        if bit < len(names) and names[bit] != NO_NAME:
            yield names[bit]
        elif not _REPEATED.get(word, 0) >> bit & 1:
            yield f"{word}[{bit}]"


# AMD repeats bits of leaf 1 here.
_REPEATED = {Word(0x8000_0001, None, "edx"): 0x0183_F3FF}

HOME: dict[str, tuple[Word, int]] = {
    name: (word, bit) for word, names in FEATURES.items() for bit, name in enumerate(names) if name != NO_NAME
}
"""Where a feature's bit is."""


def msr_features(index: int, value: int) -> Iterator[str]:
    """Names of what is set in an MSR of a policy; a bit without a name goes by its number."""
    names = MSR_BITS.get(index, {})
    for bit in set_bits(value):
        yield names.get(bit) or f"{MSR_NAMES.get(index, hex(index))}[{bit}]"
