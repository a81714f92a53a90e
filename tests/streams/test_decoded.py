"""Compressed input that is decoded once more at most: the same bytes as ever, and no decoding but that one."""

import os
from unittest.mock import patch

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.compressed import CompressedTransport
from streams.decoded import DecodedOnce
from streams.opening import open_transport
from streams.pipes import PipeTransport
from streams.transports import TransportError

PLAIN = b"".join(bytes([i % 251]) * 700 for i in range(2_000)) + bytes(3 << 20) + b"end" + bytes(5_000)
PACKED = zstandard.compress(PLAIN)

ranges = st.lists(st.tuples(st.integers(0, len(PLAIN) + 9_000), st.integers(0, 2 << 20)), max_size=8)


def decoded(data=PACKED):
    transport = open_transport(data)
    assert isinstance(transport, CompressedTransport)
    return DecodedOnce(transport)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ranges, ranges)
def test_it_gives_the_bytes_that_are_there(first, second):
    with decoded() as transport:
        for some in (first, second):
            assert transport.reread(some) == [PLAIN[offset : offset + n] for offset, n in some]


def test_coming_back_leaves_the_first_reading_where_it_is():
    with decoded() as transport:
        assert transport.give(10) == PLAIN[:10]
        transport.reread([(100_000, 10)])
        assert transport.skip(90) == 90
        assert transport.position == 100
        assert transport.give(5) == PLAIN[100:105]


def test_it_is_decoded_once_more_and_only_as_far_as_is_asked_for():
    given_out = []
    give = CompressedTransport.give

    def noting(self, n):
        data = give(self, n)
        given_out.append(len(data))
        return data

    with patch.object(CompressedTransport, "give", noting), decoded() as transport:
        for offset in (50_000, 10, 2_000_000, 70_000):
            transport.reread([(offset, 100)])
        assert sum(given_out) == 2_000_100
        transport.reread([(0, 1 << 40)])
        transport.reread([(0, 1 << 40)])
        assert sum(given_out) == len(PLAIN)


def test_zeros_take_no_room():
    with decoded(zstandard.compress(bytes(64 << 20) + b"x")) as transport:
        assert transport.reread([(64 << 20, 1)]) == [b"x"]
        assert os.fstat(transport._file).st_blocks * 512 < 1 << 20


def test_what_cannot_be_read_again_gives_nothing():
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(PACKED)
    with DecodedOnce(
        CompressedTransport(PipeTransport(reading, owned=True), open_transport(PACKED).codec)
    ) as transport:
        assert transport.reread([(0, 1)]) is None


def test_data_that_are_corrupt_further_on_are_read_as_far_as_they_are_good():
    broken = PACKED[:-20] + bytes(20)
    with decoded(broken) as transport:
        assert transport.reread([(0, 100)]) == [PLAIN[:100]]
        with pytest.raises(TransportError):
            transport.reread([(len(PLAIN) - 10, 10)])
        assert transport.reread([(0, 100)]) == [PLAIN[:100]]
