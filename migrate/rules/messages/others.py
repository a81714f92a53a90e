"""What xl, libvirt, xenopsd and QEMU write.

Sources: xl's `xl_vmcontrol.c`; libvirt's `libxl_domain.c`; xenopsd's `suspend_image.ml` and `domain.ml`; QEMU's
`migration/savevm.c` and `migration/vmstate.c`.
"""

from __future__ import annotations

from functools import partial

from migrate.rules.messages.declaring import Role, Says, Voice, by_word, message

_xl = partial(message, Voice.XL)
_libvirt = partial(message, Voice.LIBVIRT)
_xenopsd = partial(message, Voice.XENOPSD)
_qemu = partial(message, Voice.QEMU)

XL: tuple[Says, ...] = (
    _xl("File has wrong magic number", rules=("CON-01",), doing="xl reads the header of a save file"),
    _xl("File has wrong byte order", rules=("CON-02",), doing="xl reads the header of a save file"),
    _xl(
        "Savefile has mandatory flag(s) {flags:hex} which are not supported",
        rules=("CON-03",),
        doing="xl reads the header of a save file, with flags {flags}",
    ),
    _xl("Savefile truncated.", rules=("CON-05",), doing="xl reads the optional data of a save file"),
    _xl("Config file not specified and none in save file", rules=("CON-06",), doing="xl looks for the configuration"),
    _xl(
        "file/stream truncated reading {what:text} from",
        rules=by_word("what", ("CON-01", "CON-05"), {"optdata": ("CON-05",), "header": ("CON-01",)}),
        doing="xl reads the {what} of a save file, and it ends",
    ),
    _xl(
        "Failed to parse config: {_:text}",
        "config parsing error near",
        rules=("CON-37",),
        doing="xl reads the configuration, which is not as it should be",
    ),
    _xl("Loading new save file", doing="xl begins with a save file", role=Role.START),
)

LIBVIRT: tuple[Says, ...] = (
    _libvirt(
        "image magic is incorrect",
        "failed to read libxl header",
        "invalid XML length: {length}",
        "failed to read XML",
        "image version is not supported",
        "cannot read domain image",
        rules=("CON-36",),
        doing="libvirt reads the header of a save image",
    ),
    _libvirt("libxenlight failed to restore domain", doing="libxl has given up", role=Role.CONSEQUENCE),
)

XENOPSD: tuple[Says, ...] = (
    _xenopsd(
        "Not a valid signature: {_:gap}", rules=("CON-30",), doing="xenopsd reads the signature of a suspend image"
    ),
    _xenopsd("Invalid_header_type", rules=("CON-31",), doing="xenopsd reads the header of a block of a suspend image"),
    _xenopsd(
        "Of_sexp_error",
        "Sexp.Parse_error",
        rules=("CON-32",),
        doing="xenopsd reads its own record in a suspend image",
    ),
    _xenopsd(
        "QEMU record length in header too large ({length} bytes)",
        rules=("CON-45",),
        doing="xenopsd reads the device model's record of a suspend image: {length} bytes",
    ),
    _xenopsd(
        "qemu save file was truncated",
        rules=("FRM-03", "CON-42"),
        doing="xenopsd reads the device model's record of a suspend image, which ends",
    ),
    _xenopsd(
        "error during resume: {_:gap}Suspend_image_failure",
        rules=("CON-31",),
        doing="xenopsd reads a block of a suspend image that it knows and has no use for",
    ),
    _xenopsd(
        "Well formed, but useless stream",
        rules=("CON-33",),
        doing="xenopsd has read a suspend image to its end",
    ),
    _xenopsd(
        "Conversion script exited with {_:gap}",
        rules=("CON-34",),
        doing="xenopsd has the image converted from the format of before Xen 4.6",
    ),
    _xenopsd(
        "Suspend_image_failure",
        "Domain_restore_failed",
        "Xenguest_failure",
        "Emu_manager_failure",
        doing="xenopsd gives up",
        role=Role.CONSEQUENCE,
    ),
)

QEMU: tuple[Says, ...] = (
    _qemu(
        "Not a migration stream",
        "SaveVM v{version} format is obsolete",
        "Unsupported migration stream version",
        rules=("CON-41",),
        doing="QEMU reads the beginning of its state",
    ),
    _qemu(
        "Unknown savevm section or instance '{section:text}' {instance}",
        rules=("CON-43",),
        doing="QEMU reads its state: section {section}, instance {instance}, is of a device that this guest does not "
        "have",
        decides="The same devices in the same configuration, and a QEMU that has them: `migrate show --against` "
        "compares two "
        "streams.",
    ),
    _qemu(
        "savevm: unsupported version {version} for '{section:text}' v{newest}",
        rules=("CON-43",),
        doing="QEMU reads its state: section {section} in version {version}, and knows {newest} at most",
    ),
    _qemu(
        "Unknown savevm section type {type}",
        "Unknown savevm section {type}",
        rules=("CON-43", "CON-44"),
        doing="QEMU reads its state, and where a section should begin is something else",
        decides="CON-44 if the section before was longer or shorter than this QEMU reads it.",
    ),
    _qemu(
        "Missing section footer for {section:word}",
        "Mismatched section id in footer for {section:word}",
        "error while loading state for instance {instance} of device '{section:text}'",
        "Failed to load {section:word}:{field:word}",
        rules=("CON-44", "CON-43", "CON-42"),
        doing="QEMU reads section {section} of its state, which is not as it expects",
    ),
    _qemu("Unable to read ID string for section", rules=("CON-42",), doing="QEMU reads its state, and it ends"),
    _qemu(
        "Machine type received is",
        "Configuration section missing",
        rules=("CON-43",),
        doing="QEMU reads its state, which is of another machine",
    ),
    _qemu(
        "load of migration failed: Input/output error",
        rules=("CON-42", "CON-44", "CON-43"),
        role=Role.CONSEQUENCE,
        doing="QEMU reads its state, and it ends",
    ),
    _qemu(
        "load of migration failed: Operation not supported",
        rules=("CON-41",),
        role=Role.CONSEQUENCE,
        doing="QEMU reads its state",
    ),
    _qemu(
        "load of migration failed",
        rules=("CON-41", "CON-43", "CON-42", "CON-44"),
        doing="QEMU does not take its state",
        role=Role.CONSEQUENCE,
        decides="The line before this one.",
    ),
    _qemu(
        "-incoming fd:-1: Invalid file descriptor",
        "fd:-1: Invalid file descriptor",
        rules=("CON-23",),
        doing="QEMU is started without a state to load",
    ),
)
