"""`migrate rules` as its users meet it: the table, the JSON document, the page in Markdown."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import takewhile

import pytest
from click.testing import CliRunner
from rich.console import Console

from migrate.cli.main import main
from migrate.destination import releases as changes
from migrate.reports.rules.pages import GUEST_SEES, law_rows, layer_of, releases, rules_object, rules_of
from migrate.reports.rules.text import render_rules
from migrate.rules.catalogue import NOT_RULES, RULES, rule_set_version
from migrate.rules.declaring import Effect, Layer
from migrate.rules.messages.declaring import Voice
from migrate.rules.messages.log import read
from migrate.rules.order import LAW

layers = pytest.mark.parametrize("layer", list(Layer), ids=lambda layer: layer.name)


def run(*args):
    return CliRunner().invoke(main, ["rules", *args])


def output(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.output


def document(*args):
    return json.loads(output("--format", "json", *args))


def on_terminal(width):
    file = io.StringIO()
    render_rules(Console(file=file, width=width, force_terminal=True, color_system=None, highlight=False))
    return file.getvalue()


# -- start-up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "heavy"),
    [("text", {"numpy", "construct"}), ("json", {"numpy", "construct", "rich"}), ("markdown", {"numpy", "rich"})],
)
def test_listing_imports_nothing_heavy(form, heavy):
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main(['rules', '--format', {form!r}], prog_name='migrate')\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("args", [["--layer", "XYZ"], ["--format", "yaml"], ["HYP-22"]])
def test_wrong_usage_exits_2(args):
    assert run(*args).exit_code == 2


# -- text ---------------------------------------------------------------------------------------------


def test_plain_table_has_a_line_per_rule():
    firsts = [line.split(" ", 1)[0] for line in output().splitlines()]
    assert sorted(word for word in firsts if word in RULES) == sorted(RULES)


def test_line_of_a_rule_says_what_it_is():
    (line,) = (line for line in output().splitlines() if line.startswith("HYP-22"))
    assert re.split(r"  +", line) == [
        "HYP-22", "l3-above-4g", "error", "hypercall", "xen: promote_l3_table", "4.19+",
    ]  # fmt: skip


def test_plain_table_is_neither_styled_nor_padded():
    text = output()
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


@layers
def test_rules_stand_below_their_layer(layer):
    lines = output().splitlines()
    start = lines.index(f"{layer.name}  {layer.value}")
    listed = [line.split()[0] for line in takewhile(bool, lines[start + 1 :])]
    assert set(listed) == {rule.id for rule in RULES.values() if rule.layer is layer}
    assert listed == sorted(listed, key=lambda id: int(id.split("-")[1]))


@layers
def test_layer_is_an_option_in_any_case(layer):
    ids = {line.split()[0] for line in output("--layer", layer.name.lower()).splitlines()[3:]}
    assert ids == {rule.id for rule in RULES.values() if rule.layer is layer}


@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_drawn_table_fits_the_terminal_and_keeps_names_whole(width):
    lines = on_terminal(width).splitlines()
    assert max(map(len, lines)) <= width
    for rule in RULES.values():
        assert any(line.startswith(rule.id) and f" {rule.slug} " in line for line in lines)


@pytest.mark.parametrize("width", [80, 100, 132])
def test_a_table_that_is_narrow_leaves_a_column_out_and_does_not_stand_on_end(width):
    text = on_terminal(width)
    assert len(text.splitlines()) < 3 * len(RULES)
    assert ("enforced by" in text) == (width > 80)
    assert "4.6.0–4.7.4" in text


@pytest.mark.parametrize(("width", "columns"), [(40, 2), (60, 3), (80, 5)])
def test_a_narrow_table_keeps_every_id_and_the_columns_that_fit(width, columns):
    lines = on_terminal(width).splitlines()
    assert [line.split()[0] for line in lines if re.match(r"[A-Z0-9]+-\d+ ", line)] == [
        rule.id for layer in Layer for rule in rules_of(layer)
    ]
    assert lines[1].split() == ["id", "slug", "severity", "effect", "releases"][:columns]
    assert max(map(len, lines[:-3])) <= width


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_terminal_too_narrow_is_no_failure(width):
    assert on_terminal(width)


# -- JSON ---------------------------------------------------------------------------------------------


def test_json_has_every_rule_once_and_every_number_that_is_none():
    told = document()
    assert sorted(rule["id"] for rule in told["rules"]) == sorted(RULES)
    assert {entry["id"]: entry["reason"] for entry in told["not_rules"]} == NOT_RULES
    assert told["rule_set"] == rule_set_version()


def test_json_of_a_rule_holds_its_declaration():
    (told,) = (rule for rule in document()["rules"] if rule["id"] == "HYP-27")
    assert told.pop("text").startswith("What: any 32-bit PV stream")
    assert told == {
        "id": "HYP-27",
        "slug": "shared-info-moves",
        "title": "A 32-bit guest's shared_info is moved away under libxc",
        "layer": "HYP",
        "severity": "error",
        "effect": "refused",
        "enforced_by": "libxc: handle_shared_info",
        "since": "4.19.5",
        "until": None,
        "releases": "4.22 and later; also 4.19.5, 4.20.3 and 4.21.1 and what followed in their branches",
        "errno": "EBUSY",
        "has_violation": True,
    }


def test_json_tells_which_rules_no_stream_can_break():
    told = {rule["id"] for rule in document()["rules"] if not rule["has_violation"]}
    assert told == {rule.id for rule in RULES.values() if rule.violation is None}


@layers
def test_json_of_a_layer_holds_that_layer(layer):
    told = document("--layer", layer.name)
    assert {Layer[rule["layer"]] for rule in told["rules"]} == {layer}
    assert {layer_of(entry["id"]) for entry in told["not_rules"]} <= {layer}


def test_layers_add_up_to_everything():
    parts = [rules_object(layer) for layer in Layer]
    for key, all_of_them in (("rules", RULES), ("not_rules", NOT_RULES)):
        assert sorted(entry["id"] for part in parts for entry in part[key]) == sorted(all_of_them)


# -- the version of the rule set ----------------------------------------------------------------------


def test_rule_set_version_is_short_and_the_same_in_every_process():
    code = "from migrate.rules.catalogue import rule_set_version; print(rule_set_version())"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {rule_set_version()}
    assert re.fullmatch("[0-9a-f]{12}", rule_set_version())


@pytest.mark.parametrize(
    "change",
    [
        {"id": "CON-99"},
        {"effect": None},
        {"severity": None},
        {"until": (4, 7, 1)},
        {"doc": "another"},
        {"errno": "EPERM"},
        {"since": (4, 7, 1)},
        {"violation": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rule_set_version_changes_with_any_declaration(monkeypatch, change):
    before = rule_set_version()
    monkeypatch.setitem(RULES, "CON-01", replace(RULES["CON-01"], **change))
    assert rule_set_version() != before


def test_rule_set_version_changes_with_what_is_no_rule(monkeypatch):
    before = rule_set_version()
    monkeypatch.setitem(NOT_RULES, "HYP-14", "for another reason")
    assert rule_set_version() != before


def test_rule_set_version_does_not_depend_on_the_order_of_declarations(monkeypatch):
    before = rule_set_version()
    first = next(iter(RULES))
    rule = RULES[first]
    monkeypatch.delitem(RULES, first)
    monkeypatch.setitem(RULES, first, rule)
    assert next(iter(RULES)) != first
    assert rule_set_version() == before


def test_version_names_the_rule_set():
    told = CliRunner().invoke(main, ["--version"]).output
    assert re.fullmatch(rf"migrate [^ ]+, rules {len(RULES)} \({rule_set_version()}\)\n", told)


# -- Markdown -----------------------------------------------------------------------------------------


def test_markdown_has_one_anchor_per_rule_and_per_number_that_is_none():
    anchors = re.findall(r'<a id="([^"]+)"></a>', output("--format", "markdown"))
    assert sorted(anchors) == sorted(id.lower() for id in (*RULES, *NOT_RULES))


@pytest.mark.parametrize("args", [[], *(["--layer", layer.name] for layer in Layer)], ids=" ".join)
def test_every_link_of_the_page_leads_to_an_anchor(args):
    page = output("--format", "markdown", *args)
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert links <= set(re.findall(r'<a id="([^"]+)"></a>', page))


def test_page_links_a_rule_where_another_mentions_it():
    assert "If the L1 is reached first: [HYP-03](#hyp-03)." in output("--format", "markdown")


def test_page_shows_special_characters_as_they_are():
    page = output("--format", "markdown")
    assert r"EMULATOR\_\* record" in page
    assert "`xl save` file" in page
    assert r"physmap/<hex>" not in re.sub("`[^`]*`", "", page)


def test_law_of_record_order_is_a_table_of_the_page():
    page = output("--format", "markdown")
    start = page.index("| record | guests | needs first | at most once |")
    rows = page[start:].split("\n\n", 1)[0].splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ").replace("\\", "") for row in rows] == [record.name for record in LAW]


def test_law_says_what_each_record_needs():
    rows = {record: rest for record, *rest in law_rows()}
    assert rows["X86_PV_P2M_FRAMES"] == ["PV (else FRM-11)", "STATIC_DATA_END (ORD-04), X86_PV_INFO (ORD-02)", ""]
    assert rows["PAGE_DATA"] == ["any", "STATIC_DATA_END (ORD-04), X86_PV_P2M_FRAMES (PV: ORD-03)", ""]
    assert rows["X86_PV_INFO"] == ["PV (else FRM-11)", "", "yes (ORD-01)"]
    assert rows["TOOLSTACK"] == ["none (FRM-12)", "", ""]


def test_rules_named_by_the_law_exist():
    named = set(re.findall(r"[A-Z]{3}-\d+", str(law_rows())))
    assert named
    assert named <= RULES.keys()


def test_tables_of_the_page_have_as_many_cells_in_each_row():
    tables = re.findall(r"(?:^\|.*\n)+", output("--format", "markdown"), re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


# -- in which releases --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "short", "words"),
    [
        ("HYP-12", "all", "all"),
        ("HYP-22", "4.19+", "4.19 and later"),
        (
            "HYP-27",
            "4.19.5+, 4.20.3+, 4.21.1+, 4.22+",
            "4.22 and later; also 4.19.5, 4.20.3 and 4.21.1 and what followed in their branches",
        ),
        (
            "REC-60",
            "4.12.3+, 4.13.1+, 4.14+",
            "4.14 and later; also 4.12.3 and 4.13.1 and what followed in their branches",
        ),
        ("REC-66", "4.21.1+, 4.22+", "4.22 and later; also 4.21.1 and what followed in its branch"),
    ],
)
def test_releases_include_backports(id, short, words):
    assert (releases(RULES[id]).short, releases(RULES[id]).words) == (short, words)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, changes.version_3, "4.6.0–4.13.5"),
        (changes.colo, changes.version_3, "4.7.0–4.13.5"),
        (None, changes.msrs_restored, "4.6.0–4.7.4, 4.8.0–4.8.3, 4.9.0–4.9.1"),
        (changes.r8_to_r15_lost, None, "4.21.0–4.21.1"),
        (changes.version_3, None, "4.14 and later"),
    ],
)
def test_releases_of_a_rule_may_end(since, until, expected):
    assert releases(replace(RULES["HYP-12"], since=since, until=until)).words == expected


# -- releases ---------------------------------------------------------------------------------------------


def test_every_change_has_a_line_with_its_releases():
    lines = output("--releases").splitlines()
    assert len([line for line in lines if re.match(r"\d+\.\d+\.\d+ ", line)]) == len(changes.CHANGES)
    [line] = [line for line in lines if "subleaf 2" in line]
    assert line.split()[:4] == ["4.17.0", "4.14.5", "4.15.3", "4.16.1"]
    [line] = [line for line in lines if "r8 to r15" in line]
    assert line.split()[:3] == ["4.21.0", "4.21.2", "4.22.0"]


def test_json_of_the_changes_has_each_with_the_releases_that_have_it():
    told = document("--releases")
    assert told["releases"] == [release.name for release in changes.RELEASES]
    assert [change["name"] for change in told["changes"]] == list(changes.CHANGES)
    lost = next(change for change in told["changes"] if change["name"] == "r8_to_r15_lost")
    assert (lost["since"], lost["backports"], lost["until"]) == ("4.21.0", [], ["4.21.2", "4.22.0"])
    assert lost["releases"] == ["4.21.0", "4.21.1"]


def test_page_of_the_changes_is_one_table():
    rows = [line for line in output("--releases", "--format", "markdown").splitlines() if line.startswith("|")]
    assert len(rows) == len(changes.CHANGES) + 2
    assert {row.replace(r"\|", "").count("|") for row in rows} == {5}


@pytest.mark.parametrize("other", [["--layer", "HYP"], ["--messages"]])
def test_changes_are_asked_for_alone(other):
    assert run("--releases", *other).exit_code == 2


# -- messages ---------------------------------------------------------------------------------------------


def test_messages_are_listed_by_who_writes_them():
    lines = output("--messages").splitlines()
    assert "    pfn … (index …) outside domain maximum" in lines
    assert [line for line in lines[:-2] if not line.startswith("    ")] == [str(voice) for voice in Voice]


def test_json_and_page_of_the_messages_have_each_of_them():
    told = document("--messages")["messages"]
    shown = [line.strip() for line in output("--messages").splitlines()]
    assert {message["says"] for message in told} <= set(shown)
    items = [line for line in output("--messages", "--format", "markdown").splitlines() if line.startswith("- ")]
    assert len(items) == len(told)


def test_every_message_that_is_listed_is_known():
    for message in document("--messages")["messages"]:
        lines = [message["says"].replace("…", some) for some in ("7", "x", "0x7")]
        assert any(read([line.encode()]).recognised for line in lines), message


def test_what_the_guest_sees_is_known_for_every_effect():
    assert GUEST_SEES.keys() == set(Effect)
