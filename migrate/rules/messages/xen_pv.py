"""What Xen prints on its console while a PV guest is put together: `xl dmesg`, a serial line, /var/log/xen/console.

Lines about page tables come from debug builds alone, several for one fault, the innermost first: a frame of the wrong
type, the table that refers to it, the table above, the call. One alone names the rule; the others agree.

Sources: Xen's `arch/x86/mm.c`, `arch/x86/pv/`, `common/page_alloc.c`, `common/memory.c`, 4.6 to 4.22.
"""

from __future__ import annotations

from functools import partial

from migrate.rules.messages.declaring import Facts, Role, Rules, Says, Voice, message

_xen = partial(message, Voice.XEN)

# A frame's type, in the three highest bits of type_info (up to 4.1 in the four highest); further down, whether an L2
# holds Xen's own mappings.
_TYPE_SHIFT = 61
_XEN_L2 = 1 << 57
_L1, _L2, _L3, _L4, _SEGMENTS, _WRITABLE = 1, 2, 3, 4, 5, 7
_NAMES = {_L1: "an L1 table", _L2: "an L2 table", _L3: "an L3 table", _L4: "an L4 table", _SEGMENTS: "a GDT page"}
_NAMES |= {_WRITABLE: "a writable page", 0: "nothing", 6: "a shared page"}
# Flags of an entry as Xen counts them: bits 0 to 11, and 52 to 63 above.
_PSE = 0x80

_ANY_TABLE = (
    *("HYP-03", "HYP-01", "HYP-02", "REC-23", "HYP-07", "HYP-06", "HYP-04", "HYP-13", "HYP-11", "HYP-22", "HYP-10"),
    *("HYP-12", "HYP-05", "HYP-16", "HYP-17", "HYP-18", "HYP-19", "REC-22", "REC-24"),
)
_LINEAR = ("HYP-17", "HYP-01", "HYP-18", "HYP-03", "HYP-13", "HYP-11", "HYP-06", "HYP-07", "REC-22", "REC-23", "REC-24")
"""Xen tries an entry as a linear one whenever its target is not of the level below, whatever the reason."""


def _type_of(facts: Facts, name: str) -> int:
    return facts.number(name) >> _TYPE_SHIFT


def _conflict(facts: Facts) -> Rules:
    """By the type that a frame has, and the one that it should get."""
    held, wanted = _type_of(facts, "saw"), _type_of(facts, "wanted")
    if wanted == _WRITABLE:
        return ("HYP-04", "HYP-02") if held == _SEGMENTS else ("HYP-02",)
    if held == _WRITABLE:
        return ("HYP-04", "HYP-03") if wanted == _SEGMENTS else ("HYP-03",)
    if held == wanted == _L2:
        # One of the two is the L2 of slot 3.
        return ("HYP-13", "HYP-11") if facts.number("saw") & _XEN_L2 else ("HYP-11", "HYP-13")
    if held == wanted + 1 and held < _SEGMENTS:
        return ("HYP-01", "HYP-17", "HYP-18")
    return ("HYP-01", "HYP-18")


def _flags(facts: Facts) -> Rules:
    """By the level of an entry, and the flags that it should not have."""
    level, flags = facts.number("level"), facts.number("flags")
    if level == 1:
        return ("REC-23", "HYP-06")
    if flags & _PSE:
        return ("REC-22", "REC-24", "HYP-06") if level == 3 else ("REC-22", "HYP-06")
    return ("REC-24", "REC-23", "HYP-06") if level == 3 else ("REC-23", "HYP-06")


def _by_call(facts: Facts) -> Rules:
    """Of all that a table can be refused for, what goes with the errno; the old form has none."""
    busy, foreign, high = ("HYP-02", "HYP-07", "HYP-04", "HYP-06"), ("HYP-07", "HYP-06"), ("HYP-22",)
    of = {"EBUSY": busy, "EPERM": foreign, "ERANGE": high}
    if facts.errno == "EINVAL":
        return ("HYP-01", *(rule for rule in _ANY_TABLE if rule not in ("HYP-01", "HYP-02", "HYP-04", "HYP-22")))
    return of.get(facts.errno or "", _ANY_TABLE)


def _described(facts: Facts) -> dict[str, str]:
    """The types of a conflict, in words."""
    return {f"{name}_words": _NAMES.get(_type_of(facts, name), "?") for name in ("saw", "wanted")}


_TABLES = (
    _xen(
        "PAE pgd must be below 4GB ({mfn:hex} >= 0x100000)",
        rules=("HYP-22",),
        doing="Xen takes an L3 table of a 32-bit guest, which lies on frame {mfn}, above 4 GiB",
    ),
    _xen("PAE L3 3rd slot is empty", rules=("HYP-10",), doing="Xen takes an L3 table of a 32-bit guest"),
    _xen("PAE L3 3rd slot is shared", rules=("HYP-12",), doing="Xen takes an L3 table of a 32-bit guest"),
    _xen("mfn {mfn:hex} already pinned", rules=("HYP-19",), doing="Xen pins a table, on frame {mfn}"),
    _xen(
        "Bad type (saw {saw:hex} != exp {wanted:hex}) for mfn {mfn:hex} (pfn {pfn:hex})",
        rules=_conflict,
        doing="Xen needs pfn {pfn} as {wanted_words}; it is {saw_words} already",
        decides="What refers to the page, and in which order: `migrate check` prints the chain of tables.",
        look="show STREAM --pfn {pfn}",
        words=_described,
    ),
    _xen(
        "Bad L{level} flags {flags:hex}",
        rules=_flags,
        doing="Xen takes a table of level {level}, and an entry has flags that it may not have: {flags} (bits 12 and "
        "up "
        "are bits 52 and up of the entry)",
        decides="HYP-06 if the page is no table at all, but data.",
    ),
    _xen(
        "Attempt to create linear p.t. (feature disabled)",
        "Attempt to create linear pagetable (feature disabled)",
        rules=("HYP-16",),
        doing="Xen takes a table with an entry that refers to a table of its own level",
    ),
    _xen(
        "Attempt to create linear p.t. with write perms",
        rules=_LINEAR,
        doing="Xen takes a writable entry whose target is not of the level below, and is no linear page table either",
        decides="If no line names a conflict of types, the entry is meant as a linear one.",
    ),
    _xen(
        "non-privileged attempt to map MMIO space {mfn:hex}",
        rules=("HYP-07", "HYP-06"),
        doing="Xen takes an L1 table, and an entry names frame {mfn}, which is no memory",
        decides="HYP-07 if the page was a table and lost its type, so that it still names the source's frames; "
        "HYP-06 if it "
        "is data.",
    ),
    _xen(
        "Could not get page type PGT_writable_page",
        "Error getting mfn {mfn:hex} (pfn {pfn:hex}) from L1 entry {entry:hex}",
        rules=("HYP-02", "HYP-07", "HYP-04", "HYP-06"),
        doing="Xen takes an L1 table, and cannot map one of its entries",
        decides="HYP-02 if the entry maps a page table writable, HYP-04 a GDT page; HYP-07 if the frame is not the "
        "guest's.",
    ),
    _xen(
        "but real_pg_owner d{_:word}",
        "Error mfn {mfn:hex}: rd={_:word}",
        "Error pfn {mfn:hex}: rd={_:word}",
        rules=("HYP-07", "HYP-06"),
        doing="Xen takes a table, and an entry names a frame of another domain",
    ),
    _xen(
        "L1TF-vulnerable L{level}e {entry:hex} - {action:word}",
        rules=("REC-29",),
        doing="Xen takes a table of level {level} with a non-present entry, {entry}, on a processor with L1TF: "
        "{action}",
    ),
    _xen(
        "Failure -{error} in promote_l{level}_table: slot {slot}",
        "Failure in alloc_l{level}_table: {_:word} {slot}",
        rules=_by_call,
        doing="Xen takes a table of level {level}, and gives up at slot {slot}",
    ),
    _xen(
        "Error while validating mfn {mfn:hex} (pfn {pfn:hex}) for type {wanted:hex}",
        "Error while validating pfn {mfn:hex} for type {wanted:hex}",
        rules=_ANY_TABLE,
        doing="Xen gives up on a table, on frame {mfn}",
    ),
    _xen(
        "Error -{error} while pinning mfn {mfn:hex}",
        "Error while pinning mfn {mfn:hex}",
        rules=_by_call,
        doing="Xen gives up on a pin, of the table on frame {mfn}",
    ),
)

_OTHERS = (
    _xen("Xen version {release:word} (", doing="Xen starts", role=Role.FACT),
    _xen(
        "PV restore: unsupported MCA capabilities {caps:hex} for {_:word}",
        rules=("REC-74",),
        doing="Xen sets a vcpu's machine check capabilities, {caps}, which it does not take",
    ),
    _xen(
        "Over-allocation for domain {domain}",
        "Over-allocation for d{domain}",
        rules=("CON-39",),
        doing="Xen is asked for more memory than the domain may have",
        role=Role.HINT,
    ),
    _xen(
        "Could not allocate order={order} extent: id={domain}",
        rules=("CON-39",),
        doing="Xen is asked for memory for domain {domain}, and gives less",
        role=Role.HINT,
        decides="With no line of over-allocation, the host has no memory left: nothing is wrong with the stream.",
    ),
    _xen(
        "PV support not available", rules=("HYP-30",), doing="Xen is asked for a PV domain, which this host cannot run"
    ),
    _xen(
        "HVM support not available",
        "HVM requested but not available",
        rules=("HYP-31",),
        doing="Xen is asked for an HVM domain, which this host cannot run",
    ),
)


XEN_PV: tuple[Says, ...] = (*_TABLES, *_OTHERS)
"""In this order: the first that fits is meant."""
