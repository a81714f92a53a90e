"""The rule catalogue: every module here declares the rules of one subject."""

from importlib import import_module
from pkgutil import iter_modules

from migrate.rules.catalogue import RULES, Rule

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

NOT_RULES: dict[str, str] = {
    id: reason
    for _module in iter_modules(__path__)
    for id, reason in getattr(import_module(f"{__name__}.{_module.name}"), "NOT_RULES", {}).items()
}


def rule_set_version() -> str:
    """A short name for this set of rules: 12 hex digits, others as soon as one declaration differs.

    It depends on what is declared alone, not on the order of declarations, nor on how violations are built.
    """
    from dataclasses import asdict
    from hashlib import sha256

    declared = [
        sorted({**asdict(rule), "violation": rule.violation is not None}.items())
        for rule in sorted(RULES.values(), key=lambda rule: rule.id)
    ]
    return sha256(repr((declared, sorted(NOT_RULES.items()))).encode()).hexdigest()[:12]


__all__ = ["NOT_RULES", "RULES", "Rule", "rule_set_version"]
