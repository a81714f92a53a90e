"""`migrate completion`: what teaches a shell to complete command lines, and how each shell asks."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from migrate.cli.command import command
from migrate.cli.ending import echo
from migrate.cli.main import COMPLETE, PROGRAMS


class Bash(BashComplete):
    """Takes = and : for ends of words, and replaces only what stands after the last."""

    def source(self) -> str:
        """The script; which bash runs here, if any, is not asked."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's and the beginning of that one, as they were before bash took them apart."""
        words: list[str] = []
        cursor = int(os.environ["COMP_CWORD"])
        given = split_arg_string(os.environ["COMP_WORDS"])
        for word in given[: cursor + 1]:
            if words and (word[:1] in ("=", ":") or words[-1][-1:] in ("=", ":")):
                words[-1] += word
            else:
                words.append(word)
        last = words.pop() if len(given) > cursor else ""
        return words[1:], last

    def format_completion(self, item: CompletionItem) -> str:
        """One line of the answer."""
        value = item.value
        if item.type == "plain" and ":" in value:
            # Past the last colon that has been typed; of `file:` alone nothing has, and all of it is new.
            typed = self.get_completion_args()[1].rpartition("=")[2]
            value = value.removeprefix(typed.rpartition(":")[0] + ":") if ":" in typed else value
        return f"{item.type},{value}"


class _WholeWords(ShellComplete):
    """These shells replace the whole word, of --option=value the option too."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """What may stand where the cursor is."""
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--"):
            for item in found:
                item.value = f"{option}={item.value}"
        return found


class Zsh(_WholeWords, ZshComplete):
    """As click has it otherwise."""


class Fish(_WholeWords, FishComplete):
    """Its answers are cut at the first comma only, as a list of rules has more, and stay in their order."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","').replace(
        "complete --no-files", "complete --no-files --keep-order"
    )


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}

for _shell in SHELLS.values():
    add_completion_class(_shell)


def script(shell: str) -> str:
    """What a shell of that name has to read in order to complete this program's command lines, under both its names."""
    from migrate.cli.main import main

    context: dict[str, Any] = {}
    return "\n".join(SHELLS[shell](main, context, program, COMPLETE).source().rstrip() for program in PROGRAMS)


@command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print what makes a shell complete command lines of this program, called migrate or xen-migrate.

    It completes commands, options and their values: rules by id and slug, releases, placements, formats, files.

    \b
    In ~/.bashrc:  eval "$(migrate completion bash)"
    In ~/.zshrc:   eval "$(migrate completion zsh)"     (after compinit)
    Example: migrate completion fish > ~/.config/fish/completions/migrate.fish
    """
    echo(script(shell))
