"""A live migration, looked at page by page: what was sent again, and what was put off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from migrate.guest.memory import room_for
from migrate.inspection.names import by_type_name
from migrate.toolstack.passes import VERIFY, Round
from migrate.xen.entries import IS_TABLE
from streams.pages import TYPES, PageType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.inspection.reading import Inspection

_CONTENTLESS = (PageType.XTAB, PageType.BROKEN)


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over the guest's memory: what `Round` tells, and how many words of each page type it sent."""

    round: Round
    types: dict[str, int]


@dataclass(frozen=True, slots=True)
class Live:
    """What the passes add up to.

    Attributes
    ----------
    passes:
        in stream order.
    times_sent:
        how many pages came with contents so many times, by that number; a VERIFY pass does not count.
    put_off:
        pages that were announced without contents (XTAB) and came as page tables later: the saver met entries
        that it could not translate while the guest was changing them, and tried again (`write_batch`).
    never_came:
        pages whose last word is XTAB or BROKEN although earlier ones carried contents. They keep what was sent
        first: what the guest wrote after that is lost.
    too_sparse:
        a pfn that lies too far out to count the pages by; the three above are then empty.
    """

    passes: list[Pass]
    times_sent: dict[int, int]
    put_off: NDArray[np.int64]
    never_came: NDArray[np.int64]
    too_sparse: int | None = None


def live(inspection: Inspection) -> Live:
    """Go over all pfn words of a stream once more, and count."""
    rounds = inspection.log.rounds
    types = np.zeros((len(rounds), TYPES), np.int64)
    sent = np.zeros(0, np.uint16)
    waiting = np.zeros(0, np.bool_)  # the last word came without contents
    put_off = np.zeros(0, np.bool_)
    named, too_sparse = 0, None
    for entry, words in inspection.words():
        if entry.round is None or not len(words):
            continue
        types[entry.round] += np.bincount(words.types, minlength=TYPES)
        named += len(words)
        if rounds[entry.round].kind == VERIFY or too_sparse is not None:
            continue
        highest = int(words.pfns.max())
        if highest >= room_for(named):
            too_sparse = highest
            continue
        if highest >= len(sent):
            room = max(highest + 1, 2 * len(sent), 1024) - len(sent)
            sent, waiting, put_off = (np.concatenate([a, np.zeros(room, a.dtype)]) for a in (sent, waiting, put_off))
        full = words.pfns[words.has_data]
        announced = words.pfns[np.isin(words.types, _CONTENTLESS)]
        np.add.at(sent, full[sent[full] < np.iinfo(sent.dtype).max], 1)
        tables = words.pfns[IS_TABLE[words.types]]
        put_off[tables] |= waiting[tables]
        waiting[full] = False
        waiting[announced] = True
    passes = [Pass(done, by_type_name(row)) for done, row in zip(rounds, types, strict=True)]
    if too_sparse is not None:
        none = np.zeros(0, np.int64)
        return Live(passes, {}, none, none, too_sparse)
    counts = np.bincount(sent) if len(sent) else np.zeros(1, np.int64)
    times = {n: int(pages) for n, pages in enumerate(counts) if n and pages}
    return Live(passes, times, np.flatnonzero(put_off), np.flatnonzero(waiting & (sent > 0)))
