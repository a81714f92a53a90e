"""What begins an HVM guest is told by its first bytes, and by no other ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.cli.piping.early import begins_hvm
from streams.decoder import Decoder, drive
from streams.records import DomainStart
from streams.transports import BytesTransport
from streams.wire.framing import GuestType


class Kind:
    """What the decoder tells of the guest's kind."""

    def __init__(self):
        self.type = None

    def event(self, item):
        if isinstance(item, DomainStart):
            self.type = item.header.type

    def wants_body(self, place):
        return False

    def wants_pages(self, place, words):
        return ()


def decoded(head):
    kind = Kind()
    drive(Decoder(kind).run(), BytesTransport(head))
    return kind.type


def built(make, container):
    builder = make()
    builder.wrap(container)
    return builder.build()


PLAIN = ("libxc", "libxl", "xl")
HEADS = {
    (guest, container): built(make, container)
    for guest, make in {"hvm": StreamBuilder.hvm, "pv": StreamBuilder.pv}.items()
    for container in (*PLAIN, "libvirt", "xapi")
}


@pytest.mark.parametrize(("guest", "container"), HEADS)
def test_an_hvm_guest_is_known_as_savers_write_it(guest, container):
    assert begins_hvm(HEADS[guest, container]) == (guest == "hvm" and container in PLAIN)


@pytest.mark.parametrize("container", PLAIN)
def test_so_much_as_has_come_may_be_too_little(container):
    head = HEADS["hvm", container]
    enough = next(size for size in range(len(head)) if begins_hvm(head[:size]))
    assert [size for size in range(enough) if decoded(head[:size]) == GuestType.HVM] == []
    assert begins_hvm(head[: enough + 1])


@settings(deadline=None)
@given(
    st.sampled_from(sorted(HEADS.values())),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
    st.integers(0, 1 << 12),
)
def test_what_is_known_is_what_the_decoder_says(head, changes, size):
    changed = bytearray(head[:size])
    for at, value in changes:
        changed[at : at + 1] = bytes([value]) * (at < len(changed))
    if begins_hvm(bytes(changed)):
        assert decoded(bytes(changed)) == GuestType.HVM
