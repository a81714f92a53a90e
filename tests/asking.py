"""`migrate.check` and its like with the guest's frames where they were on the source.

Most guests of the tests have 32 bits, and low frames: high ones alone are more than newer releases take (HYP-27).
"""

from typing import Any

import migrate

WHERE_IT_WAS = "source"


def check(source: Any, destination: migrate.Destination | None = None, **options: Any) -> migrate.Report:
    """`migrate.check`."""
    return migrate.check(source, destination, **{"placement": WHERE_IT_WAS, **options})


def Checker(**options: Any) -> migrate.Checker:
    """`migrate.Checker`."""
    return migrate.Checker(**{"placement": WHERE_IT_WAS, **options})
