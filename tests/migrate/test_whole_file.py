"""A file appears whole or not at all, on file systems that have files without a name and on others."""

import os
import resource
import stat
import subprocess
import sys

import pytest

from migrate.whole_file import whole_file


@pytest.fixture(params=["unnamed", "named", "without links"], autouse=True)
def file_system(request, monkeypatch):
    """What the file system can do: make a file that has no name yet; or not; or no hard links either."""
    if request.param != "unnamed":
        monkeypatch.delattr(os, "O_TMPFILE")
    if request.param == "without links":

        def link(*args, **how):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)


class Broken(BaseException):
    """Not even an Exception: a signal's, say."""


def written(path, data, meanwhile=lambda: None, **how):
    with whole_file(path, **how) as file:
        file.write(data)
        meanwhile()


def broken_off(path):
    def end():
        raise Broken

    with pytest.raises(Broken):
        written(path, b"half", end)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_it_has_its_name_only_at_the_end(tmp_path):
    with whole_file(tmp_path / "out") as file:
        file.write(b"all")
        file.flush()
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == b"all"
    assert os.listdir(tmp_path) == ["out"]


def test_it_can_be_read_back_before(tmp_path):
    with whole_file(tmp_path / "out") as file:
        file.write(b"all")
        file.seek(0)
        assert file.read() == b"all"


def test_what_breaks_off_leaves_nothing(tmp_path):
    broken_off(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_what_breaks_off_leaves_what_was_there(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    broken_off(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_file_that_must_not_be_replaced_stays(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(FileExistsError) as raised:
        written(tmp_path / "out", b"new", replace=False)
    assert raised.value.filename == str(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError):
        written(tmp_path / "out", b"new", lambda: (tmp_path / "out").write_bytes(b"old"), replace=False)
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


@pytest.mark.parametrize(("private", "expected"), [(True, 0o600), (False, 0o640)])
def test_a_new_file_has_the_permissions_that_were_asked_for(tmp_path, private, expected):
    before = os.umask(0o027)
    try:
        written(tmp_path / "out", b"", private=private)
    finally:
        os.umask(before)
    assert mode(tmp_path / "out") == expected


@pytest.mark.parametrize("private", [True, False])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, private):
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out").chmod(0o604)
    written(tmp_path / "out", b"new", private=private)
    assert (tmp_path / "out").read_bytes() == b"new"
    assert mode(tmp_path / "out") == 0o604


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    if there:
        (tmp_path / "elsewhere" / "file").write_bytes(b"old")
    (tmp_path / "out").symlink_to("elsewhere/file")
    written(tmp_path / "out", b"new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"new"


def test_a_link_that_is_not_followed_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "out").symlink_to("file")
    written(tmp_path / "out", b"new", follow=False)
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "out").read_bytes() == b"new"


KINDS = {
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
}


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_is_no_regular_file_is_never_replaced(tmp_path, make, linked):
    try:
        make(tmp_path / "other")
    except PermissionError:
        pytest.skip("no device can be made here")
    before = os.lstat(tmp_path / "other")
    out = tmp_path / "other"
    if linked:
        out = tmp_path / "out"
        out.symlink_to("other")
    with pytest.raises(OSError, match="not a regular file"):
        written(out, b"new")
    after = os.lstat(tmp_path / "other")
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    name = "x" * os.pathconf(tmp_path, "PC_NAME_MAX")
    written(tmp_path / name, b"all")
    assert os.listdir(tmp_path) == [name]


def test_a_directory_that_is_not_there_is_told_of_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        written(tmp_path / "nowhere" / "out", b"")
    assert raised.value.filename == str(tmp_path / "nowhere" / "out")


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["told on closing", "told on writing"])
def test_a_disk_that_is_full_leaves_nothing(tmp_path, size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            written(tmp_path / "out", bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


SMALL_DISK = """
import os, sys
from migrate.whole_file import whole_file
place = sys.argv[1]
os.system(f"mount -t tmpfs -o size=64k tmpfs {place}") and sys.exit(77)
try:
    with whole_file(f"{place}/out") as file:
        file.write(bytes(1 << 20))
except OSError as error:
    print(error.strerror, os.listdir(place))
"""


def test_a_real_disk_that_is_full_leaves_nothing(tmp_path):
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    assert done.stdout == "No space left on device []\n"
