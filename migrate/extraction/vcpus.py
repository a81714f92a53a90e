"""What XEN_DOMCTL_getvcpucontext would tell of the guest's vcpus, from what the stream carries of them.

Sources: Xen's `arch_get_info_guest`; for what a saver replaces, libxc's `write_one_vcpu_basic`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.extraction.core_layout import CONTEXT_ROOM
from streams.hvm_context import decode_context
from streams.pages import PFN_MASK
from streams.wire.constructs import construct_of
from streams.wire.hvm_names import SaveType
from streams.wire.vcpu import (
    CONTEXT,
    START_INFO_REGISTER,
    USER_ROOT_VALID,
    ContextFlag,
    cr3_to_pfn,
    gdt_frames_used,
    pfn_to_cr3,
)
from streams.wire.views import dtype_of
from streams.wire.xstate import FXSAVE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.guest.memory import PvGuest

# Takes frames as a stream gives them, pfns; gives the machine's, -1 where unknown.
Frames = Callable[["NDArray[np.int64]"], "NDArray[np.int64]"]

_SAME_NAME = (
    *("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
_SELECTORS = ("cs", "ds", "es", "fs", "gs", "ss")
_FPU_USED = 1  # bit of `flags` of a CPU entry
_RING = 3  # bits of a code selector
_EVERY_FRAME = {4: (1 << 32) - 1, 8: PFN_MASK}  # all ones, as far as a cr3 has bits for a frame


def pv_contexts(guest: PvGuest, frames: Frames) -> tuple[list[bytes], int]:
    """Contexts of a PV guest in the order of the vcpus' numbers, with machine frames where a saver puts pfns.

    Those are: the roots, the frames of the GDT, and the frame of start_info in a register of vcpu 0.

    Returns
    -------
    The contexts, and how many frames in them are not known: they are all ones, that of start_info is left.
    """
    width = guest.width
    unknown = 0

    def one(pfn: int) -> int:
        return int(frames(np.array([min(pfn, PFN_MASK)], np.int64))[0])

    def root(pfn: int) -> int:
        nonlocal unknown
        mfn = one(pfn)
        unknown += mfn < 0
        return pfn_to_cr3(mfn & _EVERY_FRAME[width], width)

    found = []
    for number, vcpu in sorted(guest.vcpus.items()):
        if vcpu.basic is None:
            continue
        context: Any = np.frombuffer(vcpu.basic, dtype_of(CONTEXT[width]), 1).copy()[0]
        control = context["ctrlreg"]
        control[3] = root(cr3_to_pfn(control[3], width))
        if width == 8 and int(control[1]) & USER_ROOT_VALID:
            control[1] = root(cr3_to_pfn(control[1], width))
        count = gdt_frames_used(int(context["gdt_ents"]))
        gdt = frames(context["gdt_frames"][:count].astype(np.int64))
        unknown += int((gdt < 0).sum())
        context["gdt_frames"][:count] = gdt.astype(context["gdt_frames"].dtype)
        register = START_INFO_REGISTER[width]
        if number == 0 and (start_info := one(int(context["user_regs"][register]))) >= 0:
            context["user_regs"][register] = start_info
        found.append(context.tobytes().ljust(CONTEXT_ROOM, b"\0"))
    return found, unknown


def hvm_contexts(body: bytes) -> list[bytes]:
    """Contexts of an HVM guest from an HVM_CONTEXT body, in the order of the vcpus' numbers.

    They have what Xen fills in for such a guest: registers, selectors, control and debug registers, the bases of
    fs and gs, and the FPU. There are none for a context whose CPU entries do not fit.
    """
    cpus = {}
    for entry in decode_context(body).of(SaveType.CPU):
        try:
            cpus[entry.instance] = entry.parse()
        except ValueError:
            continue
    return [_hvm_context(cpu) for _, cpu in sorted(cpus.items())]


def _hvm_context(cpu: Any) -> bytes:
    filled: Any = np.zeros(1, dtype_of(CONTEXT[8]))[0]
    registers = filled["user_regs"]
    for name in _SAME_NAME:
        registers[name] = cpu[name]
    for name in _SELECTORS:
        registers[name] = cpu[f"{name}_sel"] & 0xFFFF
    for number in (0, 2, 3, 4):
        filled["ctrlreg"][number] = cpu[f"cr{number}"]
    for number in (0, 1, 2, 3, 6, 7):
        filled["debugreg"][number] = cpu[f"dr{number}"]
    in_kernel = not cpu.cs_sel & _RING
    filled["fs_base"] = cpu.fs_base
    filled["gs_base_kernel" if in_kernel else "gs_base_user"] = cpu.gs_base
    filled["gs_base_user" if in_kernel else "gs_base_kernel"] = cpu.shadow_gs
    # Entries from before Xen 4.7 have no flags: an FPU then always counts as used.
    used = cpu.get("flags", _FPU_USED) & _FPU_USED
    filled["fpu_ctxt"] = construct_of(FXSAVE).build(cpu.fpu_regs)
    filled["flags"] = ContextFlag.ONLINE | (ContextFlag.I387_VALID if used else 0)
    return bytes(filled.tobytes())
