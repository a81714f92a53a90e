"""All rules there are, by id."""

from __future__ import annotations

from importlib import import_module

from migrate.rules.declaring import RULES, Rule

# Each module declares the rules of one subject.
SUBJECTS = (
    *("containers", "configuration", "device_model", "headers", "framing", "records", "page_data", "page_tables"),
    *("vcpus", "vcpu_state", "order", "cross", "hvm", "hvm_vcpus", "hvm_devices", "hypervisor", "extended_cr3"),
)

NOT_RULES: dict[str, str] = {
    id: reason
    for subject in SUBJECTS
    for id, reason in getattr(import_module(f"migrate.rules.{subject}"), "NOT_RULES", {}).items()
}
"""Ids of conditions that are no rules of their own, and why."""


def rule_set_version() -> str:
    """A short name for this set of rules: 12 hex digits, others as soon as one declaration differs.

    It depends on what is declared alone, not on the order of declarations, nor on how violations are built.
    """
    from hashlib import sha256
    from operator import attrgetter

    facts = attrgetter(*(name for name in Rule.__match_args__ if name not in ("doc", "violation")))
    declared = [
        # Python 3.13 strips the indent of docstrings, older ones do not.
        f"{facts(rule)} {rule.violation is not None} {rule.doc.replace(' ', '')}"
        for rule in sorted(RULES.values(), key=lambda rule: rule.id)
    ]
    return sha256("\0".join([*declared, repr(sorted(NOT_RULES.items()))]).encode()).hexdigest()[:12]


__all__ = ["NOT_RULES", "RULES", "SUBJECTS", "rule_set_version"]
