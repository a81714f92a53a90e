"""The guest's memory: pages, page tables, the p2m, where frames lie."""
