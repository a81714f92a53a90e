"""Answers of earlier runs, by what was asked: the stream's bytes, the questions, and which validator was asked.

An entry is a file of its own that appears whole or not at all, so any number of processes may share a cache. It
is never needed: what cannot be read or written, or is not as it was written, is as good as not there.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b, file_digest
from io import BufferedReader
from pathlib import Path

from migrate.corpus.expected_verdict import observation_from, observation_object
from migrate.corpus.hosts import Asked
from migrate.corpus.results import Answer
from migrate.judging.report_json import dumps
from migrate.safe import well_formed
from migrate.whole_file import whole_file

KEY_BYTES = 24
SEAL_BYTES = 2 * KEY_BYTES + 1
LONGEST_ENTRY = 64 << 20
# Seconds. What no run has used for so long is forgotten.
LIFETIME = 30 * 24 * 3600

_digest = partial(blake2b, digest_size=KEY_BYTES)


def default_folder() -> str:
    """Where this user's caches are."""
    from platformdirs import user_cache_dir

    from migrate.rules import version

    return os.path.join(user_cache_dir(version.NAME), "corpus")


@cache
def validator() -> str:
    """A short name for this validator: 24 hex digits, others for another version, other rules, or changed source."""
    import migrate
    import streams
    from migrate.rules import version
    from migrate.rules.catalogue import rule_set_version

    name = blake2b(f"{version.VERSION} {rule_set_version()}".encode(), digest_size=12)
    # In a checkout the code changes more often than the version.
    for package in (streams, migrate):
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            known = file.stat()
            name.update(f"{file.relative_to(root)} {known.st_size} {known.st_mtime_ns}\n".encode())
    return name.hexdigest()


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of answers. Values of this class are sent to workers."""

    folder: str
    validator: str

    def key(self, file: BufferedReader, questions: Sequence[Asked], vcpus: int | None) -> str:
        """The name of an answer: of a file's bytes as they are, compressed or not, read to their end."""
        contents = file_digest(file, _digest).digest()
        return _digest(contents + repr((list(map(_known, questions)), vcpus)).encode()).hexdigest()

    def get(self, key: str, stream: str) -> Answer | None:
        """The answer about a stream of that name; None where it is not known."""
        with suppress(OSError):
            path = self._path(key)
            known = os.stat(path)
            if not stat.S_ISREG(known.st_mode) or known.st_size > LONGEST_ENTRY:
                return None
            with open(path, "rb", buffering=0) as file:
                seal, _, text = file.read().partition(b"\n")
            if seal == _seal(key, text):
                entry = json.loads(text)
                name = _named(stream)
                checks = tuple(name.join(parts) for parts in entry["checks"])
                return Answer(checks, tuple(map(observation_from, entry["observations"])), cached=True)
        return None

    def put(self, key: str, stream: str, answer: Answer) -> None:
        """Keep the answer about a stream of that name."""
        # The reports are text on both sides of the name, so that nobody has to take them apart.
        name = _named(stream)
        checks = [check.split(name, 1) for check in answer.checks]
        text = json.dumps(
            {"observations": list(map(observation_object, answer.observations)), "checks": checks}
        ).encode()
        if len(text) > LONGEST_ENTRY - SEAL_BYTES:
            return
        path = self._path(key)
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with whole_file(path, follow=False) as file:
                file.write(_seal(key, text) + b"\n" + text)

    def tidy(self) -> None:
        """Take note that it is in use, and forget what validators left that nobody has asked for long."""
        with suppress(OSError):
            own = Path(self.folder, self.validator)
            own.mkdir(parents=True, exist_ok=True)
            os.utime(own)
            for other in Path(self.folder).iterdir():
                if time.time() - other.stat().st_mtime > LIFETIME:
                    shutil.rmtree(other, ignore_errors=True)

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, self.validator, key[:2], f"{key[2:]}.json")


def _known(asked: Asked) -> tuple[str | None, ...]:
    """A question, in which a host is what its file says, and what it is called: reports have that in them."""
    host = asked.host
    return (asked.target, asked.placement, *((host.digest, host.name) if host else ()))


def _seal(key: str, text: bytes) -> bytes:
    """What an entry begins with, so that it differs from a damaged one, and from one of another name."""
    return _digest(key.encode() + text).hexdigest().encode()


def _named(stream: str) -> str:
    """Where a report has the name of its stream."""
    return f'"stream": {{"name": {dumps(well_formed(stream))}'
