"""Damaged xl files, and what a real `xl restore` did with them: who refuses, xl, libxl or QEMU."""

import pytest
from project import SAMPLES

from migrate import check
from migrate.corpus.expectations import Shelf

FOLDER = SAMPLES / "oracle-xl"
STREAMS = sorted(FOLDER.glob("*.zst"))


def damage(path):
    return path.name.split("__")[1].removesuffix(".xl.zst")


def test_all_samples_are_there():
    assert len(STREAMS) == 29


@pytest.mark.parametrize("path", STREAMS, ids=damage)
def test_the_verdict_is_that_of_a_real_restore(path):
    (expected,) = Shelf().entry(path).expect
    real = expected.measured.outcome
    report = check(path, target="4.20.0", vcpus=2)
    assert report.verdict == real.verdict
    if real.errno is not None:  # from QEMU's log
        failure = report.failure
        assert (failure.step, failure.call, failure.errno) == ("device-model", "qemu", real.errno)


REFUSED_BY = {"cfg_typex": "libxl", "ec_empty": "libxl", "es_odd": "libxl", "rec_unknown": "libxl", "xl_magic": "xl"}


@pytest.mark.parametrize(("name", "who"), REFUSED_BY.items())
def test_who_refuses_is_told(name, who):
    (path,) = (path for path in STREAMS if damage(path) == name)
    assert check(path, target="4.20.0", vcpus=2).failure.call == who
