"""What may be configured of an option: in the environment, in the working directory, or for the user."""

from __future__ import annotations

import os
from contextlib import suppress

from migrate.cli.ending import UsageError, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETTINGS_FILE = "migrate.toml"
SETTINGS_TABLE = ("tool", "xen-migrate")
CONFIGURABLE = ("target", "placement", "host", "vcpus", "l3-rule")
"""Options that may stand in the file: where a guest would come back."""
ENVIRONMENT = {"target": "MIGRATE_TARGET", "placement": "MIGRATE_PLACEMENT", "host": "MIGRATE_HOST"}

_warned_of: set[str] = set()  # files without a table for this program


def settings() -> dict[str, Any]:
    """Values of options that are configured: in the environment, in the working directory, or for the user.

    Raises
    ------
    UsageError
        for a file that cannot be used.
    """
    return {name: value for name, (value, _) in _found().items()}


def origin(name: str) -> str:
    """The variable or the file that configures an option. Raises as `settings`; KeyError where nothing does."""
    return _found()[name][1]


def _found() -> dict[str, tuple[Any, str]]:
    """The values, each with where it stands."""
    found: dict[str, tuple[Any, str]] = {}
    for folder in (_user_folder(), ""):
        file = os.path.join(folder, SETTINGS_FILE)
        if os.path.isfile(file):
            found |= {name: (value, file) for name, value in _read(file).items()}
    return found | {name: (os.environ[key], key) for name, key in ENVIRONMENT.items() if os.environ.get(key)}


def _user_folder() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")


def _read(file: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(file, "rb") as opened:
            table = tomllib.load(opened)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    whole = table
    for key in SETTINGS_TABLE:
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {'.'.join(SETTINGS_TABLE)} is no table")
    if whole and not table:
        _tell_of_none(file)
    for name, value in table.items():
        _check(file, name, value)
    return table


def _tell_of_none(file: str) -> None:
    if (path := os.path.abspath(file)) not in _warned_of:
        _warned_of.add(path)
        with suppress(OSError):  # a filter's stream flows all the same
            complain(f"{file}: nothing counts but what stands below [{'.'.join(SETTINGS_TABLE)}]")


def _check(file: str, name: str, value: object) -> None:
    if name not in CONFIGURABLE:
        from difflib import get_close_matches

        close = get_close_matches(name, CONFIGURABLE, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(CONFIGURABLE)}"
        raise UsageError(f"{file}: no such option {name!r}{hint}")
    wanted = int if name == "vcpus" else str
    if type(value) is not wanted:
        raise UsageError(f"{file}: {name} = {value!r}: expected {'a number' if wanted is int else 'a text'}")
