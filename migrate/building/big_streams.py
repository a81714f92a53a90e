"""Streams of many GiB, of consistent guests, written in big pieces.

The page tables are trees as a running kernel has them: every process with a root of its own, pinned, and L1s
of its own, most of them pinned; the kernel's tables shared among all of them and mapping every table
read-only. The tables lie scattered among the data pages; data pages are zero.

    python -m migrate.building.big_streams guest.libxc --kind pv --size 4G
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from os import PathLike
from typing import IO, Any, Literal, Protocol

import click
import numpy as np
from numpy.typing import NDArray

from migrate.building.builder import FIRST_MFN, KERNEL_SLOT, SLOT3, Rec, StreamBuilder
from migrate.building.hvm_contexts import PC, Hardware
from migrate.building.parts import PAE_ROOT, PTE_RO, PTE_RW, TABLE
from streams.counting import count
from streams.pages import PIN_BIT, TYPE_SHIFT, PageType
from streams.wire.framing import (
    PAGE_DATA_HEADER,
    PAGE_SHIFT,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    RecordType,
)
from streams.wire.hvm_names import HvmParam
from streams.wire.paging import ENTRIES

Kind = Literal["hvm", "pv"]
Words = NDArray[np.uint64]
Pfns = NDArray[np.int64]
Target = IO[bytes] | str | PathLike[str]

BATCH = 1024
DIRTY_ONE_IN = 16  # of all pages, in each live round after the first
MAX_ROOTS = 256
LOW_PFNS = 0xF0000  # PAE roots stay below this, so that their mfns lie below 4 GiB
MMIO_HOLE = range(0xF0000, 0x100000)
BALLOONED_EVERY, BALLOONED = 4096, slice(4000, 4016)
PAE_SHARED_L1S = 428  # the slots of a slot-3 L2 that are the guest's
SCATTER = np.uint64(0x9E37_79B1)  # odd, so that neighbouring entries map pages far apart

# The first pages of a PV guest; its p2m follows.
START_INFO_PFN, GDT_PFN, STORE_PFN, CONSOLE_PFN, P2M_PFN = range(5)


class Guest(Protocol):
    """What the writer needs to know of a guest: its page types, the records around its memory, its contents."""

    types: NDArray[np.uint8]
    builder: StreamBuilder

    def fill(self, pfns: Pfns, rows: Pfns, pages: Words) -> Pfns:
        """Write the contents of pfns into their rows of pages (n, 512), all zero; returns the rows written."""


class HvmGuest:
    """Zero pages up to the MMIO hole and above it."""

    def __init__(self, size_bytes: int, vcpus: int, hardware: Hardware) -> None:
        pages = size_bytes >> PAGE_SHIFT
        if pages < BATCH:
            raise ValueError(
                f"an HVM guest of {count(size_bytes, 'byte')} is too small; {BATCH * PAGE_SIZE} is the least"
            )
        if pages > MMIO_HOLE.start:
            pages += len(MMIO_HOLE)
        self.types = np.full(pages, PageType.NOTAB, np.uint8)
        self.types[MMIO_HOLE.start : MMIO_HOLE.stop] = PageType.XTAB
        self.builder = StreamBuilder.hvm(vcpus=vcpus, hardware=hardware)
        top = min(pages, MMIO_HOLE.start)
        self.builder.hvm_params.update({HvmParam.STORE_PFN: top - 4, HvmParam.CONSOLE_PFN: top - 1})

    def fill(self, pfns: Pfns, rows: Pfns, pages: Words) -> Pfns:
        """Nothing: every page is zero."""
        return rows[:0]


class PvGuest:
    """A PV guest with page tables.

    A table has a role: first come the kernel's L1s, L2s and L3 (the latter two for width 8 only), then for
    each process a block of root, one L3 (width 8) or slot-3 L2 (width 4), its L2s, its L1s.
    """

    def __init__(self, size_bytes: int, width: int, table_share: float, vcpus: int, extended: bool, seed: int) -> None:
        pages = size_bytes >> PAGE_SHIFT
        self.width = width
        self.per_p2m_page = PAGE_SIZE // width
        self.seed = np.uint64(seed)
        p2m = range(P2M_PFN, P2M_PFN + -(-pages // self.per_p2m_page))
        room = (min(pages, LOW_PFNS) if width == 4 else pages) - p2m.stop
        self._plan(max(int(pages * table_share), 16), room)
        rng = np.random.default_rng(seed)
        stride = room // self.count if room > 0 else 0
        if stride < 2:
            raise ValueError(
                f"no room in {count(size_bytes, 'byte')} for {count(self.count, 'page table')} among other pages"
            )

        self.tables: Pfns = p2m.stop + np.arange(self.count) * stride + rng.integers(0, stride, self.count)
        self.role_of = rng.permutation(self.count)  # of tables[i]
        self.pfn_of = np.empty_like(self.tables)  # of a role
        self.pfn_of[self.role_of] = self.tables

        self.types = np.full(pages, PageType.NOTAB, np.uint8)
        whole = pages // BALLOONED_EVERY * BALLOONED_EVERY
        self.types[:whole].reshape(-1, BALLOONED_EVERY)[:, BALLOONED] = PageType.XTAB
        self.types[: p2m.stop] = PageType.NOTAB
        self.types[self.pfn_of] = self._levels()
        self.p2m = p2m
        self._build_records(vcpus, extended)

    def _plan(self, wanted: int, room: int) -> None:
        """Decide how many tables of each kind there are."""
        wide = self.width == 8
        self.kernel_l1s = -(-wanted // ENTRIES) if wide else min(-(-wanted // ENTRIES), PAE_SHARED_L1S)
        self.kernel_l2s = -(-self.kernel_l1s // ENTRIES) if wide else 0
        self.kernel = self.kernel_l1s + self.kernel_l2s + wide
        left = wanted - self.kernel
        # A PAE process has three L2s at most besides that of slot 3.
        least = 1 if wide else -(-left // (SLOT3 * ENTRIES))
        self.roots = max(min(left // 8, MAX_ROOTS), least, 1)
        self.block = left // self.roots
        self.l2s = -(-(self.block - 2) // (ENTRIES + 1))
        self.count = self.kernel + self.roots * self.block

    def _levels(self) -> NDArray[np.uint8]:
        """Page type per role."""
        top = PageType.L4TAB_PINNED if self.width == 8 else PageType.L3TAB_PINNED
        block = np.full(self.block, PageType.L1TAB_PINNED, np.uint8)
        block[::8] = PageType.L1TAB
        block[2 : 2 + self.l2s] = PageType.L2TAB
        block[:2] = top, (top & ~PIN_BIT) - 1
        kernel = np.full(self.kernel, PageType.L1TAB, np.uint8)
        kernel[self.kernel_l1s :] = PageType.L2TAB
        if self.width == 8:
            kernel[-1] = PageType.L3TAB
        return np.concatenate([kernel, np.tile(block, self.roots)])

    def _build_records(self, vcpus: int, extended: bool) -> None:
        self.builder = b = StreamBuilder.pv(self.width, vcpus=vcpus, extended=extended)
        gdt = b.memory[b.gdt_pfn].content
        b.max_pfn = len(self.types) - 1
        b.p2m_frames = list(self.p2m)
        b.start_info.store_mfn, b.start_info.console_mfn = STORE_PFN, CONSOLE_PFN
        b.announce_size()
        for vcpu in b.vcpus:
            vcpu.root = int(self.pfn_of[self.kernel + vcpu.id % self.roots * self.block])
            vcpu.basic.gdt_frames[0] = GDT_PFN
        _ = b.records  # which puts start_info into its page
        start_info = b.memory[b.start_info_pfn].content
        assert start_info is not None
        assert gdt is not None
        self.fixed = {
            START_INFO_PFN: np.frombuffer(bytes(start_info), "<u8"),
            GDT_PFN: np.frombuffer(bytes(gdt), "<u8"),
        }

    # -- contents ----------------------------------------------------------------------------------

    def fill(self, pfns: Pfns, rows: Pfns, pages: Words) -> Pfns:
        """Write p2m pages, page tables, start_info and the GDT."""
        for pfn, content in self.fixed.items():
            pages[rows[pfns == pfn]] = content
        fixed = pfns < P2M_PFN
        in_p2m = (pfns >= self.p2m.start) & (pfns < self.p2m.stop)
        if in_p2m.any():
            pages[rows[in_p2m]] = self._p2m_pages(pfns[in_p2m] - self.p2m.start)
        kinds = self.types[pfns]
        is_table = (kinds != PageType.NOTAB) & (kinds != PageType.XTAB)
        roles = self.role_of[np.searchsorted(self.tables, pfns[is_table])]
        where = rows[is_table]
        of_process = (roles >= self.kernel) & ((roles - self.kernel) % self.block >= 2 + self.l2s)
        pages[where[of_process]] = self._process_l1s(roles[of_process])
        for role, row in zip(roles[~of_process].tolist(), where[~of_process].tolist(), strict=True):
            for slot, children, flags in self._children(role):
                pages[row, slot : slot + len(children)] = (children << PAGE_SHIFT) | flags
        written: Pfns = rows[fixed | in_p2m | is_table]
        return written

    def _p2m_pages(self, indices: Pfns) -> Words:
        """p2m pages by their place in the list, shape (n, 512): source mfns, all ones where there is no page."""
        pfns = indices[:, None] * self.per_p2m_page + np.arange(self.per_p2m_page)
        inside = pfns < len(self.types)
        present = inside & (self.types[np.where(inside, pfns, 0)] != PageType.XTAB)
        mfns = np.where(present, pfns + FIRST_MFN, -1).astype(f"<i{self.width}")
        words: Words = mfns.view("<u8")
        return words

    def _process_l1s(self, roles: Pfns) -> Words:
        """L1s of processes, shape (n, 512): data pages mapped writable, nothing where the dice hit another."""
        cells = (roles[:, None] * ENTRIES + np.arange(ENTRIES)).astype(np.uint64)
        targets = (cells * SCATTER + self.seed) % np.uint64(len(self.types))
        writable = (self.types[targets] == PageType.NOTAB) & (targets != GDT_PFN)
        return np.where(writable, targets << np.uint64(PAGE_SHIFT) | np.uint64(PTE_RW), np.uint64(0))

    def _children(self, role: int) -> Iterator[tuple[int, Pfns, int]]:
        """Runs of entries of any other table: (first slot, pfns of the children, flags)."""
        l1s, l2s = self.kernel_l1s, self.kernel_l2s
        if role < l1s:
            yield 0, self.tables[role * ENTRIES : (role + 1) * ENTRIES], PTE_RO
            return
        if role < l1s + l2s:
            first = (role - l1s) * ENTRIES
            yield 0, self.pfn_of[first : min(first + ENTRIES, l1s)], TABLE
            return
        if role < self.kernel:
            yield 0, self.pfn_of[l1s : l1s + l2s], TABLE
            return
        process, place = divmod(role - self.kernel, self.block)
        mine = self.pfn_of[self.kernel + process * self.block :][: self.block]
        my_l2s, my_l1s = mine[2 : 2 + self.l2s], mine[2 + self.l2s :]
        if place >= 2:
            first = (place - 2) * ENTRIES
            yield 0, my_l1s[first : first + ENTRIES], TABLE
        elif self.width == 8 and place == 0:
            yield 0, mine[1:2], TABLE
            yield KERNEL_SLOT, self.pfn_of[self.kernel - 1 : self.kernel], TABLE
        elif self.width == 8:
            yield 0, my_l2s, TABLE
        elif place == 0:
            yield 0, my_l2s, PAE_ROOT
            yield SLOT3, mine[1:2], PAE_ROOT
        else:
            yield 0, self.pfn_of[:l1s], TABLE


class _Writer:
    """Writes records; with `sparse`, zero pages become holes of a seekable file."""

    def __init__(self, out: IO[bytes], sparse: bool) -> None:
        self.out = out
        self.sparse = sparse
        self.written = 0
        self.pages: Words = np.zeros((BATCH, ENTRIES), np.uint64)
        if sparse:
            out.truncate(out.tell())  # so that what is passed over is zero

    def write(self, data: Any) -> None:
        """Write all of a buffer."""
        view = memoryview(data).cast("B")
        self.written += len(view)
        while view:  # a raw pipe takes what it can
            view = view[self.out.write(view) :]

    def records(self, records: list[Rec]) -> None:
        """Write finished records."""
        for rec in records:
            self.write(rec.build())

    def page_data(self, guest: Guest, pfns: Pfns) -> None:
        """Write one PAGE_DATA record of these pfns, ascending, at most BATCH of them."""
        types = guest.types[pfns]
        has_data = types != PageType.XTAB
        count = int(has_data.sum())
        length = PAGE_DATA_HEADER.size + len(pfns) * PFN_WORD_SIZE + count * PAGE_SIZE
        self.write(RECORD_HEADER.pack(RecordType.PAGE_DATA, length) + PAGE_DATA_HEADER.pack(len(pfns), 0))
        self.write((types.astype("<u8") << np.uint64(TYPE_SHIFT)) | pfns.astype("<u8"))
        touched = guest.fill(pfns[has_data], np.arange(count), self.pages)
        if self.sparse:
            self._holes_and(touched, count)
        elif count:
            self.write(self.pages[:count])
        self.pages[touched] = 0

    def _holes_and(self, touched: Pfns, count: int) -> None:
        start = self.out.tell()
        for run in np.split(touched, np.flatnonzero(np.diff(touched) != 1) + 1) if len(touched) else ():
            self.out.seek(start + int(run[0]) * PAGE_SIZE)
            self.out.write(self.pages[run[0] : run[-1] + 1].data)
        self.out.seek(start + count * PAGE_SIZE)
        self.written += count * PAGE_SIZE


def write_synthetic(
    out: Target,
    *,
    kind: Kind = "hvm",
    size_bytes: int,
    width: int = 8,
    table_share: float = 0.02,
    vcpus: int = 2,
    rounds: int = 1,
    extended: bool = False,
    seed: int = 0,
    sparse: bool = False,
    hardware: Hardware = PC,
    saver: tuple[int, int, int] | None = None,
) -> int:
    """Write a libxc stream of a guest with this much memory; returns its length in bytes.

    Parameters
    ----------
    out:
        a path, or a binary file open for writing (seekable if `sparse`).
    size_bytes:
        the guest's memory; the stream is a little larger.
    width, table_share, extended:
        PV only: word size in bytes, page tables as a share of all pages, vm_assist's pae_extended_cr3.
    rounds:
        passes over memory; each after the first resends one page in sixteen.
    sparse:
        leave zero pages as holes of the file.
    hardware:
        HVM only.
    saver:
        which Xen saved it, and the version of its images, as for `StreamBuilder.saved_by`.

    Raises
    ------
    ValueError
        where the memory is too small for its tables.
    """
    guest: Guest
    if kind == "pv":
        guest = PvGuest(size_bytes, width, table_share, vcpus, extended, seed)
    else:
        guest = HvmGuest(size_bytes, vcpus, hardware)
    if saver is not None:
        guest.builder.saved_by(*saver)
    records = guest.builder.records
    memory = [i for i, rec in enumerate(records) if rec.type == RecordType.PAGE_DATA]
    with ExitStack() as stack:
        file = stack.enter_context(open(out, "wb")) if isinstance(out, str | PathLike) else out
        writer = _Writer(file, sparse)
        writer.write(guest.builder.headers())
        writer.records(records[: memory[0]])
        total = len(guest.types)
        for start in range(0, total, BATCH):
            writer.page_data(guest, np.arange(start, min(start + BATCH, total)))
        for again in range(1, rounds):
            dirty = np.arange(again % DIRTY_ONE_IN, total, DIRTY_ONE_IN)
            for start in range(0, len(dirty), BATCH):
                writer.page_data(guest, dirty[start : start + BATCH])
        writer.records(records[memory[-1] + 1 :])
    return writer.written


def _bytes(_context: object, _option: object, text: str) -> int:
    suffixes = {"K": 10, "M": 20, "G": 30, "T": 40}
    shift = suffixes.get(text[-1:].upper(), 0)
    try:
        return int(text[:-1] if shift else text) << shift
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a size such as 512M or 4G") from None


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--kind", type=click.Choice(["hvm", "pv"]), default="hvm", show_default=True)
@click.option("--size", "size_bytes", callback=_bytes, default="1G", show_default=True, help="Memory of the guest.")
@click.option("--width", type=click.Choice(["4", "8"]), default="8", show_default=True)
@click.option("--table-share", default=0.02, show_default=True, help="Page tables as a share of all pages.")
@click.option("--vcpus", default=2, show_default=True)
@click.option("--rounds", default=1, show_default=True, help="Passes over memory.")
@click.option("--extended", is_flag=True, help="Set pae_extended_cr3.")
@click.option("--seed", default=0, show_default=True)
@click.option("--sparse", is_flag=True, help="Leave zero pages as holes.")
def main(out: str, width: str, **options: Any) -> None:
    """Write a synthetic stream of a large guest to OUT."""
    with click.open_file(out, "wb") as file:
        try:
            written = write_synthetic(file, width=int(width), **options)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    click.echo(count(written, "byte"), err=True)


if __name__ == "__main__":
    main()
