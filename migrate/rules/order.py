"""ORD: which record comes after which, and how often; the law of it as one table.

Sources: the record handlers of libxc's restore (`xg_sr_restore.c`, `xg_sr_restore_x86_pv.c`,
`xg_sr_restore_x86_hvm.c`, `xg_sr_common_x86.c`).
"""

from __future__ import annotations

from enum import Flag, auto

from migrate.destination import releases
from migrate.rules.declaring import SIGSEGV, Effect, Severity, rule
from streams.pages import PageType
from streams.values import NamedTuple
from streams.wire.framing import RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

NOT_RULES: dict[str, str] = {
    "ORD-05": "says what a version 2 image is allowed: the end of its static data is inferred",
    "ORD-13": "says where SHARED_INFO may stand; before PV_INFO it is ORD-02, everywhere else it is right",
    "ORD-21": "what follows END is FRM-09, and END inside a checkpoint is how such a restore ends",
    "ORD-23": "a dirty pfn list in a forward stream is an unhandled record: FRM-13 reports it",
}


STATIC_DATA_END = RecordType.STATIC_DATA_END
PV_INFO = RecordType.X86_PV_INFO
P2M_FRAMES = RecordType.X86_PV_P2M_FRAMES


class Guests(Flag):
    """Which guests a record belongs to."""

    PV = auto()
    HVM = auto()
    ANY = PV | HVM
    NONE = 0


class Need(NamedTuple):
    """A record that must have been seen, the rule that is broken if not, and the signal that may kill libxc then."""

    record: RecordType
    rule: str
    signal: int | None = None


class Again(NamedTuple):
    """A rule that a repeated record breaks, which libxc takes all the same; and what it makes of it."""

    rule: str
    effect: str


class Law(NamedTuple):
    """What libxc's restore demands of one record type, and what it puts up with.

    Attributes
    ----------
    after:
        what must have been seen, in the order in which libxc looks.
    once:
        the rule that a second record of the type breaks.
    stray:
        the rule that any record of the type breaks where it does not belong.
    better_after, better_before:
        what would have come before, or after, if a saver had written it; libxc does not mind.
    again:
        what a second record means where libxc takes it.
    """

    guests: Guests
    after: tuple[Need, ...] = ()
    once: str | None = None
    stray: str = "FRM-11"
    better_after: tuple[Need, ...] = ()
    better_before: tuple[Need, ...] = ()
    again: Again | None = None


_STORED = Again("ORD-09", "the last one before STATIC_DATA_END counts")
# State that a plain stream carries once, and a checkpointed one with every checkpoint.
_APPLIED = Again("ORD-22", "it is applied once more")

LAW: dict[RecordType, Law] = {
    RecordType.END: Law(Guests.ANY),
    RecordType.X86_PV_INFO: Law(Guests.PV, once="ORD-01"),
    RecordType.X86_CPUID_POLICY: Law(Guests.ANY, again=_STORED),
    RecordType.X86_MSR_POLICY: Law(Guests.ANY, again=_STORED),
    RecordType.STATIC_DATA_END: Law(Guests.ANY, once="ORD-06", better_after=(Need(PV_INFO, "ORD-10"),)),
    RecordType.X86_PV_P2M_FRAMES: Law(Guests.PV, after=(Need(STATIC_DATA_END, "ORD-04"), Need(PV_INFO, "ORD-02"))),
    RecordType.PAGE_DATA: Law(
        Guests.ANY, after=(Need(STATIC_DATA_END, "ORD-04"), Need(P2M_FRAMES, "ORD-03", signal=SIGSEGV))
    ),
    RecordType.X86_TSC_INFO: Law(Guests.ANY, again=_APPLIED),
    RecordType.SHARED_INFO: Law(Guests.PV, after=(Need(PV_INFO, "ORD-02"),), again=_APPLIED),
    RecordType.X86_PV_VCPU_BASIC: Law(Guests.PV),
    RecordType.X86_PV_VCPU_EXTENDED: Law(Guests.PV),
    RecordType.X86_PV_VCPU_XSAVE: Law(Guests.PV),
    RecordType.X86_PV_VCPU_MSRS: Law(Guests.PV),
    RecordType.HVM_CONTEXT: Law(Guests.HVM, again=_APPLIED),
    RecordType.HVM_PARAMS: Law(Guests.HVM, better_before=(Need(RecordType.HVM_CONTEXT, "ORD-16"),), again=_APPLIED),
    RecordType.VERIFY: Law(Guests.ANY),
    RecordType.CHECKPOINT: Law(Guests.ANY),
    RecordType.TOOLSTACK: Law(Guests.NONE, stray="FRM-12"),
    RecordType.CHECKPOINT_DIRTY_PFN_LIST: Law(Guests.NONE, stray="FRM-13"),
}

# A version 2 image has no STATIC_DATA_END: libxc infers it when the first of these arrives.
INFERS_STATIC_DATA_END = frozenset({RecordType.X86_PV_P2M_FRAMES, RecordType.PAGE_DATA})


def laws_of(guests: Guests) -> dict[int, Law]:
    """The laws of those records that belong to a kind of guest."""
    return {kind: law for kind, law in LAW.items() if law.guests & guests}


@rule("ORD-01", "pv-info-twice", Effect.REFUSED, "libxc: handle_x86_pv_info")
def pv_info_twice(b: StreamBuilder) -> None:
    """There is more than one X86_PV_INFO record.

    What: a second X86_PV_INFO follows the first, be it with the same contents.
    Why: the guest's word size decides the layout of everything after it, so libxc takes it once and
        refuses to hear it again. Xen's own stream verifier does not notice.
    Repair: drop the later record.
    Source: libxc handle_x86_pv_info
    """
    b.duplicate(RecordType.X86_PV_INFO)


@rule("ORD-02", "pv-info-late", Effect.REFUSED, "libxc: handle_x86_pv_p2m_frames, handle_shared_info")
def pv_info_late(b: StreamBuilder) -> None:
    """P2M_FRAMES or SHARED_INFO comes before X86_PV_INFO.

    What: a record whose layout depends on the guest's word size arrives while that size is unknown.
    Why: libxc counts p2m entries per page and picks the shared_info structure by the word size, and
        refuses both records until X86_PV_INFO has been seen.
    Repair: write X86_PV_INFO first, straight after the headers.
    Source: libxc handle_x86_pv_p2m_frames, handle_shared_info
    """
    b.move(RecordType.SHARED_INFO, before=RecordType.X86_PV_INFO)


@rule("ORD-03", "p2m-frames-late", Effect.CRASH, "libxc: x86_pv_pfn_is_valid")
def p2m_frames_late(b: StreamBuilder) -> None:
    """Pages come before X86_PV_P2M_FRAMES.

    What: a PV stream sends PAGE_DATA while the size of the guest's pfn space is still unknown.
    Why: the tables of page types and frames do not exist yet. The largest valid pfn is then 0: pfn 0
        passes and is written through a null pointer, so the process dies; any other pfn is refused as
        outside the domain's maximum.
    Repair: write P2M_FRAMES before the first PAGE_DATA.
    Source: libxc x86_pv_pfn_is_valid, x86_pv_set_page_type
    """
    b.batch = 1  # the first record is of pfn 0 alone
    b.move(RecordType.X86_PV_P2M_FRAMES, after=RecordType.PAGE_DATA)


@rule("ORD-04", "static-data-end-missing", Effect.REFUSED, "libxc: handle_page_data", since=releases.version_3)
def static_data_end_missing(b: StreamBuilder) -> None:
    """A version 3 image has no STATIC_DATA_END before its memory.

    What: the first P2M_FRAMES or PAGE_DATA arrives and nothing has closed the static data.
    Why: version 3 promises the CPU policies in front of the memory and marks their end. libxc refuses
        memory before that mark; only version 2 images get it inferred. Xen's verifier does not notice.
    Repair: put an empty STATIC_DATA_END after X86_PV_INFO and the policies, or write a version 2 image.
    Source: libxc handle_page_data, handle_x86_pv_p2m_frames
    """
    b.drop(RecordType.STATIC_DATA_END)


@rule("ORD-06", "static-data-end-twice", Effect.REFUSED, "libxc: handle_static_data_end", since=releases.version_3)
def static_data_end_twice(b: StreamBuilder) -> None:
    """The static data ends more than once.

    What: a second STATIC_DATA_END, or one in a version 2 image whose memory has already begun.
    Why: at that mark the toolstack completes the guest's CPU policy, which happens once. In a version 2
        image the first P2M_FRAMES or PAGE_DATA counts as the mark.
    Repair: drop the later record.
    Source: libxc handle_static_data_end
    """
    b.duplicate(RecordType.STATIC_DATA_END)


@rule("ORD-07", "policy-too-late", Effect.CORRUPT, "nobody", since=releases.version_3)
def policy_too_late(b: StreamBuilder) -> None:
    """A CPU policy comes after the static data has ended.

    What: X86_CPUID_POLICY or X86_MSR_POLICY stands behind STATIC_DATA_END.
    Why: policies are applied at that mark. libxc stores a later one and never looks at it again, so the
        guest wakes on a CPU that may lack, or show, features it did not have before.
    Repair: move the policy records in front of STATIC_DATA_END.
    Source: libxc x86_static_data_complete
    """
    b.move(RecordType.X86_CPUID_POLICY, after=RecordType.STATIC_DATA_END)


@rule("ORD-08", "policy-missing", Effect.TOLERATED, "nobody", since=releases.version_3)
def policy_missing(b: StreamBuilder) -> None:
    """The image carries no CPU policy.

    What: the static data ends, and neither X86_CPUID_POLICY nor X86_MSR_POLICY has come. So it is in every version
        2 image of Xen before 4.14.
    Why: libxc tells the toolstack so, which then makes up a policy from what the host gives by default and from the
        domain's configuration. The guest comes back, with the CPU of the destination.
    Repair: none is needed; savers since 4.14 send both, converted images neither.
    Source: libxc x86_static_data_complete, libxl static_data_done callback
    """
    b.drop(RecordType.X86_CPUID_POLICY)
    b.drop(RecordType.X86_MSR_POLICY)


@rule("ORD-09", "policy-twice", Effect.TOLERATED, "nobody", since=releases.version_3)
def policy_twice(b: StreamBuilder) -> None:
    """A CPU policy record occurs twice.

    What: two X86_CPUID_POLICY or two X86_MSR_POLICY records in front of STATIC_DATA_END.
    Why: libxc keeps one of each; the later replaces the earlier as a whole, leaves are not merged.
    Repair: send one, complete.
    Source: libxc handle_x86_cpuid_policy, handle_x86_msr_policy
    """
    b.duplicate(RecordType.X86_CPUID_POLICY)


@rule("ORD-10", "static-data-end-early", Effect.TOLERATED, "nobody", since=releases.version_3)
def static_data_end_early(b: StreamBuilder) -> None:
    """STATIC_DATA_END comes before X86_PV_INFO.

    What: the static data is declared complete before the guest's word size is known.
    Why: nobody insists on PV_INFO being static data: libxc only wants both before the memory, and
        restores such a stream. No saver writes it.
    Repair: write X86_PV_INFO first.
    Source: libxc handle_static_data_end, handle_x86_pv_info
    """
    b.move(RecordType.X86_PV_INFO, after=RecordType.STATIC_DATA_END)


@rule("ORD-11", "basic-before-pv-info", Effect.REFUSED, "libxc: handle_x86_pv_vcpu_basic")
def basic_before_pv_info(b: StreamBuilder) -> None:
    """A vcpu context comes before X86_PV_INFO.

    What: X86_PV_VCPU_BASIC arrives while the guest's word size is unknown.
    Why: libxc assumes 64 bit until told otherwise and judges the size of the context by that, so the
        2800 bytes of a 32-bit guest are refused. The other vcpu records may come at any time, and a 64-bit
        context passes by luck.
    Repair: write X86_PV_INFO first.
    Source: libxc handle_x86_pv_vcpu_basic
    """
    b.move(RecordType.X86_PV_VCPU_BASIC, before=RecordType.X86_PV_INFO)


@rule("ORD-12", "vcpu-before-pages", Effect.SPEC, "nobody")
def vcpu_before_pages(b: StreamBuilder) -> None:
    """A vcpu record comes before the pages.

    What: a vcpu record stands in front of a PAGE_DATA of the same pass over memory.
    Why: the specification puts the vcpus after the memory. libxc only stores them and applies them at
        END, so the order changes nothing.
    Repair: write the vcpu records after the last PAGE_DATA.
    Source: specification, "x86 PV Guest" record order
    """
    b.move(RecordType.X86_PV_VCPU_BASIC, before=RecordType.PAGE_DATA)


@rule("ORD-14", "shared-info-missing", Effect.CORRUPT, "nobody")
def shared_info_missing(b: StreamBuilder) -> None:
    """A PV stream has no SHARED_INFO.

    What: END arrives and the guest's shared_info page has not been sent.
    Why: nothing asks for it. The guest resumes on the blank page of a new domain: no vcpu_info, and the
        arch fields (its own p2m among them) empty, which it finds out when it reads them.
    Repair: send the page, 4096 bytes, after X86_PV_INFO.
    Source: libxc handle_shared_info, x86_pv_stream_complete
    """
    b.drop(RecordType.SHARED_INFO)


@rule("ORD-15", "tsc-info-missing", Effect.CORRUPT, "nobody")
def tsc_info_missing(b: StreamBuilder) -> None:
    """There is no X86_TSC_INFO.

    What: END arrives and the guest's time stamp counter has not been described.
    Why: the record is applied when it is read; without it the domain keeps the settings it was created
        with. Frequency and elapsed time then jump under the guest, and its clock with them.
    Repair: send the record; every saver does.
    Source: libxc handle_x86_tsc_info
    """
    b.drop(RecordType.X86_TSC_INFO)


@rule("ORD-16", "params-after-context", Effect.SPEC, "nobody", severity=Severity.INFO)
def params_after_context(b: StreamBuilder) -> None:
    """HVM_PARAMS comes after HVM_CONTEXT, as every saver has it.

    What: the parameters stand behind the context, which the specification forbids.
    Why: libxc applies parameters as it reads them and keeps the context until END, so the order on the
        wire does not matter, and every saver since 4.6 writes the context first.
    Repair: none; a check that insists on the specification refuses every genuine stream.
    Source: specification "x86 HVM Guest"; libxc handle_hvm_params, x86_hvm_stream_complete
    """
    b.become_hvm()


@rule("ORD-17", "hvm-context-missing", Effect.HYPERCALL, "xen: XEN_DOMCTL_sethvmcontext", errno="ENODATA")
def hvm_context_missing(b: StreamBuilder) -> None:
    """An HVM stream has no HVM_CONTEXT.

    What: END arrives and the state of the virtual hardware has not been sent.
    Why: libxc hands Xen what it has kept, here nothing, and Xen does not load an empty context: ENODATA, or EPERM
        before 4.16 and late releases of 4.13 to 4.15. There would be no CPU state to resume from.
    Repair: send the context as Xen gave it.
    Source: libxc x86_hvm_stream_complete, xen hvm_load
    """
    b.become_hvm()
    b.drop(RecordType.HVM_CONTEXT)


@rule("ORD-18", "hvm-rings-missing", Effect.CORRUPT, "nobody")
def hvm_rings_missing(b: StreamBuilder) -> None:
    """HVM_PARAMS name no xenstore or console page.

    What: STORE_PFN or CONSOLE_PFN is not among the parameters (or there are none).
    Why: libxc starts from 0 and does not ask: gfn 0 is reported to the toolstack and entered into the
        grant table, so xenstored or the console writes its ring over the guest's first page.
    Repair: send both parameters.
    Source: libxc handle_hvm_params, x86_hvm_stream_complete
    """
    b.become_hvm()
    b.drop(RecordType.HVM_PARAMS)


@rule("ORD-19", "checkpoint-in-plain-stream", Effect.REFUSED, "libxc: handle_checkpoint")
def checkpoint_in_plain_stream(b: StreamBuilder) -> None:
    """A plain stream contains a CHECKPOINT.

    What: a CHECKPOINT record in a stream that is restored as an ordinary one.
    Why: only a Remus or COLO restore has somewhere to go from a checkpoint; any other takes it as an
        error. Xen's verifier accepts it anywhere.
    Repair: restore it as a checkpointed stream, or drop the record.
    Source: libxc handle_checkpoint
    """
    b.insert(RecordType.CHECKPOINT, before=RecordType.END)


@rule("ORD-20", "verify-before-pages", Effect.CORRUPT, "nobody")
def verify_before_pages(b: StreamBuilder) -> None:
    """A page is sent only after VERIFY, and so never written.

    What: a pfn's first contents come behind the VERIFY record.
    Why: from VERIFY on libxc compares pages with the guest's memory and logs differences; it writes
        nothing. The page gets a frame and stays empty. Where page tables or start_info are hit, a later
        check usually fails on the zeros. VERIFY as such is harmless, any number of times.
    Repair: send VERIFY after the last pass over memory.
    Source: libxc handle_verify, process_page_data
    """
    from migrate.building.parts import page_data

    late = b.new_page()
    contents = b.memory.pop(late).data()
    b.insert(RecordType.VERIFY, before=RecordType.X86_TSC_INFO)
    b.insert(RecordType.PAGE_DATA, page_data([(late, PageType.NOTAB, contents)]), before=RecordType.X86_TSC_INFO)


@rule("ORD-22", "state-sent-twice", Effect.TOLERATED, "nobody")
def state_sent_twice(b: StreamBuilder) -> None:
    """A record of the guest's state occurs twice.

    What: SHARED_INFO, X86_TSC_INFO, HVM_CONTEXT or HVM_PARAMS comes again without a checkpoint between.
    Why: what is kept is replaced, what is applied at once is applied again, as checkpoints need it; the
        last one wins. HVM parameters that may be set only once can fail the second time.
    Repair: send each once.
    Source: libxc handle_shared_info, handle_x86_tsc_info, handle_hvm_context, handle_hvm_params
    """
    b.duplicate(RecordType.X86_TSC_INFO)


@rule("ORD-24", "vcpu0-missing", Effect.REFUSED, "libxc: process_vcpu_basic")
def vcpu0_missing(b: StreamBuilder) -> None:
    """There is no context for vcpu 0.

    What: END arrives and no X86_PV_VCPU_BASIC with content names vcpu 0.
    Why: vcpu 0 is never offline, it carries the address of start_info and the guest's assists. libxc
        reports that the sender has not sent its state.
    Repair: send the record.
    Source: libxc process_vcpu_basic, from x86_pv_stream_complete
    """
    b.drop(RecordType.X86_PV_VCPU_BASIC)


@rule("ORD-25", "vcpu-missing", Effect.CORRUPT, "nobody", severity=Severity.WARNING)
def vcpu_missing(b: StreamBuilder) -> None:
    """A vcpu other than 0 has no context and will stay offline.

    What: vcpus with higher numbers have contexts, this one has none.
    Why: offline vcpus have no records, so the gap may be meant. If the vcpu was online, it is not started:
        the guest waits for an answer of a processor that does not come back.
    Repair: send X86_PV_VCPU_BASIC for every vcpu that was online.
    Source: libxc x86_pv_stream_complete (vcpus without data are passed over)
    """
    b.new_vcpu()
    b.new_vcpu()
    del b.vcpus[1]
