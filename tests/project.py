"""Where things of this project are, and what may become of them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_streams"


@contextmanager
def restless(file: Path) -> Iterator[None]:
    """Within, somebody goes on changing a file."""
    over = threading.Event()

    def change() -> None:
        while not over.wait(0.001):
            os.utime(file)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
