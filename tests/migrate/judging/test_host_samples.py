"""Streams and hosts of real Xen: with a host's file in hand nothing is left open, and all is as real Xen answered."""

from dataclasses import replace

import pytest
from project import SAMPLES

from migrate.corpus.discovery import at_hosts, discover
from migrate.corpus.hosts import host_file
from migrate.corpus.results import Status
from migrate.corpus.runner import InProcess, run

HOSTS = SAMPLES / "hosts"
# Where the verdicts on damaged streams were measured: one host, booted with either release.
MEASURED_ON = [host_file(name, str(HOSTS / name)) for name in ("h417-max.txt", "h4200-max.txt")]


def test_every_cell_of_the_matrix_is_as_real_xen_answered():
    results = run(discover([str(HOSTS)]).cases, InProcess())
    cells = [comparison for result in results for comparison in result.comparisons]
    assert (len(results), len(cells), len({cell.expectation.host.name for cell in cells})) == (13, 99, 15)
    assert [result.case.path for result in results if result.status is not Status.FINE] == []
    assert not any(cell.from_real for cell in cells)


@pytest.mark.parametrize("folder", ["oracle", "oracle-hvm"])
def test_what_depended_on_the_host_is_decided_by_its_file(folder):
    cases = discover([str(SAMPLES / folder)]).cases
    dependent = [case for case in cases if case.entry is not None and case.entry.host_dependent]
    assert dependent
    # What was written down for want of a host is not the question: only what was measured.
    asked = [
        replace(case, entry=replace(case.entry, expect=tuple(one for one in case.entry.expect if one.measured)))
        for case in dependent
    ]
    for result in run(at_hosts(asked, MEASURED_ON), InProcess()):
        for comparison in result.comparisons:
            assert comparison.expectation.host is not None
            assert comparison.from_real == (), result.case.path
