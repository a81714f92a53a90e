"""What registers of virtual hardware say: facts of the manuals."""

import pytest

from migrate.inspection import hardware
from migrate.inspection.names import names_of, rflags_names, spoken
from streams.wire.hvm_cpu import EventType
from streams.wire.registers import Cr0, Cr4, Efer


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (0x0A9B, "64-bit code, ring 0"),
        (0x0C9B, "32-bit code, ring 0"),
        (0x009B, "16-bit code, ring 0"),
        (0x0AFB, "64-bit code, ring 3"),
        (0x0CF3, "data, ring 3"),
        (0x008B, "system, type 11"),
        (0x0082, "system, type 2"),
        (0x0A1B, "not present"),
    ],
)
def test_the_attributes_of_a_segment(attributes, said):
    assert hardware.segment(attributes) == said


@pytest.mark.parametrize(
    ("base", "mask", "said"),
    [
        (0xE000_0000, 0xF_E000_0800, "0xe0000000..0xffffffff uc"),
        (0x0000_0006, 0xF_8000_0800, "0x0..0x7fffffff wb"),
        (0x0000_0001, 0xFF_FFFF_F800, "0x0..0xfff wc"),
        (0x0000_0003, 0xF_8000_0800, "0x0..0x7fffffff type 3"),
        (0xE000_0000, 0xF_E000_0000, ""),  # not valid
        (0xE000_0000, 0xF_A000_0800, ""),  # more than one range
        (0xE000_0000, 0x0000_0800, ""),  # everything, which no processor takes for a range
    ],
)
def test_the_addresses_of_a_variable_mtrr(base, mask, said):
    assert hardware.mtrr_range(base, mask) == said


@pytest.mark.parametrize("number", range(11))
def test_fixed_mtrrs_follow_one_another_up_to_one_mebibyte(number):
    first, last = (int(part, 16) for part in hardware.mtrr_fixed(number, 0).split()[0].split(".."))
    after = int(hardware.mtrr_fixed(number + 1, 0).split("..")[0], 16) if number < 10 else 1 << 20
    assert (last + 1, first % 0x4000 if number < 3 else first % 0x1000) == (after, 0)


@pytest.mark.parametrize(
    ("value", "divisor"),
    [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1010, 128), (0b1011, 1)],
)
def test_the_divisor_of_an_apic_s_timer(value, divisor):
    assert hardware.lapic_register("timer_divide", value) == f"by {divisor}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lvt_timer", 0x0004_00EF, "vector 239, tsc deadline"),
        ("lvt_timer", 0x0001_0000, "vector 0, masked, one-shot"),
        ("lvt_lint1", 0x0000_0400, "vector 0, nmi"),
        ("svr", 0x0000_00FF, "vector 255"),
        ("svr", 0x0000_11FF, "vector 255, enabled eoi_broadcast_off"),
        ("esr", 0x0000_0060, "send_vector receive_vector"),
        ("icr_low", 0x0008_00FC, "vector 252, to all"),
        ("icr_low", 0x0000_C500, "vector 0, init, assert, level"),
        ("icr_high", 0x0200_0000, "to 0x2"),
        ("tpr", 0x10, ""),
    ],
)
def test_the_registers_of_an_apic(name, value, said):
    assert hardware.lapic_register(name, value) == said


def test_an_event_that_is_not_valid_says_nothing():
    assert hardware.pending_event(0x0000_030E) == ""
    assert hardware.pending_event(0x8000_0202) == "nmi, vector 2"


def test_a_plain_number_of_banks_says_no_more():
    assert hardware.machine_check_caps(2) == ""
    assert hardware.machine_check_caps(0x1002) == "2 banks, bit 12"


def test_bits_and_numbers_without_a_name_go_by_their_number():
    assert names_of(1 << 0 | 1 << 6 | 1 << 31, Cr0) == ("pe", "bit 6", "pg")
    assert names_of(1 << 27 | 1 << 26, Cr4) == ("bit 26", "lass")
    assert names_of(1 << 8 | 1 << 9, Efer) == ("lme", "bit 9")
    assert names_of(0b110, {1: "one"}) == ("one", "bit 2")
    assert (spoken(EventType, 4), spoken(EventType, 7)) == ("software interrupt", "7")
    assert rflags_names(0x3002) == ("iopl 3",)
