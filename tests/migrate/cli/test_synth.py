"""`migrate synth`: streams from the command line are what was asked for."""

import os
import stat

import pytest
from asking import check
from click.testing import CliRunner

from migrate.cli.main import main
from migrate.judging.check import judge
from migrate.rules.catalogue import RULES
from streams.encoder import decode


def synth(*args):
    return CliRunner().invoke(main, ["synth", *map(str, args)])


@pytest.fixture
def made(tmp_path):
    """Run the command, and check what it wrote under a placement."""

    def make(*args, placement="source"):
        out = tmp_path / "stream"
        result = synth(out, "--force", *args)
        assert result.exit_code == 0, result.output
        return check(out, target="4.20", placement=placement)

    return make


def test_by_default_it_is_a_small_32_bit_guest_that_comes_back(made):
    report = made()
    assert (report.verdict, report.stream.guest, report.stream.width) == ("accept", "pv", 4)
    assert report.stream.bytes < 64 << 10


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
@pytest.mark.parametrize("kind", ["pv", "hvm"])
@pytest.mark.parametrize("size", ["1M", "64M"])
def test_every_container_holds_either_kind_small_or_big(made, container, kind, size):
    report = made("--container", container, "--kind", kind, "--size", size)
    assert (report.verdict, report.stream.container, report.stream.guest) == ("accept", container, kind)


def test_the_size_is_that_of_the_guests_memory(made):
    assert made("--size", "2M").stream.max_pfn == (2 << 20 >> 12) - 1


def test_vcpus_roots_and_rounds_are_as_many_as_asked_for(made):
    stream = made("--size", "1M", "--vcpus", 3, "--roots", 5, "--rounds", 4).stream
    assert (stream.vcpus, stream.pinned["L3"]) == (3, 5)
    assert [done.pages for done in stream.rounds] == [256, 16, 16, 16]


@pytest.mark.parametrize("width", [4, 8])
def test_page_tables_have_the_share_asked_for(tmp_path, width):
    out = tmp_path / "stream"
    assert synth(out, "--size", "4M", "--width", width, "--tables", 0.05).exit_code == 0
    assert judge(out, then=lambda judgement: judgement.page_tables) == round(0.05 * 1024)


def test_high_roots_are_refused_where_the_source_is_the_destination(made):
    report = made("--vcpus", 2, "--roots", 2, "--l3-placement", "high")
    assert report.failure.rule == "HYP-22"


def test_high_roots_of_an_extended_guest_come_back(made):
    assert made("--vcpus", 2, "--roots", 2, "--l3-placement", "high", "--extended").verdict == "accept"


def test_high_roots_have_source_frames_from_4_gib_on(tmp_path):
    out = tmp_path / "stream"
    synth(out, "--roots", 3, "--l3-placement", "high")

    def frames(judgement):
        pfns, levels = judgement.pv_guest.pinned()
        return judgement.pv_guest.source_mfns()[pfns[levels == 3]].tolist()

    assert all(mfn << 12 >= 4 << 30 for mfn in judge(out, then=frames))


def test_the_same_seed_gives_the_same_stream_and_another_one_another(tmp_path):
    names = ("a", "b", "c")
    for name, seed in zip(names, (7, 7, 8), strict=True):
        synth(tmp_path / name, "--size", "1M", "--tables", 0.1, "--rounds", 2, "--seed", seed)
    first, same, other = ((tmp_path / name).read_bytes() for name in names)
    assert first == same
    assert first != other


@pytest.mark.parametrize("word", ["XRC-09", "xrc-09", RULES["XRC-09"].slug])
def test_damage_breaks_the_rule_that_an_id_or_a_slug_names(made, word):
    assert made("--damage", word).failure.rule == "XRC-09"


def test_damage_goes_into_the_container_asked_for(made):
    report = made("--damage", "XRC-09", "--container", "xl")
    assert (report.stream.container, report.failure.rule) == ("xl", "XRC-09")


def test_damage_to_one_container_is_not_put_into_another(tmp_path):
    result = synth(tmp_path / "stream", "--damage", "CON-12", "--container", "libxc")
    assert result.exit_code == 2
    assert "CON-12 does not show in a container of libxc" in result.output


def test_a_rule_that_no_stream_can_show_is_told(tmp_path):
    result = synth(tmp_path / "stream", "--damage", "XRC-10")
    assert result.exit_code == 2
    assert "no stream can show XRC-10" in result.output


def test_it_says_how_to_see_the_damage(tmp_path):
    out = tmp_path / "stream"
    assert f"migrate check {out}\n" in synth(out, "--damage", "HYP-27").output


def test_a_file_is_overwritten_only_by_force(tmp_path):
    out = tmp_path / "stream"
    out.write_bytes(b"precious")
    refused = synth(out)
    assert (refused.exit_code, out.read_bytes()) == (2, b"precious")
    assert "--force" in refused.output
    assert synth(out, "--force").exit_code == 0
    assert check(out).verdict == "accept"


def test_an_overwritten_file_keeps_its_mode(tmp_path):
    out = tmp_path / "stream"
    out.write_bytes(b"")
    out.chmod(0o640)
    synth(out, "--force")
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["stream"]


def test_a_dash_is_standard_output_and_nothing_else_goes_there(tmp_path):
    stream = synth("-", "--size", "1M").stdout_bytes
    assert len(decode(stream).records) > 0
    assert check(stream).verdict == "accept"


def test_a_big_guest_goes_to_standard_output_as_well():
    assert check(synth("-", "--size", "64M", "--container", "xl").stdout_bytes).verdict == "accept"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--size", "3X"], "not a size"),
        (["--size", "3"], "less than a page"),
        (["--size", "0"], "less than a page"),
        (["--size", "-4M"], "not a size"),
        (["--kind", "hvm", "--roots", 2], "--roots is about PV guests"),
        (["--width", 8, "--l3-placement", "high"], "--l3-placement is about guests of width 4"),
        (["--size", "1G", "--roots", 2], "--roots is for guests below 64M"),
        (["--damage", "XRC-09", "--size", "1M"], "--size shapes a guest"),
        (["--damage", "HYP"], "begins the ids of"),
        (["--damage", "HYP-222"], "no rule is called"),
        (["--size", "16M", "--tables", 0.5], "ask for more roots"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_no_file(tmp_path, args, says):
    result = synth(tmp_path / "stream", *args)
    assert result.exit_code == 2
    assert says in result.output
    assert not os.listdir(tmp_path)
