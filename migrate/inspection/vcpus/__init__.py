"""The guest's vcpus, as registers."""
