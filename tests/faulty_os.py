"""An `os` in which one system call fails, comes up short, or is interrupted."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import streams.tee

# What the filter moves bytes with.
CALLS = ("readv", "write", "splice", "tee")

# Faults that pass: what is asked for again is done. Python itself restarts a call that a signal has interrupted, once
# the handlers have run (PEP 475), so that all there is to be seen of EINTR is that a handler runs at that place.
SIGNAL, SHORT, END, EAGAIN = "signal", "short", "end", "EAGAIN"
LATE = "late"  # as SIGNAL, but once the call is done
ERRORS = {
    "readv": ("EIO", "ENOMEM", "ECONNRESET"),
    "write": ("EPIPE", "ENOSPC", "EIO", "ECONNRESET"),
    "splice": ("EPIPE", "ENOSPC", "EIO", "EINVAL"),
    "tee": ("EINVAL", "ENOMEM", "EIO"),
}


@dataclass(frozen=True)
class Fault:
    """What happens at one call, counted from 0 over all calls, or those of one `kind`.

    With `lasting` it happens at all later ones of its kind as well.

    With `of_input` it is the input that is broken: from that call on, whatever reads it fails.
    """

    index: int
    what: str
    lasting: bool = False
    of_input: bool = False
    kind: str | None = None


class FaultyOs:
    """Stands in for the modules `os` and `select` of the module under test; all else is as it is.

    Parameters
    ----------
    fault:
        what happens; None to count calls only.
    handler:
        called in the place of a signal handler.

    Attributes
    ----------
    calls:
        names of the calls so far.
    """

    def __init__(self, fault: Fault | None = None, handler: Callable[[], object] = lambda: None) -> None:
        self.calls: list[str] = []
        self._fault = fault
        self._handler = handler
        self._failing: set[str] = set()
        self._input: int | None = None  # the first descriptor that is used: nothing is written before something is read

    def install(self, module: ModuleType, patch: Callable[[Any, str, Any], object] = setattr) -> None:
        """Put it where a module looks for `os`, and for the tee that `os` lacks."""
        patch(module, "os", self)
        patch(streams.tee, "tee", self._wrapped("tee", streams.tee.tee))

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in CALLS else real

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            fault = self._fault
            self._input = arguments[0] if self._input is None else self._input
            self.calls.append(name)
            if fault is None:
                return real(*arguments)
            if fault.of_input:
                if len(self.calls) - 1 < fault.index or arguments[0] != self._input:
                    return real(*arguments)
                return self._failed(name, real, arguments, fault.what)
            counted = len(self.calls) if fault.kind is None else self.calls.count(fault.kind)
            if counted - 1 == fault.index and fault.kind in (None, name):
                self._failing = _alike(name, fault.what) if fault.lasting else set()
            elif name not in self._failing:
                return real(*arguments)
            return self._failed(name, real, arguments, fault.what)

        return call

    def _failed(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], what: str) -> Any:
        if what == SIGNAL:
            self._handler()
            return real(*arguments)
        if what == LATE:
            done = real(*arguments)
            self._handler()
            return done
        if what == SHORT:
            return real(*_shortened(name, arguments))
        if what == END:
            # A pipe of the filter's own does not end while it holds both sides of it.
            return 0 if arguments[0] == self._input else real(*arguments)
        code = getattr(errno, what)
        raise OSError(code, os.strerror(code))


def _alike(name: str, what: str) -> set[str]:
    """The calls that fail together, where what they read from or write to is broken for good."""
    if name == "splice":
        return {"splice", "write"} if what in ("EPIPE", "ENOSPC") else {"splice"}
    return {name, "splice", "tee"} if name == "readv" else {name, "splice"}


def _shortened(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same call for one byte."""
    if name == "readv":
        fd, (buffer,) = arguments
        return fd, [buffer[:1]]
    if name == "write":
        fd, data = arguments
        return fd, data[:1]
    source, sink, _ = arguments  # of splice and tee
    return source, sink, 1


class FaultyPoll:
    """Stands in for `select`: waiting fails, or comes back with nothing."""

    POLLIN, POLLOUT = select.POLLIN, select.POLLOUT

    def __init__(self, error: int | None) -> None:
        self._error = error

    def poll(self) -> FaultyPoll._Poll:
        """As select.poll."""
        return self._Poll(self._error)

    class _Poll:
        def __init__(self, error: int | None) -> None:
            self._error = error

        def register(self, fd: int, events: int) -> None:
            """As of a poll object."""

        def poll(self) -> list[tuple[int, int]]:
            """As of a poll object."""
            if self._error is not None:
                raise OSError(self._error, os.strerror(self._error))
            return []
