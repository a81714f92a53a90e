"""`StreamBuilder` under the name that tests ask for it by: see `migrate.building.builder`."""

from migrate.building.builder import StreamBuilder
from migrate.building.hvm_contexts import hvm_context
from migrate.building.parts import PAE_ROOT, PTE_RO, PTE_RW, TABLE, Page, Rec, Vcpu, entry, page_data

__all__ = [
    "PAE_ROOT",
    "PTE_RO",
    "PTE_RW",
    "TABLE",
    "Page",
    "Rec",
    "StreamBuilder",
    "Vcpu",
    "entry",
    "hvm_context",
    "page_data",
]
