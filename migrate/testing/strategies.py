"""Random guests and streams, as hypothesis strategies.

    from hypothesis import given
    from migrate import check
    from migrate.testing import strategies

    @given(strategies.streams())
    def test_my_tool_keeps_a_stream_valid(stream):
        assert check(my_tool(stream)).verdict == "accept"

`guests()` and `hvm_guests()` give a `StreamBuilder`, open to every edit; `streams()` and `damaged_streams()` give
finished bytes. PV guests are small by default, a few dozen pages: page tables are what makes a restore fail, and a
few of them, shared, pinned and mapped in odd ways, meet all that Xen looks at. All sizes are upper bounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from zlib import crc32

from hypothesis import strategies as st

from migrate.building.builder import FIRST_MFN, SLOT3, StreamBuilder
from migrate.building.parts import PAE_ROOT, PTE_RO, PTE_RW, TABLE, Vcpu, entry, page_data
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity
from migrate.rules.hypervisor import NEEDS_PLACEMENT
from migrate.testing.hvm_strategies import hvm_guests
from streams.counting import count
from streams.pages import LEVEL_MASK, PIN_BIT, PageType
from streams.wire.framing import PAGE_SHIFT, PAGE_SIZE
from streams.wire.paging import (
    ENTRIES,
    FRAME_MASK,
    L4_XEN_SLOTS,
    NX,
    PAE_L2_FIRST_XEN_SLOT,
    PAE_L3_LIMIT,
    RW,
    US,
    A,
    D,
    G,
    P,
)
from streams.wire.vcpu import GDT_ENTRIES_PER_FRAME, START_INFO_REGISTER, ContextFlag

__all__ = ["damaged_streams", "descriptors", "guests", "hvm_guests", "live_tables", "older_pages", "streams"]

CONTAINERS = ("libxc", "libxl", "xl")

# What an entry may say besides the frame, by where it stands; `RW` is taken away where it must not be.
_AVAILABLE = 1 << 9 | 1 << 11
_LEAF_FLAGS = (
    PTE_RW,
    PTE_RO,
    P,
    P | RW,
    P | RW | US | G,
    PTE_RW | NX,
    PTE_RO | _AVAILABLE | 1 << 52,
    P | A | D | 1 << 58,
)
_TABLE_FLAGS = (TABLE, P, P | US, TABLE | NX, P | RW | _AVAILABLE, PTE_RO | 1 << 52 | 1 << 61)
_PAE_ROOT_FLAGS = (PAE_ROOT, P, P | RW | US | A | D, P | US | _AVAILABLE)
# Entries without the present bit, which nobody looks at: Linux's inverted frames, marks of its own, zeros.
_ABSENT_ENTRIES = (0xFFFF_FFCF_7394_0060, 1 << 62 | RW, 0xFFFF_FFFF_FFFF_FFFE, 0)

# Segment descriptors, as u64.
_DESC_P, _DESC_S, _DESC_L = 1 << 47, 1 << 44, 1 << 53
_DESC_TYPE = 0xF << 40
_CALL_GATE = 0xC << 40


class Stream(bytes):
    """The bytes of a stream, which do not fill the screen where a test fails."""

    def __repr__(self) -> str:
        return f"<stream of {count(len(self), 'byte')}, crc {crc32(self):#010x}>"


def guests(
    width: int | None = None,
    *,
    vcpus: int = 3,
    roots: int = 3,
    max_tables: int = 12,
    data_pages: int = 6,
    gdt_pages: int = 3,
    extended: bool | None = None,
) -> st.SearchStrategy[StreamBuilder]:
    """Consistent PV guests: every one would be restored by every Xen, wherever its frames land.

    That is: under any placement if it is a 64-bit guest or has extended cr3, otherwise under its source's.

    Tables hang in trees of random shape and share what Xen lets them share, are pinned or not on every level,
    are mapped read-only and map each other linearly where that is legal; others are part of no live tree. Vcpus
    share roots or not, and 64-bit ones have user roots. Which page has which pfn is random. vcpu 0 runs on the
    first of the builder's `roots`, whose `chain` is that of `StreamBuilder.pv`; other roots have none.

    Parameters
    ----------
    width:
        the guest's word size, 4 or 8; either by default.
    vcpus, roots:
        how many there are at most, at least one each.
    max_tables:
        how many page tables besides those of the first root's chain there are at most.
    data_pages, gdt_pages:
        how many ordinary and how many GDT pages there are at most, besides those of `StreamBuilder.pv`.
    extended:
        whether the guest has enabled pae_extended_cr3; either by default.
    """
    return _guests(width, vcpus, roots, max_tables, data_pages, gdt_pages, extended)


@st.composite
def _guests(
    draw: st.DrawFn,
    width: int | None,
    vcpus: int,
    roots: int,
    max_tables: int,
    data_pages: int,
    gdt_pages: int,
    extended: bool | None,
) -> StreamBuilder:
    width = draw(st.sampled_from([4, 8])) if width is None else width
    extended = draw(st.booleans()) if extended is None else extended
    guest = _Guest(draw, width, roots, max_tables, data_pages, gdt_pages)
    return guest.finish(draw(st.integers(1, vcpus)), extended)


class _Guest:
    """One guest in the making: first its pages, then what they hold, at last who uses them."""

    def __init__(
        self, draw: st.DrawFn, width: int, roots: int, max_tables: int, data_pages: int, gdt_pages: int
    ) -> None:
        self.draw = draw
        self.pae = width == 4
        self.b = StreamBuilder.pv(width, vcpus=0)
        chain = self.b.chain(self.b.roots[0])
        self.levels: dict[int, list[int]] = {level: [] for level in range(1, self.b.levels + 1)}
        self.slot3: dict[int, int] = {}  # PAE: the L2 in slot 3 of each root
        for level, pfn in zip(range(self.b.levels, 0, -1), chain, strict=True):
            self.levels[level].append(pfn)
        if self.pae:
            self.slot3[chain[0]] = chain[1]
            self.levels[2].remove(chain[1])
        self._more_tables(roots, max_tables)
        self.data = [self.b.start_info_pfn, *self.b.p2m_frames, self.b.store_pfn, self.b.console_pfn]
        self.data += [self.b.new_page(content=b"\x51data") for _ in range(draw(st.integers(0, data_pages)))]
        self.absent = [self.b.new_page(PageType.XTAB) for _ in range(draw(st.integers(0, 2)))]
        self.gdts = [self._gdt_page() for _ in range(draw(st.integers(0, gdt_pages)))]
        self._shuffle()

    # -- pages -------------------------------------------------------------------------------------

    def _more_tables(self, roots: int, room: int) -> None:
        """Empty tables: further roots first, then of any level."""
        cost = 2 if self.pae else 1
        for _ in range(self.draw(st.integers(0, min(roots - 1, room // cost)))):
            root = self.b.new_table(self.b.levels)
            self.b.roots.append(root)
            self.levels[self.b.levels].append(root)
            if self.pae:
                self.slot3[root] = self.b.new_table(2)
            room -= cost
        for level in self.draw(st.lists(st.integers(1, self.b.levels - 1), max_size=room)):
            self.levels[level].append(self.b.new_table(level))

    def _gdt_page(self) -> int:
        pfn = self.b.new_page()
        page = self.b.table(pfn)
        kinds = descriptors(self.b.width)
        for slot, value in self.draw(st.dictionaries(st.integers(0, ENTRIES - 1), kinds, max_size=4)).items():
            page[slot] = value
        return pfn

    def _shuffle(self) -> None:
        """Deal out the pfns anew."""
        b = self.b
        new = self.draw(st.permutations(range(b.max_pfn + 1)))
        b.memory = {new[pfn]: page for pfn, page in sorted(b.memory.items(), key=lambda item: new[item[0]])}
        for pfn, page in b.memory.items():
            if page.is_table:
                table = b.table(pfn)
                for slot in range(ENTRIES):
                    old = int(table[slot])
                    if old & P:
                        table[slot] = old & ~FRAME_MASK | new[(old & FRAME_MASK) >> PAGE_SHIFT] << PAGE_SHIFT
        for name in ("start_info_pfn", "store_pfn", "console_pfn", "gdt_pfn", "absent_pfn"):
            setattr(b, name, new[getattr(b, name)])
        b.start_info.store_mfn, b.start_info.console_mfn = b.store_pfn, b.console_pfn
        b.p2m_frames = [new[pfn] for pfn in b.p2m_frames]
        b.roots = [new[pfn] for pfn in b.roots]
        b._chains = {new[root]: tuple(new[pfn] for pfn in chain) for root, chain in b._chains.items()}
        self.levels = {level: [new[pfn] for pfn in pfns] for level, pfns in self.levels.items()}
        self.slot3 = {new[root]: new[l2] for root, l2 in self.slot3.items()}
        self.data = [new[pfn] for pfn in self.data]
        self.absent = [new[pfn] for pfn in self.absent]
        self.gdts = [b.gdt_pfn, *(new[pfn] for pfn in self.gdts)]

    # -- contents ----------------------------------------------------------------------------------

    def finish(self, vcpus: int, extended: bool) -> StreamBuilder:
        """Fill the tables and set up the vcpus."""
        b, draw = self.b, self.draw
        for pfn in self.levels[1]:
            self._fill_l1(pfn)
        for level in range(2, b.levels + 1):
            for pfn in self.levels[level]:
                self._fill_upper(pfn, level)
        for pfn in self.slot3.values():
            self._fill_upper(pfn, 2)
        for level, pfns in self.levels.items():
            for pfn in pfns:
                b.memory[pfn].type = level | (PIN_BIT if draw(st.booleans()) else 0)
        for _ in range(vcpus):
            self._vcpu(extended)
        self._linear()
        self._place(extended)
        b.rounds = draw(st.lists(st.lists(st.integers(0, b.max_pfn), max_size=5, unique=True).map(sorted), max_size=2))
        b.batch = draw(st.sampled_from([1024, 1024, 7]))
        return b

    def _free_slot(self, pfn: int) -> int | None:
        """A slot of a table that is the guest's and holds nothing."""
        slots = self._guest_slots(pfn)
        slot = self.draw(st.sampled_from([0, 1, 2, 100, 255, 272, 427, 511]) | st.integers(0, ENTRIES - 1))
        return slot if slot in slots and not self.b.table(pfn)[slot] else None

    def _guest_slots(self, pfn: int) -> Collection[int]:
        if pfn in self.slot3.values():
            return range(PAE_L2_FIRST_XEN_SLOT)
        if pfn in self.levels.get(4, ()):
            return [*range(L4_XEN_SLOTS.start), *range(L4_XEN_SLOTS.stop, ENTRIES)]
        return range(3 if self.pae and pfn in self.slot3 else ENTRIES)

    def _fill_l1(self, pfn: int) -> None:
        """Map data, and read-only what must not be written: tables and GDTs. Some leftovers that are not present."""
        table, draw = self.b.table(pfn), self.draw
        mappable = [pfn for pfn, page in sorted(self.b.memory.items()) if page.has_data]
        for target in draw(st.lists(st.sampled_from(mappable), max_size=4)):
            slot = self._free_slot(pfn)
            if slot is not None:
                flags = draw(st.sampled_from(_LEAF_FLAGS))
                table[slot] = entry(target, flags if target in self.data else flags & ~RW)
        slot = self._free_slot(pfn)
        if slot is not None:
            table[slot] = draw(st.sampled_from(_ABSENT_ENTRIES))

    def _fill_upper(self, pfn: int, level: int) -> None:
        table, draw = self.b.table(pfn), self.draw
        flags: tuple[int, ...] = _TABLE_FLAGS
        if self.pae and level == 3:
            table[SLOT3] = entry(self.slot3[pfn], PAE_ROOT)
            flags = _PAE_ROOT_FLAGS
        children = self.levels[level - 1]
        if not children:
            return
        for child in draw(st.lists(st.sampled_from(children), min_size=1, max_size=4)):
            slot = self._free_slot(pfn)
            if slot is not None:
                table[slot] = entry(child, draw(st.sampled_from(flags)))

    # -- vcpus -------------------------------------------------------------------------------------

    def _vcpu(self, extended: bool) -> None:
        b, draw = self.b, self.draw
        first = not b.vcpus
        vcpu = b.new_vcpu(b.roots[0] if first else draw(st.sampled_from(b.roots)), extended=extended)
        if first:
            vcpu.basic.user_regs[START_INFO_REGISTER[b.width]] = b.start_info_pfn
        if not self.pae and draw(st.booleans()):
            vcpu.user_root = draw(st.sampled_from([root for root in b.roots if root != vcpu.root] or b.roots))
            if draw(st.booleans()):
                vcpu.basic.flags &= ~ContextFlag.IN_KERNEL
        self._gdt(vcpu)

    def _gdt(self, vcpu: Vcpu) -> None:
        """Any of the GDT pages, also one of them twice, or none at all."""
        frames = self.draw(st.lists(st.sampled_from(self.gdts), max_size=3))
        unused = self.draw(st.integers(0, GDT_ENTRIES_PER_FRAME - 1))
        for index, pfn in enumerate(frames):
            vcpu.basic.gdt_frames[index] = pfn
        vcpu.basic.gdt_ents = len(frames) * GDT_ENTRIES_PER_FRAME - (unused if frames else 0)

    # -- order and place ---------------------------------------------------------------------------

    def _linear(self) -> None:
        """Entries that name a table of their own level: the very table, or one that Xen validates before it."""
        order = live_tables(self.b)
        naming: set[int] = set()  # tables with such an entry of another table
        named: set[int] = set()
        for _ in range(self.draw(st.integers(0, 3))):
            level = self.draw(st.just(2) if self.pae else st.integers(2, 4))
            tables = [pfn for pfn in order if self.b.memory[pfn].type & LEVEL_MASK == level]
            if not tables:
                continue
            table = self.draw(st.sampled_from(tables))
            earlier = [pfn for pfn in tables[: tables.index(table)] if pfn not in naming]
            target = self.draw(st.sampled_from([table, *([] if table in named else earlier)]))
            slot = self._free_slot(table)
            if slot is None:
                continue
            self.b.table(table)[slot] = entry(target, self.draw(st.sampled_from(_TABLE_FLAGS)) & ~RW)
            if target != table:
                naming.add(table)
                named.add(target)

    def _place(self, extended: bool) -> None:
        """Source frames below 4 GiB, above, or both, with PAE roots below unless the guest may have them above."""
        b = self.b
        where = self.draw(st.sampled_from(["low", "high", "mixed"]))
        for pfn, page in b.memory.items():
            low = where == "low" or (where == "mixed" and pfn % 2 == 0)
            if self.pae and not extended and pfn in self.slot3:
                low = pfn != b.roots[0] or low
            b.place(pfn, FIRST_MFN + pfn + (0 if low else PAE_L3_LIMIT) if page.has_data else None)


def live_tables(b: StreamBuilder) -> list[int]:
    """The page tables of a guest that Xen validates, in the order in which it is through with them.

    Vcpu for vcpu, then pins by pfn, below a table in order of its slots. Tables that nothing leads to are not among
    them: whatever they hold, no restore fails for it.
    """
    seen: set[int] = set()
    done: list[int] = []

    def visit(pfn: int) -> None:
        page = b.memory.get(pfn)
        if page is None or not page.is_table or pfn in seen:
            return
        seen.add(pfn)
        if page.type & LEVEL_MASK > 1:
            table = b.table(pfn)
            for slot in table.nonzero()[0].tolist():
                if table[slot] & P:
                    visit((int(table[slot]) & FRAME_MASK) >> PAGE_SHIFT)
        done.append(pfn)

    for vcpu in b.vcpus:
        visit(vcpu.root)
        if vcpu.user_root is not None:
            visit(vcpu.user_root)
    for pfn, page in sorted(b.memory.items()):
        if page.type & PIN_BIT:
            visit(pfn)
    return done


def descriptors(width: int) -> st.SearchStrategy[int]:
    """Segment descriptors that Xen lets a guest of this width have in its GDT, as u64."""
    anything = st.integers(0, (1 << 64) - 1)
    absent = anything.map(lambda value: value & ~_DESC_P)
    segment = anything.map(lambda value: (value | _DESC_P | _DESC_S) & ~(_DESC_L if width == 4 else 0))
    second_half = anything.map(lambda value: (value | _DESC_P) & ~(_DESC_S | _DESC_TYPE))
    gate = st.builds(
        lambda selector, low, high, count: _DESC_P | _CALL_GATE | high << 48 | count << 32 | selector << 16 | low,
        st.integers(0, 0xDFFF)
        | st.just(0xE019 if width == 4 else 0xE033)
        | st.integers(0, 0x1FFF).map(lambda n: n << 3 | 4),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 31 if width == 4 else 0),
    )
    return absent | segment | second_half | gate


@st.composite
def older_pages(draw: st.DrawFn, b: StreamBuilder) -> bytes:
    """An earlier round of a live migration: the body of a PAGE_DATA record that goes before those of a guest.

        b.insert("PAGE_DATA", draw(older_pages(b)), before="PAGE_DATA")

    Some pfns of the guest as they were before: absent, data, or tables of any level, which name any pfns.
    """
    chosen = st.sampled_from(sorted(b.memory))
    entries: list[tuple[int, int, bytes | None]] = []
    for pfn in draw(st.lists(chosen, min_size=1, max_size=4, unique=True).map(sorted)):
        kind = draw(st.sampled_from([PageType.XTAB, PageType.NOTAB, *range(1, b.levels + 1)]))
        if kind == PageType.XTAB:
            entries.append((pfn, kind, None))
            continue
        words = draw(st.lists(st.integers(0, b.max_pfn).map(entry), max_size=4))
        content = b"".join(word.to_bytes(8, "little") for word in words)
        entries.append((pfn, kind, content.ljust(PAGE_SIZE, b"\0")))
    return page_data(entries)


@st.composite
def streams(
    draw: st.DrawFn, *, containers: Collection[str] = CONTAINERS, vcpus: int = 3, max_tables: int = 12
) -> bytes:
    """Valid streams: PV guests of both widths and HVM guests, live or not, in any container.

    Parameters
    ----------
    containers:
        those to choose from: libxc, libxl, xl, and if asked for xapi.
    vcpus, max_tables:
        as for `guests`.
    """
    if draw(st.integers(0, 3)):
        b = draw(guests(vcpus=vcpus, max_tables=max_tables))
        b.verify = draw(st.integers(0, 7)) == 0
        if draw(st.booleans()):
            b.insert("PAGE_DATA", draw(older_pages(b)), before="PAGE_DATA")
    else:
        b = draw(hvm_guests(vcpus=vcpus))
    b.wrap(draw(st.sampled_from(sorted(containers))))
    return Stream(b.build())


def _any_guest(b: StreamBuilder) -> bool:
    return True


def _only_slot3(b: StreamBuilder) -> bool:
    return not b.table(b.roots[0])[:SLOT3].any()


# Guests on which the damage would be found, but be blamed on its consequences under another rule.
_SUITS = {"HYP-11": _only_slot3, "HYP-18": _only_slot3}


def damaging_rules() -> list[str]:
    """Ids of the rules whose own violation damages any guest, wherever its frames land: those of severity error."""
    return [
        id
        for id, rule in RULES.items()
        if rule.severity is Severity.ERROR and rule.violation is not None and id not in NEEDS_PLACEMENT
    ]


@st.composite
def damaged_streams(
    draw: st.DrawFn, rules: Iterable[str] | None = None, *, vcpus: int = 3, max_tables: int = 12
) -> tuple[bytes, str]:
    """A stream with one named damage, and the id of the rule that it breaks.

    The damage is the rule's own violation, done to a random 32-bit guest (or, where the rule is about others, to
    the smallest guest of its kind). `migrate.rules.catalogue.RULES[id]` tells which releases of Xen mind.

    Parameters
    ----------
    rules:
        ids of the rules to choose from; by default every one of severity error.
    vcpus, max_tables:
        as for `guests`.
    """
    id = draw(st.sampled_from(sorted(damaging_rules() if rules is None else rules)))
    violation = RULES[id].violation
    if violation is None:
        raise ValueError(f"{id}: no stream can show its breach")
    b = draw(guests(4, vcpus=vcpus, max_tables=max_tables, extended=False).filter(_SUITS.get(id, _any_guest)))
    # Violations are written for the guest of StreamBuilder.pv: one round, in one record, and a GDT in use.
    b.rounds, b.batch = [], 1024
    first = b.vcpus[0].basic
    first.gdt_frames[0], first.gdt_ents = b.gdt_pfn, max(first.gdt_ents, GDT_ENTRIES_PER_FRAME)
    violation(b)
    return Stream(b.build()), id
