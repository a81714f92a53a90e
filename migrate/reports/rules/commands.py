"""The command lines that show a rule: explained, and broken by the smallest stream that does."""

from __future__ import annotations

from migrate.destination.destination import DEFAULT_PLACEMENT
from migrate.destination.releases import NEWEST, RELEASES
from migrate.rules.cross import NEEDS_VERIFY
from migrate.rules.declaring import Layer
from migrate.rules.hypervisor import NEEDS_PLACEMENT, VIOLATION_PLACEMENT
from streams.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.rules.declaring import Rule

STREAM_NAME = "bad.libxc"


def explain_command(rule: Rule) -> tuple[str, ...]:
    """The command line that explains a rule."""
    return "migrate", "explain", rule.id


def write_command(rule: Rule) -> tuple[str, ...]:
    """The command line that writes the smallest stream that breaks a rule."""
    return *explain_command(rule), "--write", STREAM_NAME


class Conditions(NamedTuple):
    """Under what a rule's violation shows: arguments of `migrate.check`, with its defaults."""

    target: str = "newest"
    placement: str = DEFAULT_PLACEMENT
    verify: bool = False


def conditions(rule: Rule) -> Conditions:
    """Under what a rule's violation shows."""
    newest = [release for release in RELEASES if rule.in_force(release)][-1]
    default = Conditions()
    return Conditions(
        default.target if newest == NEWEST else newest.short,
        NEEDS_PLACEMENT.get(rule.id, default.placement if rule.layer is Layer.HVM else VIOLATION_PLACEMENT),
        rule.id in NEEDS_VERIFY,
    )


def check_command(rule: Rule, file: str = STREAM_NAME) -> tuple[str, ...]:
    """The command line that judges that stream, with the options it needs."""
    needed = sorted(conditions(rule)._asdict().items() - Conditions()._asdict().items())
    options = (word for name, value in needed for word in (f"--{name}", value) if word is not True)
    return "migrate", "check", file, *map(str, options)
