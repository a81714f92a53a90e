import pytest
from project import ROOT

from migrate.judging.check import check


@pytest.fixture(scope="session")
def refused_sample():
    """A 32-bit guest whose L3 tables land above 4 GiB."""
    return check(ROOT / "sample_streams" / "x417-pv32.plain.libxc.zst", target="4.20", placement="high")
