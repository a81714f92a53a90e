"""Where a guest would come back: what a question about a stream is about."""

from __future__ import annotations

import os

from migrate.destination.placement import check_name
from migrate.destination.releases import NEWEST, Release, resolve
from streams.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.host import Host

# Xen hands out memory from the top: a host with more than 4 GiB gives a guest frames above them.
DEFAULT_PLACEMENT = "high"


class Destination:
    """A Xen, where it would place the guest's frames, and what is known of the host; a value, and hashable.

    Parameters
    ----------
    release:
        the Xen that restores: "4.20", "4.20.3", "newest"; by default the host's, and without a host the newest.
    placement:
        where the guest's frames land: source, high, low, identity or file:MAP; by default as on the host.
    l3_rule:
        a form of the 4 GiB rule to try instead of the release's own: L3V-1 … (`migrate.rules.extended_cr3`).
    vcpus:
        how many vcpus the new domain has; by default what an xl file's config says, else the stream is believed.
    host:
        what is known of a real host: a host file, or the host that `migrate.destination.host_files.read_host` reads
        from several.

    Raises
    ------
    ValueError
        for an unknown release, placement or form of the rule, a number of vcpus that no domain has, or a file that is
        no host's.
    OSError
        for a host file that cannot be read.
    """

    __slots__ = ("host", "l3_rule", "placement", "placement_assumed", "release", "vcpus")

    release: Release
    placement: str
    placement_assumed: bool  # nobody said so, and nothing is known of the host; counts in no comparison
    l3_rule: str | None
    vcpus: int | None
    host: Host | None

    def __init__(
        self,
        release: Release | str | None = None,
        placement: str | None = None,
        *,
        l3_rule: str | None = None,
        vcpus: int | None = None,
        host: Host | str | os.PathLike[str] | None = None,
    ) -> None:
        for what, given, kinds in (
            ("release", release, (Release, str)),
            ("placement", placement, str),
            ("form of the 4 GiB rule", l3_rule, str),
            ("number of vcpus", vcpus, int),
        ):
            if given is not None and not isinstance(given, kinds):
                raise ValueError(f"{given!r} is no {what}")
        if host is not None and not isinstance(host, (str, os.PathLike)):
            from migrate.destination.host import Host

            if not isinstance(host, Host):
                raise ValueError(f"{host!r} is no host: expected a host file's path, or what is known of one")
        if vcpus is not None and vcpus < 1:
            raise ValueError(f"a domain with {vcpus} vcpus? It has at least one")
        if isinstance(host, (str, os.PathLike)):
            host = _read(host)
        if release is None:
            release = _known_release(host) or NEWEST
        known = _known_placement(host) if placement is None else placement
        fields = {
            "release": release if isinstance(release, Release) else resolve(release),
            "placement": check_name(DEFAULT_PLACEMENT if known is None else known),
            "placement_assumed": known is None,
            "l3_rule": l3_rule,
            "vcpus": vcpus,
            "host": host,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a destination does not change: {name}")

    @property
    def _key(self) -> tuple[object, ...]:
        return self.release, self.placement, self.l3_rule, self.vcpus, self.host

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Destination) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        more = [f"{name}={value!r}" for name in ("l3_rule", "vcpus", "host") if (value := getattr(self, name))]
        return f"Destination({', '.join([repr(self.release.short), repr(self.placement), *more])})"

    @property
    def for_xen(self) -> Destination:
        """The same as far as Xen's answers hang on it: alike hosts of a pool are one."""
        if self.host is None:
            return self
        return Destination(self.release, self.placement, l3_rule=self.l3_rule, vcpus=self.vcpus, host=self.host.for_xen)

    def but(self, *, placement: str | None = None, release: Release | None = None) -> Destination:
        """The same with another placement or release."""
        where = placement or (None if self.placement_assumed else self.placement)
        return Destination(release or self.release, where, l3_rule=self.l3_rule, vcpus=self.vcpus, host=self.host)

    @property
    def overridden(self) -> tuple[str, ...]:
        """What was asked for in place of what the host says: release, placement."""
        release, placement = _known_release(self.host), _known_placement(self.host)
        return (
            *(["release"] if release not in (None, self.release) else []),
            *(["placement"] if placement not in (None, self.placement) else []),
        )

    @property
    def l3_rule_in_force(self) -> str:
        """The form of the 4 GiB rule by which it answers."""
        return self.l3_rule or self.release.l3_rule


def _read(file: str | os.PathLike[str]) -> Host:
    """What a host file says, under its name."""
    from migrate.destination.host_files import read_host

    return replace(read_host(file).host, path=os.fspath(file))


def _known_release(host: Host | None) -> Release | None:
    """What runs on a host."""
    known = host.release.value if host is not None else None
    return None if known is None else resolve(known.name)


def _known_placement(host: Host | None) -> str | None:
    """Where a host's frames land; None where that is not known."""
    high = host.places_high().value if host is not None else None
    return None if high is None else "high" if high else "low"
