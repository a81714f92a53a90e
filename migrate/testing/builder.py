"""`StreamBuilder` under the name that tests ask for it by: see `migrate.building.builder`."""

__all__ = [
    *("PAE_ROOT", "PTE_RO", "PTE_RW", "TABLE", "Page", "Rec", "StreamBuilder", "Vcpu"),
    *("entry", "hvm_context", "page_data"),
]
