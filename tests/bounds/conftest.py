import sys
from collections.abc import Iterator

import pytest
from confined import Confinement, Ended

LINUX = sys.platform.startswith("linux")


@pytest.fixture(scope="session")
def confinement(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confinement]:
    if not LINUX:
        pytest.skip("asks the kernel for the address space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        made = Confinement(tmp_path_factory.mktemp("confined"))
        yield made
        made.close()


@pytest.fixture
def check(confinement: Confinement):
    """`migrate check` under the law: bytes and options in, an `Ended` out."""

    def check(stream: bytes, *options: str) -> Ended:
        return confinement.check(stream, *options)

    return check
