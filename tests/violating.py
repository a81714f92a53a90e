"""The smallest stream that breaks a rule, made once for all that look at it."""

from functools import cache

from migrate.building.builder import StreamBuilder
from migrate.rules.catalogue import RULES


@cache
def violating(rule: str) -> bytes:
    b = StreamBuilder.pv(4)
    build = RULES[rule].violation
    assert build is not None
    build(b)
    return b.build()
