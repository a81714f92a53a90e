"""What libxc writes while it reads a stream up to END, and puts the domain together.

`xc: error: …: Internal error` in xl's output and log, the same words in libvirt's and xenopsd's. libxc gives up at the
first fault, so one such line is the cause.

Sources: libxc's `xg_sr_restore.c`, `xg_sr_common.c`, `xg_sr_common_x86.c` and `xg_sr_restore_x86_hvm.c`, 4.6 to 4.22.
"""

from __future__ import annotations

from functools import partial

from migrate.rules.messages.declaring import Facts, Role, Rules, Says, Voice, by_errno, message
from streams.wire.framing import RecordType
from streams.wire.hvm_names import HvmParam, param_name

_libxc = partial(message, Voice.LIBXC)

_PV_RECORDS = frozenset({*range(0x02, 0x08), 0x0C})
_HVM_RECORDS = frozenset({0x09, 0x0A})
_ALL_ONES = 0xFFFF_FFFF
_VALUE_CHECKED = frozenset(
    {
        HvmParam.VIRIDIAN,
        HvmParam.TIMER_MODE,
        HvmParam.ACPI_S_STATE,
        HvmParam.VM86_TSS,
        HvmParam.ACPI_IOPORTS_LOCATION,
        HvmParam.TRIPLE_FAULT_REASON,
        HvmParam.NR_IOREQ_SERVER_PAGES,
        HvmParam.ALTP2M,
        HvmParam.X87_FIP_WIDTH,
        HvmParam.VM86_TSS_SIZED,
        HvmParam.MCA_CAP,
    }
)
"""Parameters of which Xen refuses some values; of others it refuses all, or none."""


def _unhandled(facts: Facts) -> Rules:
    """By the type of a record that nobody handles."""
    kind = facts.number("type")
    if kind in _PV_RECORDS | _HVM_RECORDS:
        return ("FRM-11",)
    special: dict[int, str] = {
        RecordType.TOOLSTACK: "FRM-12",
        RecordType.CHECKPOINT: "FRM-07",
        RecordType.CHECKPOINT_DIRTY_PFN_LIST: "FRM-13",
    }
    return (special.get(kind, "FRM-05"),)


def _param(facts: Facts) -> Rules:
    """By the HVM parameter that Xen refused, and how."""
    if facts.errno == "ENODEV":
        return ("HVM-15",)
    # Of an index Xen gets the lower half.
    if facts.errno == "EINVAL" and facts.number("param") & _ALL_ONES in _VALUE_CHECKED:
        return ("HVM-14", "REC-109")
    return ("REC-109",)


def _policy(facts: Facts) -> Rules:
    """By the errno, and what Xen points to: EINVAL is a comparison with the host, mostly."""
    if facts.errno not in (None, "EINVAL"):
        return ("REC-106",)
    compared = facts.number("leaf") != _ALL_ONES
    return ("REC-113", "REC-106") if compared else ("REC-106", "REC-113")


def _other_kind(facts: Facts) -> Rules:
    return ("HDR-09",) if facts.get("kind") == "Reserved" else ("CON-38", "HDR-09")


_HEADERS = (
    _libxc("Failed to read Image Header from stream", rules=("HDR-01",), doing="libxc reads the image header"),
    _libxc(
        "Invalid marker: Got {marker}",
        rules=("HDR-02",),
        doing="libxc reads the image header; where eight bytes of 0xff belong, it finds {marker}",
        decides="`migrate show` tells what the input is, if it is something else: a file of before Xen 4.6, one that "
        "is "
        "compressed, or a stream that was cut into from the wrong place.",
    ),
    _libxc(
        "Invalid ID: Expected {_}, Got {id}", rules=("HDR-03",), doing="libxc reads the image header; the id is {id}"
    ),
    _libxc(
        "Invalid Version: Expected {_} <= ver <= {_}, Got {version}",
        "Invalid Version: Expected {_}, Got {version}",
        rules=("HDR-04",),
        doing="libxc reads the image header; the version is {version}",
    ),
    _libxc("Unable to handle big endian streams", rules=("HDR-05",), doing="libxc reads the image header"),
    _libxc("Failed to read Domain Header from stream", rules=("HDR-08",), doing="libxc reads the domain header"),
    _libxc(
        "Unable to restore {kind:text} domain into an {domain:text} domain",
        rules=_other_kind,
        doing="libxc compares the domain header, {kind}, with the new domain, {domain}",
        decides="The new domain is made from the configuration (CON-38), the kind is in the domain header (HDR-09): "
        "`migrate config` shows the one, `migrate show --record domain` the other.",
    ),
    _libxc(
        "Invalid page size {size} for {_:word}",
        rules=("HDR-10",),
        doing="libxc reads the domain header; the page size is {size}",
    ),
)

_FRAMING = (
    _libxc(
        "Failed to read Record Header from stream",
        rules=("FRM-08", "FRM-01"),
        doing="libxc reads the header of the next record, and the input ends",
        decides="FRM-08 if it ends between two records, FRM-01 if inside the header. Where a migration broke off, the "
        "sender's log has the reason, not the stream.",
    ),
    _libxc(
        "Failed to read {length} bytes of data for record ({type}, {record:text})",
        rules=("FRM-03",),
        doing="libxc reads the {length} bytes of a record, {record}, and the input ends",
        decides="Where a migration broke off, the sender's log has the reason, not the stream.",
    ),
    _libxc(
        "Record ({type}, {record:text}) length {length} exceeds max ({most})",
        rules=("FRM-02",),
        doing="libxc reads a record header: {record}, {length} bytes, of which it takes {most}",
        decides="A limit of 0x800000 is that of Xen 4.9 and older, which a newer saver may exceed. With 0x8000000, the "
        "header is no header: what stands before it has a wrong length.",
    ),
    _libxc(
        "Unable to allocate {length} bytes for record data ({type}, {record:text})",
        doing="libxc makes room for a record, {record}, and dom0 has no memory left: the stream may be sound",
    ),
    _libxc(
        "Mandatory record {type} ({record:text}) not handled",
        rules=_unhandled,
        doing="libxc reads record type {type}, {record}, which it has no use for in this guest",
        decides="An old libxc does not know what a new one sends: STATIC_DATA_END and the CPU policies exist since "
        "4.14.",
    ),
)

_STATIC_DATA = (
    _libxc(
        "Multiple STATIC_DATA_END records found",
        rules=("ORD-06",),
        doing="libxc reads STATIC_DATA_END, and the static data has ended before",
    ),
    _libxc("No STATIC_DATA_END seen", rules=("ORD-04",), doing="libxc reads memory, and the static data has not ended"),
    _libxc(
        "X86_CPUID_POLICY size {length} should be multiple of {_}",
        rules=("REC-104",),
        doing="libxc reads X86_CPUID_POLICY, {length} bytes",
    ),
    _libxc(
        "X86_MSR_POLICY size {length} should be multiple of {_}",
        rules=("REC-105",),
        doing="libxc reads X86_MSR_POLICY, {length} bytes",
    ),
    _libxc(
        "Failed to set CPUID policy: leaf {leaf:hex}, subleaf {subleaf:hex}, msr {msr:hex}",
        rules=_policy,
        doing="At the end of the static data Xen is given the CPU policy, and refuses leaf {leaf}, subleaf {subleaf}, "
        "MSR {msr} (all ones: not about one of these)",
        decides="REC-106 if no host of that release takes it, REC-113 if this host has too old a processor for it: "
        "`migrate check --host` with what `xen-cpuid -p` prints there.",
        look="policy STREAM",
    ),
    _libxc(
        "Failed to apply CPUID policy",
        rules=("REC-113",),
        doing="The toolstack makes a CPU policy itself, for a stream without one, and Xen refuses it",
    ),
    _libxc("Inferred STATIC_DATA_END record failed", doing="follows from the line before", role=Role.CONSEQUENCE),
    _libxc("static_data_done() callback failed", doing="the toolstack makes a CPU policy itself, and fails"),
)

_PAGE_DATA = (
    _libxc(
        "PAGE_DATA record truncated: length {length}", rules=("REC-01",), doing="libxc reads PAGE_DATA, {length} bytes"
    ),
    _libxc(
        "Expected at least 1 pfn in PAGE_DATA record", rules=("REC-02",), doing="libxc reads PAGE_DATA without a pfn"
    ),
    _libxc(
        "PAGE_DATA record (length {length}) too short to contain {count}",
        rules=("REC-03",),
        doing="libxc reads PAGE_DATA: {length} bytes for {count} pfns",
    ),
    _libxc(
        "pfn {pfn:hex} (index {index}) outside domain maximum",
        rules=("REC-07", "ORD-03"),
        doing="libxc reads PAGE_DATA; its pfn number {index}, {pfn}, is none of the guest's",
        decides="ORD-03 if no X86_PV_P2M_FRAMES comes before this record, REC-07 if it names a smaller guest: the "
        "table "
        "of `migrate show` has the order, and what each names.",
        look="show STREAM --pfn {pfn}",
    ),
    _libxc(
        "Unknown type {type} for pfn {pfn:hex} (index {index})",
        "Invalid type {type} for pfn {pfn:hex} (index {index})",
        rules=("REC-04",),
        doing="libxc reads PAGE_DATA; its pfn number {index}, {pfn}, has type {type}",
        look="show STREAM --pfn {pfn}",
    ),
    _libxc(
        "PAGE_DATA record wrong size: length {length}, expected {header} + {words} + {pages}",
        rules=("REC-05",),
        doing="libxc reads PAGE_DATA: {length} bytes, while {words} bytes of pfns take {pages} bytes of pages",
    ),
    _libxc(
        "Failed to realloc populated bitmap",
        rules=("REC-08",),
        doing="libxc keeps a bit for each page, up to the largest pfn, and cannot for this one",
    ),
    _libxc(
        "Failed to populate physmap",
        "Populate physmap failed for pfn {index}",
        rules=by_errno(("CON-39", "REC-08"), EBUSY=("CON-39", "REC-08"), EINVAL=("REC-08", "CON-39")),
        doing="libxc asks Xen for the frames of a batch of pages, and gets fewer",
        decides='Xen\'s console: "Over-allocation" is CON-39, the configuration allows fewer pages; "Could not '
        'allocate" is a host without free memory, and nothing is wrong with the stream.',
    ),
    _libxc(
        "Failed to populate pfns for batch of {count} pages",
        doing="follows from the line before",
        role=Role.CONSEQUENCE,
    ),
    _libxc(
        "Mapping pfn {pfn:hex} (mfn {mfn:hex}, type {type}) failed with {error}",
        "Unable to map {count} mfns for {_} pages of data",
        doing="libxc maps the frames of a batch of pages, and cannot: a matter of the host, not of the stream",
    ),
    _libxc(
        "Failed to localise pfn {pfn:hex} (type {type})",
        rules=("CON-39", "REC-21", "REC-20", "REC-08"),
        role=Role.CONSEQUENCE,
        doing="libxc puts the new frames into a page table, pfn {pfn}; for entries whose pages were not sent it asks "
        "Xen "
        "for more memory",
        decides="CON-39 if the guest then has more pages than its configuration allows, as the lines before tell.",
        look="show STREAM --pfn {pfn}",
    ),
    _libxc(
        "Bad mfn for L{level}[{slot}] - pte {entry:hex}",
        "PTE truncation detected.{_:gap}L{level}[{slot}] = {entry:hex}",
        rules=("REC-20", "REC-21"),
        doing="libxc puts the new frames into a table of level {level}; slot {slot} holds {entry}",
        decides="REC-20 if the entry's pfn lies beyond the guest's last.",
    ),
    _libxc(
        "verify pfn {pfn:hex} failed (type {type})",
        rules=("XRC-46",),
        doing="A page that is sent again after VERIFY, pfn {pfn}, is not what was sent before; the restore goes on",
        look="show STREAM --pfn {pfn}",
    ),
)

_CHECKPOINTS = (
    _libxc(
        "Found checkpoint in non-checkpointed stream",
        rules=("ORD-19",),
        doing="libxc reads CHECKPOINT, and is not asked to restore a guest of Remus or COLO",
    ),
)

_HARDWARE = (
    _libxc("X86_TSC_INFO record wrong size: length {length}", rules=("REC-101",), doing="libxc reads X86_TSC_INFO"),
    _libxc(
        "Unable to set TSC information",
        rules=("REC-102",),
        doing="libxc hands X86_TSC_INFO to Xen, which refuses the mode",
    ),
    _libxc(
        "HVM_PARAMS record truncated: length {length}, header size {_}",
        "HVM_PARAMS record truncated: header {_}, count {count}, expected len {_}, got {length}",
        "hvm_params record is too short",
        rules=("REC-108",),
        doing="libxc reads HVM_PARAMS",
    ),
    _libxc(
        "set HVM param {param} = {value:hex}",
        rules=_param,
        doing="libxc sets HVM parameter {name} to {value}, as HVM_PARAMS has it, and Xen refuses",
        words=lambda facts: {"name": param_name(facts.number("param") & _ALL_ONES)},
        decides="HVM-14 if the value is the fault, REC-109 if this release lets nobody set the parameter, or the "
        "toolstack has set it to something else before.",
    ),
    _libxc(
        "Failed to set HVM_PARAM_{param:word}",
        doing="libxc sets a parameter of the new domain's own; the stream has no part in it",
    ),
    _libxc(
        "Unable to allocate 0 bytes for hvm context",
        rules=("REC-110",),
        doing="libxc reads HVM_CONTEXT, which is empty",
    ),
    _libxc(
        "Unable to restore HVM context",
        rules=by_errno(
            # Up to Xen 4.15.0 and in the older branches all of them are EPERM.
            (
                *("REC-111", "HVM-01", "HVM-04", "HVM-02", "HVM-05", "ORD-17", "HVM-20", "HVM-06", "HVM-07", "HVM-08"),
                *("HVM-09", "HVM-10", "HVM-11", "HVM-15", "HVM-16", "HVM-17", "HVM-18", "HVM-19"),
            ),
            EINVAL=(
                *("HVM-04", "HVM-01", "HVM-02", "HVM-05", "REC-111", "HVM-06", "HVM-07", "HVM-08", "HVM-09"),
                *("HVM-16", "HVM-17", "HVM-18", "HVM-19", "HVM-20"),
            ),
            ENODATA=("REC-111", "HVM-01", "ORD-17"),
            EDOM=("HVM-17", "HVM-16", "HVM-11"),
            ENXIO=("HVM-11",),
            EOPNOTSUPP=("HVM-06", "HVM-07", "HVM-10"),
            EIO=("HVM-06",),
            ENODEV=("HVM-15",),
            ENOENT=("HVM-02",),
        ),
        doing="At END libxc hands the HVM context to Xen, which refuses it",
        decides='Xen\'s console: a line "HVM restore" names the entry (xl dmesg; release builds have it, too, unless '
        "guest_loglvl is lower than the default).",
    ),
    _libxc(
        "Failed to seed grant table",
        rules=("ORD-18",),
        doing="At END libxc gives the pages of the xenstore and console rings to the grant table",
    ),
)

_COURSE = (
    _libxc(
        "Restore failed ({number} = {_:text})",
        doing="libxc gives up; the line before has the reason",
        role=Role.CONSEQUENCE,
    ),
    _libxc(
        "Unable to write record to stream",
        "Failed to write page data to stream",
        "Save failed ({number} = {_:text})",
        "migration target: Domain creation failed",
        doing="the sender cannot go on: the reason is in what the receiving side writes",
        role=Role.CONSEQUENCE,
    ),
    _libxc(
        "Found {kind:text} domain from Xen {saver:word}",
        "Found {kind:text} domain, converted from legacy stream format",
        doing="libxc begins with a stream",
        role=Role.START,
    ),
    _libxc("xc: info: Restoring domain", doing="libxc begins with the records", role=Role.START),
)

LIBXC: tuple[Says, ...] = (*(*_HEADERS, *_FRAMING, *_STATIC_DATA, *_PAGE_DATA, *_CHECKPOINTS, *_HARDWARE, *_COURSE),)
"""In this order: the first that fits is meant."""
