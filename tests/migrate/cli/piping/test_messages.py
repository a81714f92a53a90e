"""What a filter says never waits for a reader, and what is not taken is counted."""

import os
import threading

import pytest
from running_filter import undrained

from migrate.cli.piping.messages import ATOMIC, Messages, Silent


class Unnameable(Exception):
    def __str__(self):
        raise MemoryError


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def said(seen, limit=1 << 16):
    return os.read(seen, limit).decode()


def test_a_line_is_told_with_the_programs_name(pipe):
    Messages(fd=pipe[1]).say("hello\nthere")
    assert said(pipe[0]) == "migrate: hello\\x0athere\n"


def test_a_full_pipe_drops_a_line_and_blocks_for_others_as_before():
    with undrained() as (sink, seen):
        messages = Messages(fd=sink)
        messages.say("nobody hears")
        assert messages.dropped == 1
        assert os.get_blocking(sink)
        os.read(seen, 1 << 16)
        messages.say("somebody does")
        messages.close()
        assert said(seen) == "migrate: somebody does\nmigrate: 1 message dropped: nobody read standard error\n"


def test_it_waits_as_long_as_it_may_and_then_no_more():
    with undrained() as (sink, seen):
        messages = Messages(fd=sink)
        messages.patience = 0.05
        messages.say("nobody hears")
        assert (messages.dropped, messages.patience) == (1, 0)
        messages.patience = 30
        threading.Timer(0.05, os.read, (seen, 1 << 16)).start()
        messages.say("somebody does")
        assert said(seen) == "migrate: somebody does\n"


def test_a_line_that_is_cut_does_not_swallow_the_next():
    with undrained() as (sink, seen):
        os.read(seen, 1 << 16)  # room for one piece, and no more
        messages = Messages(fd=sink)
        messages.write(b"y" * (ATOMIC + 5) + b"\n")
        assert messages.dropped == 1
        assert said(seen) == "y" * ATOMIC
        messages.say("next")
        assert said(seen) == "\nmigrate: next\n"


def test_a_reader_that_is_gone_is_not_missed(pipe):
    other = os.pipe()
    messages = Messages(fd=other[1])
    os.close(other[0])
    messages.say("nobody hears")
    os.close(other[1])
    assert messages.dropped == 1


def test_an_error_that_cannot_be_named_is_told_all_the_same(pipe, monkeypatch):
    monkeypatch.setenv("MIGRATE_DEBUG", "1")
    monkeypatch.setattr("migrate.cli.piping.messages.complaint", lambda *_: str(Unnameable()))
    Messages(fd=pipe[1]).say("what it is", Unnameable())
    assert said(pipe[0]) == "migrate: the filter itself failed\n"


def test_nothing_is_said_where_the_stream_goes(pipe):
    messages = Messages(pipe[1], fd=pipe[1])
    messages.say("into the stream")
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)


def test_messages_are_told_where_the_stream_goes_to_another_pipe(pipe):
    other = os.pipe()
    Messages(other[1], fd=pipe[1]).say("beside it")
    assert said(pipe[0]) == "migrate: beside it\n"
    for fd in other:
        os.close(fd)


def test_a_closed_descriptor_takes_nothing_and_harms_nothing():
    messages = Messages(fd=9999)
    messages.say("nowhere")
    messages.show_status("nowhere")
    messages.clear_status()


def test_whatever_else_prints_prints_there(pipe):
    print("a warning", file=Silent(Messages(fd=pipe[1])))
    assert said(pipe[0]) == "a warning\n"


def test_a_status_line_is_a_line_of_its_own_where_there_is_no_terminal(pipe):
    messages = Messages(fd=pipe[1])
    messages.show_status("one")
    messages.show_status("two")
    messages.clear_status()
    assert said(pipe[0]) == "one\ntwo\n"


def test_on_a_terminal_a_status_line_takes_the_place_of_the_last_and_makes_room_for_messages():
    import pty
    import tty

    seen, terminal = pty.openpty()
    tty.setraw(terminal)
    messages = Messages(fd=terminal)
    messages.show_status("first")
    messages.show_status("2nd")
    messages.say("look")
    messages.show_status("3rd")
    messages.clear_status()
    expected = "first\r     \r2nd\r   \rmigrate: look\n3rd\r   \r"
    shown = ""
    while len(shown) < len(expected):  # a terminal takes its time
        shown += said(seen)
    assert shown == expected
    os.close(seen)
    os.close(terminal)
