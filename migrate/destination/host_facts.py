"""Facts of one host as they are met in its files, and where: two that contradict each other are of two hosts."""

from __future__ import annotations

from typing import Any

from migrate.destination.host import Host, PolicyName, XenVersion
from migrate.destination.host_memory import Node
from migrate.guest.cpu_policy import Policy
from streams.values import NamedTuple

_LONGEST_SHOWN = 60


class Where(NamedTuple):
    """A place in a host file; line 0 where it has no lines."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.source, f"line {self.line}" if self.line else "")))


class HostFileError(ValueError):
    """What is wrong with a host file, and where."""

    def __init__(self, where: Where, message: str) -> None:
        place = str(where)
        super().__init__(f"{place}: {message}" if place else message)
        self.where = where


class Facts:
    """What several outputs say of one host."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, Where]] = {}
        self._nodes: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def put(self, name: str, value: Any, where: Where) -> None:
        """Keep a fact. Raises HostFileError where the same was said otherwise before."""
        before, there = self._found.setdefault(name, (value, where))
        if before != value:
            raise HostFileError(where, f"{name} is {_difference(value, before)} in {there}: are these two hosts?")

    def put_least(self, name: str, value: int, where: Where) -> None:
        """Keep a number that changes on a running host: the least that was said."""
        before, _ = self._found.setdefault(name, (value, where))
        if value < before:
            self._found[name] = value, where

    def put_node(self, node: Node, where: Where) -> None:
        """Keep a NUMA node. Raises HostFileError where its size was another before."""
        self._nodes.add(node.number)
        self.put(_node("size", node.number), node.size, where)
        self.put_least(_node("free", node.number), node.free, where)

    def put_policy(self, name: PolicyName, policy: Policy | None, where: Where) -> None:
        """Keep a policy, None where Xen does not support it. Raises HostFileError where it was another before."""
        self.put(_policy(name), policy, where)

    def host(self) -> Host:
        """The host. Raises HostFileError where the parts of its version do not make xen_version."""
        return Host(
            name=self._get("host"),
            xen=self._version(),
            xen_caps=self._get("xen_caps"),
            virt_caps=self._get("virt_caps"),
            total_memory=self._get("total_memory"),
            free_memory=self._get("free_memory"),
            nr_cpus=self._get("nr_cpus"),
            hw_caps=self._get("hw_caps"),
            command_line=self._get("xen_commandline"),
            nodes=tuple(
                Node(number, self._get(_node("size", number)), self._get(_node("free", number)))
                for number in sorted(self._nodes)
            ),
            most_leaves=self._get("maximum leaves"),
            most_msrs=self._get("maximum MSRs"),
            policies={name: self._get(_policy(name)) for name in PolicyName if _policy(name) in self._found},
        )

    def _get(self, name: str) -> Any:
        return self._found[name][0] if name in self._found else None

    def _version(self) -> XenVersion | None:
        printed: XenVersion | None = self._get("xen_version")
        parts = [self._get(f"xen_{part}") for part in ("major", "minor", "extra")]
        if None in parts:
            return printed
        version = XenVersion(*parts)
        if printed is not None and str(printed) != str(version):
            _, where = self._found["xen_version"]
            raise HostFileError(
                where,
                f"xen_version is {printed}, and xen_major, xen_minor and xen_extra say {version}: are these two hosts?",
            )
        return version


def _node(what: str, number: int) -> str:
    return f"the {what} of node {number}"


def _policy(name: PolicyName) -> str:
    return f"the {name} policy"


def _difference(value: Any, before: Any) -> str:
    """Two values that should be the same, as they are told: "6143, and was 2999"."""
    if isinstance(value, Policy) and isinstance(before, Policy):
        leaves = (leaf for leaf, registers in value.leaves.items() if before.leaves.get(leaf) != registers)
        first, _ = next(leaves, (None, None))
        return "not the same" if first is None else f"not the same (leaf {first:#x})"
    return f"{_shown(value)}, and {_shown(before)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        value = " ".join(f"{part:08x}" if isinstance(part, int) else part for part in value)
    text = "unknown to Xen" if value is None else "there" if isinstance(value, Policy) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
