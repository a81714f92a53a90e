"""Every command that reads a stream, over what takes most memory of it: the law holds for them as for check."""

import pytest
from many import KINDS

from migrate.building.builder import StreamBuilder

pytestmark = pytest.mark.slow

# Of what a saver's stream has many of, or an attacker's: as much as takes some MiB.
HEAVY = {
    "tables": 10_000,
    "self maps": 2_000,
    "data pages for L1s": 2_000,
    "tables that wait": 20_000,
    "vcpus": 3_000,
    "p2m pages": 400_000,
    "HVM save entries": 50_000,
    "unknown mandatory records": 20_000,
    "records of one page, PV": 1_000,
    "absent pfns, PV": 1_000_000,
    "CPUID leaves": 50_000,
    "keys of a configuration": 10_000,
}
COMMANDS = {
    "check": ["self maps", "tables that wait", "absent pfns, PV", "p2m pages"],
    "show": ["unknown mandatory records", "absent pfns, PV"],
    "show --all": ["HVM save entries", "vcpus"],
    "show --tables": ["self maps", "data pages for L1s"],
    "show --rounds": ["absent pfns, PV"],
    "show --p2m": ["p2m pages", "absent pfns, PV"],
    "show --map": ["absent pfns, PV"],
    "show --vcpu all": ["vcpus"],
    "show --pfn 2": ["tables", "records of one page, PV"],
    "report -o OUT": ["tables that wait", "vcpus"],
    "extract --raw OUT": ["absent pfns, PV"],
    "extract --elf OUT": ["tables"],
    "corpus scrub -o OUT": ["self maps", "vcpus", "data pages for L1s"],
    "trace": ["tables", "data pages for L1s"],
    "verify-stream-v2 -i": ["unknown mandatory records"],
    "policy": ["CPUID leaves"],
    "config": ["keys of a configuration"],
}


@pytest.mark.parametrize(
    ("command", "kind"), [(command, kind) for command, kinds in COMMANDS.items() for kind in kinds]
)
def test_no_command_takes_more_than_the_law_allows(confinement, tmp_path, command, kind):
    path, out = tmp_path / "stream", tmp_path / "out"
    path.write_bytes(KINDS[kind][1](HEAVY[kind]))
    arguments = [str(out) if one == "OUT" else one for one in command.split()]
    assert confinement.run([*arguments, path], path.stat().st_size).code in (0, 1, 3)


def test_a_stream_is_shrunk_within_the_law(confinement, tmp_path):
    b = StreamBuilder.pv(8)
    for number in range(300):
        b.new_page(content=number.to_bytes(8, "little"))
    b.start_info.store_mfn = b.max_pfn + 1
    path = tmp_path / "stream"
    path.write_bytes(b.build())
    ended = confinement.run(["corpus", "shrink", "-o", tmp_path / "small", path], path.stat().st_size)
    assert ended.code == 0
    assert (tmp_path / "small").stat().st_size < 200_000
