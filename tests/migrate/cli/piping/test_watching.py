"""The line that tells where a stream is."""

import os

import pytest

from migrate.cli.piping.messages import Messages
from migrate.cli.piping.watching import StatusLine, Watch, bytes_to_come, show

MIB = 1 << 20


def line(done, rate, *, size=0, name="", dirty=3, findings=2, passes=2):
    status = {"bytes": done, "rate": rate, "round": passes, "dirty": dirty, "findings": findings}
    return str(StatusLine(lambda: status, name, size))


def test_before_the_first_page_there_is_no_pass():
    assert line(0, 0, dirty=0, findings=0, passes=0) == "migrate: 0 KiB, 0 KiB/s, 0 findings"


def test_without_a_size_it_tells_what_went_through():
    assert line(3 * MIB / 2, 2 * MIB) == "migrate: 1.5 MiB, 2 MiB/s, pass 2 (3 pages), 2 findings"
    assert line(0, 0, dirty=1, findings=1) == "migrate: 0 KiB, 0 KiB/s, pass 2 (1 page), 1 finding"


@pytest.mark.parametrize(
    ("done", "rate", "told"),
    [
        (25 * MIB, MIB, "25 MiB of 100 MiB (25%), 1 MiB/s, 0:01:15 left, pass"),
        (25 * MIB, MIB / 60, "25 MiB of 100 MiB (25%), 17.1 KiB/s, 1:15:00 left, pass"),
        (0, 0, "0 KiB of 100 MiB (0%), 0 KiB/s, pass"),
        (100 * MIB, MIB, "100 MiB of 100 MiB (100%), 1 MiB/s, pass"),
        (300 * MIB, MIB, "300 MiB of 100 MiB (100%), 1 MiB/s, pass"),
    ],
)
def test_with_a_size_it_tells_per_cent_and_the_time_that_is_left(done, rate, told):
    assert line(done, rate, size=100 * MIB).startswith(f"migrate: {told}")


def test_a_name_is_told_and_harmless():
    assert line(0, 0, name="db1\x1b[2J").startswith("migrate: db1\\x1b[2J: 0 KiB")


def test_of_a_file_the_bytes_to_come_are_known(tmp_path):
    (tmp_path / "stream").write_bytes(b"x" * 100)
    with open(tmp_path / "stream", "rb", buffering=0) as stream:
        assert bytes_to_come(stream.fileno()) == 100
        stream.read(30)
        assert bytes_to_come(stream.fileno()) == 70
    seen, sink = os.pipe()
    assert bytes_to_come(seen) == 0
    os.close(seen)
    os.close(sink)


def test_a_watch_shows_it_again_and_again_and_ends_with_the_stream():
    seen, sink = os.pipe()
    status = {"bytes": 0, "rate": 0, "round": 0, "dirty": 0, "findings": 0}
    told = StatusLine(lambda: status, "db1", 0)
    with Watch(told, 0.01, Messages(fd=sink)) as watch, open(seen, closefd=False) as lines:
        assert [lines.readline() for _ in range(3)] == [f"{told}\n"] * 3
    assert not watch._thread.is_alive()
    os.close(seen)
    os.close(sink)


def test_without_room_for_a_thread_the_stream_goes_on(monkeypatch):
    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", none)
    seen, sink = os.pipe()
    messages = Messages(fd=sink)
    with Watch(StatusLine(dict, "", 0), 1, messages):
        pass
    assert os.read(seen, 999) == b"migrate: no progress is shown: there is no room for a thread\n"
    os.close(seen)
    os.close(sink)


def test_a_status_that_fails_costs_a_line_and_no_more():
    seen, sink = os.pipe()
    messages = Messages(fd=sink)
    show(StatusLine(lambda: {}["bytes"], "", 0), messages)
    assert messages.dropped == 1
    os.close(seen)
    os.close(sink)
