"""What Xen would answer to the calls of a restore."""
