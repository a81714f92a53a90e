"""The end of a PV restore: libxc's cross-record checks, and what it asks Xen for.

Source: `x86_pv_stream_complete` of `xg_sr_restore_x86_pv.c` and what it calls, in that order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from migrate.destination.releases import RELEASES, r8_to_r15_lost
from migrate.guest.memory import DATA, FRAMED, PFNS_AT_ONCE, REFERENCED, SENT, in_parts, which
from migrate.guest.newest import counted
from migrate.guest.pages import UNWRITTEN
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity, Stage
from migrate.rules.findings import Finding
from migrate.xen.entries import IS_TABLE
from migrate.xen.hypercalls import MapP2m, Refusal, SetContext, SetExtended, SetMsrs, SetXsave, Step
from migrate.xen.program import Pins, Program
from migrate.xen.pv_vcpu import HIGH_REGISTERS
from streams.counting import count
from streams.pages import LEVEL_MASK, PageType, type_name
from streams.wire.framing import RecordType
from streams.wire.paging import FRAME_MASK
from streams.wire.shared_info import SHARED_INFO
from streams.wire.start_info import START_INFO
from streams.wire.vcpu import CONTEXT, MAX_GDT_ENTRIES, PAE_EXTENDED_CR3, START_INFO_REGISTER, cr3_to_pfn
from streams.wire.views import dtype_of

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest, Vcpu
    from migrate.guest.stash import Kept
    from migrate.toolstack.pv import PvRestore
    from streams.records import Place

DESCRIPTORS_PER_PAGE = 512
# Machine frames whose users are looked at together, and in how many parts they are at most.
FRAMES_AT_ONCE, FRAME_PARTS = 1 << 24, 16
# A stream tells its saver's branch, not the point release.
_LOSING_BRANCHES = frozenset(r.branch_name for r in RELEASES if r.has(r8_to_r15_lost))


class _Completion:
    """Gathers the steps of one END."""

    def __init__(self, kind: PvRestore) -> None:
        self.kind = kind
        self.guest: PvGuest = kind.guest
        self.steps: list[Step] = []

    def refuse(self, rule: str, message: str, place: Place | None, step: Stage = Stage.CONTEXT, **fields: Any) -> None:
        """One of libxc's own checks fails here."""
        self.steps.append(Refusal(Finding.of(RULES[rule], message, place, step=step, **fields)))

    def in_range(self, rule: str, what: str, pfn: int, place: Place | None, **fields: Any) -> bool:
        """Whether a pfn is one the guest can have; refused if not."""
        guest = self.guest
        if not 0 <= pfn <= guest.max_pfn:
            self.refuse(rule, f"{what} {pfn:#x} lies beyond max_pfn {guest.max_pfn:#x}", place, pfn=pfn, **fields)
            return False
        return True

    # -- vcpus -------------------------------------------------------------------------------------

    def vcpu(self, index: int, vcpu: Vcpu) -> None:
        """`process_vcpu_basic` and its three sisters."""
        if "basic" in vcpu.parts:
            self.basic(index, vcpu.parts["basic"], vcpu.places["basic"])
        elif index == 0:
            self.no_vcpu0()
        else:
            self.kind.report(
                "REC-59",
                f"vcpu {index} has no basic state: it stays down",
                next(iter(vcpu.places.values())),
                vcpu=index,
            )
        for part, call in (("extended", SetExtended), ("xsave", SetXsave), ("msrs", SetMsrs)):
            if part in vcpu.parts:
                self.steps.append(call(index, vcpu.parts[part], vcpu.places[part]))

    def no_vcpu0(self) -> None:
        """ORD-24."""
        self.refuse("ORD-24", "the stream has no X86_PV_VCPU_BASIC of vcpu 0", None, vcpu=0)

    def basic(self, index: int, kept: Kept, place: Place) -> None:
        """Convert what names pfns, then setvcpucontext."""
        guest = self.guest
        context = np.frombuffer(kept.load(), dtype_of(CONTEXT[guest.width]))[0]
        before = len(self.steps)
        if index == 0:
            self.start_info(int(context["user_regs"][START_INFO_REGISTER[guest.width]]), place)
        gdt = self.gdt(index, context, place)
        root = self.root(index, "cr3", cr3_to_pfn(int(context["ctrlreg"][3]), guest.width), place)
        user_root = user_mfn = None
        cr1 = int(context["ctrlreg"][1])
        if guest.width == 8 and cr1 & 1:
            user_root = self.root(index, "cr1", cr1 >> 12, place)
        elif guest.width == 8 and cr1:
            user_mfn = cr1 >> 12
            self.kind.report(
                "XRC-15",
                f"vcpu {index}: cr1 {cr1:#x} has bit 0 clear: libxc passes it on as a machine frame of this host",
                place,
                vcpu=index,
                effect=Effect.HOST,  # whose frame that is decides, and Xen answers
                severity=Severity.WARNING,
            )
        if root is not None or len(self.steps) == before:
            self.steps.append(SetContext(index, kept, gdt, root, user_root, user_mfn, place))

    def start_info(self, pfn: int, place: Place) -> None:
        """`process_start_info`."""
        guest = self.guest
        if not self.in_range("XRC-01", "start_info pfn", pfn, place, vcpu=0):
            return
        kind = guest.type_of(pfn)
        if kind != PageType.NOTAB:
            self.refuse(
                "XRC-02",
                f"start_info pfn {pfn:#x} is typed {type_name(kind)}; expected NOTAB",
                place,
                vcpu=0,
                pfn=pfn,
            )
            return
        if not guest.has_frame(pfn):
            self.refuse("XRC-03", f"start_info pfn {pfn:#x} was never sent", place, vcpu=0, pfn=pfn)
            return
        page = guest.store.find([pfn])[pfn] if guest.came_with_data(pfn) else UNWRITTEN
        if page is None:
            return  # a page of a pipe that did not look worth keeping
        info = np.frombuffer(page, dtype_of(START_INFO[guest.width]), count=1)[0]
        store, console = int(info["store_mfn"]), int(info["console_mfn"])
        for rule, what, named in (("XRC-04", "xenstore", store), ("XRC-05", "console", console)):
            if not self.in_range(rule, f"start_info's {what} pfn", named, place, vcpu=0):
                return
            if not guest.has_frame(named):
                self.refuse(rule, f"start_info's {what} pfn {named:#x} was never sent", place, vcpu=0, pfn=named)
                return
        if store == console or pfn in (store, console):
            self.kind.report(
                "XRC-45",
                f"start_info {pfn:#x}, xenstore {store:#x} and console {console:#x} are not three pages",
                place,
                vcpu=0,
                pfn=pfn,
            )

    def gdt(self, index: int, context: Any, place: Place) -> tuple[int, ...]:
        """GDT frames of one vcpu."""
        guest = self.guest
        entries = int(context["gdt_ents"])
        if entries > MAX_GDT_ENTRIES:
            self.refuse(
                "REC-61",
                f"vcpu {index}: {count(entries, 'GDT entry', 'GDT entries')}; at most {MAX_GDT_ENTRIES}",
                place,
                vcpu=index,
                errno="ERANGE",
            )
            return ()
        used = -(-entries // DESCRIPTORS_PER_PAGE)
        frames = tuple(int(pfn) for pfn in context["gdt_frames"][:used])
        for number, pfn in enumerate(frames):
            what = f"vcpu {index}: GDT frame {number}, pfn"
            if not self.in_range("XRC-07", what, pfn, place, vcpu=index):
                return ()
            kind = guest.type_of(pfn)
            problem = (
                f"is typed {type_name(kind)}; expected NOTAB"
                if kind != PageType.NOTAB
                else "was never sent"
                if not guest.has_frame(pfn)
                else None
            )
            if problem:
                self.refuse("XRC-07", f"{what} {pfn:#x} {problem}", place, vcpu=index, pfn=pfn)
                return ()
        return frames

    def root(self, index: int, register: str, pfn: int, place: Place) -> int | None:
        """The page table a control register names."""
        guest = self.guest
        rules = ("XRC-08", "XRC-09", "XRC-10") if register == "cr3" else ("XRC-12",) * 3
        what = f"vcpu {index}: {register} names pfn"
        if not self.in_range(rules[0], what, pfn, place, vcpu=index):
            return None
        kind = guest.type_of(pfn)
        if kind & LEVEL_MASK != guest.levels:
            self.refuse(
                rules[1],
                f"{what} {pfn:#x}, which is typed {type_name(kind)}; expected L{guest.levels}TAB",
                place,
                vcpu=index,
                pfn=pfn,
            )
            return None
        if not guest.has_frame(pfn):
            self.refuse(rules[2], f"{what} {pfn:#x}, which was never sent", place, vcpu=index, pfn=pfn)
            return None
        return pfn

    # -- the p2m -----------------------------------------------------------------------------------

    def p2m(self) -> None:
        """`update_guest_p2m`."""
        guest = self.guest
        needed = guest.max_pfn // guest.frames_per_page + 1
        frames = guest.p2m_frames[:needed]
        good = (frames >= 0) & (frames <= guest.max_pfn) & (frames < len(guest.types))
        known = frames[good]
        good[good] = (guest.types[known] == PageType.NOTAB) & (guest.state[known] & FRAMED != 0)
        if not good.all() or len(good) < needed:
            index = int(np.argmin(good)) if not good.all() else len(good)
            pfn = int(frames[index]) if index < len(good) else -1
            problem = (
                "was never given"
                if pfn < 0
                else f"lies beyond max_pfn {guest.max_pfn:#x}"
                if pfn > guest.max_pfn
                else f"is typed {type_name(guest.type_of(pfn))}; expected NOTAB"
                if guest.type_of(pfn) != PageType.NOTAB
                else "was never sent"
            )
            self.refuse(
                "XRC-30",
                f"p2m frame {index} (pfn {pfn:#x}) {problem}" if pfn >= 0 else f"p2m frame {index} {problem}",
                self.kind.places.get(RecordType.X86_PV_P2M_FRAMES),
                step=Stage.P2M,
                pfn=max(pfn, 0) if pfn >= 0 else None,
                count=int((~good).sum()) + needed - len(good),
            )
            return
        unique, counts = counted(frames)
        if len(unique) != len(frames):
            pfn = int(unique[np.argmax(counts > 1)])
            self.kind.report(
                "XRC-31",
                f"p2m frame pfn {pfn:#x} is listed {int(counts.max())} times: one p2m page overwrites another",
                self.kind.places.get(RecordType.X86_PV_P2M_FRAMES),
                pfn=pfn,
            )
        self.steps.append(MapP2m(array("q", frames.astype(np.int64).tobytes())))
        self.kind.p2m_is_sound = True

    # -- what libxc does not notice ----------------------------------------------------------------

    def unchecked_faults(self) -> None:
        """Cross-record checks that nobody makes, and that tell a guest which comes back wrong."""
        kind = self.kind
        seen = kind.session.seen
        if not seen.get(RecordType.SHARED_INFO):
            kind.report("ORD-14", "no SHARED_INFO: the guest wakes up to a blank page")
        if not seen.get(RecordType.X86_TSC_INFO):
            kind.report("ORD-15", "no X86_TSC_INFO: the guest's clock keeps the new domain's defaults")
        self.never_sent()
        self.shared_info()
        self.vm_assists()
        self.high_registers()
        self.vcpu_gaps()
        if kind.p2m_is_sound:
            self.source_p2m()

    def never_sent(self) -> None:
        """XRC-40, REC-21, XRC-42."""
        kind, guest = self.kind, self.guest
        pfns = guest.max_pfn + 1
        state, types = guest.state[:pfns], guest.types[:pfns]
        silent = pfns - sum(int(np.count_nonzero(state[part] & SENT)) for part in in_parts(len(state)))
        if silent:
            holes = (part.start + int(np.argmin(state[part] & SENT)) for part in in_parts(len(state)))
            first = next((pfn for pfn in holes if not state[pfn] & SENT), len(state))
            kind.report(
                "XRC-40",
                f"{count(silent, 'pfn')} up to max_pfn {guest.max_pfn:#x} never mentioned, {first:#x} first",
                kind.places.get(RecordType.X86_PV_P2M_FRAMES),
                pfn=first,
                count=silent,
            )
        self.named_by_tables(
            "REC-21",
            lambda part: state[part] & (REFERENCED | DATA) == REFERENCED,
            "which came without contents: a fresh frame takes its place",
        )
        self.named_by_tables(
            "XRC-42",
            lambda part: (state[part] & DATA != 0) & (types[part] == PageType.XTAB),
            "which the last record that names it calls absent: its contents are stale",
        )

    def named_by_tables(self, rule: str, test: Callable[[slice], NDArray[np.bool_]], what: str) -> None:
        """Report those pfns that the final page tables name, and for which a test of slices of them holds."""
        guest = self.guest
        marked = np.zeros(len(guest.state), np.bool_)
        for part in in_parts(min(len(marked), guest.max_pfn + 1)):
            marked[part] = test(part)
        if not marked.any():
            return
        count = 0
        first: tuple[int, int, int] | None = None  # table, slot, pfn: the lowest, however the tables are kept
        for tables, entries in guest.store.table_batches():
            named = ((entries & np.uint64(FRAME_MASK)) >> np.uint64(12)).astype(np.int64)
            hits = (entries & np.uint64(1)).astype(bool) & (named < len(marked))
            hits[hits] = marked[named[hits]]
            # A table that is gone itself names nothing.
            hits[~IS_TABLE[guest.types[tables]]] = False
            for row in np.flatnonzero(hits.any(axis=1)).tolist():
                slot = int(np.argmax(hits[row]))
                found = int(tables[row]), slot, int(named[row, slot])
                first = min(first, found) if first else found
            count += int(hits.sum())
        if first:
            table, slot, pfn = first
            self.kind.report(
                rule,
                f"page table pfn {table:#x}, entry {slot}, names pfn {pfn:#x}, {what}",
                pfn=table,
                slot=slot,
                count=count,
            )

    def shared_info(self) -> None:
        """XRC-44."""
        guest = self.guest
        if guest.shared_info is None:
            return
        view = np.frombuffer(guest.shared_info, dtype_of(SHARED_INFO[guest.width]), count=1)[0]
        entries = int(view["arch"]["max_pfn"])
        if entries - 1 < guest.max_pfn:
            self.kind.report(
                "XRC-44",
                f"shared_info counts {count(entries, 'p2m entry', 'p2m entries', form='#x')}, fewer than max_pfn "
                f"{guest.max_pfn:#x} needs",
                self.kind.places.get(RecordType.SHARED_INFO),
            )

    def high_registers(self) -> None:
        """HYP-29: what a Xen that loses r8 to r15 has left of a guest."""
        saver = self.kind.session.facts.xen
        vcpus = self.guest.vcpus.values()
        if self.guest.width != 8 or saver not in _LOSING_BRANCHES or not any("basic" in vcpu.parts for vcpu in vcpus):
            return
        contexts = (np.frombuffer(b, dtype_of(CONTEXT[8]))[0] for vcpu in vcpus if (b := vcpu.basic) is not None)
        if not any(context["user_regs"][name] for context in contexts for name in HIGH_REGISTERS):
            self.kind.report(
                "HYP-29", f"saved by Xen {saver}, and {HIGH_REGISTERS[0]} to {HIGH_REGISTERS[-1]} of all vcpus are 0"
            )

    def vcpu_gaps(self) -> None:
        """ORD-25: offline vcpus have no records, so a gap may be meant."""
        present = sorted({0} | {index for index, vcpu in self.guest.vcpus.items() if "basic" in vcpu.parts})
        for before, after in pairwise(present):
            first, last = before + 1, after - 1  # of the gap, which may be as wide as an id claims
            if first == last:
                self.kind.report("ORD-25", f"vcpu {first} has no context, and vcpus after it have", vcpu=first)
            elif first < last:
                self.kind.report(
                    "ORD-25",
                    f"vcpus {first} to {last} have no context, and vcpus after them have",
                    vcpu=first,
                    count=last - before,
                )

    def source_p2m(self) -> None:
        """XRC-34."""
        mfns = self.guest.source_mfns()
        again, frame = _shared(mfns)
        if again:
            first, second = which(len(mfns), lambda part: mfns[part] == frame)[:2].tolist()
            self.kind.report(
                "XRC-34",
                f"pfns {first:#x} and {second:#x} share source frame {frame:#x}",
                pfn=first,
                mfn=frame,
                count=again,
            )

    def vm_assists(self) -> None:
        """XRC-43, L3C-5."""
        guest = self.guest
        field = dtype_of(CONTEXT[guest.width])
        assists = {
            index: int(np.frombuffer(basic, field)[0]["vm_assist"])
            for index, vcpu in sorted(guest.vcpus.items())
            if (basic := vcpu.basic) is not None
        }
        first = assists.get(0)
        for index, assist in assists.items():
            if first is None or assist == first:
                continue
            bit = (assist ^ first) & PAE_EXTENDED_CR3
            self.kind.report(
                "L3C-5" if bit and guest.width == 4 else "XRC-43",
                f"vcpu {index} says vm_assist {assist:#x}, vcpu 0 says {first:#x}: only vcpu 0's counts",
                guest.vcpus[index].places["basic"],
                vcpu=index,
            )


def _shared(mfns: NDArray[np.signedinteger]) -> tuple[int, int]:
    """How often known frames come again, and the lowest that does; found in parts, which take little memory."""
    top = int(mfns.max(initial=-1))
    again, lowest = 0, top + 1
    near = top < FRAMES_AT_ONCE * FRAME_PARTS
    parts = top // FRAMES_AT_ONCE + 1 if near else len(mfns) // PFNS_AT_ONCE + 1
    for part in range(parts):

        def pieces(part: int = part) -> Iterator[NDArray[np.signedinteger]]:
            for piece in in_parts(len(mfns)):
                some = mfns[piece][mfns[piece] >= 0]
                yield some if parts == 1 else some[(some // FRAMES_AT_ONCE if near else some % parts) == part]

        if near:  # a mark for each frame costs less than to sort them
            count, low = 0, part * FRAMES_AT_ONCE
            seen = np.zeros(min(FRAMES_AT_ONCE, top + 1 - low), np.bool_)
            for some in pieces():
                seen[some - low] = True
                count += len(some)
            if count == np.count_nonzero(seen):
                continue
        frames = np.concatenate(list(pieces()))
        frames.sort()
        same = np.flatnonzero(frames[1:] == frames[:-1])
        if len(same):
            again, lowest = again + len(same), min(lowest, int(frames[same[0]]))
    return again, lowest


def unchecked_faults(kind: PvRestore) -> None:
    """Report what neither libxc nor Xen looks at; it changes no verdict, and may take its time."""
    _Completion(kind).unchecked_faults()


def complete(kind: PvRestore) -> Program:
    """The steps of `x86_pv_stream_complete`, failing checks of libxc's own in their places."""
    work = _Completion(kind)
    guest = kind.guest
    if 0 not in guest.vcpus:
        work.no_vcpu0()
    for index in sorted(guest.vcpus):
        work.vcpu(index, guest.vcpus[index])
    calls, work.steps = work.steps, []
    work.p2m()
    return Program((calls, Pins(*guest.pinned()), work.steps))
