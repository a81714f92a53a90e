"""The rooms of the house: which there are, and which way imports run between them."""

import ast
import re
from functools import cache

import pytest
from project import ROOT

import migrate

# Each room may import those below it, and itself; rooms on one line know nothing of each other.
FLOORS = [
    ["cli", "testing"],
    ["reports"],
    ["corpus", "extraction"],
    ["reducing", "inspection"],
    ["judging"],
    ["toolstack"],
    ["xen"],
    ["rules"],
    ["destination"],
    ["guest", "building"],
    ["streams"],
]
# What belongs to no room, and knows of none.
LEAVES = {"safe", "whole_file"}
HEIGHT = {room: height for height, rooms in enumerate(reversed(FLOORS)) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("migrate", "streams")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    return package if package == "streams" else rest.partition(".")[0] or "__init__"


def imported(path) -> set[str]:
    """Modules that a file imports when it runs, wherever in it; what only a type checker reads is left out."""
    tree = ast.parse(path.read_text("utf-8"))
    typing = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in MODULES or f"{name}.__init__" in MODULES}


@cache
def imports() -> dict[str, set[str]]:
    """By module, what it imports."""
    return {module: imported(path) for module, path in MODULES.items()}


def test_every_folder_is_a_room_of_the_table_and_has_its_line_on_the_page():
    folders = {path.name for path in (ROOT / "migrate").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders | {"streams"} == set(HEIGHT)
    lines = re.findall(r"^    (\w+)/  +\S", migrate.__doc__, re.MULTILINE)
    assert set(lines) == set(HEIGHT)
    assert [room for floor in FLOORS for room in floor if room in lines] == sorted(
        lines, key=lambda room: (-HEIGHT[room], lines.index(room))
    )


def test_no_module_stands_beside_the_rooms():
    loose = {path.stem for path in (ROOT / "migrate").glob("*.py")}
    assert loose == {"__init__", "__main__", *LEAVES}


@pytest.mark.parametrize("room", HEIGHT)
def test_imports_run_downwards_only(room):
    up = {
        (module, other)
        for module, others in imports().items()
        if room_of(module) == room
        for other in others
        if room_of(other) in HEIGHT and room_of(other) != room and HEIGHT[room_of(other)] >= HEIGHT[room]
    }
    assert up == set()


def test_leaves_import_nothing_of_ours():
    assert {module for module, others in imports().items() if room_of(module) in LEAVES and others} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if module.endswith("__init__")])
def test_a_package_holds_a_docstring_and_nothing_else(module):
    if module in ("migrate.__init__", "streams.__init__"):
        return  # the faces
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


# Who imports the other only once it runs, and why.
TIED = [
    {"migrate.judging.report", "migrate.judging.report_json"},  # a report makes its own JSON
    {"migrate.cli.start", "migrate.cli.plain", "migrate.cli.main"},  # nothing is imported before the program starts
    {"streams.file_objects", "streams.transports"},  # a stream may be opened of a file object, and read as one
]


def circles() -> list[set[str]]:
    """Groups of modules that import each other in a loop, when they are loaded or when they run."""
    reach: dict[str, set[str]] = {}
    for module in MODULES:
        seen, todo = set(), list(imports()[module] & MODULES.keys())
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += imports()[one] & MODULES.keys()
        reach[module] = seen
    found = []
    for module in MODULES:
        group = {module, *(other for other in reach[module] if module in reach[other])}
        if module in reach[module] and group not in found:
            found.append(group)
    return found


def test_no_modules_import_each_other_in_a_circle_but_those_that_have_a_reason():
    assert [group for group in circles() if group not in TIED] == []
