"""What holds for every test."""

import gc
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# No test looks at the clock; other work may slow this one down.
settings.register_profile("few", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("many", settings.get_profile("few"), max_examples=1000)
settings.load_profile("few")

# What a shell starts in the background ignores interrupts, and so do its child processes: tests that interrupt one
# would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Where no bytecode is kept beside the sources, pytest's cache keeps it, for other runs and for child processes.

    Those only read it: one that runs under a limit would leave half a module.
    """
    cache = getattr(config, "cache", None)  # -p no:cacheprovider: there is none
    if sys.dont_write_bytecode and cache is not None:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(cache.mkdir("bytecode"))
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """Collected tests stay: nothing is to be gained from looking through them for garbage, then or later."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
