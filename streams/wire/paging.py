"""Page table entries as the processor reads them, and the slots of a table that are Xen's own.

Sources: the processor manuals; `xen/include/asm-x86/config.h` and `public/arch-x86/xen.h` for Xen's slots.
"""

ENTRIES = 512
FRAME_MASK = 0x000F_FFFF_FFFF_F000

P = 1 << 0
RW = 1 << 1
US = 1 << 2
PWT = 1 << 3
PCD = 1 << 4
A = 1 << 5
D = 1 << 6
PSE = PAT = 1 << 7
G = 1 << 8
GNTTAB = 1 << 62  # a debug hypervisor's mark of its own
NX = 1 << 63
HIGH_BITS = 0xFFF << 52

# Xen's own slots, which it neither reads nor keeps.
L4_XEN_SLOTS = slice(256, 272)
PAE_L2_FIRST_XEN_SLOT = 428
PAE_L3_ENTRIES = 4
PAE_XEN_SLOT = 3

PAE_L3_LIMIT = 0x100000  # first frame at 4 GiB
