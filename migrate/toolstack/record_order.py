"""The law of `rules.order`, applied to records as they come: what must stand before what, and how often.

Sources: `process_record` and the handlers it calls (`xg_sr_restore.c`, `xg_sr_restore_x86_pv.c`, `…_x86_hvm.c`).
"""

from __future__ import annotations

from collections.abc import Mapping

from migrate.rules.declaring import Effect
from migrate.rules.order import LAW, Law
from migrate.toolstack.page_batches import of_pfn_0_alone
from streams.records import PageData, Place, Record
from streams.wire.framing import RECORD_OPTIONAL, RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.toolstack.session import Session

Laws = Mapping[int, Law]
"""Of the records that the restore of a kind of guest handles."""


def obeys(session: Session, law: Law, laws: Laws, record: Record | PageData) -> bool:
    """Whether all came before a record that must, and it does not come once too often."""
    place = record.place
    for need in law.after:
        if need.record == RecordType.STATIC_DATA_END:
            missing = not session.static_data_end
        else:
            missing = not session.seen[need.record] and need.record in laws
        if missing:
            killed = need.signal is not None and of_pfn_0_alone(record)
            effect = Effect.REFUSED if need.signal is not None and not killed else None
            signal = need.signal if killed else None
            session.report(need.rule, f"{place.name} before {need.record.name}", place, effect=effect, signal=signal)
            session.spoil(place)
            return False
    if law.once and _repeated(session, place):
        session.report(law.once, f"a second {place.name}", place)
        return False
    return True


def _repeated(session: Session, place: Place) -> bool:
    inferred = place.type == RecordType.STATIC_DATA_END and session.static_data_end
    return bool(session.seen.get(place.type)) or inferred


def remark(session: Session, law: Law, laws: Laws, place: Place) -> None:
    """Orders and repetitions that libxc takes, and that no saver writes."""
    seen = session.seen
    if seen[place.type]:
        if law.again and not session.facts.checkpoints:
            session.report(law.again.rule, f"{place.name} again: {law.again.effect}", place)
        return
    for late in law.better_after:
        if late.record in laws and not seen[late.record]:
            session.report(late.rule, f"{place.name} before {late.record.name}", place)
    for early in law.better_before:
        if seen[early.record]:
            session.report(early.rule, f"{place.name} after {early.record.name}, as every saver writes them", place)


def unhandled(session: Session, place: Place) -> None:
    """A record that is unknown, or nothing to this kind of guest (None: there is no such kind)."""
    guest = session.facts.guest
    law = LAW.get(place.type)  # type: ignore[call-overload]
    if law is None:
        _unknown(session, place)
    elif guest is not None or not law.guests:
        what = (
            f"a {guest.upper() if guest else ''} restore does not handle it" if law.guests else "no restore handles it"
        )
        session.report(law.stray, f"record {place.name}: {what}", place)


def _unknown(session: Session, place: Place) -> None:
    if not place.type & RECORD_OPTIONAL:
        session.report("FRM-05", f"unknown mandatory record {place.name}", place)
    elif session.facts.checkpoints:
        session.report("FRM-07", f"unknown optional record {place.name} after the first checkpoint", place)
    else:
        session.report("FRM-06", f"unknown optional record {place.name}, skipped", place)
