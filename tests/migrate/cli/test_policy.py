"""`migrate policy` and hosts: the most that one offers, and what several have in common."""

import json

import pytest
from click.testing import CliRunner
from host_texts import AMD, INTEL, SMALL_AMD, XEN_CPUID_P, XL_INFO_N, real
from project import SAMPLES

from migrate.cli.main import main
from migrate.destination.levelling import level
from migrate.destination.levelling_forms import featureset, libvirt_cpu, xl_cpuid

PVH, PV64 = SAMPLES / "x417-pvh.plain.libxc.zst", SAMPLES / "x417-pv64.plain.libxc.zst"


def run(*args):
    return CliRunner().invoke(main, ["policy", *map(str, args)])


def document(*args):
    result = run(*args, "--format", "json")
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def test_a_host_file_stands_for_the_most_that_the_host_offers():
    result = run(PVH, "--against", SMALL_AMD)
    assert result.exit_code == 1
    assert f"lacking in {SMALL_AMD} (the HVM Max policy): " in result.output
    assert "of it Xen 4.17.7 refuses" in result.output


def test_a_host_and_a_host_file_to_compare_with_are_the_same():
    assert document(PVH, "--host", SMALL_AMD) == document(PVH, "--against", SMALL_AMD)


def test_a_target_stands_in_for_the_release_of_the_host():
    assert document(PV64, "--against", AMD)["against"]["target"] == "4.17.7"
    assert document(PV64, "--against", AMD, "--target", "4.20")["against"]["target"] == "4.20.0"


def test_the_json_of_a_host_is_a_host_file(tmp_path):
    path = tmp_path / "host.json"
    path.write_text(CliRunner().invoke(main, ["host", str(AMD), "--json"]).stdout)
    made, read = document(PV64, "--against", path), document(PV64, "--against", AMD)
    assert made["against"]["lacking"] == read["against"]["lacking"]


@pytest.mark.parametrize(
    ("file", "told"), [(XL_INFO_N, "no `xen-cpuid -p`"), (INTEL, "virt_caps has no hvm")], ids=["xl info", "no hvm"]
)
def test_a_host_without_such_a_policy_ends_with_3(file, told):
    result = run(PVH, "--against", file)
    assert (result.exit_code, result.stderr) == (3, f"migrate: {file}: {told}\n")


def test_a_file_that_is_no_host_is_a_usage_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind\n")
    result = run(PVH, "--against", path)
    assert result.exit_code == 2
    assert f"{path}, line 1: expected what `xl info` and `xen-cpuid -p` print" in result.output


# -- several hosts ------------------------------------------------------------------------------------


def test_hosts_are_levelled_for_every_kind_that_all_of_them_run():
    shown = run("--level", "--host", AMD, "--host", SMALL_AMD).stdout
    hosts = {"a": real("amd 4.17"), "b": real("small amd 4.17")}
    for kind in ("pv", "hvm"):
        levelled = level(hosts, kind)
        assert f"{kind} guests on {AMD}, {SMALL_AMD}\n" in shown
        assert xl_cpuid(levelled) in shown
        assert libvirt_cpu(levelled) in shown
        assert featureset(levelled.policy) in shown


def test_the_kind_may_be_chosen():
    assert "pv guests on" not in run("--level", "--host", AMD, SMALL_AMD, "--kind", "hvm").stdout


def test_what_is_levelled_can_be_had_as_json():
    told = document("--level", "--host", AMD, SMALL_AMD, "--kind", "pv")
    hosts = {"a": real("amd 4.17"), "b": real("small amd 4.17")}
    assert (told["guest"], told["xapi"]) == ("pv", featureset(level(hosts, "pv").policy))
    assert [one["guest"] for one in document("--level", "--host", AMD, SMALL_AMD)] == ["pv", "hvm"]


def test_a_guest_beyond_the_common_policy_is_told():
    told = document("--level", "--host", AMD, SMALL_AMD, "--guest", PV64)
    assert (told["guest"], told["promised"]["name"]) == ("pv", str(PV64))
    beyond = {lack["name"]: lack["refused"] for lack in told["promised"]["beyond"]}
    assert beyond["avx"] is False
    assert beyond["basic to 0xd"] is True
    assert run("--level", "--host", AMD, SMALL_AMD, "--guest", PV64).exit_code == 1


def test_a_guest_made_by_default_is_within_the_policy_of_its_host():
    result = run("--level", "--host", AMD, "--guest", PV64)
    assert result.exit_code == 0
    assert result.stdout.endswith("beyond the common policy: nothing\n")


def test_hosts_of_which_one_tells_no_policy_end_with_3():
    result = run("--level", "--host", AMD, XL_INFO_N)
    assert result.exit_code == 3
    assert result.stderr == f"migrate: {XL_INFO_N}: no `xen-cpuid -p`\n"
    assert run("--level", "--host", XEN_CPUID_P, AMD).exit_code == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--level"], "--level needs --host"),
        (["--level", PVH, "--host", AMD], "a stream is named with --guest"),
        (["--level", "--host", AMD, "--target", "4.20"], "--level is about hosts"),
        (["--level", "--host", AMD, "--guest", PV64, "--kind", "hvm"], "is a pv guest: --kind hvm says nothing of it"),
        ([], "Missing argument 'STREAM'"),
        ([PVH, "--kind", "pv"], "--kind and --guest go with --level"),
        ([PVH, "--host", AMD, "--against", AMD], "--against and --host both say what to compare with: choose one"),
        ([PVH, "--host", AMD, INTEL], "compare with one --host at a time"),
    ],
)
def test_wrong_usage_is_told(args, told):
    result = run(*args)
    assert result.exit_code == 2
    assert told in result.output
