"""`migrate config`, and `migrate show` of configurations and device models, as their users meet them."""

import json

import pytest
from click.testing import CliRunner
from project import SAMPLES

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.configuration import domain_xml
from migrate.building.qemu_state import QemuStateBuilder
from migrate.cli.main import main
from streams.wire.framing import EMULATOR_HEADER

STATE = QemuStateBuilder.of("timer", "0000:00:02.0/platform")


def run(*args, **options):
    return CliRunner().invoke(main, [str(arg) for arg in args], **options)


@pytest.fixture
def write(tmp_path):
    def write(data, name="guest"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.build())
        return path

    return write


def guest(container="xl", kind="hvm", state=None):
    b = StreamBuilder.pv(8) if kind == "pv" else getattr(StreamBuilder, kind)()
    b.wrap(container)
    if state is not None:
        b.libxl_after[0].body[:] = EMULATOR_HEADER.pack(2, 0) + state.build()
    return b


# -- migrate config ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "first"), [("xl", "{"), ("libvirt", "<domain type='xen'>")])
def test_a_configuration_is_shown(write, container, first):
    result = run("config", write(guest(container)))
    assert (result.exit_code, result.output.splitlines()[0][: len(first)]) == (0, first)


EDITS = [
    *(("xl", "pv", "c_info.name=other"), ("xl", "hvm", "b_info.max_vcpus=4"), ("libvirt", "pv", "name=other")),
    *(("libvirt", "hvm", "vcpu=4"), ("libvirt", "pvh", "vcpu@current=1")),
]


@pytest.mark.parametrize(("container", "kind", "edit"), EDITS)
def test_a_changed_configuration_stands_before_the_same_stream(write, tmp_path, container, kind, edit):
    b = guest(container, kind)
    path, out = write(b), tmp_path / "changed"
    result = run("config", path, "--set", edit, "-o", out)
    assert result.exit_code == 0, result.output
    changed, stream = out.read_bytes(), b.build()
    stream = stream[stream.index(b"LibxlFmt") :]
    assert changed.endswith(stream)
    assert edit.partition("=")[2] in run("config", out).output
    assert check(changed, target="4.20", placement="low").verdict == "accept"


def test_a_key_is_taken_away(write, tmp_path):
    out = tmp_path / "changed"
    assert run("config", write(guest()), "--unset", "b_info.max_vcpus", "-o", out).exit_code == 0
    assert '"max_vcpus"' not in run("config", out).output


def test_a_configuration_that_the_toolstack_would_refuse_is_written_and_told(write, tmp_path):
    out = tmp_path / "changed"
    result = run("config", write(guest()), "--set", "b_info.max_vcpus=129", "-o", out)
    assert result.exit_code == 1
    assert "libxl would refuse it: max_vcpus is 129; a guest of type hvm has at most 128" in result.output
    assert out.exists()


@pytest.mark.parametrize(
    ("container", "image", "edit"),
    [("xl", "pv", "c_info.type=hvm"), ("xl", "hvm", "c_info.type=pv"), ("libvirt", "pv", "os/type=xenpvh")],
)
def test_a_configuration_for_another_kind_of_guest_than_the_image_holds_is_not_written(
    write, tmp_path, container, image, edit
):
    out = tmp_path / "changed"
    result = run("config", write(guest(container, image)), "--set", edit, "-o", out)
    assert result.exit_code == 2
    assert f"unable to restore x86 {image.upper()} domain into an" in result.output
    assert not out.exists()


def test_a_configuration_that_had_the_wrong_kind_already_is_changed_all_the_same(write, tmp_path):
    b, out = guest(kind="hvm"), tmp_path / "changed"
    b.xl_config = b'{"c_info": {"type": "pv", "name": "a"}, "b_info": {"type.hvm": {}}}\0'
    path = write(b)
    assert run("config", path, "--set", "c_info.name=b", "-o", out).exit_code == 1
    repaired = tmp_path / "repaired"
    assert run("config", path, "--set", "c_info.type=hvm", "-o", repaired).exit_code == 0
    assert check(repaired, target="4.20", placement="low").ok


def test_what_is_odd_about_a_configuration_and_refused_by_nobody_is_told(write, tmp_path):
    out = tmp_path / "changed"
    result = run("config", write(guest()), "--set", "c_info.type=pvh", "-o", out)
    assert (result.exit_code, "c_info.type is pvh, and b_info has type.hvm" in result.output) == (0, True)


def test_a_key_that_is_none_is_set_only_where_that_is_meant(write, tmp_path):
    path, out = write(guest()), tmp_path / "changed"
    result = run("config", path, "--set", "b_info.max_vcpu=4", "-o", out)
    assert (result.exit_code, "did you mean b_info.max_vcpus?" in result.output, out.exists()) == (2, True, False)
    assert run("config", path, "--set", "b_info.max_vcpu=4", "--any-key", "-o", out).exit_code == 0
    assert '"max_vcpu": 4' in run("config", out).output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--set", "c_info.name=x"], "go with -o"),
        (["--set", "c_info.name", "-o", "out"], "is not KEY=VALUE"),
        (["--unset", "c_info.nothing", "-o", "out"], "there is no c_info.nothing"),
        (["--set", "..=1", "-o", "out"], "is no key"),
        (["--set", "=x", "-o", "out"], "'=x' is not KEY=VALUE"),
        (["--unset", "c_info.name", "-o", "out"], "no domain is created without c_info.name"),
        (["--set", "c_info.uuid=hello", "-o", "out"], "c_info.uuid is 'hello'; expected a UUID"),
        (["--set", "b_info.max_vcpus=0", "-o", "out"], "b_info.max_vcpus is 0; expected at least 1"),
        (["--set", "b_info.max_vcpus=many", "-o", "out"], "b_info.max_vcpus is 'many'; expected a whole number"),
    ],
)
def test_wrong_edits_are_told_in_a_line_and_nothing_is_written(write, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    result = run("config", write(guest()), *args)
    assert (result.exit_code, words in result.output) == (2, True)
    assert not (tmp_path / "out").exists()


UUID = "9b1e4d3c-5f6a-4b7c-8d9e-0f1a2b3c4d5e"


@pytest.fixture
def with_uuid(write):
    b = guest("libvirt", "hvm")
    b.domain_xml = domain_xml("hvm", 1, 4096).replace(b"</name>", f"</name><uuid>{UUID}</uuid>".encode())
    return write(b)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--unset", "name"], "no domain is created without name: it can be set, not taken away"),
        (["--set", "name="], "name is ''; expected a text that is not empty"),
        (["--set", "uuid=hello"], "uuid is 'hello'; expected a UUID"),
        (["--set", f"uuid={UUID}0"], "expected a UUID"),
        (["--set", f"uuid={UUID[:-1]}"], "expected a UUID"),
        (["--set", "uuid=9-" + UUID[1:]], "expected a UUID"),
    ],
)
def test_what_libvirt_takes_for_no_domain_is_not_written(with_uuid, tmp_path, args, words):
    result = run("config", with_uuid, *args, "-o", tmp_path / "out")
    assert (result.exit_code, words in result.output) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "args", [["--set", f"uuid={UUID.upper()}"], ["--set", f"uuid= {UUID.replace('-', '')}"], ["--unset", "uuid"]]
)
def test_a_uuid_may_be_written_as_libvirt_reads_it_or_be_left_out(with_uuid, tmp_path, args):
    result = run("config", with_uuid, *args, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert run("config", tmp_path / "out").output != run("config", with_uuid).output


@pytest.mark.parametrize("container", ["libxc", "libxl", "xapi"])
def test_an_image_without_a_configuration_is_told(write, container):
    b = StreamBuilder.hvm()
    if container != "libxc":
        b.wrap(container)
    result = run("config", write(b))
    assert result.exit_code == 2
    assert "no configuration is in front of a stream" in result.output


def test_an_image_behind_a_greeting_is_read_from_its_offset_and_written_without_it(write, tmp_path):
    image, out = guest().build(), tmp_path / "changed"
    path = write(b"Welcome\r\n" + image)
    assert run("config", path).exit_code == 2
    assert run("config", "--offset", "9", path).output == run("config", write(image, "bare")).output
    assert run("config", "--offset", "9", path, "--set", "c_info.name=x", "-o", out).exit_code == 0
    assert check(out, target="4.20", placement="low").verdict == "accept"


def test_an_offset_behind_the_end_is_told(write):
    result = run("config", "--offset", "0x100000", write(guest()))
    assert (result.exit_code, "the file ends before byte 1048576" in result.output) == (2, True)


@pytest.mark.parametrize("size", [0, 20, 50, 80])
def test_an_image_that_is_cut_in_front_of_its_stream_is_told(write, size):
    result = run("config", write(guest("libvirt").build()[:size]))
    assert result.exit_code == 2
    assert result.output.count("\n") == 1


# -- migrate show --config -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "whose"), [("xl", "libxl"), ("libvirt", "libvirt"), ("xapi", "xenopsd")])
def test_the_configuration_is_shown_with_its_place(write, container, whose):
    result = run("show", "--config", write(guest(container)))
    assert (result.exit_code, result.output.startswith(f"configuration of {whose} at 0x")) == (0, True)


def test_what_is_wrong_with_a_configuration_is_shown_with_it(write):
    b = guest()
    b.xl_config = b'{"c_info": {"type": "hvm"}, "b_info": {"type.hvm": {}, "max_vcpus": 1000}}'
    output = run("show", "--config", write(b)).output
    assert "! libxl refuses it: max_vcpus is 1000; a guest of type hvm has at most 128" in output


def test_a_configuration_in_json_is_an_object_of_the_document(write):
    found = json.loads(run("show", "--config", "--json", write(guest())).output)["config"]
    assert found["json"]["c_info"]["type"] == "hvm"
    assert (found["source"], found["problems"]) == ("libxl", [])


def test_a_stream_without_a_configuration_has_none_to_show(write):
    assert run("show", "--config", write(StreamBuilder.hvm())).exit_code == 2


# -- the device model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "record"), [("xl", "libxl:1"), ("libvirt", "libxl:1"), ("xapi", "xapi:2")])
def test_the_sections_of_a_device_model_are_listed(write, container, record):
    output = run("show", "--record", record, write(guest(container))).output
    assert "2 sections" in output
    assert "timer " in output
    assert "0000:00:02.0/platform  version 4, 277 bytes" in output


def test_what_qemu_would_refuse_is_shown_where_it_stands(write):
    state = QemuStateBuilder.of("timer", "dma")
    state.section("dma").version = 99
    output = run("show", "--record", "libxl:1", write(guest(state=state))).output
    assert "section 'dma' 0 has version 99; expected version 1 (EINVAL)" in output


def test_qemus_own_description_is_counted(write):
    state = QemuStateBuilder.of("timer", "dma")
    state.description = True
    output = run("show", "--record", "libxl:1", write(guest(state=state))).output
    assert "description" in output
    assert "QEMU's own, of 2 devices" in output


def test_a_device_models_trace_ends_with_its_start(write):
    state = QemuStateBuilder.of("timer")
    state.version = 2
    result = run("trace", "--target", "4.20", "--placement", "low", write(guest(state=state)))
    assert result.exit_code == 1
    assert "sethvmcontext → 0" in result.output
    assert (
        "after these calls QEMU is started, and refuses: the device model's state, byte 4: version 2" in result.output
    )


NEWER = QemuStateBuilder.of("timer", "dma", "xhci")


def test_sections_that_another_qemu_does_not_know_are_told(write):
    result = run("show", "--against", write(guest(state=STATE), "other"), write(guest(state=NEWER)))
    assert result.exit_code == 0
    assert "! section 'dma' 0 is not there" in result.output
    assert "! section 'xhci' 0 is not there" in result.output
    assert "'timer'" not in result.output


def test_a_later_version_of_a_section_is_told_with_both(write):
    older = QemuStateBuilder.of("mc146818rtc")
    older.section("mc146818rtc").version = 1
    paths = write(guest(state=older), "other"), write(guest("libvirt", state=QemuStateBuilder.of("mc146818rtc")))
    assert "'mc146818rtc' 0 has version 3, later than 1" in run("show", "--against", *paths).output
    (found,) = json.loads(run("show", "--json", "--against", *paths).output)["against"]
    assert found == {"section": "mc146818rtc", "instance": 0, "version": 3, "known_version": 1}


def test_two_states_of_one_qemu_have_nothing_against_each_other(write):
    paths = write(guest(state=NEWER), "other"), write(guest("xapi"))
    assert "has all of them, in versions as late" in run("show", "--against", paths[1], paths[1]).output
    assert json.loads(run("show", "--json", "--against", paths[0], paths[0]).output)["against"] == []


def test_a_stream_without_a_device_model_can_be_compared_with_none(write):
    result = run("show", "--against", write(guest(kind="pvh"), "other"), write(guest()))
    assert result.exit_code == 2
    assert "there is no device model's state in" in result.output


# -- genuine guests ------------------------------------------------------------------------------------------

GENUINE = sorted(SAMPLES.glob("genuine-hvm/*.xl.zst"))


def test_there_are_genuine_guests_with_a_device_model():
    assert len(GENUINE) == 5


@pytest.mark.parametrize("path", GENUINE, ids=lambda path: path.name)
def test_the_state_of_a_genuine_device_model_is_walked_to_its_last_byte(path):
    from migrate.inspection.reading import inspect
    from migrate.inspection.records.device_model import state_of

    state = inspect(path, then=state_of)
    assert (state.fault, state.doubt, state.trailing) == (None, None, 0)
    assert state.end == state.size
    assert all(section.measured for section in state.sections)
    assert {"timer", "0000:00:02.0/platform"} <= {section.name for section in state.sections}
