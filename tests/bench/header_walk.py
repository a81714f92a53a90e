"""The least that can be done with a stream: read every record header, and nothing else.

python tests/bench/header_walk.py FILE
"""

from __future__ import annotations

import os
import sys

from streams.wire.framing import DOMAIN_HEADER, IMAGE_HEADER, RECORD_HEADER, RecordType, padded


def walk(fd: int) -> int:
    """How many records a libxc image has."""
    offset, records, kind = IMAGE_HEADER.size + DOMAIN_HEADER.size, 0, None
    while kind != RecordType.END:
        kind, length = RECORD_HEADER.unpack(os.pread(fd, RECORD_HEADER.size, offset))
        offset += RECORD_HEADER.size + padded(length)
        records += 1
    return records


if __name__ == "__main__":
    with open(sys.argv[1], "rb", buffering=0) as file:
        print(walk(file.fileno()))
