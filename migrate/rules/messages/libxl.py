"""What libxl writes: of its own records, of the configuration, and of what it started.

`libxl: error: libxl_….c:LINE:FUNCTION: …` in xl's output, and in libvirt's libxl-driver.log.

Sources: libxl's `libxl_stream_read.c`, `libxl_dom_save.c`, `libxl_create.c`, `libxl_dm.c`, `libxl_json.c`,
`libxl_save_callout.c`, 4.6 to 4.22.
"""

from __future__ import annotations

from functools import partial

from migrate.rules.messages.declaring import Role, Says, Voice, message

_libxl = partial(message, Voice.LIBXL)

_RECORDS = (
    _libxl(
        "Invalid ident: expected {_}, got {ident:hex}",
        rules=("CON-08", "CON-07"),
        doing="libxl reads the header of its stream; where LibxlFmt belongs, it finds {ident}",
        decides="CON-07 if something else begins there, a libxc image for one; CON-08 if a few bits are wrong.",
    ),
    _libxl(
        "Unexpected Version: expected {_}, got {version}",
        rules=("CON-09",),
        doing="libxl reads the header of its stream; the version is {version}",
    ),
    _libxl(
        "stream_header_done: Unable to handle big endian streams",
        "libxl_stream_read{_:gap}Unable to handle big endian streams",
        rules=("CON-10",),
        doing="libxl reads the header of its stream",
    ),
    _libxl(
        "Unrecognised record {type:hex}", rules=("CON-12",), doing="libxl reads a record of its own, of type {type}"
    ),
    _libxl(
        "Received a xenstore emulator record when none was expected",
        "Received an emulator context record when none was expected",
        rules=("CON-13",),
        doing="libxl reads a record of the device model; by the configuration the guest has none",
    ),
    _libxl(
        "Emulator xenstore data record too short to contain header",
        "Emulator record too short to contain header",
        rules=("CON-14",),
        doing="libxl reads a record of the device model",
    ),
    _libxl(
        "{what:word} in xenstore data not NUL terminated",
        "empty key found in xenstore data",
        "Key in xenstore data not relative",
        rules=("CON-16",),
        doing="libxl reads the keys in xenstore of the device model",
    ),
    _libxl("Unexpected CHECKPOINT_END record in stream", rules=("CON-18",), doing="libxl reads CHECKPOINT_END"),
    _libxl("Unexpected CHECKPOINT_STATE record in stream", rules=("CON-19",), doing="libxl reads CHECKPOINT_STATE"),
    _libxl(
        "during copy of restore v2 stream",
        rules=("FRM-03", "FRM-01", "CON-08"),
        doing="libxl reads its part of the stream, which ends or cannot be read",
    ),
    _libxl(
        "Failed to start the legacy stream conversion helper",
        "conversion helper {_:gap}exited with error status {status}",
        "convert-legacy-stream: Error",
        rules=("CON-34",),
        doing="libxl has the stream converted from the format of before Xen 4.6, as its header says",
    ),
    _libxl(
        "COLO only supports HVM, unable to restore domain",
        doing="COLO is asked for, with a guest that is not HVM: no matter of the stream",
    ),
)

_CONFIGURATION = (
    _libxl(
        "unable to convert libxl__json_object to libxl_domain_config",
        "yajl error: {_:gap}parse error",
        "unable to parse JSON for libxl_domain_config",
        rules=("CON-37",),
        doing="libxl reads the configuration in front of the stream, which is JSON that it does not take",
    ),
    _libxl(
        "domain type unspecified",
        rules=("CON-37",),
        doing="libxl checks the configuration, which names no kind of guest",
    ),
    _libxl(
        "unknown device model version",
        rules=("CON-40", "CON-37"),
        doing="libxl checks the configuration, and does not know its device model",
    ),
    _libxl(
        "qemu-xen does not support bios={bios:word}",
        "does not support bios={bios:word}",
        "videoram must be at least {least} MB for",
        "Couldn't set HVM_PARAM_{param:word}",
        rules=("CON-37",),
        doing="libxl makes the domain as the configuration says, and it cannot be made",
    ),
    _libxl(
        "domain creation fail",
        rules=("HYP-31", "HYP-30"),
        doing="libxl asks Xen for the new domain, and Xen refuses it: the stream is not read yet",
        decides="`xl info`: HYP-31 if virt_caps lacks hvm, HYP-30 if it lacks pv.",
    ),
)

_STATE = ("CON-41", "CON-43", "CON-42", "CON-23", "CON-44")
"""What QEMU can have against its own state."""

_HELPERS = (
    _libxl(
        "save/restore helper {_:gap}died due to fatal signal Aborted",
        "Assertion `pfn <= ctx->x86.pv.max_pfn' failed",
        rules=("REC-20", "ORD-03"),
        doing="libxc asks for the frame of a pfn that the guest does not have, and aborts itself",
        decides="REC-20 if a page-table entry names the pfn, ORD-03 if pages come before X86_PV_P2M_FRAMES.",
        look="show STREAM --tables",
    ),
    _libxl(
        "save/restore helper {_:gap}died due to fatal signal Segmentation fault",
        rules=("REC-43", "ORD-03"),
        doing="libxc writes where it has no memory, and dies",
        decides="REC-43 if the first X86_PV_P2M_FRAMES ends at pfn 0, ORD-03 if pages come before it.",
    ),
    message(
        Voice.KERNEL,
        "libxl-save-help{_:gap}: segfault at {_}",
        rules=("REC-43", "ORD-03"),
        doing="libxc writes where it has no memory, and dies",
        decides="REC-43 if the first X86_PV_P2M_FRAMES ends at pfn 0, ORD-03 if pages come before it.",
    ),
    message(
        Voice.KERNEL,
        "xl[{_}]: segfault at {_}",
        rules=("CON-08", "CON-09", "CON-10"),
        doing="xl dies after libxl has refused the header of its stream",
        decides="The line that xl printed before it died.",
    ),
    _libxl(
        "device model: spawn failed (rc=-{rc})",
        rules=_STATE,
        doing="libxl starts QEMU, which ends at once: either it does not take its own state out of the stream, or "
        "it lacks what it needs on this host, such as a bridge, a disk or an option that it knows",
        decides="QEMU's own words, in /var/log/xen/qemu-dm-NAME.log: of its state, or of this host, and then the "
        "stream is not to blame.",
    ),
    _libxl(
        "device model did not start: -{rc}",
        "Device Model already exited",
        "Post DM startup configs failed",
        rules=_STATE,
        doing="follows from QEMU's end",
        role=Role.CONSEQUENCE,
    ),
)

_COURSE = (
    _libxl("libxl__xc_domain_restore_done: restoring domain", doing="libxc has given up", role=Role.CONSEQUENCE),
    _libxl(
        "Domain {domain}:cannot (re-)build domain: -{rc}",
        "cannot (re-)build domain: -{rc}",
        doing="the restore is given up",
        role=Role.CONSEQUENCE,
    ),
    _libxl(
        "save/restore helper {_:gap}exited with error status {status}",
        doing="libxc has given up",
        role=Role.CONSEQUENCE,
    ),
)

LIBXL: tuple[Says, ...] = (*_RECORDS, *_CONFIGURATION, *_HELPERS, *_COURSE)
"""In this order: the first that fits is meant."""
