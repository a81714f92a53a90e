"""What can be wrong with the configuration in front of a stream, and between it and the guest in the stream."""

from __future__ import annotations

from migrate.destination import releases
from migrate.rules.declaring import Effect, rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder


def _edited(b: StreamBuilder, part: str, **values: object) -> None:
    """Keys of the configuration of an xl file, set."""
    import json

    b.wrap("xl")
    config = json.loads(b.xl_config)
    config[part] |= values
    b.xl_config = json.dumps(config).encode()


@rule("CON-36", "libvirt-image", Effect.REFUSED, "libvirt: libxlDomainSaveImageOpen")
def libvirt_image(b: StreamBuilder) -> None:
    """A libvirt image is damaged in its header, or ends in its XML.

    What: the file begins like an image of libvirt's Xen driver, but its 16-byte magic is damaged, its version is later
        than 2, the length of the XML is 0, or header or XML are cut off.
    Why: libvirt reads header and XML and looks at all of these before it starts a domain. It takes the numbers in
        its own byte order, so that an image of a machine of the other order has a version far too large.
    Repair: transfer the image again in binary mode; the last bytes of the magic are there to catch other modes.
    Source: libvirt's libxl_domain.c, libxlDomainSaveImageOpen; libxl_conf.h, libxlSavefileHeader.
    """
    b.wrap("libvirt")
    b.libvirt["version"] = 3


@rule("CON-37", "config-refused", Effect.REFUSED, "xl, libxl or libvirt: who parses it")
def config_refused(b: StreamBuilder) -> None:
    """The toolstack refuses the configuration in front of the stream.

    What: the configuration is no JSON of libxl_domain_config, no text of xl.cfg or no XML of a Xen domain, whichever
        its container announces; or it lacks what a domain cannot be made without, such as its type; or its parts
        contradict each other.
    Why: the new domain is made from it before the stream is read. xl passes over JSON that does not parse and goes on
        with an empty configuration, which libxl then refuses: "domain type unspecified".
    Repair: migrate config FILE --set KEY=VALUE -o OUT; or give xl restore a configuration of its own as a file.
    Source: xl_vmcontrol.c, create_domain; libxl_create.c, libxl__domain_create_info_setdefault; libvirt's
        domain_conf.c.
    """
    b.wrap("xl")
    b.xl_config = b'name = "guest"'


@rule("CON-38", "config-guest-type", Effect.REFUSED, "libxc: x86_pv_setup, x86_hvm_setup")
def config_guest_type(b: StreamBuilder) -> None:
    """The configuration makes a domain of another kind than the image is of.

    What: the configuration's type is pv and the image is of an HVM guest, or it is hvm or pvh and the image is of a PV
        guest.
    Why: libxl makes the domain by the configuration alone. libxc compares it with the type in the domain header, and
        refuses to put a guest of one kind into a domain of the other.
    Repair: migrate config FILE --set c_info.type=..., if it is the configuration that is wrong (b_info's type.hvm goes
        with it).
    Source: xg_sr_restore_x86_pv.c, x86_pv_setup; xg_sr_restore_x86_hvm.c, x86_hvm_setup.
    """
    from migrate.building.configuration import libxl_json

    b.wrap("xl")
    b.xl_config = libxl_json("pvh", 1, 1024)


@rule("CON-39", "config-memory", Effect.HYPERCALL, "Xen: populate_physmap", errno="EBUSY")
def config_memory(b: StreamBuilder) -> None:
    """The stream has more pages than the configuration gives the guest.

    What: more pfns need a frame than target memory and 1024 KiB together have pages. Pfns without contents (XTAB,
        BROKEN) need none; those that only a page table names do.
    Why: libxl lets the domain have so much, and no more, while it is restored. libxc asks for a frame when a pfn
        first comes; Xen refuses the one too many: "Failed to populate physmap".
    Repair: migrate config FILE --set b_info.target_memkb=... (and max_memkb), in KiB; in XML memory and currentMemory.
    Source: libxl_dom.c, libxl__build_pre; xg_sr_restore.c, populate_pfns.
    """
    for _ in range(300):
        b.new_page()
    _edited(b, "b_info", target_memkb=64, max_memkb=64)


@rule(
    *("CON-40", "config-traditional", Effect.REFUSED, "libxl: libxl__domain_build_info_setdefault"),
    since=releases.qemu_traditional_gone,
)
def config_traditional(b: StreamBuilder) -> None:
    """The configuration asks for the old device model, which is gone.

    What: device_model_version is qemu_xen_traditional, for a guest of type HVM.
    Why: Xen 4.21 removed it. The word still parses, but libxl has no such device model any more: it refuses the
        configuration, or dies of an assertion (SIGABRT) where bios is set.
    Repair: none for the state of that device model: shut the guest down on the source, and start it with qemu-xen.
    Source: libxl_create.c, libxl__domain_build_info_setdefault; libxl_dm.c.
    """
    b.become_hvm()
    _edited(b, "b_info", device_model_version="qemu_xen_traditional")


@rule("CON-46", "config-of-two-kinds", Effect.SPEC, "nobody")
def config_of_two_kinds(b: StreamBuilder) -> None:
    """The configuration calls the guest by two kinds.

    What: c_info.type and the part of b_info that goes with a type (type.pv, type.hvm, type.pvh) are of different kinds.
    Why: libxl takes one for some decisions and the other for others. What comes of it depends on the two; where it is
        known to fail it is CON-37.
    Repair: migrate config FILE --set c_info.type=... with the kind that the guest is of.
    Source: libxl_create.c; libxl_types.idl.
    """
    b.wrap("xl")
    b.xl_config = b.xl_config.replace(b"type.pv", b"type.pvh")
