"""Numbers of things, in words."""

import pytest

from migrate.counting import count, memory_size


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 KiB"),
        (512, "0.5 KiB"),
        (4096, "4 KiB"),
        ((1 << 20) - 4096, "1020 KiB"),
        (1 << 20, "1 MiB"),
        (8 << 20, "8 MiB"),
        ((8 << 20) + (100 << 10), "8.1 MiB"),
        (3 << 29, "1.5 GiB"),
        (128 << 30, "128 GiB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(number, told):
    assert memory_size(number) == told


def test_one_is_told_apart_from_many():
    assert [count(number, "finding") for number in (0, 1, 2)] == ["0 findings", "1 finding", "2 findings"]
