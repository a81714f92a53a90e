"""What may be configured of an option: in the environment, in the working directory, or for the user."""

from __future__ import annotations

import os

from migrate.cli.ending import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETTINGS_FILE = "migrate.toml"
SETTINGS_TABLE = ("tool", "xen-migrate")
CONFIGURABLE = ("target", "placement", "host", "vcpus", "l3-rule")
"""Options that may stand in the file: where a guest would come back."""
ENVIRONMENT = {"target": "MIGRATE_TARGET", "placement": "MIGRATE_PLACEMENT", "host": "MIGRATE_HOST"}


def settings() -> dict[str, Any]:
    """Values of options that are configured: in the environment, in the working directory, or for the user.

    Raises
    ------
    UsageError
        for a file that cannot be used.
    """
    found: dict[str, Any] = {}
    for folder in (_user_folder(), ""):
        file = os.path.join(folder, SETTINGS_FILE)
        if os.path.isfile(file):
            found |= _read(file)
    return found | {name: os.environ[key] for name, key in ENVIRONMENT.items() if os.environ.get(key)}


def _user_folder() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")


def _read(file: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(file, "rb") as opened:
            table = tomllib.load(opened)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    for key in SETTINGS_TABLE:
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {'.'.join(SETTINGS_TABLE)} is no table")
    for name, value in table.items():
        _check(file, name, value)
    return table


def _check(file: str, name: str, value: object) -> None:
    if name not in CONFIGURABLE:
        from difflib import get_close_matches

        close = get_close_matches(name, CONFIGURABLE, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(CONFIGURABLE)}"
        raise UsageError(f"{file}: no such option {name!r}{hint}")
    wanted = int if name == "vcpus" else str
    if type(value) is not wanted:
        raise UsageError(f"{file}: {name} = {value!r}: expected {'a number' if wanted is int else 'a text'}")
