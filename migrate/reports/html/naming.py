"""How streams are called in a document: the file's name, what is common to all paths, and the name of a page."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80
INDEX = "index.html"


def split(name: str) -> tuple[str, str]:
    """The folder of a file, with a slash at its end, and its name; the folder is empty where none is given."""
    folder, slash, file = name.rpartition("/")
    return (folder + slash, file) if file else ("", name)


def common_folder(names: Sequence[str]) -> str:
    """The folder, with a slash at its end, below which all the files lie; empty where there is no such."""
    folders = [split(name)[0] for name in names]
    if len(folders) < 2 or not all(folders):
        return ""
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # some begin at the root, and some do not
        return ""
    folder = common.rstrip("/") + "/"
    # A path may be written in more than one way.
    return folder if common and all(name.startswith(folder) for name in names) else ""


def page_name(name: str, number: int) -> str:
    """The file name of a stream's page: letters that need no escape anywhere, and told apart by the number."""
    return f"{number:03}-{_PLAIN.sub('-', split(name)[1])[:_LONGEST]}.html"
