"""How many examples of a law are tried."""

from hypothesis import settings

USUAL = 100  # examples, of hypothesis itself


def examples(number: int) -> int:
    """So many by default, and more under a profile that tries more than is usual (`--hypothesis-profile=many`)."""
    return max(number * settings().max_examples // USUAL, 1)
