"""Who does the work: this process, processes of this machine, or a dask scheduler's workers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol, Self

from migrate.corpus.runner import InProcess

# Calls handed out per worker: one in work, and the next ones where it need not ask for them.
CALLS_PER_WORKER = 2
DASK_CALLS_PER_WORKER = 4
LOCAL = "local"
# How long a scheduler may take to answer.
DASK_PATIENCE = "10s"


class WorkersError(Exception):
    """Workers that cannot be had: a missing package, a scheduler that does not answer."""


class Workers(Protocol):
    """A context in which there are workers.

    Attributes
    ----------
    window:
        calls worth handing out at a time.
    """

    window: int

    def start(self, number: int = 0) -> Executor:
        """An executor with so many workers, by default all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the workers go."""
        return


class Alone(Workers):
    """No workers: the work is done here."""

    window = 1

    def start(self, number: int = 0) -> Executor:
        """The executor that works in this process."""
        return InProcess()


class Processes(Workers):
    """Processes of this machine. Left by an exception, they are ended in the middle of their work.

    They end as well when this process does, whatever ends it.
    """

    def __init__(self, number: int) -> None:
        self.window = CALLS_PER_WORKER * number
        self._number = number
        self._pools: list[ProcessPoolExecutor] = []
        self._strangers = frozenset(process.pid for process in multiprocessing.active_children())

    def start(self, number: int = 0) -> Executor:
        """A pool of processes."""
        # Where processes are forked, each has then what it would else have to load; not numpy, which begins threads.
        for module in ("judging.check", "judging.report_json", "toolstack.hvm"):
            import_module(f"migrate.{module}")
        pool = ProcessPoolExecutor(number or self._number, initializer=_live_and_die_with_the_parent)
        self._pools.append(pool)
        return pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in multiprocessing.active_children():
                if process.pid not in self._strangers:
                    process.kill()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _live_and_die_with_the_parent() -> None:
    """What a worker begins with: interrupts are the parent's business, and its end is the worker's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # where it was forked, it has the parent's handlers
            signal.signal(number, signal.SIG_DFL)
    if (parent := multiprocessing.parent_process()) is not None:
        # A pipe that the parent, and workers that were forked later, hold open at its other end. When it closes, the
        # kernel sends SIGIO, which ends a process: no thread has to watch, and none has to wait for its turn.
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl(parent.sentinel, F_SETOWN, os.getpid())
        fcntl(parent.sentinel, F_SETFL, fcntl(parent.sentinel, F_GETFL) | os.O_ASYNC)
        if not parent.is_alive():  # it has closed already
            os._exit(1)


class Dask(Workers):
    """Workers of a dask scheduler, which have this package installed and see the streams under the same paths.

    Parameters
    ----------
    address:
        of the scheduler (tcp://host:8786), or "local" for a scheduler and workers of this machine.
    number:
        how many workers to start where they are local.

    Raises
    ------
    WorkersError
        where the package is missing, or no scheduler answers.
    """

    def __init__(self, address: str, number: int) -> None:
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            raise WorkersError("dask workers need the package distributed (pip install 'xen-migrate[dask]')") from None
        self._cluster: Any = None
        try:
            if address == LOCAL:
                self._cluster = distributed.LocalCluster(
                    n_workers=number,
                    threads_per_worker=1,
                    dashboard_address=None,
                    host="127.0.0.1",
                    silence_logs=logging.CRITICAL,  # how workers come and go is nothing for the user
                )
            self._client: Any = distributed.Client(self._cluster or address, timeout=DASK_PATIENCE)
        except (OSError, ValueError) as error:
            if self._cluster is not None:
                self._cluster.close()
            raise WorkersError(f"no dask scheduler at {address}: {error}") from error
        threads = sum(self._client.nthreads().values())
        self.window = DASK_CALLS_PER_WORKER * max(threads, number if self._cluster else 1)

    def start(self, number: int = 0) -> Executor:
        """The scheduler, as an executor."""
        executor: Executor = self._client.get_executor(pure=False, retries=0)
        return executor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
