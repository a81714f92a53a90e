"""Small corpora, and `migrate corpus` over them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main

ACCEPTED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "accept"\n'
REFUSED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "refuse"\n'


def good():
    return StreamBuilder.pv(4).build()


def bad():
    builder = StreamBuilder.pv(4)
    builder.drop("X86_PV_VCPU_BASIC")
    return builder.build()


def expect(folder, name, text):
    file = folder / f"{name}.expect.toml"
    file.write_text(text)
    return file


def corpus(command, *args, **how):
    return CliRunner().invoke(main, ["corpus", command, *map(str, args)], **how)


def corpus_run(*args):
    return corpus("run", *args)


def started(*args):
    """`migrate corpus run` as a process of its own."""
    command = [sys.executable, "-m", "migrate", "corpus", "run", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(file):
    """The objects of a file of results."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def streams(file, root):
    """The objects in it that are about streams, by path below the corpus."""
    return {os.path.relpath(told["stream"], root): told for told in lines(file) if told["kind"] == "stream"}
