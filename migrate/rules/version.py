"""Who says so: this program, as reports name it."""

from __future__ import annotations

from functools import cache

NAME = "xen-migrate"


@cache
def installed() -> str:
    """The installed version, "unknown" where the package runs without having been installed."""
    # Takes longer to import than all else that `--version` needs.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(NAME)
    except PackageNotFoundError:
        return "unknown"


@cache
def rule_set() -> str:
    """The version of the rules: `migrate.rules.catalogue.rule_set_version`."""
    from migrate.rules.catalogue import rule_set_version

    return rule_set_version()
