"""Streams from before Xen 4.6: what they say of themselves.

A PV stream is read to its end, for the guest's size and width, its vcpus, whether it takes PAE roots above 4 GiB, and
which pages those roots (L3 tables) are. Of an HVM stream the first bytes tell all that is told here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.counting import count
from streams.pages import LEVEL_MASK, PIN_BIT, PageType
from streams.values import dataclass, field
from streams.wire.framing import PAGE_SIZE, SHARED_INFO_SIZE
from streams.wire.legacy import (
    CHUNK_KIND,
    CHUNK_SIZE,
    EXTENDED_CONTEXT_SIZE,
    INFO_BLOCK,
    INFO_EXTENDED,
    INFO_VCPU,
    INFO_XSAVE,
    MAP_WORD_SIZE,
    MAX_BATCH,
    MAX_VCPU_ID,
    NOTHING_WORD,
    PFN_MASK,
    TYPE_SHIFT,
    UINT32,
    VCPU_INFO,
    VCPUS_PER_MAP_WORD,
    Chunk,
    LegacyKind,
)
from streams.wire.vcpu import CONTEXT, PAE_EXTENDED_CR3
from streams.wire.views import view

if TYPE_CHECKING:
    from streams.requests import Answer, Request, Taking

_WIDTHS = {layout.size: width for width, layout in CONTEXT.items()}


@dataclass(slots=True)
class LegacyStream:
    """What an old stream says; None for what it does not, or what comes after the place where it stops.

    Attributes
    ----------
    word:
        word size of the toolstack that wrote it, in bytes.
    guest:
        pv or hvm.
    width:
        word size of the guest, in bytes.
    extended_cr3:
        whether the guest takes L3 tables above 4 GiB (`pae_extended_cr3` in the `vcpu` block).
    vcpus:
        how many vcpus are online.
    l3:
        pfns of L3 tables, and whether they are pinned.
    complete:
        whether all of a PV stream was read.
    stopped:
        why reading stopped before that.
    """

    word: int
    guest: str
    p2m_size: int
    width: int | None = None
    extended_cr3: bool | None = None
    vcpus: int | None = None
    l3: dict[int, bool] = field(default_factory=dict)
    complete: bool = False
    stopped: str | None = None


class _StoppedError(Exception):
    """The stream cannot be read further."""


class LegacyReader:
    """Reads a stream behind the bytes it was recognised by.

    Parameters
    ----------
    kind, head:
        what it was recognised as, and the bytes that were read for that.
    take, skip:
        the decoder's ways to ask for bytes, and to pass over them.
    """

    def __init__(
        self,
        kind: LegacyKind,
        head: bytes,
        take: Callable[[int], Taking],
        skip: Callable[[int], Generator[Request, Answer, int]],
    ) -> None:
        self.stream = LegacyStream(kind.word, kind.guest, kind.p2m_size)
        self._head = head
        self._take = take
        self._skip = skip
        self._context_size = 0
        self._extended = False
        self._xsave_size = 0
        self._online = 1

    def run(self) -> Generator[Request, Answer, LegacyStream]:
        """Read to the end of a PV stream; nothing more of an HVM one."""
        if self.stream.guest != "pv":
            return self.stream
        try:
            yield from self._exact(2 * self.stream.word, "its first words")  # the size again, and the marker
            yield from self._extended_info()
            yield from self._p2m_frames()
            yield from self._chunks()
            yield from self._tail()
        except _StoppedError as stopped:
            self.stream.stopped = str(stopped)
        else:
            self.stream.complete = True
        return self.stream

    def _exact(self, n: int, what: str) -> Taking:
        data, self._head = self._head[:n], self._head[n:]
        if len(data) < n:
            data += yield from self._take(n - len(data))
        if len(data) < n:
            raise _StoppedError(f"the input ends in {what}")
        return data

    def _over(self, n: int, what: str) -> Generator[Request, Answer, None]:
        left = n - len(self._head[:n])
        self._head = self._head[n:]
        if left and (yield from self._skip(left)) < left:
            raise _StoppedError(f"the input ends in {what}")

    def _uint32(self, what: str) -> Generator[Request, Answer, int]:
        return int(UINT32.unpack((yield from self._exact(UINT32.size, what)))[0])

    def _extended_info(self) -> Generator[Request, Answer, None]:
        what = "the extended info"
        left = yield from self._uint32(what)
        while left > 0:
            name, size = INFO_BLOCK.unpack((yield from self._exact(INFO_BLOCK.size, what)))
            left -= INFO_BLOCK.size + size
            if name == INFO_VCPU:
                if size not in _WIDTHS:
                    raise _StoppedError(f"a vcpu context of {count(size, 'byte')} is of no known guest")
                self._vcpu((yield from self._exact(size, what)))
            elif name == INFO_EXTENDED:
                self._extended = True
                yield from self._over(size, what)
            elif name == INFO_XSAVE and size >= UINT32.size:
                self._xsave_size = yield from self._uint32(what)
                yield from self._over(size - UINT32.size, what)
            else:
                raise _StoppedError(f"unknown block {name!r} of {count(size, 'byte')} in the extended info")
        if left:
            raise _StoppedError(f"the blocks of the extended info are {count(-left, 'byte')} longer than it is")
        if not self._context_size:
            raise _StoppedError("the extended info has no vcpu context, so the guest's width is unknown")

    def _vcpu(self, context: bytes) -> None:
        width = self.stream.width = _WIDTHS[len(context)]
        self.stream.extended_cr3 = bool(int(view(CONTEXT[width], context)["vm_assist"]) & PAE_EXTENDED_CR3)
        self._context_size = len(context)

    def _p2m_frames(self) -> Generator[Request, Answer, None]:
        assert self.stream.width is not None
        entries_per_page = PAGE_SIZE // self.stream.width
        pages = (self.stream.p2m_size - 1) // entries_per_page + 1
        yield from self._over(pages * self.stream.word, "the list of p2m pages")

    def _chunks(self) -> Generator[Request, Answer, None]:
        while True:
            (kind,) = CHUNK_KIND.unpack((yield from self._exact(CHUNK_KIND.size, "the kind of a chunk")))
            if kind == Chunk.END:
                return
            if kind > 0:
                yield from self._pages(kind)
            elif kind in CHUNK_SIZE:
                yield from self._over(CHUNK_SIZE[kind], f"a chunk {Chunk(kind).name}")
            elif kind == Chunk.VCPU_INFO:
                yield from self._vcpu_info()
            elif kind == Chunk.TOOLSTACK:
                size = yield from self._uint32("a chunk TOOLSTACK")
                yield from self._over(size, "a chunk TOOLSTACK")
            elif kind in Chunk.__members__.values():
                raise _StoppedError(f"a chunk {Chunk(kind).name}, which is not read")
            else:
                raise _StoppedError(f"unknown chunk {kind}")

    def _vcpu_info(self) -> Generator[Request, Answer, None]:
        what = "a chunk VCPU_INFO"
        (highest,) = VCPU_INFO.unpack((yield from self._exact(VCPU_INFO.size, what)))
        if not 0 <= highest <= MAX_VCPU_ID:
            raise _StoppedError(f"vcpu id {highest}; at most {MAX_VCPU_ID}")
        words = highest // VCPUS_PER_MAP_WORD + 1
        raw = yield from self._exact(words * MAP_WORD_SIZE, what)
        self._online = int.from_bytes(raw, "little").bit_count()

    def _pages(self, pages: int) -> Generator[Request, Answer, None]:
        what = f"a batch of {count(pages, 'page')}"
        if pages > MAX_BATCH:
            raise _StoppedError(f"{what}; at most {MAX_BATCH}")
        raw = yield from self._exact(pages * self.stream.word, what)
        words = np.frombuffer(raw, f"<u{self.stream.word}").astype(np.uint64)
        words = words[words != NOTHING_WORD]
        types = (words >> np.uint64(TYPE_SHIFT)) & np.uint64(0xF)
        # Broken, allocate-only and absent pages carry nothing, and leave what is known of a pfn as it is.
        carrying = types < PageType.BROKEN
        self._note_l3((words & np.uint64(PFN_MASK))[carrying].astype(np.int64), types[carrying].astype(np.int64))
        yield from self._over(int(carrying.sum()) * PAGE_SIZE, what)

    def _note_l3(self, pfns: NDArray[np.int64], types: NDArray[np.int64]) -> None:
        known = self.stream.l3
        is_l3 = types & LEVEL_MASK == PageType.L3TAB
        if known:
            for pfn in known.keys() & set(pfns[~is_l3].tolist()):
                del known[pfn]
        known.update(zip(pfns[is_l3].tolist(), (types[is_l3] & PIN_BIT != 0).tolist(), strict=True))

    def _tail(self) -> Generator[Request, Answer, None]:
        unmapped = yield from self._uint32("the number of unmapped pfns")
        yield from self._over(unmapped * self.stream.word, "the list of unmapped pfns")
        self.stream.vcpus = self._online
        for _ in range(self._online):
            what = "the vcpus' contexts"
            yield from self._over(self._context_size, what)
            if self._extended:
                yield from self._over(EXTENDED_CONTEXT_SIZE, what)
            yield from self._over(self._xsave_size, what)
        yield from self._over(SHARED_INFO_SIZE, "shared_info")
