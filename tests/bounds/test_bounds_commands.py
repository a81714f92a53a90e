"""Every command that reads a stream, over what takes most memory of it: the law holds for them as for check."""

import pytest
from many import KINDS

from migrate.building.builder import StreamBuilder

COMMANDS = {
    "show": [],
    "show --all": [],
    "show --tables": [],
    "show --rounds": [],
    "show --p2m": [],
    "show --map": [],
    "show --vcpu all": [],
    "show --pfn 2": [],
    "report": ["-o", "OUT"],
    "extract": ["-o", "OUT"],
    "corpus scrub": ["-o", "OUT"],
    "trace": [],
    "verify-stream-v2": [],
    "policy": [],
    "config": [],
}
# Of what a saver's stream has many of, or an attacker's: as much as takes some ten MiB.
HEAVY = {
    "tables": 4_000,
    "self maps": 2_000,
    "data pages for L1s": 3_000,
    "tables that wait": 3_000,
    "vcpus": 1_500,
    "p2m pages": 400_000,
    "HVM save entries": 100_000,
    "unknown mandatory records": 20_000,
    "records of one page, PV": 3_000,
    "absent pfns, PV": 1_000_000,
}


@pytest.mark.parametrize("kind", HEAVY)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_more_memory_than_the_law_allows(confinement, tmp_path, command, kind):
    if (command, kind) in NOT_FOR:
        pytest.skip("there is none in such a guest")
    path, out = tmp_path / "stream", tmp_path / "out"
    path.write_bytes(KINDS[kind][1](HEAVY[kind]))
    options = [str(out) if one == "OUT" else one for one in COMMANDS[command]]
    confinement.run([*command.split(), *options, path], path.stat().st_size)


NOT_FOR: set[tuple[str, str]] = set()


def test_a_stream_is_shrunk_within_the_law(confinement, tmp_path):
    b = StreamBuilder.pv(8)
    for number in range(1500):
        b.new_page(content=number.to_bytes(8, "little"))
    b.start_info.store_mfn = b.max_pfn + 1
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    ended = confinement.run(["corpus", "shrink", "-o", tmp_path / "small", path], path.stat().st_size)
    assert ended.code == 0
    assert (tmp_path / "small").stat().st_size < 200_000
