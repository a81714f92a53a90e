"""`migrate.check` and its like with the guest's frames where they were on the source.

Most guests of the tests have 32 bits, and low frames: high ones alone are more than newer releases take (HYP-27).
"""

import os
import threading
from contextlib import suppress
from typing import Any

import migrate

WHERE_IT_WAS = "source"


def check(source: Any, destination: migrate.Destination | None = None, **options: Any) -> migrate.Report:
    """`migrate.check`."""
    return migrate.check(source, destination, **{"placement": WHERE_IT_WAS, **options})


def Checker(**options: Any) -> migrate.Checker:
    """`migrate.Checker`."""
    return migrate.Checker(**{"placement": WHERE_IT_WAS, **options})


def through_a_pipe(data: bytes, **options: Any) -> migrate.Report:
    """`check` of what comes through a pipe, and cannot be read again."""
    reader, writer = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return check(reader, **options)
    finally:
        os.close(reader)
        thread.join()


def told(report: migrate.Report) -> tuple[Any, ...]:
    """What a report says, but for the words of a refusal to judge."""
    return report.verdict, [(f.rule.id, f.message, f.offset, f.pfn, f.count) for f in report.findings]
