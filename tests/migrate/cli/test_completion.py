"""Completion as shells ask for it: by environment variables, and by the scripts that they read."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner
from project import ROOT

from migrate.cli.completion import SHELLS
from migrate.cli.main import COMPLETE, PROGRAMS, main
from migrate.destination.releases import RELEASES
from migrate.rules.catalogue import RULES

LAUNCHER = f"""#!{sys.executable}
from migrate.cli.main import main
main()
"""
BASH = """
program=$1
eval "$($program completion bash)"
compopt() { printf '%s %s\\n' "$@"; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"_${program/-/_}_completion" $program
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What needs a line editor is replaced by what prints its answer.
ZSH = """
program=$1
compdef() { : }
_describe() { print -rl -- $completions_with_descriptions }
compadd() { print -rl -- $completions }
_path_files() { print -r -- FILES $* }
eval "$($program completion zsh)"
words=("$@")
CURRENT=$#
"_${program/-/_}_completion"
"""
FISH = "migrate completion fish | source; complete -C $argv[1]"


def asked(shell, words, word):
    """What the program answers: type and text of each suggestion, in the form that all shells have in common."""
    separator = {"bash": "\n", "zsh": " ", "fish": "\n"}[shell]
    cursor = word if shell == "fish" else str(len(words))
    result = CliRunner().invoke(
        main,
        [],
        prog_name="migrate",
        env={COMPLETE: f"{shell}_complete", "COMP_WORDS": separator.join([*words, word]), "COMP_CWORD": cursor},
    )
    assert result.exit_code == 0, result.output
    lines = list(filter(None, result.output.splitlines()))
    if shell == "zsh":
        return list(zip(lines[::3], lines[1::3], strict=True))
    return [tuple(line.partition("\t")[0].split(",", 1)) for line in lines]


def suggested(line, shell="bash"):
    *words, word = line.split(" ")
    found = asked(shell, words, word)
    assert {kind for kind, _ in found} <= {"plain"}
    return [text for _, text in found]


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    for program in PROGRAMS:
        (tmp_path / program).write_text(LAUNCHER)
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def in_shell(shell, *arguments):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    done = subprocess.run([*shell, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


# -- what is suggested --------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_are_completed_at_every_level(shell):
    assert suggested("migrate ch", shell) == ["check"]
    assert suggested("migrate corpus me", shell) == ["merge"]


@pytest.mark.parametrize("shell", SHELLS)
def test_options_are_completed(shell):
    assert suggested("migrate check --sel", shell) == ["--select"]


def test_all_rules_are_offered_by_id_in_their_order():
    found = suggested("migrate explain ")
    assert sorted(found) == sorted(RULES)
    assert found[:2] == ["CON-01", "CON-02"]
    assert found.index("REC-92") < found.index("REC-100") < found.index("ORD-01")


@pytest.mark.parametrize(
    "before",
    [
        "migrate explain ",
        "migrate check --select ",
        "migrate check x --ignore ",
        "migrate filter --select ",
        "migrate filter --ignore ",
        "migrate synth --damage ",
        "migrate corpus shrink --rule ",
    ],
)
def test_rules_are_completed_by_id_in_any_case_and_by_slug(before):
    assert suggested(f"{before}hyp-2") == [name for name in RULES if name.startswith("HYP-2")]
    assert suggested(f"{before}l3-ab") == ["l3-above-4g"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_last_rule_of_a_list_is_completed(shell):
    assert suggested("migrate check --select HYP-22,ORD,L3-ab", shell) == ["HYP-22,ORD,l3-above-4g"]


def test_one_rule_is_no_list():
    assert suggested("migrate explain HYP-22,l3-ab") == []


def test_a_rule_says_what_it_is_about():
    env = {COMPLETE: "zsh_complete", "COMP_WORDS": "migrate explain HYP-22", "COMP_CWORD": "2"}
    told = CliRunner().invoke(main, [], prog_name="migrate", env=env).output
    assert told.splitlines() == ["plain", "HYP-22", RULES["HYP-22"].title]


@pytest.mark.parametrize("before", ["check", "filter", "trace", "corpus accept", "corpus shrink", "corpus scrub"])
def test_releases_are_completed_newest_first(before):
    found = suggested(f"migrate {before} --target 4.")
    assert found == [release.short for release in reversed(RELEASES)]
    assert {"4.6", "4.20", "4.20.3"} <= set(found)


def test_all_releases_are_a_word_where_a_table_can_be_shown():
    assert suggested("migrate check --target a") == ["all"]
    assert suggested("migrate filter --target a") == []
    assert suggested("migrate check --target n") == ["newest"]


def test_forms_of_the_4_gib_rule_are_completed():
    assert suggested("migrate check --l3-rule l3v") == ["L3V-1", "L3V-2", "L3V-3", "L3V-4", "L3V-5"]
    assert suggested("migrate check --l3-rule a") == ["all"]


def test_placements_are_completed():
    assert suggested("migrate check --placement ") == ["source", "high", "low", "identity", "file:"]
    assert suggested("migrate corpus accept --placement h") == ["high"]


def test_formats_are_completed():
    assert suggested("migrate check --format j") == ["json", "jsonl", "junit"]


@pytest.mark.parametrize(
    "line",
    [
        "migrate check gue",
        "migrate check --target 4.20 gue",
        "migrate trace gue",
        "migrate policy --against gue",
        "migrate corpus run gue",
        "migrate corpus accept gue",
        "migrate corpus merge gue",
        "migrate corpus run --known gue",
        "migrate verify-stream-v2 -i gue",
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_left_to_the_shell(shell, line):
    *words, word = line.split(" ")
    assert asked(shell, words, word) == [("file", "gue")]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_map_of_a_placement_is_completed_as_a_whole_word(shell, tmp_path):
    (tmp_path / "map.txt").touch()
    (tmp_path / "maps").mkdir()
    found = suggested(f"migrate check --placement file:{tmp_path}/ma", shell)
    assert found == [f"file:{tmp_path}/map.txt", f"file:{tmp_path}/maps/"]


def test_bash_has_a_value_completed_past_the_equals_sign():
    assert asked("bash", ["migrate", "check", "--target", "="], "4.20.") == [
        ("plain", f"4.20.{point}") for point in (4, 3, 2, 1)
    ]
    assert ("plain", "newest") in asked("bash", ["migrate", "check", "--target"], "=")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_value_completed_with_its_option(shell):
    assert suggested("migrate check --target=4.20.", shell) == [f"--target=4.20.{point}" for point in (4, 3, 2, 1)]


def test_bash_has_the_map_of_a_placement_completed_past_the_colon(tmp_path):
    (tmp_path / "map.txt").touch()
    words = ["migrate", "check", "--placement", "file", ":"]
    assert asked("bash", words, f"{tmp_path}/ma") == [("plain", f"{tmp_path}/map.txt")]


@pytest.mark.parametrize("line", ["migrate check --target bad --fo", "migrate check --select bad,worse --fo"])
def test_what_is_wrong_before_does_not_matter(line):
    assert suggested(line) == ["--format"]


@pytest.mark.parametrize("args", ["", "check --select hyp", "check --target ", "explain l3", "corpus run --"])
def test_completion_imports_nothing_heavy(args):
    code = (
        "import sys, migrate.cli.main\n"
        "try: migrate.cli.main.main(prog_name='migrate')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'rich', 'numpy', 'construct', 'backports'} & set(sys.modules)))"
    )
    words = f"migrate {args}"
    env = {COMPLETE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    *found, heavy = done.stdout.splitlines()
    assert found
    assert heavy == "[]"


# -- the scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_the_one_that_the_program_gives_by_itself(shell):
    env = {COMPLETE: f"{shell}_source"}
    by_itself = CliRunner().invoke(main, [], prog_name="migrate", env=env).output
    assert CliRunner().invoke(main, ["completion", shell]).output.startswith(by_itself.rstrip())
    assert f"{COMPLETE}={shell}_complete" in by_itself


def test_another_shell_is_wrong_usage():
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("migrate corpus ac", ["accept"]),
        ("xen-migrate corpus ac", ["accept"]),
        ("migrate check --select HYP-22,l3-ab", ["HYP-22,l3-above-4g"]),
        ("migrate check --target = 4.20.", ["4.20.4", "4.20.3", "4.20.2", "4.20.1"]),
        ("migrate check gue", ["-o default", ""]),
    ],
)
def test_bash_completes(launcher, line, found):
    assert in_shell(["bash", "--norc", "-c", BASH, "bash"], *line.split(" ")) == found


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_asks_for_this_command_under_both_its_names(launcher, program):
    (told,) = in_shell(["bash", "--norc", "-c", f'eval "$(migrate completion bash)"; complete -p {program}'])
    assert told == f"complete -o nosort -F _{program.replace('-', '_')}_completion {program}"


def test_all_names_that_are_installed_are_completed():
    assert set(PROGRAMS) == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("migrate corpus ac", ["accept:Judge streams, and write what comes out as..."]),
        ("migrate check --select HYP-22,l3-ab", [f"HYP-22,l3-above-4g:HYP-22: {RULES['HYP-22'].title}"]),
        ("migrate check --placement hi", ["high"]),
        ("xen-migrate check --placement hi", ["high"]),
        ("migrate check gue", ["FILES -f"]),
    ],
)
def test_zsh_completes(launcher, line, found):
    assert in_shell(["zsh", "-f", "-c", ZSH, "zsh"], *line.split(" ")) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("migrate check --select HYP-22,l3-ab", [f"HYP-22,l3-above-4g\tHYP-22: {RULES['HYP-22'].title}"]),
        ("migrate check --placement hi", ["high"]),
        ("xen-migrate check --placement hi", ["high"]),
        ("migrate check --target=4.19.", [f"--target=4.19.{point}" for point in (6, 5, 4, 3, 2, 1)]),
    ],
)
def test_fish_completes(launcher, line, found):
    told = in_shell(["fish", "--no-config", "-c", FISH, line])
    assert [one.split("\t")[0] for one in told] == [one.split("\t")[0] for one in found]
    assert all(one in told for one in found if "\t" in one)
