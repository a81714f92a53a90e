"""A second process that waits in the wings, and takes the stream over if the one that judges is lost.

Judging takes memory, foreign code and time, and can end a process in ways that no handler sees: the kernel wants its
memory back, a library calls exit. So a filter is two processes. The one that was started keeps the descriptors and
waits; its child judges and moves the bytes. What the two share is the conduit's state: the one that waits can tell
where a byte is, and goes on with the next, if the stream was only observed. A guarded stream it ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from migrate.cli.ending import Exit, ExitCode, UsageError
from migrate.cli.piping.messages import Messages
from migrate.cli.piping.signals import ENDED_BY, ENDING, is_ignored
from streams.conduit import EMPTY, HANDS, HOLDS, STEPS, Conduit, OutputError
from streams.transports import TransportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn, Protocol
else:
    Protocol = object

RELAYED = (*ENDING, signal.SIGUSR1)
# Seconds after which a second signal is no echo of the first: whoever sends it has waited in vain.
IN_VAIN = 10.0
# Seconds between two looks at the judge, and how many of them it may be at one step: so many, and one more for each
# AS_LONG steps before it. The longest is the replay at the end, and what it replays has come in steps of 4 MiB at most.
LOOK = 3.0
LOOKS = 20
AS_LONG = 2048
_OOM_SCORE = "/proc/self/oom_score_adj"
_DISPENSABLE = b"1000"


class Ends(Protocol):
    """The descriptors between which a filter stands."""

    def hang_up(self) -> None:
        """Let the receiver see the end, and the sender that nobody reads. Raises OSError."""

    def let_go(self) -> None:
        """Close the descriptors; somebody else has them, too."""

    def settle(self) -> None:
        """Wait until the receiver has got all."""


class Stage:
    """What the process that judges tells the one that waits."""

    def __init__(self, conduit: Conduit, ends: Ends, words: int | None = None) -> None:
        shared = memoryview(mmap.mmap(-1, 2 * mmap.PAGESIZE))
        numbers = shared[: mmap.PAGESIZE].cast("Q")
        conduit.share(numbers[: len(conduit.state)])
        self._state = conduit.state
        self._told = numbers[len(conduit.state) :]
        self._why = shared[mmap.PAGESIZE :]
        self._ends = ends
        self.words: int | None = words

    def ready(self) -> None:
        """All is there, and the next step begins once bytes come."""
        self._state[STEPS] += 1

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Within, the sender or the receiver may be waited for."""
        self._state[STEPS] += 1
        yield
        self._state[STEPS] += 1

    def hang_up(self) -> None:
        """The stream is over, here and in the other process. Raises OSError."""
        self._told[0] = 1
        try:
            self._ends.hang_up()
        finally:
            if self.words is not None:
                with suppress(OSError):  # the other one is no more
                    os.write(self.words, b".")

    def settle(self) -> None:
        """Wait until the receiver has got all."""
        self._ends.settle()

    def end_with(self, code: int) -> None:
        """From now on nothing more is done, and it is meant so."""
        self._told[2] = code
        self._told[1] = 1

    def refuse(self, why: str) -> None:
        """What is asked cannot be: told by the process that was asked."""
        text = why.encode("utf-8", "backslashreplace")[: len(self._why)]
        self._why[: len(text)] = text
        self._told[3] = 1 + len(text)

    @property
    def refusal(self) -> str | None:
        """Why what is asked cannot be, if so."""
        size = self._told[3] - 1
        return bytes(self._why[:size]).decode("utf-8", "replace") if size >= 0 else None

    @property
    def over(self) -> bool:
        """Whether the stream is."""
        return bool(self._told[0])

    @property
    def code(self) -> int | None:
        """With which exit code it was meant to end, if it was."""
        return self._told[2] if self._told[1] else None


def accompanied(act: Callable[[Stage], int], conduit: Conduit, ends: Ends, messages: Messages) -> int:
    """Judge in a child, and wait for it.

    Parameters
    ----------
    act:
        judges and moves the stream; hangs up through the stage; returns the exit code.

    Returns
    -------
    The exit code.
    """
    heard, words = os.pipe2(os.O_CLOEXEC)
    alive, life = os.pipe2(os.O_CLOEXEC)
    conduit.state[STEPS] = 1  # to begin is one
    stage = Stage(conduit, ends, words)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
    try:
        child = os.fork()
    except OSError:  # no more processes: the judge has to do without
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _alone(act, _Understudy(None, conduit, ends, stage, messages))
    if child:
        os.close(words)
        return _Understudy(child, conduit, ends, stage, messages).wait(heard, before)
    os.close(heard)
    os.close(life)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _die_with_the_other(alive)
    _play(act, stage)


def _alone(act: Callable[[Stage], int], understudy: _Understudy) -> int:
    try:
        return act(understudy.stage)
    except (Exit, UsageError):
        raise
    except BaseException as error:
        return understudy.step_in(type(error).__name__)


def _play(act: Callable[[Stage], int], stage: Stage) -> NoReturn:
    code = int(ExitCode.JUDGE_LOST)
    try:
        try:
            code = act(stage)
        except Exit as end:
            code = end.code
        except UsageError as error:
            stage.refuse(str(error))
        stage.end_with(code)
    finally:
        os._exit(code)


def _die_with_the_other(alive: int) -> None:
    """Have this process killed when the other one is, so that nothing is left behind."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)


def volunteer() -> None:
    """Have the kernel take this process first where memory is short: the stream goes on without it."""
    with suppress(OSError), open(_OOM_SCORE, "wb", buffering=0) as file:
        file.write(_DISPENSABLE)


class _Told(BaseException):
    """A signal asked this process to end."""


class _Understudy:
    """The process that waits."""

    def __init__(self, child: int | None, conduit: Conduit, ends: Ends, stage: Stage, messages: Messages) -> None:
        self._child = child
        self._conduit = conduit
        self._ends = ends
        self.stage = stage
        self._messages = messages
        self._told: int | None = None
        self._told_at = 0.0

    def wait(self, heard: int, mask: set[signal.Signals] | set[int]) -> int:
        """Until the child ends; the exit code."""
        for number in RELAYED:
            if not is_ignored(number) or number == signal.SIGUSR1:
                signal.signal(number, self._relay)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        child = self._child
        assert child is not None
        hangs = not self._heard(heard)
        if hangs:
            self._send(signal.SIGKILL)
        elif os.read(heard, 1):
            self._ends.let_go()
        _, status = os.waitpid(child, 0)
        self._child = None
        if (why := self.stage.refusal) is not None:
            raise UsageError(why)
        if self.stage.code is not None:
            return self.stage.code
        if self._told is not None:
            return ENDED_BY + self._told
        return self.step_in("it came to no end" if hangs else _how(status))

    def _heard(self, words: int) -> bool:
        """Wait for a word, or the end, of the process that judges; False where it does not come to the end of a step.

        Looks are counted, and no clock is asked: it goes on while all are stopped.
        """
        poll = select.poll()
        poll.register(words, select.POLLIN)
        step, looks = 0, 0
        while not _there(poll, LOOK):
            before, step = step, self._conduit.state[STEPS]
            looks = looks + 1 if step == before and step % 2 else 0
            if looks > LOOKS + step // AS_LONG:
                return False
        return True

    def _relay(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self._send(number)
            return
        if self._told is None:
            self._told, self._told_at = number, time.monotonic()
        in_vain = time.monotonic() - self._told_at > IN_VAIN
        if self._child is None:
            raise _Told
        self._send(signal.SIGKILL if in_vain else number)

    def _send(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    def step_in(self, how: str) -> int:
        """The judge is lost: what becomes of the stream."""
        conduit, say = self._conduit, self._messages.say
        if self.stage.over:
            say(f"the judge was lost ({how}) after the stream had ended")
            return ExitCode.JUDGE_LOST
        try:
            if conduit.state[HOLDS]:
                say(f"the judge was lost ({how}): stopped the stream, for nothing passes unjudged")
            elif conduit.state[HANDS] != EMPTY:
                say(f"the judge was lost ({how}) in the middle of a copy: the stream breaks off")
            else:
                say(f"the judge was lost ({how}): the stream goes on unjudged")
                conduit.pass_all()
        except BrokenPipeError:
            return ExitCode.BROKEN_PIPE
        except (OutputError, TransportError) as error:
            say(str(error))
            return ExitCode.FAILED
        except _Told:
            return ENDED_BY + (self._told or 0)
        finally:
            with suppress(OSError):
                self._ends.hang_up()
        self._ends.settle()
        return ExitCode.JUDGE_LOST


def _there(poll: select.poll, seconds: float) -> bool:
    """Whether there is something to read, or no way to wait for it but to read."""
    try:
        return bool(poll.poll(seconds * 1000))
    except OSError:
        return True


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
