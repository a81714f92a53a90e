"""Layouts against the sizes and offsets that Xen's public headers compile to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from struct import error
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.values import NamedTuple
from streams.wire import framing, hvm_names, msrs, registers, vcpu
from streams.wire.constructs import construct_of
from streams.wire.layouts import S64, U8, U16, U32, Layout
from streams.wire.shared_info import SHARED_INFO
from streams.wire.start_info import MAGIC_PREFIX, START_INFO
from streams.wire.vcpu import CONTEXT, EXTENDED, XSAVE_HEADER, cr3_to_pfn, pfn_to_cr3
from streams.wire.views import dtype_of, view
from streams.wire.xstate import FXSAVE

USER_REGS = {4: Layout(vcpu.UserRegs32), 8: Layout(vcpu.UserRegs64)}
SIZES: dict[str, tuple[Layout[Any], int]] = {
    "context 4": (CONTEXT[4], 2800),
    "context 8": (CONTEXT[8], 5168),
    "user_regs 4": (USER_REGS[4], 68),
    "user_regs 8": (USER_REGS[8], 200),
    "trap 4": (Layout(vcpu.Trap32), 8),
    "trap 8": (Layout(vcpu.Trap64), 16),
    "fxsave": (FXSAVE, 512),
    "extended": (EXTENDED, 64),
    "xsave words": (vcpu.XSAVE_WORDS, 16),
    "xsave header": (XSAVE_HEADER, 592),
    "vcpu msr": (vcpu.MSR_ENTRY, 16),
    "shared_info 4": (SHARED_INFO[4], 2344),
    "shared_info 8": (SHARED_INFO[8], 3136),
    "start_info 4": (START_INFO[4], 1112),
    "start_info 8": (START_INFO[8], 1168),
}

# field: (offset, size) at width 4, the same at width 8; None where the width has no such field
CONTEXT_FIELDS: dict[str, tuple[tuple[int, int] | None, tuple[int, int] | None]] = {
    "fpu_ctxt": ((0, 512), (0, 512)),
    "flags": ((512, 4), (512, 8)),
    "user_regs": ((516, 68), (520, 200)),
    "trap_ctxt": ((584, 256 * 8), (720, 256 * 16)),
    "trap_ctxt.1": ((592, 8), (736, 16)),
    "trap_ctxt.0.flags": ((585, 1), (721, 1)),
    "trap_ctxt.0.cs": ((586, 2), (722, 2)),
    "trap_ctxt.0.address": ((588, 4), (728, 8)),
    "ldt_base": ((2632, 4), (4816, 8)),
    "ldt_ents": ((2636, 4), (4824, 8)),
    "gdt_frames": ((2640, 16 * 4), (4832, 16 * 8)),
    "gdt_ents": ((2704, 4), (4960, 8)),
    "kernel_ss": ((2708, 4), (4968, 8)),
    "kernel_sp": ((2712, 4), (4976, 8)),
    "ctrlreg": ((2716, 8 * 4), (4984, 8 * 8)),
    "ctrlreg.0": ((2716, 4), (4984, 8)),
    "ctrlreg.1": ((2720, 4), (4992, 8)),
    "ctrlreg.3": ((2728, 4), (5008, 8)),
    "ctrlreg.4": ((2732, 4), (5016, 8)),
    "debugreg": ((2748, 8 * 4), (5048, 8 * 8)),
    "debugreg.6": ((2772, 4), (5096, 8)),
    "debugreg.7": ((2776, 4), (5104, 8)),
    "event_callback_cs": ((2780, 4), None),
    "event_callback_eip": ((2784, 4), (5112, 8)),
    "failsafe_callback_cs": ((2788, 4), None),
    "failsafe_callback_eip": ((2792, 4), (5120, 8)),
    "syscall_callback_eip": (None, (5128, 8)),
    "vm_assist": ((2796, 4), (5136, 8)),
    "fs_base": (None, (5144, 8)),
    "gs_base_kernel": (None, (5152, 8)),
    "gs_base_user": (None, (5160, 8)),
    "user_regs.edx": ((524, 4), None),
    "user_regs.rdx": (None, (616, 8)),
}
USER_REGS_4 = {
    "ebx": (0, 4),
    "ecx": (4, 4),
    "edx": (8, 4),
    "esi": (12, 4),
    "edi": (16, 4),
    "ebp": (20, 4),
    "eax": (24, 4),
    "error_code": (28, 2),
    "entry_vector": (30, 2),
    "eip": (32, 4),
    "cs": (36, 2),
    "saved_upcall_mask": (38, 1),
    "eflags": (40, 4),
    "esp": (44, 4),
    "ss": (48, 2),
    "es": (52, 2),
    "ds": (56, 2),
    "fs": (60, 2),
    "gs": (64, 2),
}
USER_REGS_8 = {
    "r15": (0, 8),
    "r14": (8, 8),
    "r13": (16, 8),
    "r12": (24, 8),
    "rbp": (32, 8),
    "rbx": (40, 8),
    "r11": (48, 8),
    "r10": (56, 8),
    "r9": (64, 8),
    "r8": (72, 8),
    "rax": (80, 8),
    "rcx": (88, 8),
    "rdx": (96, 8),
    "rsi": (104, 8),
    "rdi": (112, 8),
    "error_code": (120, 4),
    "entry_vector": (124, 4),
    "rip": (128, 8),
    "cs": (136, 2),
    "saved_upcall_mask": (140, 1),
    "rflags": (144, 8),
    "rsp": (152, 8),
    "ss": (160, 2),
    "es": (168, 2),
    "ds": (176, 2),
    "fs": (184, 2),
    "gs": (192, 2),
}
EXTENDED_FIELDS = {
    "vcpu": (0, 4),
    "size": (4, 4),
    "syscall32_callback_eip": (8, 8),
    "sysenter_callback_eip": (16, 8),
    "syscall32_callback_cs": (24, 2),
    "sysenter_callback_cs": (26, 2),
    "syscall32_disables_events": (28, 1),
    "sysenter_disables_events": (29, 1),
    "pad": (30, 2),
    "mcg_cap": (32, 8),
    "mci_ctl2_bank0": (40, 8),
    "mci_ctl2_bank1": (48, 8),
    "mcg_ext_ctl": (56, 8),
}
XSAVE_FIELDS = {
    "xcr0": (0, 8),
    "xcr0_accum": (8, 8),
    "fxsave": (16, 512),
    "xstate_bv": (528, 8),
    "xcomp_bv": (536, 8),
    "reserved": (544, 48),
}
SHARED_INFO_FIELDS: dict[str, tuple[tuple[int, int] | None, tuple[int, int] | None]] = {
    "vcpu_info": ((0, 2048), (0, 2048)),
    "vcpu_info.1": ((64, 64), (64, 64)),
    "vcpu_info.0.evtchn_upcall_pending": ((0, 1), (0, 1)),
    "vcpu_info.0.evtchn_upcall_mask": ((1, 1), (1, 1)),
    "vcpu_info.0.evtchn_pending_sel": ((4, 4), (8, 8)),
    "vcpu_info.0.arch": ((8, 24), (16, 16)),
    "vcpu_info.0.time": ((32, 32), (32, 32)),
    "evtchn_pending": ((2048, 128), (2048, 512)),
    "evtchn_mask": ((2176, 128), (2560, 512)),
    "wc_version": ((2304, 4), (3072, 4)),
    "wc_sec": ((2308, 4), (3076, 4)),
    "wc_nsec": ((2312, 4), (3080, 4)),
    "arch.wc_sec_hi": ((2340, 4), None),
    "wc_sec_hi": (None, (3084, 4)),
    "arch": ((2316, 28), (3088, 48)),
    "arch.max_pfn": ((2316, 4), (3088, 8)),
    "arch.pfn_to_mfn_frame_list_list": ((2320, 4), (3096, 8)),
    "arch.nmi_reason": ((2324, 4), (3104, 8)),
    "arch.p2m_cr3": ((2328, 4), (3112, 8)),
    "arch.p2m_vaddr": ((2332, 4), (3120, 8)),
    "arch.p2m_generation": ((2336, 4), (3128, 8)),
}
START_INFO_FIELDS: dict[str, tuple[tuple[int, int] | None, tuple[int, int] | None]] = {
    "magic": ((0, 32), (0, 32)),
    "nr_pages": ((32, 4), (32, 8)),
    "shared_info": ((36, 4), (40, 8)),
    "flags": ((40, 4), (48, 4)),
    "store_mfn": ((44, 4), (56, 8)),
    "store_evtchn": ((48, 4), (64, 4)),
    "console_mfn": ((52, 4), (72, 8)),
    "console_evtchn": ((56, 4), (80, 4)),
    "pt_base": ((60, 4), (88, 8)),
    "nr_pt_frames": ((64, 4), (96, 8)),
    "mfn_list": ((68, 4), (104, 8)),
    "mod_start": ((72, 4), (112, 8)),
    "mod_len": ((76, 4), (120, 8)),
    "cmd_line": ((80, 1024), (128, 1024)),
    "first_p2m_pfn": ((1104, 4), (1152, 8)),
    "nr_p2m_frames": ((1108, 4), (1160, 8)),
}


def _by_width(name: str, layouts: dict[int, Layout[Any]], table: dict[str, Any]) -> Iterator[Any]:
    for path, places in table.items():
        for width, place in zip((4, 8), places, strict=True):
            if place is not None:
                yield pytest.param(layouts[width], path, *place, id=f"{name}-{width}-{path}")


def _single(name: str, layout: Layout[Any], table: dict[str, tuple[int, int]]) -> Iterator[Any]:
    for path, place in table.items():
        yield pytest.param(layout, path, *place, id=f"{name}-{path}")


FIELDS = [
    *_by_width("context", CONTEXT, CONTEXT_FIELDS),
    *_single("user_regs-4", USER_REGS[4], USER_REGS_4),
    *_single("user_regs-8", USER_REGS[8], USER_REGS_8),
    *_single("extended", EXTENDED, EXTENDED_FIELDS),
    *_single("xsave", XSAVE_HEADER, XSAVE_FIELDS),
    *_single("fxsave", FXSAVE, {"fcw": (0, 2), "mxcsr": (24, 4)}),
    *_by_width("shared_info", SHARED_INFO, SHARED_INFO_FIELDS),
    *_by_width("start_info", START_INFO, START_INFO_FIELDS),
]


def _path(dotted: str) -> list[str | int]:
    return [int(step) if step.isdigit() else step for step in dotted.split(".")]


def _pick(found: Any, path: list[str | int]) -> Any:
    for step in path:
        found = found[step]
    return found


def _random(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).bytes(size))


def _plain(value: Any) -> Any:
    """Structures as dicts and lists of numbers and bytes, whatever read them."""
    if isinstance(value, np.void):
        names = value.dtype.names
        return value.tobytes() if names is None else {name: _plain(value[name]) for name in names}
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name != "_io"}
    return list(map(_plain, value)) if isinstance(value, list | tuple | np.ndarray) else value


# -- sizes and offsets --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_size_is_that_of_the_public_header(name: str) -> None:
    layout, size = SIZES[name]
    assert layout.size == dtype_of(layout).itemsize == construct_of(layout).sizeof() == size


@pytest.mark.parametrize(("layout", "path", "offset", "size"), FIELDS)
def test_field_stands_at_its_offset(layout: Layout[Any], path: str, offset: int, size: int) -> None:
    marked = bytearray(layout.size)
    marked[offset : offset + size] = b"\xff" * size
    assert _pick(view(layout, marked), _path(path)).tobytes() == b"\xff" * size
    assert layout.offset(*_path(path)) == offset


def test_entries_of_hvm_params_and_policies_have_the_sizes_of_the_public_headers() -> None:
    assert (framing.CPUID_LEAF.size, framing.POLICY_MSR.size, framing.HVM_PARAM.size) == (24, 16, 16)


# -- contents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_bytes_pack_back_as_they_were(name: str, data: st.DataObject) -> None:
    layout, size = SIZES[name]
    raw = data.draw(_random(size))
    assert layout.pack(layout.read(raw)) == raw


@pytest.mark.parametrize("name", SIZES)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_numpy_and_construct_read_every_field_alike(name: str, data: st.DataObject) -> None:
    layout, size = SIZES[name]
    raw = data.draw(_random(size))
    parsed = construct_of(layout).parse(raw)
    assert _plain(layout.read(raw)) == _plain(view(layout, raw)) == _plain(parsed)
    assert construct_of(layout).build(parsed) == raw


def test_context_of_a_32_bit_guest_reads_as_a_saver_wrote_it() -> None:
    raw = bytearray(2800)
    raw[512:513] = b"\x25"
    raw[548:554] = bytes.fromhex("000010c019e0")
    raw[2728:2732] = bytes.fromhex("00400000")
    raw[2772:2778] = bytes.fromhex("f00fffff0004")
    context = CONTEXT[4].read(raw)
    flag = vcpu.ContextFlag
    assert flag(context.flags) == flag.I387_VALID | flag.IN_KERNEL | flag.ONLINE
    assert (context.user_regs.eip, context.user_regs.cs) == (0xC010_0000, 0xE019)
    assert cr3_to_pfn(context.ctrlreg[3], 4) == 4
    assert context.debugreg[6:8] == (0xFFFF_0FF0, 0x400)


def test_start_info_names_store_and_console() -> None:
    raw = b"xen-3.0-x86_32p".ljust(32, b"\0") + bytes.fromhex("08000000") + bytes(8)
    raw += bytes.fromhex("02000000010000000300000002000000")
    start = START_INFO[4].read(raw)
    assert start.magic.startswith(MAGIC_PREFIX)
    assert (start.nr_pages, start.store_mfn, start.store_evtchn) == (8, 2, 1)
    assert (start.console_mfn, start.console_evtchn) == (3, 2)


@pytest.mark.parametrize("width", [4, 8])
def test_start_info_register_is_a_user_register(width: int) -> None:
    assert USER_REGS[width].field(vcpu.START_INFO_REGISTER[width]).size == width


@pytest.mark.parametrize(("width", "mask"), [(4, 0x3F), (8, 0x1_0000_003F)])
def test_every_valid_vm_assist_bit_has_a_name(width: int, mask: int) -> None:
    assert vcpu.VM_ASSIST_VALID[width] == mask
    assert {bit for bit in range(64) if mask >> bit & 1} <= vcpu.VM_ASSIST_NAMES.keys()


def test_extended_cr3_bit_goes_by_its_name() -> None:
    assert vcpu.VM_ASSIST_NAMES[vcpu.PAE_EXTENDED_CR3.bit_length() - 1] == "pae_extended_cr3"


def test_hvm_params_are_the_indices_below_39() -> None:
    assert [int(param) for param in hvm_names.HvmParam] == list(range(39))


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (1, "STORE_PFN"),
        (4, "PAE_ENABLED"),
        (5, "IOREQ_PFN"),
        (6, "BUFIOREQ_PFN"),
        (9, "VIRIDIAN"),
        (12, "IDENT_PT"),
        (15, "VM86_TSS"),
        (17, "CONSOLE_PFN"),
        (19, "ACPI_IOPORTS_LOCATION"),
        (27, "PAGING_RING_PFN"),
        (28, "MONITOR_RING_PFN"),
        (29, "SHARING_RING_PFN"),
        (32, "IOREQ_SERVER_PFN"),
        (33, "NR_IOREQ_SERVER_PAGES"),
        (34, "VM_GENERATION_ID_ADDR"),
        (36, "X87_FIP_WIDTH"),
        (37, "VM86_TSS_SIZED"),
        (38, "MCA_CAP"),
    ],
)
def test_params_a_saver_sends_have_their_names(index: int, name: str) -> None:
    assert hvm_names.HvmParam(index).name == name


# -- cr3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pfn", "cr3"),
    [
        (0x5, 0x0000_5000),
        (0xF_FFFF, 0xFFFF_F000),
        (0x10_0000, 0x0000_0001),
        (0x12_3456, 0x2345_6001),
        (0x1FF_FFFF, 0xFFFF_F01F),
    ],
)
def test_32_bit_cr3_is_the_pfn_rotated(pfn: int, cr3: int) -> None:
    assert pfn_to_cr3(pfn, 4) == cr3
    assert cr3_to_pfn(cr3, 4) == pfn


def test_cr3_may_come_from_a_view() -> None:
    raw = bytearray(2800)
    raw[2728:2732] = (0x2345_6001).to_bytes(4, "little")
    assert cr3_to_pfn(view(CONTEXT[4], raw)["ctrlreg"][3], 4) == 0x12_3456


def test_32_bit_cr3_has_no_bits_above_its_width() -> None:
    assert cr3_to_pfn(0x1_0000_5000, 4) == 0x5


@given(pfn=st.integers(0, 2**32 - 1))
def test_every_32_bit_pfn_survives_its_cr3(pfn: int) -> None:
    assert cr3_to_pfn(pfn_to_cr3(pfn, 4), 4) == pfn


@given(cr3=st.integers(0, 2**32 - 1))
def test_every_32_bit_cr3_names_a_pfn_of_its_own(cr3: int) -> None:
    assert pfn_to_cr3(cr3_to_pfn(cr3, 4), 4) == cr3


@given(pfn=st.integers(0, 2**52 - 1), low=st.integers(0, 0xFFF))
def test_64_bit_cr3_ignores_its_low_bits(pfn: int, low: int) -> None:
    assert cr3_to_pfn(pfn_to_cr3(pfn, 8) | low, 8) == pfn


@pytest.mark.parametrize(("pfn", "width"), [(1 << 32, 4), (1 << 52, 8), (-1, 4), (-1, 8)])
def test_no_cr3_names_a_pfn_out_of_range(pfn: int, width: int) -> None:
    with pytest.raises(ValueError, match="no cr3"):
        pfn_to_cr3(pfn, width)


# -- views --------------------------------------------------------------------------------------------


def test_dtype_is_made_once() -> None:
    assert dtype_of(CONTEXT[8]) is dtype_of(CONTEXT[8])


def test_an_array_of_one_is_an_array() -> None:
    layout = Layout(Lone)
    assert view(layout, b"\7\0\0\0")["only"].tolist() == [7]
    assert list(layout.read(b"\7").only) == construct_of(layout).parse(b"\7\0\0\0").only == [7]


@pytest.mark.parametrize("size", [0, 2799])
def test_view_of_a_short_buffer_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="buffer"):
        view(CONTEXT[4], bytes(size))


def test_view_is_no_copy() -> None:
    raw = bytearray(64)
    viewed = view(EXTENDED, raw)
    raw[0] = 7
    assert viewed["vcpu"] == 7


# -- layouts as named tuples --------------------------------------------------------------------------


class Inner(NamedTuple):
    a: U8
    b: U16


class Lone(NamedTuple):
    only: Annotated[tuple[int, ...], 1, "I"]


class Outer(NamedTuple):
    first: U32
    inner: Inner
    pairs: Annotated[tuple[Inner, ...], 2]
    words: Annotated[tuple[int, ...], 3, "H"]
    raw: Annotated[bytes, "5s"]
    last: S64


OUTER = Layout(Outer)
WHOLE = Outer(1, Inner(2, 3), (Inner(4, 5), Inner(6, 7)), (8, 9, 10), b"bytes", -11)


def test_a_layout_packs_without_padding_and_reads_back() -> None:
    raw = OUTER.pack(WHOLE)
    assert raw == b"\1\0\0\0" + b"\2\3\0" + b"\4\5\0\6\7\0" + b"\x08\0\x09\0\x0a\0" + b"bytes" + b"\xf5" + b"\xff" * 7
    assert (OUTER.size, OUTER.read(raw)) == (len(raw), WHOLE)
    assert OUTER.read(memoryview(raw + b"more")) == WHOLE


def test_a_body_that_is_too_short_reads_as_if_zeros_followed() -> None:
    read = OUTER.read(OUTER.pack(WHOLE)[:8])
    assert read == WHOLE._replace(pairs=(Inner(4, 0), Inner(0, 0)), words=(0, 0, 0), raw=bytes(5), last=0)


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        (("first",), 0),
        (("inner", "b"), 5),
        ((), 0),
        (("pairs",), 7),
        (("pairs", 1), 10),
        (("pairs", 1, "b"), 11),
        (("words", 2), 17),
        (("last",), 24),
    ],
)
def test_a_layout_knows_where_its_fields_begin(path: tuple[Any, ...], offset: int) -> None:
    assert OUTER.offset(*path) == offset


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (("none",), KeyError),
        (("inner", "x"), KeyError),
        (("inner", 0), IndexError),
        (("pairs", 2), IndexError),
        (("pairs", -1), IndexError),
        (("pairs", "b"), KeyError),
        (("words", 0, "x"), KeyError),
        (("words", 0, 0), IndexError),
        (("first", "x"), KeyError),
        ((0,), IndexError),
    ],
)
def test_a_layout_has_no_offset_of_what_is_not_in_it(path: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        OUTER.offset(*path)


def test_a_number_that_does_not_fit_cannot_be_packed() -> None:
    with pytest.raises(error, match=r"ubyte|format"):
        OUTER.pack(WHOLE._replace(inner=Inner(256, 0)))


def test_numpy_and_construct_make_the_same_of_a_layout() -> None:
    raw, declaration = OUTER.pack(WHOLE), construct_of(OUTER)
    assert _plain(WHOLE) == _plain(view(OUTER, raw)) == _plain(declaration.parse(raw))
    assert (declaration.sizeof(), dtype_of(OUTER).itemsize) == (32, 32)
    assert construct_of(OUTER, "raw", "last").sizeof() == 19


# -- MSRs, registers, emulators -----------------------------------------------------------------------


def test_msrs_have_the_numbers_of_the_manuals() -> None:
    assert {msr.name: int(msr) for msr in msrs.PV_MSRS} == {
        "SPEC_CTRL": 0x48,
        "INTEL_MISC_FEATURES_ENABLES": 0x140,
        "TSC_AUX": 0xC0000103,
        "AMD64_DR1_ADDRESS_MASK": 0xC0011019,
        "AMD64_DR2_ADDRESS_MASK": 0xC001101A,
        "AMD64_DR3_ADDRESS_MASK": 0xC001101B,
        "AMD64_DR0_ADDRESS_MASK": 0xC0011027,
    }
    assert [int(msr) for msr in msrs.POLICY_MSRS] == [0xCE, 0x10A]
    assert (msrs.msr_name(0xDA0), msrs.msr_name(0x123)) == ("XSS", "0x123")


def test_control_register_bits_have_the_numbers_of_the_manuals() -> None:
    assert registers.Cr0.PG | registers.Cr0.PE == 0x8000_0001
    assert registers.Cr4.PAE | registers.Cr4.PKS | registers.Cr4.CET == 0x0180_0020
    assert registers.Efer.LME | registers.Efer.LMA | registers.Efer.NX == 0xD00
    assert sum(registers.Cr0) == 0xE005_003F  # the mask of Xen's HVM_CR0_GUEST_RESERVED_BITS, inverted
    assert registers.McgCap.CMCI_P | registers.McgCap.TES_P | registers.McgCap.SER_P | 2 == 0x100_0C02


def test_emulators_have_the_ids_of_libxl() -> None:
    assert list(framing.Emulator) == [0, 1, 2]


# -- what is imported ---------------------------------------------------------------------------------


def _libraries(modules: str) -> str:
    code = f"import sys; from streams.wire import {modules}; print(sorted({{'construct', 'numpy'}} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_declarations_need_no_library() -> None:
    modules = "cpu_features, framing, hvm_entries, hvm_names, lapic, msrs, qemu, registers, shared_info, start_info"
    assert _libraries(f"{modules}, vcpu, xstate") == "[]"


def test_what_reads_fields_does_without_construct_and_what_edits_them_without_numpy() -> None:
    assert _libraries("views") == "['numpy']"
    assert _libraries("constructs, hvm") == "['construct']"
