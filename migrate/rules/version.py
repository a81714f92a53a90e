"""Who says so: this program, as reports name it."""

from __future__ import annotations

from functools import cache

NAME = "xen-migrate"
VERSION = "0.1.0"


@cache
def rule_set() -> str:
    """The version of the rules: `migrate.rules.catalogue.rule_set_version`."""
    from migrate.rules.catalogue import rule_set_version

    return rule_set_version()


def version_line() -> str:
    """What `migrate --version` prints."""
    from migrate.rules.catalogue import RULES

    return f"migrate {VERSION}, rules {len(RULES)} ({rule_set()})"
