"""Small corpora, and `migrate corpus` over them."""

import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main

ACCEPTED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "accept"\n'
REFUSED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "refuse"\n'


def good():
    return StreamBuilder.pv(8).build()


def bad():
    builder = StreamBuilder.pv(8)
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


def deflated(place, head, length):
    """An archive with one member: a head, and zeros up to a length, of next to nothing in the archive."""
    step = 1 << 20
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = block.compress(bytes(step)) + block.flush(zlib.Z_FULL_FLUSH)  # may be repeated: it refers to nothing
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = first.compress(head) + first.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    count, rest = divmod(length - len(head), step)
    tail = end.compress(bytes(rest)) + end.flush()
    crc = zlib.crc32(head)
    for _ in range(count):
        crc = zlib.crc32(bytes(step), crc)
    crc = zlib.crc32(bytes(rest), crc)
    data = start + zeros * count + tail
    with zipfile.ZipFile(place, "w") as out:
        out.writestr("bomb", b"")
        info = out.filelist[0]
        info.compress_type, info.CRC, info.file_size, info.compress_size = 8, crc, length, len(data)
        out.fp.seek(0)
        out.fp.truncate()
        out.fp.write(info.FileHeader(zip64=False) + data)
        out.start_dir = out.fp.tell()
        out._didModify = True
    return f"zip://::{place}"
