"""`migrate host`: what is known of a host, from its files or from the host itself."""

import json
import os
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner
from host_texts import AMD, INTEL, XEN_CPUID, XEN_CPUID_P, XL_INFO_N, info, parsed, real

from migrate.cli import host as command
from migrate.cli.main import main


def run(*args, **kwargs):
    return CliRunner().invoke(main, ["host", *map(str, args)], **kwargs)


def lines(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.fixture
def dom0(tmp_path, monkeypatch):
    """Makes a place where xl and xen-cpuid can be had, as shell scripts."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(command, "_PLACES", ())
    monkeypatch.setattr(command, "_VERSIONED_PLACES", str(tmp_path / "xen-*" / "bin"))

    def install(script, name, place=tmp_path):
        place.mkdir(parents=True, exist_ok=True)
        path = place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return install


def test_a_host_file_is_shown_question_by_question():
    shown = lines(AMD)
    assert shown[0] == str(AMD)
    assert "    release             4.17.7                xen_version 4.17.7" in shown
    assert "    pv32                yes                   xen_caps has xen-3.0-x86_32p" in shown
    assert "    pv max              0xd, 7.2, 0x80000021  the PV Max policy" in shown


def test_a_host_without_hvm_has_no_hvm_policy():
    assert "    hvm max             none                  virt_caps has no hvm" in lines(INTEL)


def test_switches_of_xen_are_listed():
    assert "  - pv=32: whether 32-bit PV guests can be created (shows in xen_caps)" in lines(AMD)


def test_what_is_missing_is_named_with_what_it_leaves_open():
    shown = lines(XL_INFO_N)
    assert shown[shown.index("missing, and what that leaves open:") + 1].startswith(
        "  - no `xen-cpuid -p`: vendor, pv max"
    )


def test_a_complete_host_misses_nothing():
    assert "missing, and what that leaves open:" not in lines(XL_INFO_N, XEN_CPUID_P)


def test_what_is_not_enough_is_named_with_its_line():
    *_, last = lines(XL_INFO_N, XEN_CPUID)
    assert last.startswith(f"  - {XEN_CPUID}, line 1: the features that `xen-cpuid` prints are not enough")


def test_standard_input_is_a_file_too():
    result = run("-", input=AMD.read_bytes())
    assert result.exit_code == 0
    assert "xen_version 4.17.7" in result.stdout


def test_json_is_a_host_file(tmp_path):
    saved = tmp_path / "host.json"
    saved.write_text(run(AMD, "--json").stdout)
    assert parsed(saved.read_bytes()) == real("amd 4.17")
    assert json.loads(run(saved, "--json").stdout) == json.loads(saved.read_text())


def test_json_has_every_answer_with_its_reason():
    answers = json.loads(run(INTEL, "--json").stdout)["answers"]
    assert answers["release"] == {"value": "4.17.7", "because": "xen_version 4.17.7", "open": False}
    assert answers["hvm max"] == {"value": None, "because": "virt_caps has no hvm", "open": False}
    assert answers["pv max"]["value"]["basic"] == 0xB
    assert answers["policy entries"]["value"] == {"leaf7": 2, "extended": 0x8000_0021, "leaves": 120, "msrs": 2}


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / "host"
    path.write_bytes(info(host="a\x07b", xen_version="4.17.7").encode())
    assert "\x07" not in run(path).stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"nothing of the kind\n",
            "{}, line 1: expected what `xl info` and `xen-cpuid -p` print, found 'nothing of the kind'",
        ),
        (b"total_memory : much\n", "{}, line 1: total_memory: expected a number, found 'much'"),
        (b"", "{}: expected what `xl info` and `xen-cpuid -p` print, and it is empty"),
    ],
)
def test_a_file_that_cannot_be_used_ends_with_2_and_says_where(tmp_path, content, told):
    path = tmp_path / "host"
    path.write_bytes(content)
    result = run(path)
    assert (result.exit_code, result.stderr) == (2, f"migrate: {told.format(path)}\n")


def test_a_file_that_is_not_there_ends_with_2():
    result = run("/nonexistent/host")
    assert (result.exit_code, result.stderr) == (2, "migrate: /nonexistent/host: No such file or directory\n")


def test_two_hosts_end_with_2():
    assert run(AMD, INTEL).exit_code == 2


def test_on_a_host_the_outputs_are_printed_as_they_are(dom0):
    dom0(f'[ "$*" = "info -n" ] && cat {XL_INFO_N}', "xl")
    dom0(f'[ "$*" = -p ] && cat {XEN_CPUID_P}', "xen-cpuid")
    result = run()
    assert result.exit_code == 0
    assert result.stdout_bytes == XL_INFO_N.read_bytes() + XEN_CPUID_P.read_bytes()


def test_on_a_host_the_outputs_can_be_had_as_json(dom0):
    dom0(f"cat {XL_INFO_N}", "xl")
    dom0(f"cat {XEN_CPUID_P}", "xen-cpuid")
    assert parsed(run("--json").stdout) == real("amd 4.20")


def test_xen_cpuid_is_found_where_distributions_hide_it(dom0, tmp_path):
    dom0(f"cat {XL_INFO_N}", "xl")
    dom0(f"cat {XEN_CPUID_P}", "xen-cpuid", tmp_path / "xen-4.17" / "bin")
    assert run().exit_code == 0


def test_where_there_is_no_xen_that_is_said(dom0):
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "migrate: xl is not here: run this in dom0 of a Xen host, or name the files of one\n"


def test_a_command_that_fails_is_told_with_what_it_says(dom0, monkeypatch):
    dom0("echo 'cannot init xl context' >&2; exit 1", "xl")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run()
    assert (result.exit_code, result.stderr) == (
        2,
        "migrate: xl info -n failed (cannot init xl context); it needs root\n",
    )


def test_a_command_that_does_not_end_is_given_up(dom0, monkeypatch):
    dom0("exec sleep 60", "xl")
    monkeypatch.setattr(command, "_SECONDS", 0.05)
    result = run()
    assert (result.exit_code, result.stderr) == (2, "migrate: xl info -n has not ended after 0.05 seconds\n")


def test_a_host_is_shown_without_numpy_or_construct():
    code = (
        "import sys; from click.testing import CliRunner; from migrate.cli.main import main; "
        f"CliRunner().invoke(main, ['host', {str(AMD)!r}]); print({{'numpy', 'construct'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
