"""Addresses as people write them, and one connection."""

import socket
import threading

import pytest

from migrate.cli.piping.hop import Address, accepted, called, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:49152", "127.0.0.1", 49152),
        ("xen2.example.org:1", "xen2.example.org", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:8002", "fe80::1%eth0", 8002),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    assert parse(text) == (host, port)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no address; expected HOST:PORT"),
        ("49152", "is no address; expected HOST:PORT"),
        ("host", "is no address"),
        ("host:", "is no address"),
        ("host:http", "is no address"),
        ("host:12x", "is no address"),
        ("host:-1", "is no address"),
        ("host:١", "is no address"),
        ("::1:49152", "an IPv6 address stands in brackets, [ADDRESS]:PORT"),
        ("[::1]", "is no address"),
        ("[::1]49152", "is no address"),
        (":49152", "names no host"),
        ("[]:49152", "names no host"),
        ("host:0", "port 0; expected 1 to 65535"),
        ("host:65536", "port 65536; expected 1 to 65535"),
    ],
)
def test_what_is_no_address_is_told_why(text, why):
    with pytest.raises(ValueError, match=r"^'") as caught:
        parse(text)
    assert why in str(caught.value)


def test_a_listener_may_leave_the_port_to_the_system():
    assert parse("localhost:0", any_port=True) == ("localhost", 0)


def listened(address):
    """A thread that takes a connection; where it listens, and what it has."""
    said, got, ready = [], [], threading.Event()

    def announce(text):
        said.append(parse(text.removeprefix("listening on ")))
        ready.set()

    thread = threading.Thread(target=lambda: got.append(accepted(address, announce)), daemon=True)
    thread.start()
    assert ready.wait(10)
    return thread, said, got


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_one_connection_is_taken_and_no_other(host):
    thread, said, got = listened(Address(host, 0))
    first = called(said[0])
    thread.join(10)
    with socket.socket(fileno=first) as sender, socket.socket(fileno=got[0]) as receiver:
        sender.sendall(b"a stream")
        assert receiver.recv(100) == b"a stream"
        assert receiver.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(ConnectionRefusedError):
            called(said[0])


def test_a_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as there, pytest.raises(OSError, match="in use"):
        accepted(Address(*there.getsockname()), lambda text: None)
