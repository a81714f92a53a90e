"""Where reports go: looked at first, written at the end, whole or not at all."""

import os
import stat
import threading

import pytest
from running_filter import undrained

from migrate.cli.ending import UsageError
from migrate.cli.piping import results
from migrate.cli.piping.results import Result, refuse_doubles


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(results, "PATIENCE", 0.1)


def test_a_file_appears_with_all_that_is_to_stand_in_it(tmp_path):
    Result("--report", str(tmp_path / "out")).write("all\n")
    assert (tmp_path / "out").read_text() == "all\n"
    assert os.listdir(tmp_path) == ["out"]


def test_until_then_there_is_nothing_and_what_was_there_stays(tmp_path):
    (tmp_path / "old").write_text("old")
    results = [Result("--report", str(tmp_path / name)) for name in ("new", "old")]
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"
    for result in results:
        result.write("new")
    assert {(tmp_path / name).read_text() for name in ("old", "new")} == {"new"}


@pytest.mark.parametrize(
    ("path", "why"), [("no/such/folder/out", "No such file or directory"), (".", "it is a directory")]
)
def test_what_could_not_be_written_in_the_end_is_told_at_once(tmp_path, monkeypatch, path, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"{path}: {why}"):
        Result("--report", path)


def test_a_folder_that_takes_no_file_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may write anywhere
    with pytest.raises(UsageError, match="is not to be written"):
        Result("--report", str(tmp_path / "out"))


# -- FIFOs ------------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_fifo_that_nobody_reads_is_given_up(fifo):
    result = Result("--report", str(fifo))
    with pytest.raises(TimeoutError, match="nobody reads it"):
        result.write("to nobody")


def test_a_fifo_may_get_its_reader_late(fifo, monkeypatch):
    monkeypatch.setattr(results, "PATIENCE", 20)
    result = Result("--report", str(fifo))
    came = []
    reader = threading.Thread(target=lambda: came.append(fifo.read_text()))
    threading.Timer(0.1, reader.start).start()
    result.write("late")
    os.close(result._fd)  # the filter ends here
    while not reader.ident:
        pass
    reader.join(10)
    assert came == ["late"]


def test_a_reader_that_takes_nothing_is_given_up():
    with undrained() as (sink, _):
        with pytest.raises(TimeoutError, match="nobody reads it"):
            Result("--report-fd", str(sink), sink).write("to nobody")
        assert os.get_blocking(sink)


def test_waiting_for_a_reader_is_what_a_signal_may_end(fifo):
    class Ended(BaseException):
        pass

    def waiting():
        raise Ended

    with pytest.raises(Ended):
        Result("--report", str(fifo)).write("to nobody", waiting)


def test_a_regular_file_waits_for_nobody(tmp_path):
    Result("--report", str(tmp_path / "out")).write("all", lambda: pytest.fail("it waits"))


# -- two in one -------------------------------------------------------------------------------------------


def both(*paths):
    options = [f"--{n}" for n in range(len(paths))]
    return [Result(option, str(path)) for option, path in zip(options, paths, strict=True)]


def test_two_results_in_one_file_are_refused(tmp_path):
    (tmp_path / "there").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.link(tmp_path / "there", tmp_path / "twin")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for one, other in (("there", "there"), ("there", "link"), ("there", "twin"), ("new", "new"), ("new", "dangling")):
        with pytest.raises(UsageError, match=r"^--0 and --1 would both be written to /"):
            refuse_doubles(both(tmp_path / one, tmp_path / other), {})
    refuse_doubles(both(tmp_path / "there", tmp_path / "new"), {})


def test_standard_error_takes_one(tmp_path):
    with pytest.raises(UsageError, match=r"^--0 and --1 would both be written to standard error$"):
        refuse_doubles(both("-", "-"), {})


def test_a_device_takes_any_number():
    refuse_doubles(both("/dev/null", "/dev/null"), {"the stream": os.open(os.devnull, os.O_WRONLY)})


def test_a_result_never_goes_where_the_stream_does(tmp_path):
    seen, sink = os.pipe()
    for path in (f"/dev/fd/{sink}", f"/proc/self/fd/{sink}"):
        with pytest.raises(UsageError, match=r"^--0: .* is where the stream goes$"):
            refuse_doubles(both(path), {"where the stream goes": sink})
    os.close(seen)
    os.close(sink)
    with open(tmp_path / "stream", "wb") as stream, pytest.raises(UsageError):
        refuse_doubles(both(tmp_path / "stream"), {"where the stream goes": stream.fileno()})


def test_a_file_keeps_its_permissions_and_a_new_one_gets_the_usual(tmp_path):
    (tmp_path / "old").write_text("")
    os.chmod(tmp_path / "old", 0o640)
    Result("--report", str(tmp_path / "old")).write("x")
    Result("--report", str(tmp_path / "new")).write("x")
    umask = os.umask(0)
    os.umask(umask)
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("old", "new")}
    assert modes == {"old": 0o640, "new": 0o666 & ~umask}
