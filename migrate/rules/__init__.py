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

__all__ = ["NOT_RULES", "RULES", "Rule"]
