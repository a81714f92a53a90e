"""What libxc writes of records that PV guests alone have, and at END, when it puts a PV guest together.

Sources: libxc's `xg_sr_restore_x86_pv.c`, 4.6 to 4.22 (`xc_sr_restore_x86_pv.c` up to 4.13).
"""

from __future__ import annotations

from functools import partial

from migrate.rules.messages.declaring import Facts, Rules, Says, Voice, by_errno, message

_libxc = partial(message, Voice.LIBXC)

_RECORDS = (
    _libxc("Already received X86_PV_INFO record", rules=("ORD-01",), doing="libxc reads a second X86_PV_INFO"),
    _libxc("Not yet received X86_PV_INFO record", rules=("ORD-02",), doing="libxc reads P2M_FRAMES or SHARED_INFO"),
    _libxc("X86_PV_INFO record truncated: length {length}", rules=("REC-30",), doing="libxc reads X86_PV_INFO"),
    _libxc(
        "Invalid X86_PV_INFO combination: width {width}, pt_levels {levels}",
        "Unexpected guest width {width}",
        "Unexpected guest levels {levels}",
        "Levels of guest in stream ({levels}) differs with existing domain ({_})",
        "X86_PV_INFO width/pt_levels settings {width}/{levels} mismatch",
        rules=("REC-31",),
        doing="libxc reads X86_PV_INFO",
    ),
    _libxc(
        "Failed to update d{domain} address size to {bits}",
        "Width of guest in stream ({bits} bits) differs with existing domain ({_} bits)",
        rules=("REC-32",),
        doing="libxc reads X86_PV_INFO and has Xen make the domain a {bits}-bit one, which it refuses",
    ),
    _libxc("X86_PV_P2M_FRAMES record truncated: length {length}", rules=("REC-40",), doing="libxc reads P2M_FRAMES"),
    _libxc(
        "End pfn in stream ({end:hex}) exceeds Start ({start:hex})",
        rules=("REC-41",),
        doing="libxc reads P2M_FRAMES, for pfns {start} to {end}",
    ),
    _libxc(
        "X86_PV_P2M_FRAMES record wrong size: start_pfn {start:hex}, end_pfn {end:hex}, length {length}",
        "X86_PV_P2M_FRAMES record wrong size",
        rules=("REC-42",),
        doing="libxc reads P2M_FRAMES",
    ),
    _libxc(
        "X86_PV_VCPU_{record:word} record truncated: length 8, min 9",
        rules=("REC-51",),
        doing="libxc reads an empty X86_PV_VCPU_{record}, which Xen before 4.11 refuses",
    ),
    _libxc(
        "X86_PV_VCPU_{record:word} record truncated: length {length}",
        rules=("REC-50",),
        doing="libxc reads X86_PV_VCPU_{record}, {length} bytes",
    ),
    _libxc(
        "X86_PV_VCPU_{record:word} record vcpu_id ({vcpu}) exceeds domain max ({most})",
        rules=("REC-52",),
        doing="libxc reads X86_PV_VCPU_{record} of vcpu {vcpu}; the new domain's last is vcpu {most}",
    ),
    _libxc(
        "X86_PV_VCPU_BASIC record wrong size: expected {expected}, got {length}",
        rules=("REC-53", "ORD-11"),
        doing="libxc reads X86_PV_VCPU_BASIC, {length} bytes, where {expected} are right for the guest's width",
        decides="ORD-11 if X86_PV_INFO comes later: until then a guest counts as 64-bit (5176 bytes; 2808 for 32-bit).",
    ),
    _libxc(
        "X86_PV_VCPU_EXTENDED record too long: max {most}, got {length}",
        rules=("REC-54",),
        doing="libxc reads X86_PV_VCPU_EXTENDED, {length} bytes",
    ),
    _libxc(
        "X86_PV_VCPU_XSAVE record too short: min {least}, got {length}",
        "X86_PV_VCPU_XSAVE record payload size {length} expected to be a multiple of {_}",
        "X86_PV_VCPU_XSAVE record wrong size",
        rules=("REC-55",),
        doing="libxc reads X86_PV_VCPU_XSAVE",
    ),
    _libxc(
        "X86_PV_VCPU_MSRS record payload size {length} expected to be a multiple of {_}",
        "X86_PV_VCPU_MSRS record wrong size",
        rules=("REC-56",),
        doing="libxc reads X86_PV_VCPU_MSRS",
    ),
    _libxc(
        "SHARED_INFO record wrong size: length {length}",
        rules=("REC-100",),
        doing="libxc reads SHARED_INFO, {length} bytes",
    ),
    _libxc(
        "Failed to map Shared Info at mfn {mfn:hex}",
        "Failed to map Shared Info",
        rules=("HYP-27",),
        doing="libxc reads SHARED_INFO and maps the new domain's shared_info page",
    ),
)

_TABLES = (
    *("HYP-03", "HYP-01", "REC-23", "HYP-13", "HYP-11", "HYP-07", "HYP-06", "HYP-10", "HYP-12"),
    *("HYP-05", "HYP-16", "HYP-17", "HYP-18", "HYP-19", "REC-22", "REC-24"),
)
"""What a page table can be refused for with EINVAL."""
_FIELDS = ("REC-62", "REC-60", "REC-63", "REC-64", "REC-65", "REC-66", "XRC-15")
"""What a vcpu's context can be refused for with EINVAL, apart from its tables."""
# A writable mapping of what must not be written, and a frame that is not the guest's.
_BUSY = ("HYP-02", "HYP-07", "HYP-04", "HYP-06")
_NOT_ALLOWED = ("HYP-07", "HYP-06")


def _context(facts: Facts) -> Rules:
    """By the errno of setvcpucontext, and the vcpu."""
    if facts.errno == "EINVAL" or facts.errno is None:
        # vm_assist is the domain's, and set by vcpu 0 alone.
        fields = _FIELDS if facts.number("vcpu") == 0 else tuple(rule for rule in _FIELDS if rule != "REC-60")
        return (*fields, *_TABLES)
    return {"ERANGE": ("HYP-22",), "EBUSY": _BUSY, "EPERM": _NOT_ALLOWED}.get(facts.errno, ())


_END = (
    _libxc(
        "Sender didn't send vcpu0's basic state",
        rules=("ORD-24",),
        doing="At END libxc builds vcpu 0, and has no X86_PV_VCPU_BASIC for it",
    ),
    _libxc(
        "Start Info pfn {pfn:hex} out of range",
        rules=("XRC-01",),
        doing="At END libxc looks for start_info, pfn {pfn} by vcpu 0's edx",
        look="show STREAM --vcpu 0",
    ),
    _libxc(
        "Start Info pfn {pfn:hex} has bad type {type}",
        rules=("XRC-02",),
        doing="At END libxc looks for start_info, pfn {pfn} by vcpu 0's edx; it was sent as type {type}",
        look="show STREAM --pfn {pfn}",
    ),
    _libxc(
        "Start Info has bad mfn",
        rules=("XRC-03",),
        doing="At END libxc looks for start_info, and the page was never sent",
        look="show STREAM --vcpu 0",
    ),
    _libxc(
        "XenStore pfn {pfn:hex} out of range",
        "XenStore pfn has bad mfn",
        rules=("XRC-04",),
        doing="At END libxc reads start_info, which names the xenstore ring",
    ),
    _libxc(
        "Console pfn {pfn:hex} out of range",
        "Console pfn has bad mfn",
        rules=("XRC-05",),
        doing="At END libxc reads start_info, which names the console ring",
    ),
    _libxc(
        "GDT entry count ({count}) out of range",
        rules=("REC-61",),
        doing="At END libxc builds a vcpu whose GDT has {count} entries",
    ),
    _libxc(
        "GDT frame {frame} (pfn {pfn:hex}) out of range",
        "GDT frame {frame} (pfn {pfn:hex}) has bad type {type}",
        "GDT frame {frame} has bad mfn",
        rules=("XRC-07",),
        doing="At END libxc builds a vcpu and looks for frame {frame} of its GDT",
        look="show STREAM --vcpu all",
    ),
    _libxc(
        "cr3 (pfn {pfn:hex}) out of range",
        rules=("XRC-08",),
        doing="At END libxc builds a vcpu; its cr3 means pfn {pfn}",
        decides="In a 32-bit guest's cr3 the low 12 bits are the highest of the frame: cache bits in there, as bare "
        "hardware has them, make it a page far beyond the guest.",
        look="show STREAM --vcpu all",
    ),
    _libxc(
        "cr3 (pfn {pfn:hex}) has bad type {type}, expected {expected}",
        rules=("XRC-09",),
        doing="At END libxc builds a vcpu; its root, pfn {pfn}, was sent as type {type} instead of {expected}",
        look="show STREAM --pfn {pfn}",
    ),
    _libxc("cr3 has bad mfn", rules=("XRC-10",), doing="At END libxc builds a vcpu whose root was never sent"),
    _libxc(
        "cr1 (pfn {pfn:hex}) out of range",
        "cr1 (pfn {pfn:hex}) has bad type {type}, expected {expected}",
        "cr1 has bad mfn",
        rules=("XRC-12",),
        doing="At END libxc builds a 64-bit vcpu, and looks for the root of its user space",
        look="show STREAM --vcpu all",
    ),
    _libxc(
        "Failed to set vcpu{vcpu}'s basic info",
        rules=_context,
        doing="At END libxc hands the context of vcpu {vcpu} to Xen (setvcpucontext), which refuses it",
        decides="Xen's console, if it is a debug build: a line about a page table, or none. Without one, with "
        "EINVAL, it is a "
        "field of the context: LDT, vm_assist (vcpu 0 only), debug registers or addresses; else the tables under cr3.",
        look="show STREAM --vcpu {vcpu}",
    ),
    _libxc(
        "Failed to set vcpu{vcpu}'s extended info",
        rules=by_errno(
            ("REC-73", "REC-74", "REC-72"),
            EPERM=("REC-74",),
            ESRCH=("REC-70",),
        ),
        doing="At END libxc hands the extended context of vcpu {vcpu} to Xen, which refuses it",
        decides="A machine check capability of another vendor's processors (REC-74) is a line on Xen's console.",
        look="show STREAM --vcpu {vcpu}",
    ),
    _libxc(
        "Failed to set vcpu{vcpu}'s xsave info",
        rules=by_errno(
            ("REC-83", "REC-82", "REC-81", "REC-80"),
            EOPNOTSUPP=("REC-84", "REC-80"),
            EIO=("REC-85",),
        ),
        doing="At END libxc hands the XSAVE state of vcpu {vcpu} to Xen, which refuses it",
        decides="REC-81 if xcr0_accum is 0, REC-82 if the size does not go with it, else REC-83.",
        look="show STREAM --vcpu {vcpu}",
    ),
    _libxc(
        "Failed to set vcpu{vcpu}'s msrs",
        rules=by_errno(("REC-92", "REC-91", "REC-90"), ENXIO=("REC-92",)),
        doing="At END libxc hands the MSRs of vcpu {vcpu} to Xen, which refuses them",
        decides="The number of entries (REC-90), a reserved word (REC-91), or an MSR and its value (REC-92).",
        look="show STREAM --vcpu {vcpu}",
    ),
    _libxc(
        "Failed to pin batch of pagetables",
        "Failed to pin batch of {count} page tables",
        rules=by_errno(_TABLES, ERANGE=("HYP-22",), EBUSY=_BUSY, EPERM=_NOT_ALLOWED),
        doing="At END, with all vcpus set up, libxc pins the page tables, up to 1024 in one call; Xen refuses one",
        decides="Which table and why, only a debug build of Xen tells, on its console. `migrate check` replays the "
        "pins in "
        "the same order.",
        look="show STREAM --tables",
    ),
    _libxc(
        "pfn ({pfn:hex}) for p2m_frame_list[{index}] out of range",
        "pfn ({pfn:hex}) for p2m_frame_list[{index}] has bad type {type}",
        "p2m_frame_list[{index}] has bad mfn",
        rules=("XRC-30",),
        doing="At END, after the pins, libxc writes the new p2m into the pages that P2M_FRAMES lists; number {index} "
        "is none",
    ),
    _libxc(
        "Failed to map p2m frames",
        "Failed to map Start Info at mfn {mfn:hex}",
        doing="libxc maps a page of the new domain, and cannot: a matter of the host, not of the stream",
    ),
)

LIBXC_PV: tuple[Says, ...] = (*_RECORDS, *_END)
"""In this order: the first that fits is meant."""
