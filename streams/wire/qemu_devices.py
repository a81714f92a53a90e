"""What QEMU's devices write into its state: names, versions, and how long their data are.

The format says neither where a section's data end nor what is in them: that is known to each device's description
within QEMU alone. Here is what QEMU's own descriptions (`-dump-vmstate`, and the JSON at the end of a state) say of the
i386 machine, the same in 7.2 and 10.0. A layout is given for the devices that `xl` can give a guest.
"""

from __future__ import annotations

from streams.values import NamedTuple, dataclass


class Counted(NamedTuple):
    """A count of 4 bytes, then so many items."""

    item: int


class Flagged(NamedTuple):
    """A flag of 4 bytes, then so many bytes unless it is zero."""

    length: int


Part = int | str | Counted | Flagged
"""Some bytes, the structure of a name, or what depends on a number in it."""
Layout = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """What QEMU knows of a kind of section.

    Attributes
    ----------
    version, minimum:
        the section versions that QEMU loads, from `minimum` to `version`.
    layouts:
        the data of `version`; several where they depend on the type of the machine, none where they are not known.
    """

    version: int
    minimum: int = 0
    layouts: tuple[Layout, ...] = ()


def _device(version: int, minimum: int, *layout: Part) -> Device:
    return Device(version, minimum, (layout,))


_PCI = 276  # version, 256 bytes of configuration space, four interrupt lines
_PCIE = 4116  # with 4096 bytes of configuration space

_EEPRO100 = (
    *("i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b"),
    *("i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801"),
)
_AT_VERSION_1 = (
    *("usb-redir", "usb-mtp", "u2f-key", "u2f-key-passthru", "ccid-card-passthru"),
    *("virtio-9p", "virtio-balloon", "virtio-crypto", "virtio-fs", "virtio-input", "virtio-mem", "virtio-pmem"),
    *("virtio-rng", "virtio-scsi", "virtio-sound", "virtio-sound-device", "virtio-vhost_scsi"),
    *("vhost-user-blk", "vhost-vdpa-device"),
    *("acpi-erst", "acpi-ged", "ctucan_pci", "gpex_root", "ICH9LPC", "ich9_smb", "imx.usbphy", "iommu-intel"),
    *("ioh-3240-express-root-port", "ipmi-interface-pci-bt", "ipmi-interface-pci-kcs", "ipoctal232", "kvaser_pci"),
    *("mch", "mioe3680_pci", "pckbd-mmio", "pcm3680i_pci", "pcie-root-port", "pflash_cfi01", "pvpanic-pci"),
    *("smbus-eeprom", "smbus-ipmi", "tpci200", "vmclock", "vmcoreinfo"),
    *("xio3130-express-downstream-port", "xio3130-express-upstream-port"),
)
_AT_VERSION_0 = (
    *("usb-audio", "usb-net", "usb-serial", "usb-uas", "usb-wacom"),
    *("virtio-input-host", "virtio-vhost_vsock", "vhost-user-device", "vhost-user-fs", "vhost-user-gpio"),
    *("vhost-user-i2c", "vhost-user-input", "vhost-user-rng", "vhost-user-snd", "vhost-user-vsock"),
    *("amd-iommu", "hv-syndbg", "i82801b11_bridge", "ivshmem-doorbell", "ivshmem-plain", "pci_bridge"),
    *("pcie-pci-bridge", "sysbus-ahci", "uefi-vars-sysbus", "vmbus-bridge"),
)

DEVICES: dict[str, Device] = {
    # the machine
    "timer": _device(2, 1, 24),
    "cpu_common": _device(1, 1, 8),
    "cpu": Device(12, 11, ((1313,), (1713,))),  # of 32-bit and of 64-bit QEMU
    "apic": _device(3, 3, 181),
    "kvm-tpr-opt": _device(1, 1, 144),
    "fw_cfg": _device(2, 1, 6),
    "PCIHost": _device(1, 1, 4),
    "PCIBUS": _device(1, 1, Counted(4)),
    "I440FX": _device(3, 3, _PCI + 1),
    "PIIX3": _device(3, 2, _PCI + 16),
    "PIIX4": Device(3, 2),
    # without SMBus state and hotplug of bridges (xenfv-3.1); with SMBus state (xenfv-4.2); with both (pc)
    "piix4_pm": Device(3, 3, ((_PCI + 36,), (_PCI + 84,), (_PCI + 2132,))),
    "i2c_bus": _device(1, 1, 1),
    "dma": _device(1, 1, 75),
    "i8259": _device(1, 1, 16),
    "i8254": _device(3, 2, 108),
    "ioapic": _device(3, 1, 206),
    "hpet": _device(2, 1, 151),
    "mc146818rtc": _device(3, 1, 245),
    "pcspk": _device(1, 1, 2),
    "port92": _device(1, 1, 1),
    "acpi_build": _device(1, 1, 1),
    "vmgenid": _device(1, 1, 8),
    "globalstate": _device(1, 1, 104),
    # Xen's own
    "platform": _device(4, 4, _PCI + 1),
    "xen-pvdevice": _device(1, 1, _PCI),
    "xen_overlay": Device(1, 1),
    "xen_evtchn": Device(1, 1),
    "xen_gnttab": Device(1, 1),
    "xen_xenstore": Device(1, 1),
    # input, serial and parallel lines
    "pckbd": _device(3, 3, "pckbd"),
    "ps2kbd": _device(3, 2, 284),
    "ps2mouse": _device(2, 2, 291),
    "vmmouse": _device(0, 0, 4105),
    "serial": _device(3, 2, "serial"),
    "pci-serial": _device(1, 1, _PCI, "serial"),
    "pci-serial-multi": Device(1, 1),
    "parallel_isa": _device(1, 1, 12),
    # disks
    "fdc": _device(2, 2, "fdc"),
    "ide": _device(3, 0, _PCI + 38, "ide_bus", "ide_bus", *["ide_drive"] * 4),
    "ich9_ahci": _device(1, 0, _PCI, *["ahci port"] * 6, 28),
    "lsiscsi": _device(1, 0, _PCI + 8413),
    "scsi-disk": Device(1, 1),
    "SCSIDevice": Device(1, 1),
    "pciespscsi": Device(2, 1),
    "megasas": Device(0),
    "megasas-gen2": Device(0),
    "mptsas": Device(0),
    "pvscsi": Device(0),
    "nvme": Device(0),
    "ufs": Device(0),
    "sdhci": Device(1, 1),
    "sd-card": Device(2, 2),
    # displays
    "vga": _device(2, 2, _PCI + 1131),
    "cirrus_vga": _device(2, 2, _PCI + 1594),
    "qxl": _device(21, 21, _PCI + 9559),
    "vmware_vga": Device(0),
    "bochs-display": Device(0),
    "virtio-vga": Device(2, 2),
    "virtio-gpu": Device(1, 1),
    "ramfb-dev": Device(1, 1),
    "i2c-ddc": Device(1),
    # networks
    "rtl8139": _device(5, 3, _PCI + 366),
    "e1000": _device(2, 1, _PCI + 67332),
    "e1000e": _device(1, 1, _PCIE + 131945),
    "igb": Device(1, 1),
    "pcnet": _device(3, 2, _PCI + 4476),
    "ne2000": _device(3, 0, _PCI + 49196),
    "eeprom": _device(20061113, 20061113, 140),
    **dict.fromkeys(_EEPRO100, _device(3, 3, _PCI + 4422)),
    "vmxnet3": Device(1, 1),
    "tulip": Device(0),
    "rocker": Device(0),
    # sound
    "ac97": _device(3, 2, _PCI + 340),
    "es1370": _device(2, 2, _PCI + 80),
    "intel-hda": _device(1, 0, _PCI + 336),
    "hda-audio": _device(2, 0, *["hda-audio-stream"] * 4, 48),
    "sb16": _device(1, 1, 707),
    "gus": _device(2, 2, 1052732),
    "cs4231a": _device(1, 1, 112),
    "audio": Device(1, 1),
    # USB
    "uhci": _device(3, 1, _PCI + 39),
    "ehci": _device(2, 1, _PCI + 100),
    "xhci": _device(1, 0, _PCIE + 1227),
    "xhci-sysbus": Device(1),
    "ohci": Device(1, 1),
    "usb-ptr": _device(1, 1, 298),
    "usb-kbd": _device(1, 1, 129),
    "usb-hub": _device(1, 1, 61),
    "usb-storage": _device(1, 1, 58),
    "usb-host": _device(1, 1, 29),
    "usb-ccid": _device(1, 1, 73080),
    # virtio
    "virtio-net": Device(11, 11),
    "virtio-blk": Device(2, 2),
    "virtio-console": Device(3, 3),
    "virtio-iommu": Device(2, 2),
    "virtio-input-host": Device(0),
    "virtio-vhost_vsock": Device(0),
    "vhost-user-blk": Device(1, 1),
    "vhost-vdpa-device": Device(1, 1),
    **{f"vhost-user-{name}": Device(0) for name in ["vsock", "i2c", "fs", "rng", "gpio", "input", "device", "snd"]},
    # the rest
    "i6300esb_wdt": _device(10000, 1, _PCI + 52),
    "ib700_wdt": _device(0, 0, 8),
    "tpm-crb": Device(0),
    "tpm-tis": Device(0),
    "tpm-emulator": Device(0),
    "ram": Device(4, 4),
    "slirp": Device(4, 1),
    "block": Device(1),
    "dirty-bitmap": Device(1),
    "kvmclock": Device(1, 1),
    "sysbusespscsi": Device(2, 1),
    **dict.fromkeys(_AT_VERSION_1, Device(1, 1)),
    **dict.fromkeys(_AT_VERSION_0, Device(0)),
}
"""By the name of the description: the last part of a section's name, behind the place of the device."""

STRUCTURES: dict[str, Layout] = {
    "pckbd": (4,),
    "serial": (11,),
    "fdc": (539, "fdrive", "fdrive"),
    "fdrive": (3,),
    "ide_bus": (2,),
    "ide_drive": (4, Flagged(512), 20),
    "ahci port": ("ide_bus", "ide_drive", 614),
    "hda-audio-stream": (282,),
}
"""Parts of a device's data that have subsections of their own, which follow them at once."""

SUBSECTIONS: dict[str, Layout] = {
    "apic_sipi": (8,),
    "cpu/poll_control_msr": (8,),
    "e1000/full_mac_state": (131072,),
    "e1000/mit_state": (17,),
    "e1000/tx_tso_state": (17,),
    "fdrive/media_changed": (1,),
    "fdrive/media_rate": (1,),
    "fdrive/perpendicular": (1,),
    "fw_cfg/acpi_mr": (24,),
    "fw_cfg/dma": (8,),
    "hda-audio-stream/buffer": (8224,),
    "hpet/offset": (8,),
    "hpet/rtc_irq_level": (1,),
    "ide_bus/error": (17,),
    "ide_drive/atapi/gesn_state": (2,),
    "ide_drive/tray_state": (2,),
    "mc146818rtc/irq_reinject_on_ack_count": (2,),
    "pckbd/extended_state": (10,),
    "pckbd_outport": (1,),
    "PIIX3/rcr": (1,),
    "piix4_pm/memhp": (4,),
    "ps2kbd/command_reply_queue": (4,),
    "ps2kbd/ledstate": (4,),
    "ps2kbd/need_high_bit": (1,),
    "rtl8139/hotplug_ready": (),
    "serial/fifo_timeout_timer": (8,),
    "serial/poll": (12,),
    "serial/recv_fifo": (24,),
    "serial/thr_ipending": (4,),
    "serial/timeout_ipending": (4,),
    "serial/tsr": (6,),
    "serial/xmit_fifo": (24,),
    "usb-hub/port-timer": (8,),
}
"""The data of subsections, by name: written only where they hold anything but what a fresh device has."""
