"""Answers of earlier runs, by what was asked: the stream's bytes, the questions, and which validator was asked.

An entry is a file of its own that appears whole or not at all, so any number of processes may share a cache. It
is never needed: what cannot be read, written or understood is as good as not there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, file_digest
from io import BufferedReader
from pathlib import Path

KEY_BYTES = 24
# Seconds. What no run has used for so long is forgotten.
LIFETIME = 30 * 24 * 3600


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

    name = blake2b(f"{version.installed()} {rule_set_version()}".encode(), digest_size=12)
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

    def key(self, file: BufferedReader, questions: Sequence[tuple[str, str]], vcpus: int | None) -> str:
        """The name of an answer: of a file's bytes as they are, compressed or not, read to their end."""
        digest = file_digest(file, lambda: blake2b(digest_size=KEY_BYTES))
        digest.update(repr((list(questions), vcpus)).encode())
        return digest.hexdigest()

    def get(self, key: str, stream: str) -> tuple[str, ...] | None:
        """The reports, as JSON objects of a stream of that name; None where they are not known."""
        from migrate.judging.report_json import dumps
        from migrate.safe import well_formed

        try:
            checks = json.loads(self._path(key).read_bytes())
            for check in checks:
                check["stream"]["name"] = well_formed(stream)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return tuple(map(dumps, checks))

    def put(self, key: str, checks: Sequence[str]) -> None:
        """Keep the reports."""
        path = self._path(key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, beside = tempfile.mkstemp(dir=path.parent)
            with open(fd, "w", encoding="ascii") as file:
                file.write(f"[{','.join(checks)}]")
            os.replace(beside, path)

    def tidy(self) -> None:
        """Take note that it is in use, and forget what validators left that nobody has asked for long."""
        with suppress(OSError):
            own = Path(self.folder, self.validator)
            own.mkdir(parents=True, exist_ok=True)
            os.utime(own)
            for other in Path(self.folder).iterdir():
                if time.time() - other.stat().st_mtime > LIFETIME:
                    shutil.rmtree(other, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return Path(self.folder, self.validator, key[:2], f"{key[2:]}.json")
