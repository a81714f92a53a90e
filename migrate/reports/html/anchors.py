"""Links within the document: what of a stream has a place there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrate.rules.findings import Finding


@dataclass(slots=True)
class Anchors:
    """What of one stream can be linked to; its parts add to it as they are made.

    Attributes
    ----------
    prefix:
        begins all ids of the stream.
    records:
        offsets of the records that have a row.
    blamed:
        offset of the record that a finding is about, by identity of the finding.
    tables:
        pfns of the page tables that have a line.
    vcpus:
        those that have a table.
    """

    prefix: str
    records: set[int] = field(default_factory=set)
    blamed: dict[int, int] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    vcpus: set[int] = field(default_factory=set)

    def id(self, what: str, number: int | None = None) -> str:
        """The id of a part, or of one thing of a kind."""
        return f"{self.prefix}-{what}" if number is None else f"{self.prefix}-{what}-{number:x}"

    def record(self, finding: Finding) -> str | None:
        """A link to the record that a finding is about; None where it has no row."""
        offset = self.blamed.get(id(finding))
        return None if offset is None else f"#{self.id('record', offset)}"

    def table(self, pfn: int | None) -> str | None:
        """A link to a page table."""
        return f"#{self.id('table', pfn)}" if pfn is not None and pfn in self.tables else None

    def vcpu(self, index: int | None) -> str | None:
        """A link to a vcpu."""
        return f"#{self.id('vcpu', index)}" if index is not None and index in self.vcpus else None
