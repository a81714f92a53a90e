"""Gigabytes through every pair of ends that a toolstack may hand to a filter, and every byte is looked at."""

import os
import random
import socket
import subprocess
import threading

import numpy as np
import pytest
from running_filter import COMMAND, no_traceback

from migrate.building.big_streams import write_synthetic
from streams.pages import PageType, PfnWords
from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    RecordType,
    padded,
)

SIZE = 280 << 20  # bytes of a guest: with 36 pairs, 10 GB
MOST = 1 << 20  # bytes that are sent or received at once
ENDS = [(kind, blocking) for kind in ("pipe", "unix", "tcp") for blocking in (True, False)]
WAIT = 600  # seconds, for each pair

pytestmark = pytest.mark.slow


def filled(path):
    """A stream whose pages of zeros have become pages of noise, so that no byte looks like another: its bytes."""
    data = np.memmap(path, np.uint8, "r+")
    rng = np.random.default_rng(1)
    at = IMAGE_HEADER.size + DOMAIN_HEADER.size
    while at < len(data):
        kind, length = RECORD_HEADER.unpack(data[at : at + RECORD_HEADER.size].tobytes())
        at += RECORD_HEADER.size
        if kind == RecordType.PAGE_DATA:
            first = at + PAGE_DATA_HEADER.size
            count, _ = PAGE_DATA_HEADER.unpack(data[at:first].tobytes())
            words = PfnWords(data[first : first + count * PFN_WORD_SIZE].tobytes())
            first += count * PFN_WORD_SIZE
            pages = data[first : first + words.data_pages * PAGE_SIZE].reshape(-1, PAGE_SIZE)
            empty = (words.types[words.has_data] == PageType.NOTAB) & ~pages.any(axis=1)
            pages[empty] = rng.integers(0, 256, (int(empty.sum()), PAGE_SIZE), np.uint8)
        at += padded(length)
    data.flush()
    return data


@pytest.fixture(scope="module")
def guests(tmp_path_factory):
    """Streams of guests, as arrays of bytes."""
    folder = tmp_path_factory.mktemp("soak")
    for kind in ("hvm", "pv"):
        write_synthetic(folder / kind, kind=kind, size_bytes=SIZE)
    return {kind: filled(folder / kind) for kind in ("hvm", "pv")}


def pair(kind):
    """Two descriptors; what is written to the second is read from the first."""
    match kind:
        case "pipe":
            return os.pipe()
        case "unix":
            one, other = socket.socketpair()
        case "tcp":
            with socket.create_server(("127.0.0.1", 0)) as there:
                other = socket.create_connection(there.getsockname())
                one, _ = there.accept()
    return one.detach(), other.detach()


def send(fd, data):
    rng = random.Random(2)
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view[: rng.randrange(1, MOST)]) :]
    os.close(fd)


def named(end):
    kind, blocking = end
    return kind if blocking else f"{kind}, not blocking"


@pytest.mark.parametrize("sink", ENDS, ids=named)
@pytest.mark.parametrize("source", ENDS, ids=named)
def test_every_byte_comes_out_as_it_went_in(guests, source, sink):
    number = ENDS.index(source) + ENDS.index(sink)
    data = guests["pv" if number % 2 else "hvm"]
    (taken, fed), (seen, given) = pair(source[0]), pair(sink[0])
    os.set_blocking(taken, source[1])
    os.set_blocking(given, sink[1])
    command = [*COMMAND, "--quiet", *["--guard"] * (number % 3 == 0)]
    process = subprocess.Popen(command, stdin=taken, stdout=given, stderr=subprocess.PIPE)
    os.close(taken)
    os.close(given)
    sending = threading.Thread(target=send, args=(fed, data), daemon=True)
    sending.start()
    at, rng = 0, random.Random(3)
    while piece := os.read(seen, rng.randrange(1, MOST)):
        same = np.array_equal(np.frombuffer(piece, np.uint8), data[at : at + len(piece)])
        assert same, f"between bytes {at} and {at + len(piece)} something is not as it was"
        at += len(piece)
    os.close(seen)
    _, said = process.communicate(timeout=WAIT)
    assert (process.returncode, at) == (0, len(data)), no_traceback(said)
    sending.join()
