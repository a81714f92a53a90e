"""The body of an HVM_CONTEXT record: Xen's saved state of a guest's virtual hardware, entry by entry.

Source: Xen's public `hvm/save.h`, which also fixes the framing: entries follow one another without padding, from
HEADER to END. Reading needs no construct; only `parse` and `build` of an entry import it.
"""

from __future__ import annotations

from collections.abc import Iterator

from streams.values import dataclass, replace
from streams.wire.framing import HVM_SAVE_HEADER, HvmSaveHeader
from streams.wire.hvm_names import SaveType, save_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from construct import Struct


@dataclass(frozen=True, slots=True)
class HvmEntry:
    """One entry of a context.

    Attributes
    ----------
    offset:
        where its header lies, in bytes from the start of the record's body.
    length:
        what the header says; `body` is shorter where the context ends before.
    """

    typecode: int
    instance: int
    length: int
    offset: int
    body: bytes

    @property
    def name(self) -> str:
        """Name of its type, or the number of one that nobody knows."""
        return save_name(self.typecode)

    @property
    def cut(self) -> bool:
        """Whether the context ends before the entry does."""
        return len(self.body) < self.length

    @property
    def layout(self) -> Struct | None:
        """The construct layout of its body; None for a type that nobody knows."""
        from streams.wire.hvm import LAYOUTS, OLD_CPU

        if self.typecode == SaveType.CPU and self.length in OLD_CPU:
            return OLD_CPU[self.length]
        return LAYOUTS.get(self.typecode)

    def read(self) -> Any:
        """The body as the named tuple of its type (`hvm_entries.LAYOUTS`): its newest form, whatever its length.

        A shorter body reads as if zeros followed, as Xen loads it; what a longer one has more is not in it. Raises
        ValueError for a type that nobody knows.
        """
        from streams.wire.hvm_entries import LAYOUTS

        layout = LAYOUTS.get(self.typecode)
        if layout is None:
            raise ValueError(f"no layout is known of entry type {self.typecode}")
        return layout.read(self.body)

    def parse(self) -> Any:
        """The body as a construct Container.

        A shorter body reads as if zeros followed, as Xen loads it; what a longer one has more is not in it.
        Raises ValueError for a type that nobody knows, and for a list of MSRs that is shorter than it claims.
        """
        from construct import ConstructError

        layout = self.layout
        if layout is None:
            raise ValueError(f"no layout is known of entry type {self.typecode}")
        try:
            return layout.parse(self.body.ljust(_least(layout), b"\0"))
        except ConstructError as error:
            raise ValueError(f"{self.name} {self.instance}: the body does not fit its layout") from error

    def build(self, fields: Any) -> HvmEntry:
        """This entry with other fields: those of a Container from `parse`, edited.

        Bytes that the layout does not cover stay; a body of fixed layout keeps its length. Raises ValueError
        where the fields do not fit.
        """
        from construct import ConstructError, SizeofError

        layout = self.layout
        if layout is None:
            raise ValueError(f"no layout is known of entry type {self.typecode}")
        try:
            built: bytes = layout.build(fields)
        except ConstructError as error:
            raise ValueError(f"{self.name} {self.instance}: {error}") from error
        try:
            layout.sizeof()
        except SizeofError:
            if len(self.body) < len(built) == _least(layout) and not any(built[len(self.body) :]):
                built = built[: len(self.body)]  # zeros were read for what it lacks
            return replace(self, body=built, length=len(built))
        return replace(self, body=built[: len(self.body)] + self.body[len(built) :])


def _least(layout: Struct) -> int:
    """How long a body must be to have every field of fixed size."""
    from construct import SizeofError

    size = 0
    for field in layout.subcons:
        try:
            size += field.sizeof()
        except (SizeofError, KeyError, AttributeError):
            return size
    return size


@dataclass(frozen=True, slots=True)
class HvmState:
    """A whole context: its entries, END among them, and the bytes behind them that nobody reads."""

    entries: tuple[HvmEntry, ...]
    rest: bytes = b""

    def of(self, typecode: int) -> tuple[HvmEntry, ...]:
        """The entries of one type, in their order."""
        return tuple(entry for entry in self.entries if entry.typecode == typecode)


def entries(body: bytes) -> Iterator[HvmEntry]:
    """The entries of a context, up to END or to where the bytes run out; one that is cut short is the last."""
    offset, size = 0, HVM_SAVE_HEADER.size
    while offset + size <= len(body):
        header = HvmSaveHeader._make(HVM_SAVE_HEADER.unpack_from(body, offset))
        start = offset + size
        entry = HvmEntry(*header, offset=offset, body=body[start : start + header.length])
        yield entry
        if entry.typecode == SaveType.END or entry.cut:
            return
        offset = start + entry.length


def decode_context(body: bytes) -> HvmState:
    """A context in its entries. Nothing is refused: bytes that make up no entry are the `rest`."""
    found = tuple(entries(body))
    end = found[-1].offset + HVM_SAVE_HEADER.size + len(found[-1].body) if found else 0
    return HvmState(found, body[end:])


def encode_context(state: HvmState) -> bytes:
    """The body that decodes to a context: the inverse of `decode_context`, byte for byte.

    Headers say what the entries say, so that damage is kept; offsets follow from the order.
    """
    packed = (HVM_SAVE_HEADER.pack(e.typecode, e.instance, e.length) + e.body for e in state.entries)
    return b"".join(packed) + state.rest
