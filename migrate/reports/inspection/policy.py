"""A CPU policy for people and for programs, and what one lacks of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from migrate.guest.cpu_policy import Policy
from migrate.judging.report import SCHEMA
from migrate.reports.verdict.text import hanging
from migrate.safe import safe, well_formed
from streams.wire.cpu_features import MSR_NAMES

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.destination.releases import Release
    from migrate.xen.policy_comparison import Lack

_KEY_WIDTH = 18
_REFUSED_WIDTH = 9


def policy_object(policy: Policy, name: str, xen: str | None) -> dict[str, Any]:
    """The JSON object of `migrate policy`; it is also what `--against` takes."""
    family, model, stepping = policy.signature
    return {
        "schema": SCHEMA,
        "stream": well_formed(name),
        "xen": xen,
        "vendor": policy.vendor,
        "family": family,
        "model": model,
        "stepping": stepping,
        "brand": policy.brand,
        "max_leaves": policy.max_leaves,
        "features": {str(word): list(names) for word, names in policy.features_by_word()},
        "xcr0": list(policy.components),
        "msr_features": {name: list(policy.msr_features(index)) for index, name in MSR_NAMES.items()},
        "leaves": _leaves(policy),
        "msrs": None if policy.msrs is None else {f"{index:#x}": f"{value:#x}" for index, value in policy.msrs.items()},
    }


def _leaves(policy: Policy) -> dict[str, dict[str, list[str]]]:
    leaves: dict[str, dict[str, list[str]]] = {}
    for (leaf, subleaf), registers in policy.leaves.items():
        key = "-" if subleaf is None else f"{subleaf:#x}"
        leaves.setdefault(f"{leaf:#x}", {})[key] = [f"{register:#x}" for register in registers]
    return leaves


def comparison_object(against: str, release: Release, lacking: Sequence[Lack], extra: Sequence[Lack]) -> dict[str, Any]:
    """The "against" object of `migrate policy --against`."""
    return {
        "name": well_formed(against),
        "target": release.name,
        "lacking": list(map(lack_object, lacking)),
        "extra": list(map(lack_object, extra)),
    }


def lack_object(lack: Lack) -> dict[str, Any]:
    """The JSON object of something that is lacking."""
    return {"kind": lack.kind, "name": well_formed(lack.name), "where": lack.where, "refused": lack.refused}


def render_policy(policy: Policy, name: str, xen: str | None, console: Console) -> None:
    """Print a policy: who the processor is, how far its leaves go, and what it can do, register by register."""

    def line(key: str, value: str) -> None:
        hanging(console, Text(f"    {key:<{_KEY_WIDTH}}"), safe(value))

    family, model, stepping = policy.signature
    console.print(Text(safe(name), "bold"), soft_wrap=True)
    if xen is not None:
        line("saved by", f"Xen {xen}")
    line("processor", f"{policy.vendor or 'nameless'}, family {family:#x}, model {model:#x}, stepping {stepping:#x}")
    if policy.brand:
        line("brand", policy.brand)
    line("last leaves", ", ".join(f"{which} {last:#x}" for which, last in policy.max_leaves.items()))
    for word, names in policy.features_by_word():
        line(str(word), " ".join(names))
    line("xcr0", " ".join(policy.components) or "none")
    for index, msr in MSR_NAMES.items():
        if policy.msrs is not None and index in policy.msrs:
            line(msr, f"{' '.join(policy.msr_features(index)) or 'none'} ({policy.msrs[index]:#x})")


def render_comparison(
    name: str, against: str, release: Release, lacking: Sequence[Lack], extra: Sequence[Lack], console: Console
) -> None:
    """Print what each of two policies has that the other lacks, and a sentence that says whether it matters."""
    for title, found in (
        (f"promised by {name}, and lacking in {against}", lacking),
        (f"in {against}, and not promised by {name}", extra),
    ):
        console.print()
        render_lacks(f"{title}: {len(found) or 'nothing'}", found, console, marked=found is lacking)
    console.print()
    if lacking:
        kinds = sum(lack.refused for lack in lacking)
        refused = f"; {kinds} of it Xen {release.short} refuses" if kinds else ""
        verdict = Text.assemble(("lacks    ", "bold red"), safe(f"{against} has not all that the guest was promised"))
        console.print(verdict, refused, sep="", soft_wrap=True)
    else:
        verdict = Text.assemble(("keeps    ", "bold green"), safe(f"{against} has all that the guest was promised"))
        console.print(verdict, soft_wrap=True)


def render_lacks(title: str, lacks: Sequence[Lack], console: Console, *, marked: bool = True) -> None:
    """Print what is lacking, a line for each thing.

    Parameters
    ----------
    marked:
        whether to say what a guest is refused for.
    """
    console.print(Text(safe(title)), soft_wrap=True)
    width = max([_KEY_WIDTH, *(len(safe(lack.name)) + 1 for lack in lacks)])
    for lack in lacks:
        mark = "refused" if lack.refused and marked else ""
        head = Text.assemble(f"    {safe(lack.name):<{width}}", (f"{mark:<{_REFUSED_WIDTH}}", "bold red"))
        hanging(console, head, safe(lack.where), "dim")
