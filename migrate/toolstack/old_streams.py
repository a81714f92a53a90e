"""What can be told of a stream from before Xen 4.6, which is not judged.

Its restore had one thing that today's has not: it moved L3 tables below 4 GiB for guests that do not know better.
Source: libxc's `xc_domain_restore.c` up to 4.5 (`xc_make_page_below_4G`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.rules.declaring import GuestKind
from streams.counting import count

if TYPE_CHECKING:
    from migrate.toolstack.facts import StreamFacts
    from streams.legacy import LegacyStream

# What the restore did with L3 tables that landed above 4 GiB.
MOVED, LEFT, NOT_CONCERNED = "moved", "left", "not concerned"


def high_l3(stream: LegacyStream) -> str | None:
    """What the restore of up to 4.5 did with L3 tables above 4 GiB: one of the words above, None where unknown.

    It looked at the width of the guest and at `pae_extended_cr3` in the `vcpu` block, at the end of the stream.
    """
    if stream.guest != "pv" or stream.width == 8:
        return NOT_CONCERNED
    if stream.width is None or stream.extended_cr3 is None:
        return None
    return LEFT if stream.extended_cr3 else MOVED


def tell(stream: LegacyStream, facts: StreamFacts, what: str) -> str:
    """Fill in the facts, and say in a sentence what this is and why there is no verdict.

    Parameters
    ----------
    what:
        what the stream is, the beginning of the sentence.
    """
    facts.guest = GuestKind(stream.guest)
    facts.width = stream.width
    facts.levels = {4: 3, 8: 4, None: None}[stream.width]
    facts.vcpus = stream.vcpus
    facts.max_pfn = stream.p2m_size - 1
    facts.extended_cr3 = stream.extended_cr3
    facts.legacy = {
        "toolstack_word": stream.word,
        "p2m_size": stream.p2m_size,
        "l3": [{"pfn": pfn, "pinned": pinned} for pfn, pinned in sorted(stream.l3.items())],
        "high_l3": high_l3(stream),
        "complete": stream.complete,
        "stopped": stream.stopped,
    }
    guest = stream.guest.upper()
    if stream.width is not None:
        guest = f"{stream.width * 8}-bit {guest}"
    pfns = count(stream.p2m_size, "pfn", form="#x")
    lines = [f"{what}; a {guest} guest of {pfns}, saved by a {stream.word * 8}-bit toolstack"]
    if stream.complete:
        lines.append(_l3_sentence(stream))
    if stream.stopped:
        lines.append(f"it was not read to its end: {stream.stopped}")
    return "; ".join(lines)


def _l3_sentence(stream: LegacyStream) -> str:
    pinned = sum(stream.l3.values())
    tables = f"{count(len(stream.l3), 'L3 table')}, {pinned} of them pinned"
    high = high_l3(stream)
    if high == MOVED:
        return (
            f"{tables}; pae_extended_cr3 is not enabled, so the restore of its time would have moved all that landed "
            "above 4 GiB below it, and today's, of the converted stream, moves none (see HYP-22)"
        )
    if high == LEFT:
        return f"{tables}; pae_extended_cr3 is enabled, so that they may lie anywhere"
    return f"{tables}, which in a 64-bit guest may lie anywhere"
