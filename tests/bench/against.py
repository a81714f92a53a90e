"""Two runs of the benchmarks side by side: what has become faster, what slower?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tables import Table

# What is compared of a row's runs: its name in the table, and where to find it in one run.
ASPECTS = ("wall", "cpu", "peak")


def compare(before: Mapping[str, Any], now: list[Table]) -> Table:
    """A table of how many times as much as before every row that both have costs now.

    Parameters
    ----------
    before:
        the document that `--json` wrote.

    Raises
    ------
    ValueError
        for anything else.
    """
    try:
        earlier = {table["key"]: table["runs"] for table in before["tables"]}
        title = f"Against an earlier run, on {before['machine']}"
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what --json writes: {error!r}") from error
    table = Table(title, ("", *(f"{aspect} x" for aspect in ASPECTS)), key="against")
    for new in now:
        for name, runs in new.runs.items():
            if name in (old := earlier.get(new.key, {})):
                ratios = dict(_ratios(old[name], runs))
                if ratios:
                    table.rows.append((f"{new.key}: {name}", *(ratios.get(aspect, "") for aspect in ASPECTS)))
    table.notes = ["median now / median then: below 1 is better; one run each, so small differences mean nothing"]
    return table


def _ratios(old: list[Any], new: list[Any]) -> Iterator[tuple[str, str]]:
    for aspect in ASPECTS:
        then, now = ([v for run in runs if (v := _value(run, aspect))] for runs in (old, new))
        if then and now:
            yield aspect, f"{statistics.median(now) / statistics.median(then):.2f}"


def _value(run: Any, aspect: str) -> float | None:
    if not isinstance(run, Mapping):
        return run if aspect == "wall" else None
    if aspect == "cpu" and "user" in run:
        return float(run["user"] + run["sys"])
    value = run.get(aspect)
    return None if value is None else float(value)
