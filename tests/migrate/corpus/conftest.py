import pytest
from corpora import ACCEPTED, REFUSED, bad, expect, good


@pytest.fixture
def folder(tmp_path):
    """A corpus of six: streams of one name in two directories, one with a wrong expectation."""
    root = tmp_path / "corpus"
    for part in ("a", "b"):
        (root / part).mkdir(parents=True)
        (root / part / "same").write_bytes(good() if part == "a" else bad())
        expect(root / part, "same", ACCEPTED)
    for number in range(4):
        (root / f"more{number}").write_bytes(good() if number % 2 else bad())
        expect(root, f"more{number}", ACCEPTED if number % 2 else REFUSED)
    return root
