"""A filter as a hop on the way: it takes one TCP connection, and makes one."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from streams.values import NamedTuple

_ADDRESS = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_FORM = "HOST:PORT, or [ADDRESS]:PORT for IPv6"


class Address(NamedTuple):
    """Where to listen, or whom to call."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str, *, any_port: bool = False) -> Address:
    """An address as people write it.

    Parameters
    ----------
    any_port:
        whether 0 will do, for a port that is free.

    Raises
    ------
    ValueError
        which says what is wrong with it.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if text.count(":") > 1 and "[" not in text:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, [ADDRESS]:PORT")
        raise ValueError(f"{text!r} is no address; expected {_FORM}")
    host = found["host"] if found["bracketed"] is None else found["bracketed"]
    if not host:
        raise ValueError(f"{text!r} names no host; expected {_FORM}")
    port = int(found["port"])
    if port >= 1 << 16 or (not port and not any_port):
        raise ValueError(f"{text!r}: port {port}; expected 1 to 65535")
    return Address(host, port)


def accepted(address: Address, announce: Callable[[str], None]) -> int:
    """The descriptor of the first connection that is made to an address; a second one finds nobody.

    Parameters
    ----------
    announce:
        told where it is listened, once it is.

    Raises
    ------
    OSError
        where nothing can listen there.
    """
    with ExitStack() as stack:
        listening = {one.fileno(): stack.enter_context(one) for one in _listening(address)}
        poll = select.poll()
        for fd, one in listening.items():
            poll.register(fd, select.POLLIN)
            announce(f"listening on {Address(*one.getsockname()[:2])}")
        ready, _ = poll.poll()[0]
        connection, _ = listening[ready].accept()
        return _made_ready(connection)


def called(address: Address) -> int:
    """The descriptor of a connection to an address. Raises OSError."""
    return _made_ready(socket.create_connection(address))


def _listening(address: Address) -> Iterator[socket.socket]:
    """A socket for each of the addresses that a name stands for, all on one port."""
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    port = address.port
    for family, kind, protocol, _, where in dict.fromkeys(found):
        one = socket.socket(family, kind, protocol)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((where[0], port, *where[2:]))
            one.listen(1)
        except OSError:
            one.close()
            raise
        port = one.getsockname()[1]
        yield one


def _made_ready(connection: socket.socket) -> int:
    # The last record is 8 bytes, and whoever waits for it waits for nothing else; a peer that is gone is to be noticed.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setblocking(True)
    return connection.detach()
