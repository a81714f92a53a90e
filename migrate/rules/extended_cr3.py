"""L3C: what can be said about the 4 GiB rule before the frames are known, and the forms the rule has had.

HYP-22 is the rule itself, replayed for one placement; these tell of the risk under all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity, rule
from streams.pages import PIN_BIT, PageType
from streams.values import dataclass
from streams.wire.framing import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder

EXTENDED_CR3 = 1 << 3  # of vm_assist
FOUR_GIB_PFN = 1 << 20

NOT_RULES: dict[str, str] = {
    "L3V-6": "how the 32-bit hypervisor ran guests with high L3 tables (it loaded low copies); it refuses nothing",
}


@dataclass(frozen=True, slots=True)
class L3Rule:
    """One form of the 4 GiB rule, real or proposed.

    `refuses(width4, extended, high, vcpu0_initialised)`: whether the promotion of an L3 table fails, given a
    32-bit PV domain, its extended cr3 assist, the table's frame at or above 4 GiB, and vcpu 0 set up already.
    """

    id: str
    name: str
    where: str
    refuses: Callable[[bool, bool, bool, bool], bool]
    errno: str | None

    def answer(self, width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> str | None:
        """The errno with which the promotion fails; None where it passes."""
        return self.errno if self.refuses(width4, extended, high, vcpu0_initialised) else None


def _original(width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> bool:
    """The 32-bit hypervisor has no other guests than 32-bit ones, so the width does not enter."""
    return not extended and high and vcpu0_initialised


def _never(width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> bool:
    return False


def _merged(width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> bool:
    return width4 and not extended and high and vcpu0_initialised


def _simplified(width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> bool:
    return not extended and high


def _masked(width4: bool, extended: bool, high: bool, vcpu0_initialised: bool) -> bool:
    """The assist is taken away from 64-bit guests, who are then exempt for their width: the same answers."""
    return _merged(width4, extended and width4, high, vcpu0_initialised)


L3_RULES: dict[str, L3Rule] = {
    form.id: form
    for form in (
        L3Rule("L3V-1", "original", "the 32-bit hypervisor, 2006 to 4.2", _original, "EINVAL"),
        L3Rule("L3V-2", "none", "64-bit hypervisors up to 4.18", _never, None),
        L3Rule("L3V-3", "as merged", "4.19 and later", _merged, "ERANGE"),
        L3Rule("L3V-4", "simplified", "nobody: without the slack and for every width", _simplified, "ERANGE"),
        L3Rule("L3V-5", "assist masked for 64-bit", "partly real: dom0 since 4.18", _masked, "ERANGE"),
    )
}


@rule("L3C-1", "l3-may-land-high", Effect.HOST, "xen: promote_l3_table", errno="ERANGE", since=releases.l3_below_4g)
def l3_may_land_high(b: StreamBuilder) -> None:
    """L3 tables would be refused where they land above 4 GiB.

    What: a 32-bit guest without the extended cr3 assist has a live L3 table (pinned, or the root of a
        vcpu other than 0) besides vcpu 0's root.
    Why: since 4.19 Xen refuses such a table at or above 4 GiB, and the restore asks for no low memory. A
        destination with memory above 4 GiB may give it any frame: setting a later vcpu's context, or
        the pin, fails with ERANGE. The stream cannot say which frames it will get. See HYP-22.
    Repair: restore where only low memory is handed out, or have the guest enable the assist
        (pae_extended_cr3) before it is saved.
    Source: xen promote_l3_table; libxc update_vcpu_context, pin_pagetables
    """
    b.new_root()


@rule("L3C-2", "l3-passes-by-slack", Effect.TOLERATED, "nobody", since=releases.l3_below_4g)
def l3_passes_by_slack(b: StreamBuilder) -> None:
    """The only live L3 table is vcpu 0's root, which is exempt.

    What: a 32-bit guest without the extended cr3 assist, whose one live L3 table is vcpu 0's cr3.
    Why: Xen takes that table while vcpu 0 is not yet set up, when the 4 GiB rule does not apply, and
        the later pin only adds a reference. It restores on every host; with a high root the guest may
        still see a cr3 with low bits that it does not understand.
    Repair: none needed.
    Source: xen promote_l3_table, arch_set_info_guest
    """
    b.vcpus[0].basic.vm_assist = 0


@rule("L3C-3", "source-l3-high", Effect.TOLERATED, "nobody")
def source_l3_high(b: StreamBuilder) -> None:
    """The source already had an L3 table above 4 GiB.

    What: a 32-bit guest without the extended cr3 assist, and its p2m puts an L3 table at or above frame
        0x100000. (Place the table with the builder: only the source's frames show it.)
    Why: the source did not enforce the rule (64-bit Xen before 4.19), or the table was vcpu 0's root
        there. The guest has survived it, or never looked at its cr3.
    Repair: none; it says where the guest comes from.
    Source: the guest's p2m pages in the stream; xen promote_l3_table
    """
    b.place(b.roots[0], 0x12_3456)


@rule("L3C-4", "assist-on-64-bit", Effect.TOLERATED, "nobody")
def assist_on_64_bit(b: StreamBuilder) -> None:
    """A 64-bit guest has the extended cr3 assist enabled.

    What: bit 3 of vcpu 0's vm_assist is set and the guest is 64-bit.
    Why: the bit is about PAE roots and means nothing there. Linux sets it in 64-bit guests too, and Xen
        accepts it on purpose.
    Repair: none.
    Source: xen arch_set_info_guest (the assists valid for 64-bit PV)
    """
    b.become_pv64()
    b.vcpus[0].basic.vm_assist |= EXTENDED_CR3


@rule("L3C-5", "assist-differs", Effect.TOLERATED, "nobody", severity=Severity.WARNING)
def assist_differs(b: StreamBuilder) -> None:
    """The vcpus disagree on the extended cr3 assist.

    What: bit 3 of vm_assist is not the same in all contexts.
    Why: it belongs to the domain, and Xen takes vcpu 0's word for it; the others are not read. Whether the
        4 GiB rule applies to this guest thus hangs on one copy of a bit that contradicts the others.
    Repair: write the domain's assists into every context.
    Source: xen arch_set_info_guest
    """
    b.new_vcpu().basic.vm_assist ^= EXTENDED_CR3


@rule("L3C-6", "cr3-pfn-above-4g", Effect.TOLERATED, "nobody")
def cr3_pfn_above_4g(b: StreamBuilder) -> None:
    """A 32-bit root's pfn is at or above 4 GiB, so cr3 has low bits.

    What: the low 12 bits of a 32-bit cr3 are not 0.
    Why: they are the high bits of a rotated pfn, never the cache bits of a native cr3. The guest has more
        than 4 GiB, or (then XRC-08 fires as well) somebody stored flags there. It is the pfn, and says
        nothing about the frame that the 4 GiB rule is about.
    Repair: none for a large guest; otherwise store the pfn in the rotated form.
    Source: libxc mfn_to_cr3, cr3_to_mfn
    """
    from migrate.building import parts

    for _ in range(FOUR_GIB_PFN // b.pfns_per_p2m_page):
        b.p2m_frames.append(b.new_page(content=b"\xff" * PAGE_SIZE))
    nothing = parts.Page(PageType.XTAB, None)
    b.memory.update(dict.fromkeys(range(b.max_pfn + 1, FOUR_GIB_PFN), nothing))
    b.max_pfn = FOUR_GIB_PFN - 1
    b.memory[b.roots[0]].type &= ~PIN_BIT  # it stays behind, unused
    b.vcpus[0].root = b.new_root()
    b.place(b.vcpus[0].root, 0x2000)
