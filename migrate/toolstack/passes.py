"""The passes over a guest's memory that a live migration makes."""

from __future__ import annotations

from streams.pages import PfnWords
from streams.values import dataclass
from streams.wire.framing import RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from streams.records import PageData, Record

FIRST = "first"  # all of memory, while the guest runs (or the only pass, where it does not)
DIRTY = "dirty"  # what it has written meanwhile
FINAL = "final"  # what is left once it is paused
CHECKPOINT = "checkpoint"  # what a checkpoint after the first brings
VERIFY = "verify"  # everything once more, to be compared


_NO_WORDS = PfnWords(b"")
# A saver makes a few passes, and a checkpointed one for as long as it runs: later ones are counted with the last.
ROUNDS_TOLD = 1024


@dataclass(slots=True)
class Round:
    """One pass: its kind, pfn words sent, and bytes of PAGE_DATA they took."""

    kind: str
    pages: int = 0
    bytes: int = 0


class RoundCounter:
    """Tells the passes apart, record by record.

    Savers send ascending pfns within a pass (`send_all_pages`, `send_dirty_pages`): a step back begins the next,
    and so does what stands between two passes. The last before END, VERIFY or a checkpoint is the final one; of a
    stream that breaks off before, nobody knows.

    Attributes
    ----------
    rounds:
        the passes so far, in stream order; ROUNDS_TOLD of them at most.
    """

    def __init__(self, rounds: list[Round]) -> None:
        self.rounds = rounds
        self._last_pfn = -1
        self._kind = FIRST

    def take(self, record: Record | PageData) -> None:
        """Count a record."""
        match record.type:
            case RecordType.PAGE_DATA if count := len(words := getattr(record, "words", _NO_WORDS)):
                first = words.pfn(0)
                if not self.rounds or first <= self._last_pfn or self._last_pfn < 0:
                    if len(self.rounds) < ROUNDS_TOLD:
                        self.rounds.append(Round(self._kind))
                    self._kind = DIRTY if self._kind == FIRST else self._kind
                self.rounds[-1].pages += count
                self.rounds[-1].bytes += record.place.length
                self._last_pfn = words.pfn(count - 1)
            case RecordType.END | RecordType.VERIFY | RecordType.CHECKPOINT:
                if self.rounds and self.rounds[-1].kind == DIRTY:
                    self.rounds[-1].kind = FINAL
                self._kind = VERIFY if record.type == RecordType.VERIFY else CHECKPOINT
                self._last_pfn = -1
