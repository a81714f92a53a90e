"""What can be wrong with the contents of libxc records, those of pages and vcpus aside."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule
from streams.pages import PageType
from streams.wire.framing import (
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PARAMS_HEADER,
    RecordType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "REC-33": "cannot come about: PAGE_DATA before X86_PV_INFO is refused first, ORD-03",
    "REC-112": "the list travels on COLO's back channel only; in a stream to restore it is FRM-13",
}


def _p2m_frames(start: int, end: int, *pfns: int) -> bytes:
    """Body of an X86_PV_P2M_FRAMES record."""
    return P2M_HEADER.pack(start, end) + b"".join(pfn.to_bytes(P2M_ENTRY_SIZE, "little") for pfn in pfns)


# -- X86_PV_INFO ------------------------------------------------------------------------------------


@rule("REC-30", "pv-info-short", Effect.REFUSED, "libxc: handle_x86_pv_info")
def pv_info_short(b: StreamBuilder) -> None:
    """The X86_PV_INFO record is too short.

    What: the body has fewer than 8 bytes.
    Why: libxc checks the size before it looks at width and levels, and refuses the record. A longer one is
        accepted by libxc and refused by the verifier.
    Repair: make it guest_width, pt_levels and six zero bytes.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_info.
    """
    b.become_pv64()  # the kind of guest that libxc takes it for until the record comes
    del b.record(RecordType.X86_PV_INFO).body[-4:]


@rule("REC-31", "pv-width-levels", Effect.REFUSED, "libxc: handle_x86_pv_info", since=releases.blob_lengths_checked)
def pv_width_levels(b: StreamBuilder) -> None:
    """Guest width and paging levels do not belong together.

    What: X86_PV_INFO holds a pair other than width 4 with 3 levels or width 8 with 4 levels.
    Why: these are the two kinds of PV guest that exist, and libxc refuses any other pair. Before Xen 4.12.3, 4.13.1
        and 4.14 the levels of a 32-bit guest escaped the check; the verifier still looks at each field alone.
    Repair: look at the size of a VCPU_BASIC record (2808 bytes for width 4, 5176 for width 8) to see which of
        the two is wrong.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_info.
    """
    b.become_pv64()
    b.levels = 3


@rule(
    "REC-32",
    "pv32-disabled-on-host",
    Effect.HOST,
    "xen: switch_compat",
    errno="EOPNOTSUPP",
    since=releases.pv32_switch,
    violation=False,
)
def pv32_disabled_on_host(b: StreamBuilder) -> None:
    """A 32-bit PV guest needs a host that has 32-bit PV enabled.

    What: the guest has width 4.
    Why: libxc tells Xen to make the new domain a 32-bit one as soon as X86_PV_INFO arrives. A Xen that was
        booted with pv=no-32, built without 32-bit PV (CONFIG_PV32, off by default since 4.16), or that uses CET for
        itself answers EOPNOTSUPP. Where `xl info` has xen-3.0-x86_32p among its xen_caps, it takes the guest.
    Repair: boot the destination with pv=32, or choose another one. Nothing in the stream decides this.
    Source: xen, switch_compat; options pv= and CONFIG_PV32.
    """


@rule("REC-34", "pv-info-reserved", Effect.SPEC, "verify-stream-v2")
def pv_info_reserved(b: StreamBuilder) -> None:
    """Reserved bytes of X86_PV_INFO are not zero.

    What: one of the six bytes after pt_levels is set.
    Why: libxc never looks at them; the verifier refuses them as against the specification.
    Repair: zero them.
    Source: libxc migration stream, section X86_PV_INFO.
    """
    b.record(RecordType.X86_PV_INFO).body[-1] = 1


# -- X86_PV_P2M_FRAMES ------------------------------------------------------------------------------


@rule("REC-40", "p2m-frames-short", Effect.REFUSED, "libxc: handle_x86_pv_p2m_frames")
def p2m_frames_short(b: StreamBuilder) -> None:
    """An X86_PV_P2M_FRAMES record is too short for its own header.

    What: the body has fewer than 8 bytes, so that start_pfn and end_pfn do not fit.
    Why: libxc refuses it as truncated before it reads either.
    Repair: fetch the record again; without it no page of the guest can be placed.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_p2m_frames.
    """
    b.insert(RecordType.X86_PV_P2M_FRAMES, bytes(4), after=RecordType.X86_PV_P2M_FRAMES)


@rule("REC-41", "p2m-frames-range", Effect.REFUSED, "libxc: handle_x86_pv_p2m_frames")
def p2m_frames_range(b: StreamBuilder) -> None:
    """An X86_PV_P2M_FRAMES record ends before it starts.

    What: start_pfn is larger than end_pfn.
    Why: libxc refuses a range that runs backwards. end_pfn is inclusive, so a record for one pfn has both equal.
    Repair: savers write 0 as start_pfn and the guest's last pfn as end_pfn.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_p2m_frames.
    """
    body = _p2m_frames(1, 0, *b.p2m_frames)
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)


@rule("REC-42", "p2m-frames-length", Effect.REFUSED, "libxc: handle_x86_pv_p2m_frames")
def p2m_frames_length(b: StreamBuilder) -> None:
    """The length of X86_PV_P2M_FRAMES does not match its range of pfns.

    What: the body is not 8 bytes and one u64 for each p2m page from start_pfn to end_pfn; a p2m page covers
        1024 pfns of a 32-bit guest and 512 of a 64-bit one.
    Why: libxc works out how many p2m pages the range needs and refuses a list of any other size. The verifier
        checks only that it consists of whole entries.
    Repair: list end / per page - start / per page + 1 entries, in integer divisions.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_p2m_frames.
    """
    body = _p2m_frames(0, b.max_pfn, *b.p2m_frames, b.p2m_frames[0])
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, after=RecordType.X86_PV_P2M_FRAMES)


@rule("REC-43", "p2m-frames-single-pfn", Effect.CRASH, "libxc: handle_x86_pv_p2m_frames")
def p2m_frames_single_pfn(b: StreamBuilder) -> None:
    """The first X86_PV_P2M_FRAMES record ends at pfn 0.

    What: start_pfn and end_pfn of the first record are both 0.
    Why: libxc grows its tables when a record raises the last pfn above what it was, which is 0 in the beginning.
        This one raises nothing, so no table is allocated and the list is stored through a null pointer: the
        process dies (signal 11).
    Repair: give end_pfn the guest's last pfn. No real guest has a single page.
    Source: xg_sr_restore_x86_pv.c, expand_p2m and handle_x86_pv_p2m_frames.
    """
    body = _p2m_frames(0, 0, b.p2m_frames[0])
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, before=RecordType.X86_PV_P2M_FRAMES)


@rule("REC-44", "p2m-frames-late-start", Effect.SPEC, "libxc: expand_p2m, update_guest_p2m")
def p2m_frames_late_start(b: StreamBuilder) -> None:
    """The first X86_PV_P2M_FRAMES record leaves out the first p2m page.

    What: start_pfn of the first record lies beyond the pfns that p2m page 0 covers.
    Why: libxc makes room for the whole list and fills in only what the record holds. The first slots keep
        uninitialised memory, the others are invalid. A later record may still fill them; where none does, the
        rewriting of the p2m at END is refused (XRC-30), or goes wherever that memory points.
    Repair: start the list at pfn 0, as every saver does.
    Source: xg_sr_restore_x86_pv.c, expand_p2m and update_guest_p2m.
    """
    first = b.pfns_per_p2m_page
    while b.max_pfn < first:
        b.new_page(PageType.XTAB)
    body = _p2m_frames(first, b.max_pfn, *b.p2m_frames[1:])
    b.insert(RecordType.X86_PV_P2M_FRAMES, body, before=RecordType.X86_PV_P2M_FRAMES)


@rule("REC-45", "p2m-frames-again", Effect.TOLERATED, "libxc: handle_x86_pv_p2m_frames")
def p2m_frames_again(b: StreamBuilder) -> None:
    """The stream has more than one X86_PV_P2M_FRAMES record.

    What: a further record replaces entries of the list, or raises the last pfn.
    Why: libxc merges it into what it has; the last pfn never goes down. No saver writes a second record, and a
        list that grows over pages in use restores into a guest whose memory is then overwritten.
    Repair: none needed when both agree; keep one record.
    Source: xg_sr_restore_x86_pv.c, handle_x86_pv_p2m_frames.
    """
    b.duplicate(RecordType.X86_PV_P2M_FRAMES)


# -- SHARED_INFO, X86_TSC_INFO ----------------------------------------------------------------------


@rule("REC-100", "shared-info-length", Effect.REFUSED, "libxc: handle_shared_info")
def shared_info_length(b: StreamBuilder) -> None:
    """The SHARED_INFO record is not one page.

    What: the body is not exactly 4096 bytes.
    Why: it is a copy of the guest's shared_info page, and libxc refuses a copy of any other size.
    Repair: fetch the record again. The guest's events, wall clock and p2m pointers are in it.
    Source: xg_sr_restore_x86_pv.c, handle_shared_info.
    """
    del b.record(RecordType.SHARED_INFO).body[-8:]


@rule("REC-101", "tsc-info-length", Effect.REFUSED, "libxc: handle_x86_tsc_info")
def tsc_info_length(b: StreamBuilder) -> None:
    """The X86_TSC_INFO record has the wrong size.

    What: the body is not exactly 24 bytes.
    Why: libxc checks the size before it hands mode, frequency and elapsed time to Xen, and refuses the record.
    Repair: write mode, khz, nsec (8 bytes), incarnation and a zero word.
    Source: xg_sr_common_x86.c, handle_x86_tsc_info.
    """
    del b.record(RecordType.X86_TSC_INFO).body[-8:]


@rule("REC-102", "tsc-mode", Effect.HYPERCALL, "xen: tsc_set_info", errno="EINVAL", since=releases.tsc_mode_3_refused)
def tsc_mode(b: StreamBuilder) -> None:
    """The TSC mode is not one that Xen knows.

    What: the mode in X86_TSC_INFO is none of 0 (default), 1 (always emulate) and 2 (never emulate).
    Why: Xen answers settscinfo with EINVAL while the records are still being read. Mode 3 (PVRDTSCP) was dropped
        in Xen 4.12; earlier releases accept it.
    Repair: a guest in mode 3 has to be switched to another on its source. Otherwise write 0.
    Source: xen, tsc_set_info.
    """
    b.tsc["mode"] = 3


@rule("REC-103", "tsc-reserved", Effect.SPEC, "verify-stream-v2")
def tsc_reserved(b: StreamBuilder) -> None:
    """The reserved word of X86_TSC_INFO is not zero.

    What: the last four bytes of the body hold something.
    Why: libxc never looks at them; the verifier refuses them as against the specification.
    Repair: zero them.
    Source: libxc migration stream, section X86_TSC_INFO.
    """
    b.tsc["reserved"] = 1


# -- X86_CPUID_POLICY, X86_MSR_POLICY ---------------------------------------------------------------


@rule("REC-104", "cpuid-policy-length", Effect.REFUSED, "libxc: handle_x86_cpuid_policy", since=releases.version_3)
def cpuid_policy_length(b: StreamBuilder) -> None:
    """The X86_CPUID_POLICY record does not hold whole leaves.

    What: the body is empty, or not a multiple of 24 bytes.
    Why: it is an array of CPUID leaves of 24 bytes each. libxc refuses a ragged one and an empty one.
    Repair: leave the record out when there is nothing to say; the toolstack then makes a policy of its own.
    Source: xg_sr_common_x86.c, handle_x86_cpuid_policy.
    """
    b.record(RecordType.X86_CPUID_POLICY).body.pop()


@rule("REC-105", "msr-policy-length", Effect.REFUSED, "libxc: handle_x86_msr_policy", since=releases.version_3)
def msr_policy_length(b: StreamBuilder) -> None:
    """The X86_MSR_POLICY record does not hold whole entries.

    What: the body is empty, or not a multiple of 16 bytes.
    Why: it is an array of MSR entries of 16 bytes each. libxc refuses a ragged one and an empty one (and names
        the wrong size in its message).
    Repair: leave the record out when there is nothing to say.
    Source: xg_sr_common_x86.c, handle_x86_msr_policy.
    """
    b.record(RecordType.X86_MSR_POLICY).body.clear()


@rule(
    "REC-106",
    "cpu-policy-unknown",
    Effect.HYPERCALL,
    "xen: update_domain_cpu_policy",
    errno="ERANGE/E2BIG/EINVAL/EOVERFLOW",
    since=releases.version_3,
)
def cpu_policy_unknown(b: StreamBuilder) -> None:
    """The guest's CPU policy is one that Xen does not take.

    What: X86_CPUID_POLICY has a leaf or subleaf that the release does not store, or X86_MSR_POLICY such an MSR
        (ERANGE); there are too many entries (E2BIG), a value is too wide (EOVERFLOW), an MSR has flags, or the
        last leaf, the last subleaf of leaf 7 or PLATFORM_INFO goes beyond what a host can offer (EINVAL).
    Why: the policy is set at STATIC_DATA_END, before any memory comes. Xen refuses what it cannot store: leaf 7's
        subleaf 2 and the leaves up to 0x80000021 are unknown to 4.14.4, 4.15.2 and before. Then it compares the
        maxima with the host's, and since 4.22 the vendor. Features are never compared: those that the host
        lacks are taken away in silence. What hangs on the host is REC-113.
    Repair: drop the entry. For a host that offers too little, level the guest's CPUID before it is started.
    Source: xen, update_domain_cpu_policy; x86_cpuid_copy_from_buffer, x86_msr_copy_from_buffer,
        x86_cpu_policies_are_compatible.
    """
    b.cpuid_policy.append({**b.cpuid_policy[-1], "leaf": 0x5000_0000})


@rule(
    "REC-113",
    "cpu-policy-host",
    Effect.HOST,
    "xen: update_domain_cpu_policy",
    errno="EINVAL",
    severity=Severity.INFO,
    since=releases.version_3,
)
def cpu_policy_host(b: StreamBuilder) -> None:
    """The guest's CPU policy takes a host that offers as much.

    What: the last basic leaf, the last subleaf of leaf 7, the last extended leaf or PLATFORM_INFO is one that some
        hosts offer and others do not; or the destination is Xen 4.22 or later, which compares the CPU vendor.
    Why: Xen compares these with the most that the host offers a guest of the kind, and answers EINVAL. The last
        leaves matter until 4.18.3 and 4.19.0 (of leaf 7 until 4.17.4 and 4.18.2): later releases offer all of them
        on every host. `xen-cpuid -p` prints what a host offers, under PV Max and HVM Max.
    Repair: restore on a host like the source, or level the guest's CPUID before it is started.
    Source: xen, x86_cpu_policies_are_compatible.
    """
    b.msr_policy[0]["value"] = 1 << 31


@rule("REC-114", "cpu-features-lost", Effect.HOST, "nobody", severity=Severity.WARNING, violation=False)
def cpu_features_lost(b: StreamBuilder) -> None:
    """The host lacks processor features that the guest was promised.

    What: X86_CPUID_POLICY promises features that are not in the PV Max or HVM Max policy of the host.
    Why: Xen takes them away without a word. The guest, and each program in it, has looked once which instructions
        there are; the next one that uses a missing one dies of an invalid opcode.
    Repair: restore on a host that has them, or level the guest's CPUID before it is started (migrate policy --level).
    Source: xen, recalculate_cpuid_policy; `xen-cpuid -p`.
    """


@rule("REC-107", "static-data-in-version-2", Effect.SPEC, "verify-stream-v2", since=releases.version_3)
def static_data_in_version_2(b: StreamBuilder) -> None:
    """A version 2 stream has records that only version 3 knows.

    What: STATIC_DATA_END, X86_CPUID_POLICY or X86_MSR_POLICY stands in an image of version 2.
    Why: since Xen 4.14 libxc handles these records in either version, so the stream restores there; an earlier
        release refuses them as unknown. The verifier objects.
    Repair: write version 3 into the image header.
    Source: libxc migration stream, section Records.
    """
    b.image["version"] = 2
    b.domain["xen_minor"] = 13
    b.insert(RecordType.STATIC_DATA_END, before=RecordType.X86_PV_P2M_FRAMES)


# -- HVM_PARAMS, HVM_CONTEXT ------------------------------------------------------------------------


@rule("REC-108", "hvm-params-length", Effect.REFUSED, "libxc: handle_hvm_params")
def hvm_params_length(b: StreamBuilder) -> None:
    """The length of HVM_PARAMS does not match its count.

    What: the body is not 8 bytes and 16 for each parameter counted.
    Why: libxc refuses a record that is too short for its header or whose size is not exactly what its count
        says.
    Repair: correct the count.
    Source: xg_sr_restore_x86_hvm.c, handle_hvm_params.
    """
    b.become_hvm()
    PARAMS_HEADER.pack_into(b.record(RecordType.HVM_PARAMS).body, 0, len(b.hvm_params) + 1, 0)


@rule("REC-109", "hvm-param-refused", Effect.HYPERCALL, "xen: hvm_set_param", errno="EINVAL/EPERM/EEXIST/EOPNOTSUPP")
def hvm_param_refused(b: StreamBuilder) -> None:
    """An HVM parameter is one that Xen does not let the toolstack set.

    What: an index in HVM_PARAMS is beyond the release's last: 35 in 4.6.0, 36 to 4.8, 37 in 4.9, 38 since (EINVAL); or
        it is none to be set: DM_DOMAIN (from 4.11), BUFIOREQ_EVTCHN, MEMORY_EVENT_*, NESTEDHVM (from 4.15), ALTP2M
        (from 4.19); or the stream changes one that keeps its first value: VIRIDIAN, IOREQ_SERVER_PFN,
        NR_IOREQ_SERVER_PAGES, MCA_CAP, ALTP2M, and from 4.12 on IOREQ_PFN, BUFIOREQ_PFN (EEXIST).
    Why: libxc sets each parameter as it reads the record, and Xen refuses: with EINVAL, but ALTP2M with EEXIST, before
        4.14 MEMORY_EVENT_* with EOPNOTSUPP, in 4.12 and 4.13 the first two with EPERM. Of the index only the lower
        32 bits arrive; index 4, PAE_ENABLED, libxc itself leaves out from 4.14 on.
    Repair: drop the parameter; savers send the handful that they know by name, and those only when not zero.
    Source: xen, hvm_set_param and hvm_allow_set_param.
    """
    b.become_hvm()
    b.hvm_params[39] = 1  # one more than there are


@rule("REC-110", "hvm-context-empty", Effect.REFUSED, "libxc: handle_hvm_context", since=releases.hvm_context_nonempty)
def hvm_context_empty(b: StreamBuilder) -> None:
    """The HVM_CONTEXT record is empty.

    What: the body has length 0.
    Why: it holds the state of vcpus, interrupt controllers and timers; libxc refuses to restore without any.
        Before Xen 4.14 libxc takes the empty record, and Xen refuses it at END (REC-111).
    Repair: fetch the record again; nothing can stand in for it.
    Source: xg_sr_restore_x86_hvm.c, handle_hvm_context.
    """
    b.become_hvm()
    b.hvm_context.clear()


@rule("REC-111", "hvm-context-malformed", Effect.HYPERCALL, "xen: hvm_load", errno="ENODATA/EINVAL/EPERM")
def hvm_context_malformed(b: StreamBuilder) -> None:
    """The HVM context is not a chain of entries from HEADER to END.

    What: HVM_CONTEXT does not begin with a HEADER entry of magic 0x54381286 and version 1, has an entry of unknown
        type or one that runs past the end, or stops without an END entry.
    Why: Xen walks the chain when libxc hands it over at END, from 4.19 on before it loads anything. It answers ENODATA
        where an entry is missing or cut (before 4.19 what the entry's type has for a wrong length), and EINVAL to a
        wrong magic, version or type; up to 4.12 and the first releases of 4.13 to 4.15 always EPERM. What is in the
        entries is told by the HVM rules.
    Repair: fetch the record again. An unknown type from a newer source means that this release is too old.
    Source: xen, hvm_load, hvm_load_entry and arch_hvm_load; public/hvm/save.h.
    """
    from migrate.building.hvm_contexts import drop
    from streams.wire.hvm_names import SaveType

    b.become_hvm()
    drop(b.hvm_context, SaveType.HEADER)
