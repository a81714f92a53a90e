"""A host as JSON: what `migrate host --json` writes under "facts", and reads again."""

from __future__ import annotations

import json
from typing import Any

from migrate.destination.host import HW_CAPS, Host, PolicyName, XenVersion
from migrate.destination.host_facts import Facts, HostFileError, Where
from migrate.destination.host_memory import Node
from migrate.guest.cpu_policy import Policy, Registers
from streams.wire.cpu_features import REGISTERS

FACTS = "facts"
_NO_SUBLEAF = "-"


def facts_object(host: Host) -> dict[str, Any]:
    """The JSON object of a host's facts; null for what is unknown."""
    xen = host.xen
    return {
        "name": host.name,
        "xen": None if xen is None else {"major": xen.major, "minor": xen.minor, "extra": xen.extra},
        "xen_caps": _list(host.xen_caps),
        "virt_caps": _list(host.virt_caps),
        "total_memory": host.total_memory,
        "free_memory": host.free_memory,
        "nr_cpus": host.nr_cpus,
        "hw_caps": None if host.hw_caps is None else [f"{word:#010x}" for word in host.hw_caps],
        "command_line": host.command_line,
        "nodes": [{"number": node.number, "size": node.size, "free": node.free} for node in host.nodes],
        "most_leaves": host.most_leaves,
        "most_msrs": host.most_msrs,
        "policies": {name.value: _policy_object(policy) for name, policy in host.policies.items()},
    }


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _policy_object(policy: Policy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    leaves: dict[str, dict[str, list[str]]] = {}
    for (leaf, subleaf), registers in policy.leaves.items():
        key = _NO_SUBLEAF if subleaf is None else f"{subleaf:#x}"
        leaves.setdefault(f"{leaf:#x}", {})[key] = [f"{register:#x}" for register in registers]
    return {"leaves": leaves, "msrs": {f"{index:#x}": f"{value:#x}" for index, value in (policy.msrs or {}).items()}}


_KEYS = tuple(facts_object(Host()))


def put_json(text: str | bytes, facts: Facts, source: str) -> None:
    """Add what a JSON document says of a host.

    Raises
    ------
    HostFileError
        for a document that is no such host, or of another one.
    ValueError, RecursionError
        for text that is not JSON.
    """
    document = json.loads(text)
    where = Where(source)
    if not isinstance(document, dict) or not isinstance(document.get(FACTS), dict):
        raise HostFileError(where, f'expected what `migrate host --json` writes: a JSON object with "{FACTS}" in it')
    _Document(document[FACTS], facts, where).read()


class _Document:
    """The object of one host's facts, being read."""

    def __init__(self, found: dict[str, Any], facts: Facts, where: Where) -> None:
        self.found, self.facts, self.where = found, facts, where

    def read(self) -> None:
        """Put every fact that is not null."""
        put, where = self.facts.put, self.where
        for key in self.found:
            if key not in _KEYS:
                raise HostFileError(where, f"{FACTS}.{key}: no fact of a host; expected {', '.join(_KEYS)}")
        for key, name in (("name", "host"), ("command_line", "xen_commandline")):
            if self.found.get(key) is not None:
                put(name, self.text(self.found[key], key), where)
        for key in ("xen_caps", "virt_caps"):
            if self.found.get(key) is not None:
                put(key, tuple(self.text(word, key) for word in self.list(self.found[key], key)), where)
        for key, name in (("most_leaves", "maximum leaves"), ("most_msrs", "maximum MSRs")):
            if self.found.get(key) is not None:
                put(name, self.number(self.found[key], key), where)
        for key in ("total_memory", "nr_cpus"):
            if self.found.get(key) is not None:
                put(key, self.number(self.found[key], key, 63), where)
        if self.found.get("free_memory") is not None:
            self.facts.put_least("free_memory", self.number(self.found["free_memory"], "free_memory", 63), where)
        if self.found.get("hw_caps") is not None:
            words = self.list(self.found["hw_caps"], "hw_caps", len(HW_CAPS))
            put("hw_caps", tuple(self.number(word, "hw_caps") for word in words), where)
        self.version()
        for node in self.list(self.found.get("nodes") or [], "nodes"):
            parts = self.object(node, "nodes")
            size, free = (self.number(parts.get(part), f"nodes.{part}", 63) for part in ("size", "free"))
            self.facts.put_node(Node(self.number(parts.get("number"), "nodes.number"), size, free), where)
        for name, policy in self.object(self.found.get("policies") or {}, "policies").items():
            self.policy(name, policy)

    def version(self) -> None:
        if self.found.get("xen") is not None:
            parts = self.object(self.found["xen"], "xen")
            major, minor = (self.number(parts.get(part), f"xen.{part}") for part in ("major", "minor"))
            version = XenVersion(major, minor, self.text(parts.get("extra"), "xen.extra"))
            self.facts.put("xen_version", version, self.where)

    def policy(self, name: str, policy: Any) -> None:
        path = f"policies.{name}"
        if name not in PolicyName.__members__.values():
            raise self.wrong(path, f"one of {', '.join(PolicyName)}")
        if policy is None:
            self.facts.put_policy(PolicyName(name), None, self.where)
            return
        parts = self.object(policy, path)
        leaves = {
            (self.number(leaf, path), None if subleaf == _NO_SUBLEAF else self.number(subleaf, path)): self.registers(
                registers, f"{path}.leaves.{leaf}"
            )
            for leaf, subleaves in self.object(parts.get("leaves"), f"{path}.leaves").items()
            for subleaf, registers in self.object(subleaves, f"{path}.leaves.{leaf}").items()
        }
        msrs = self.object(parts.get("msrs"), f"{path}.msrs")
        values = {self.number(index, path): self.number(value, f"{path}.msrs", 64) for index, value in msrs.items()}
        self.facts.put_policy(PolicyName(name), Policy(leaves, values), self.where)

    def registers(self, value: Any, path: str) -> Registers:
        a, b, c, d = (self.number(register, path) for register in self.list(value, path, len(REGISTERS)))
        return a, b, c, d

    def number(self, value: Any, path: str, bits: int = 32) -> int:
        try:
            number = int(value, 0) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << bits:
            raise self.wrong(path, f"a number of {bits} bits")
        return number

    def text(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise self.wrong(path, "text")
        return value

    def list(self, value: Any, path: str, length: int | None = None) -> list[Any]:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise self.wrong(path, "a list" if length is None else f"a list of {length}")
        return value

    def object(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(path, "an object")
        return value

    def wrong(self, path: str, expected: str) -> HostFileError:
        return HostFileError(self.where, f"{FACTS}.{path}: expected {expected}")
