"""A levelled policy for people and for programs: the policy itself, and the configuration that gives it to a guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from migrate.destination.levelling import BEYOND_FEATURESET, Levelled
from migrate.destination.levelling_forms import featureset, libvirt_cpu, unnamed, xl_cpuid, xl_key_values, xl_strings
from migrate.judging.report import SCHEMA
from migrate.reports.inspection.policy import lack_object, policy_object, render_lacks
from migrate.reports.verdict.text import hanging
from migrate.safe import safe, well_formed

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.xen.policy_comparison import Lack

_KEY_WIDTH = 18


def levelling_object(
    levelled: Levelled, hosts: Sequence[str], guest: str | None = None, lacks: Sequence[Lack] | None = None
) -> dict[str, Any]:
    """The JSON object of a levelled policy; its "policy" is what `migrate policy --against` takes.

    `xl` has the strings of `cpuid = [...]`; `unnamed` is what the forms by name (`xl_names`, `libvirt`) cannot say.
    `promised` is there for a guest that was asked about: what it was promised beyond.
    """
    made = {
        "schema": SCHEMA,
        "hosts": list(map(well_formed, hosts)),
        "guest": levelled.kind,
        "policy": policy_object(levelled.policy, "the common policy", None),
        "masked": list(levelled.disabled),
        "last_leaves": levelled.policy.max_leaves,
        "xl": xl_strings(levelled),
        "xl_names": xl_key_values(levelled),
        "libvirt": libvirt_cpu(levelled),
        "unnamed": unnamed(levelled),
        "xapi": featureset(levelled.policy),
        "notes": list(levelled.notes),
    }
    if guest is not None and lacks is not None:
        made["promised"] = {"name": well_formed(guest), "beyond": list(map(lack_object, lacks))}
    return made


def render_levelling(
    levelled: Levelled, hosts: Sequence[str], guest: str | None, lacks: Sequence[Lack] | None, console: Console
) -> None:
    """Print the common policy, the configuration that asks for it, what cannot be levelled, and a guest beyond it."""

    def line(key: str, value: str) -> None:
        hanging(console, Text(f"    {key:<{_KEY_WIDTH}}"), safe(value))

    policy, beyond = levelled.policy, ", ".join(unnamed(levelled))
    console.print(Text(safe(f"{levelled.kind} guests on {', '.join(hosts)}"), "bold"), soft_wrap=True)
    line("vendor", policy.vendor or "not the same")
    line("last leaves", ", ".join(f"{which} {last:#x}" for which, last in policy.max_leaves.items()))
    for word, names in policy.features_by_word():
        line(str(word), " ".join(names))
    line("xcr0", " ".join(policy.components) or "none")
    line("masked", " ".join(levelled.disabled) or "nothing")
    for title, text in (
        ("xl.cfg", xl_cpuid(levelled)),
        ("xl.cfg by names" + (f", which cannot say {beyond}" if beyond else ""), xl_key_values(levelled)),
        ("libvirt, which cannot say where leaves end", libvirt_cpu(levelled)),
        (f"xapi's featureset, which newer releases continue with {BEYOND_FEATURESET}", featureset(policy)),
    ):
        console.print()
        console.print(Text(safe(f"{title}:")), soft_wrap=True)
        console.print(Text(text), soft_wrap=True)
    for note in levelled.notes:
        console.print()
        hanging(console, Text("note: "), safe(note))
    if guest is not None and lacks is not None:
        console.print()
        title = f"promised to {guest}, and beyond the common policy: {len(lacks) or 'nothing'}"
        render_lacks(title, lacks, console)
