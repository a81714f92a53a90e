"""vcpus."""
