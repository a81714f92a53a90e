"""A limit of bytes per second, by a clock that does not run."""

import pytest

from streams.pace import Pace


class Clock:
    """Time goes on where somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


def passed(pace, clock, size, piece=1 << 20):
    """The seconds that so many bytes take."""
    before = clock.now
    while size:
        some = pace.allowed(min(size, piece))
        assert 0 < some <= size
        pace.gone(some)
        size -= some
    return clock.now - before


@pytest.mark.parametrize("rate", [1, 7, 1000, 10 << 20])
def test_bytes_take_their_time(rate):
    clock = Clock()
    pace = Pace(rate, clock, clock.sleep)
    took = passed(pace, clock, 5 * rate)
    last = max(0.1, 1 / rate)  # piece, which is not waited for
    assert 5 - last == pytest.approx(took, abs=0.01)


def test_what_could_have_gone_before_gives_no_right_to_more():
    clock = Clock()
    pace = Pace(1000, clock, clock.sleep)
    clock.now += 3600
    assert passed(pace, clock, 2000) >= 1.8


def test_no_piece_is_longer_than_a_tenth_of_a_second():
    clock = Clock()
    assert Pace(1000, clock, clock.sleep).allowed(1 << 20) == 100
    assert Pace(3, clock, clock.sleep).allowed(1 << 20) == 1
