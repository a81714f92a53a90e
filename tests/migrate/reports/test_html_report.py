"""`migrate report`: one document that stands alone, whatever the streams are."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from html_pages import assert_sound, page, parsed, skeleton, written
from hypothesis import HealthCheck, given, settings
from project import SAMPLES
from trying import examples
from violating import violating

from migrate.building.big_streams import write_synthetic
from migrate.building.builder import StreamBuilder
from migrate.building.parts import page_data
from migrate.cli.main import main
from migrate.inspection.reading import inspect
from migrate.reports.folding import folded
from migrate.reports.html import document
from migrate.reports.html.anchors import Anchors
from migrate.reports.html.finding_entries import MOST_FINDINGS, entries
from migrate.reports.html.forest_tree import ROOTS_SEEN
from migrate.reports.html.overview import MOST_UNFOLDED
from migrate.reports.html.passes import MOST_BARS
from migrate.reports.html.section import lost_section, section
from migrate.reports.html.templating import LONGEST_VALUE
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity
from migrate.rules.findings import Finding
from migrate.testing import strategies
from migrate.xen.hypercalls import PIN_BATCH
from streams.pages import PageType
from streams.wire.framing import CPUID_LEAF, EMULATOR_HEADER, LibxlRecordType, XapiBlockId

REAL = sorted(path for path in SAMPLES.glob("*.zst"))
DAMAGED = sorted((SAMPLES / "oracle").glob("*.zst"))
VIOLATIONS = sorted(id for id, rule in RULES.items() if rule.violation is not None)
PV32, PV64 = SAMPLES / "x417-pv32.plain.libxc.zst", SAMPLES / "x417-pv64.plain.libxc.zst"
MAPPED_WRITABLE = SAMPLES / "oracle" / "pv64.plain__l1_maps_l1_writable.libxc.zst"

MIB = 1 << 20
SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"{SCRIPT}\"'><img src=x onerror=alert(1)>&amp;`{{{{7*7}}}}\x1b[31m\u202e\r\n]]>--><!--"
PLAIN = "x"


def run(*args, **options):
    return CliRunner().invoke(main, ["report", *map(str, args)], **options)


def text_of(element):
    return " ".join(element.text_content().split())


def part(root, key, stream=1):
    return root.get_element_by_id(f"s{stream}-{key}")


# -- the whole document ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REAL[::4], ids=lambda path: path.name)
def test_the_report_of_a_real_stream_is_sound_and_below_1_mib(path):
    text = page(path, target="4.20", placement="high")
    assert_sound(text)
    assert len(text.encode()) < MIB


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["source", "high", "low", "identity"])
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_the_report_of_every_real_stream_is_sound_and_below_1_mib(path, placement):
    text = page(path, target="4.20", placement=placement)
    assert_sound(text)
    assert len(text.encode()) < MIB


@pytest.mark.parametrize("path", DAMAGED[::19], ids=lambda path: path.name)
def test_the_report_of_a_damaged_stream_is_sound(path):
    assert_sound(page(path, target="4.20"))


@pytest.mark.slow
@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.name)
def test_the_report_of_every_damaged_stream_is_sound(path):
    assert_sound(page(path, target="4.20"))


@pytest.mark.parametrize("id", VIOLATIONS)
def test_the_smallest_violation_of_every_rule_makes_a_sound_report(id):
    assert_sound(page(violating(id)))


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.streams(containers=("libxc", "libxl", "xl", "xapi")))
def test_the_report_of_any_stream_is_sound(stream):
    assert_sound(page(bytes(stream)))


@pytest.mark.parametrize("size", [0, 1, 23, 24, 40, 100, 4096, 4200, 30000, 38000])
@pytest.mark.parametrize("container", ["libxc", "xl", "xapi"])
def test_a_stream_that_is_cut_anywhere_makes_a_sound_report(size, container):
    b = StreamBuilder.pv(4, vcpus=2)
    b.wrap(container)
    assert_sound(page(b.build()[:size]))


def test_the_same_streams_make_the_same_document():
    assert page(PV32, placement="high") == page(PV32, placement="high")


@pytest.fixture(scope="module")
def four_gib(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.libxc"
    write_synthetic(path, kind="pv", size_bytes=4 << 30, width=8, vcpus=4, rounds=3)
    yield path
    path.unlink()


@pytest.mark.slow
def test_the_report_of_a_guest_of_4_gib_is_sound_and_below_5_mib(four_gib):
    text = page(four_gib)
    assert_sound(text)
    assert len(text.encode()) < 5 * MIB


@pytest.mark.slow
def test_of_a_guest_of_4_gib_pins_are_folded_and_the_tables_left_out_are_counted(four_gib):
    root = parsed(page(four_gib))
    (pins,) = [text_of(row) for row in part(root, "calls").iter("li") if " pins: " in (row.text or "")]
    # synth pins an L1 for each of the 256 address spaces' parts, and the 256 roots: more than one batch.
    assert int(re.search(r"(\d+) pins: ", pins)[1]) > PIN_BATCH
    told = re.search(r"([\d,]+) tables\. ([\d,]+) of them are left out", text_of(part(root, "tables")))
    tables, left_out = (int(number.replace(",", "")) for number in told.groups())
    assert 0 < left_out < tables


# -- what it says ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused():
    return parsed(page(PV32, target="4.20", placement="high"))


@pytest.fixture(scope="module")
def chained():
    return parsed(page(MAPPED_WRITABLE, target="4.17"))


def box(root):
    """The verdict's parts: the head, the cause, and the repair if there is one."""
    (verdict,) = root.find_class("verdict")
    return verdict.get("class").split()[-1], [text_of(line) for line in verdict]


def test_the_box_at_the_top_has_the_verdict_and_counts_and_the_cause_and_the_repair(refused):
    state, (head, where, cause, repair) = box(refused)
    assert state == "refused"
    # Seven of the eight live L3 tables are refused; L3C-1 counts them, too, and REC-32 is told of each 32-bit guest.
    assert head == "✗ Refused 7 errors, 8 warnings, 1 info"
    assert where == "on Xen 4.20.0 with frames above 4 GiB"
    assert cause == (
        "Because L3 pfn 0x19 (mfn 0x100019) lies above 4 GiB, and the guest has not enabled pae_extended_cr3: "
        "vcpu 1's setvcpucontext fails with ERANGE (HYP-22)"
    )
    assert repair == f"Repair {RULES['HYP-22'].repair}"


def test_a_placement_that_nobody_asked_for_is_called_an_assumption():
    _, (_, where, *_) = box(parsed(page(PV32, target="4.20")))
    assert where == ("on Xen 4.20.0 with frames above 4 GiB (assumed: --placement low or --host FILE changes that)")


def test_a_guest_that_would_come_back_has_no_refusal_on_its_page():
    root = parsed(page(PV64, target="4.20", placement="source"))
    assert box(root) == ("restores", ["✓ Restores 1 info", "on Xen 4.20.0 with frames where they lay on the source"])
    assert root.find_class("refused") == []
    assert root.find_class("failed") == []


@pytest.mark.parametrize("id", ["REC-21", "XRC-42"])
def test_a_guest_that_would_come_back_otherwise_than_it_was_saved_is_damaged(id):
    state, (head, _, cause, *repair) = box(parsed(page(broken(id).build(), placement="low")))
    assert state == "damaged"
    assert head.startswith("! Restores, but damaged 1 error")
    assert cause.startswith("Because ")
    assert cause.endswith(f" ({id})")
    assert repair == [f"Repair {RULES[id].repair.replace('`', '')}"]


def test_where_nothing_can_be_done_there_is_no_repair():
    state, lines = box(parsed(page(broken("CON-33").build())))
    assert RULES["CON-33"].repair.startswith("none")
    assert (state, [line.split()[0] for line in lines]) == ("refused", ["✗", "on", "Because"])


def test_of_what_is_no_stream_nothing_is_said_that_is_about_a_guest():
    told = text_of(parsed(page(b"no stream at all")).get_element_by_id("s1"))
    assert "not a Xen stream" in told
    assert [word for word in ("No map of memory", "No page tables", "placement") if word in told] == []


def test_a_rule_and_an_errno_stay_in_one_piece_on_a_narrow_page(chained):
    pieces = {text_of(one) for one in chained.find_class("nowrap")}
    assert "-EINVAL" in pieces
    root = parsed(made(("one", StreamBuilder.pv(4)), ("bad", broken("REC-21"))))
    assert "REC-21" in {text_of(one) for one in root.get_element_by_id("overview").find_class("nowrap")}


def test_the_name_of_the_file_is_large_and_its_folder_small():
    heading = parsed(page(PV64, name="/srv/saved/guest.xl")).find(".//h2")
    assert [text_of(one) for one in heading.find_class("folder")] == ["/srv/saved/"]
    assert text_of(heading) == "/srv/saved/ guest.xl"


def test_findings_of_a_rule_are_one_entry_and_what_stops_the_restore_is_the_first(refused):
    told = [text_of(entry[0]) for entry in part(refused, "findings").find_class("findings")[0]]
    assert told == [
        "HYP-22 l3-above-4g error × 7 this stops the restore a hypercall fails, and with it the restore",
        "REC-32 pv32-disabled-on-host warning depends on the destination host",
        "L3C-1 l3-may-land-high warning × 7 depends on the destination host",
        "REC-29 pte-l1tf-unsafe info depends on the destination host",
    ]


def test_an_entry_links_to_its_rule_and_to_all_that_it_is_about(refused):
    first = part(refused, "findings").find_class("stops")[0]
    assert {link.get("href"): link.text for link in first.iter("a")} == {
        "#rule-HYP-22": "HYP-22",
        "#s1-record-7fe128": "record 12 X86_PV_VCPU_BASIC",
        "#s1-table-19": "table pfn 0x19",
        "#s1-vcpu-1": "vcpu 1",
        **{f"#s1-table-{pfn}": f"pfn 0x{pfn}" for pfn in ("13", "14", "15", "18", "1a", "115")},
    }
    row = text_of(refused.get_element_by_id("s1-record-7fe128"))
    assert row.startswith("libxc 12 X86_PV_VCPU_BASIC 0x7fe128 2,808 vcpu 1: ")
    assert text_of(refused.get_element_by_id("s1-table-19")).startswith("L3 pfn 0x19")


def test_all_rules_that_are_spoken_of_are_explained_and_no_others(refused):
    explained = {id.removeprefix("rule-") for id in refused.xpath("//section[@id='rules']/details/@id")}
    assert explained == {"HYP-22", "REC-29", "REC-32", "L3C-1"}
    assert RULES["HYP-22"].title in text_of(refused.get_element_by_id("rule-HYP-22"))
    assert f"{len(RULES) - 4} rules beside these" in text_of(refused.get_element_by_id("rules"))


def test_the_chain_that_led_to_a_refusal_is_marked_and_unfolded(chained):
    marked = chained.find_class("on-chain")
    # As `migrate trace` tells: L4 pfn 0xd8 slot 511, L3 pfn 0x118 slot 510, L2 pfn 0x119 slot 1, pfn 0x11b.
    assert [one.get("id") for one in marked] == [f"s1-table-{pfn}" for pfn in ("d8", "118", "119", "11b")]
    assert all("open" in above.attrib for one in marked for above in one.iterancestors("details"))
    listed = [text_of(link) for link in chained.find_class("chain")[0].iter("li")]
    assert listed == ["L4 pfn 0xd8 slot 511", "L3 pfn 0x118 slot 510", "L2 pfn 0x119 slot 1", "pfn 0x11b (writable)"]


def test_refused_hypercalls_stand_out_and_say_why(chained):
    failed = part(chained, "calls").find_class("failed")
    assert failed[0].get("value") == "3"
    assert text_of(failed[0]).startswith("setvcpucontext(vcpu 0, cr3 pfn 0xd8, cr1 pfn 0x25) → -EINVAL HYP-03: ")
    assert "A real restore ends with call 3" in text_of(part(chained, "calls"))


def test_calls_that_succeed_are_folded_between_those_that_fail(refused):
    told = [
        (one.get("value"), one.get("class"), text_of(one.find(".//summary")) if one.find("details") is not None else "")
        for calls in part(refused, "calls").find_class("calls")
        for one in calls
    ]
    assert told[:4] == [
        (
            "1",
            "fine",
            "6 calls succeed: set_address_size, set_cpu_policy, settscinfo, setvcpucontext, set_ext_vcpucontext, "
            "setvcpuextstate",
        ),
        ("7", "failed stops", ""),
        ("8", "fine", "2 calls succeed: set_ext_vcpucontext, setvcpuextstate"),
        ("10", "failed", ""),
    ]
    assert [value for value, kind, _ in told if kind == "fine"] == ["1", "8", "13", "16", "21"]
    assert all("open" not in one.attrib for one in part(refused, "calls").iter("details"))


def test_what_would_follow_the_call_that_a_restore_ends_with_is_folded(refused):
    real, beyond = part(refused, "calls").find_class("calls")
    assert (real[-1].get("value"), beyond[0].get("value")) == ("7", "8")
    assert "open" not in beyond.getparent().attrib
    assert text_of(beyond.getparent().find("summary")) == "How it would go on"


def test_where_the_restore_ends_before_any_call_all_are_folded():
    (beyond,) = part(parsed(page(StreamBuilder.pv(4).build(), placement="high")), "calls").find_class("calls")
    assert beyond.getparent().tag == "details"


@pytest.mark.parametrize(("roots", "folded"), [(ROOTS_SEEN, 0), (ROOTS_SEEN + 1, 1)])
def test_many_roots_are_folded(roots, folded):
    # One of them is vcpu 0's own, and in another group.
    root = parsed(page(StreamBuilder.pv(8, roots=roots + 1).build()))
    assert len(part(root, "tables").find_class("roots")) == folded


def test_no_table_is_unfolded_of_a_guest_that_comes_back():
    root = parsed(page(PV64, target="4.20"))
    folded = list(part(root, "tables").iter("details"))
    assert folded
    assert all("open" not in one.attrib for one in folded)


def test_only_what_leads_to_the_failure_is_unfolded(chained):
    unfolded = [one.getparent().get("id") for one in part(chained, "tables").iter("details") if "open" in one.attrib]
    assert unfolded == ["s1-table-d8", "s1-table-118", "s1-table-119"]
    assert "#s1-table-11b" in part(chained, "tables").xpath("p/a/@href")


def pictures(root):
    return part(root, "memory").find_class("cells")


def test_frames_that_lie_as_the_pfns_do_have_no_map_of_their_own(refused):
    assert len(pictures(refused)) == 1
    assert "each page lies at its pfn + 0x100000, above 4 GiB" in text_of(part(refused, "memory"))


def test_frames_that_are_the_pfns_have_no_map_of_their_own_either():
    told = text_of(part(parsed(page(StreamBuilder.pv(4).build(), placement="identity")), "memory"))
    assert "By machine frame it looks the same: each page lies at its pfn, below 4 GiB." in told


def test_the_map_of_machine_frames_shows_where_4_gib_are():
    _, machine = pictures(parsed(page(PV32, placement="source")))
    (limit,) = machine.find_class("limit")
    assert text_of(limit).startswith("4 GiB; ")
    below = [text_of(one) for one in machine.iterchildren()][: list(machine).index(limit)]
    # The sample's L3 tables are all below 4 GiB on its source: mfn 0xbfbf6 is vcpu 1's root.
    assert below[0].startswith("0xbfbf6v")


def test_rows_that_are_all_alike_are_one(refused):
    (guest,) = pictures(refused)
    alike = {text_of(one.getprevious()): text_of(one) for one in guest.find_class("alike")}
    assert alike == {"0x80": "pfn 0x80 to 0xbf: 64 NOTAB", "0x140": "pfn 0x140 to 0x7bf: 1664 NOTAB"}
    # What is left of 2048 pages has a cell each.
    assert sum(len(run.text) for run in guest.xpath(".//*[@class='run']/span")) == 2048 - 64 - 1664


def test_a_map_wraps_in_strips_of_16_cells_each_with_its_first_frame(refused):
    (guest,) = pictures(refused)
    strips = [(text_of(one[0]), one[1].text_content()) for one in guest.find_class("strip")]
    # L3 tables at 0x13 to 0x16, 0x18, 0x1a, and 0x19 that fails.
    assert strips[1] == ("0x10", "   HHHH H!H     ")
    assert all(len(cells) == 16 for _, cells in strips)
    assert [label for label, _ in strips[:5]] == ["0x0", "0x10", "0x20", "0x30", "0x40"]


def test_the_pages_around_the_one_that_fails_are_told_one_by_one(refused):
    pages = [text_of(one) for one in part(refused, "memory").find_class("zoomed")[0]]
    assert len(pages) == 16
    assert pages[0] == "0x12NOTABmfn 0x100012"
    (failing,) = part(refused, "memory").find_class("zoomed")[0].find_class("hit")
    assert text_of(failing) == "0x19L3TABmfn 0x100019"


def test_nothing_is_zoomed_in_on_where_nothing_fails():
    assert parsed(page(PV64, target="4.20")).find_class("zoomed") == []


def test_pages_that_a_guest_does_not_have_are_not_shown_around_the_one_that_fails():
    b = broken("HYP-03")
    root = parsed(page(b.build(), placement="low"))
    assert box(root)[0] == "refused"
    pfns = [int(one.find("strong").text, 16) for one in root.find_class("zoomed")[0]]
    assert pfns == list(range(pfns[0], b.max_pfn + 1))


def test_no_page_type_is_told_by_colour_alone(refused):
    for entry in part(refused, "memory").find_class("legend")[0]:
        name = text_of(entry)
        assert name.startswith(("NOTAB", "never sent")) or entry.find_class("swatch")[0].text


def test_the_types_of_the_legend_add_up_to_the_guest(refused):
    legend = [text_of(entry) for entry in part(refused, "memory").find_class("legend")[0]]
    numbers = [int(told.rpartition(": ")[2].replace(",", "")) for told in legend if re.search(r": [\d,]+$", told)]
    assert sum(numbers) == 2048


def test_the_passes_of_a_live_migration_are_bars_and_a_table():
    root = parsed(page(SAMPLES / "x417-pv64.live4.libxc.zst"))
    rows = [text_of(row) for row in part(root, "passes").find(".//tbody").iter("tr")]
    assert [row.split()[1] for row in rows] == ["first", "dirty", "dirty", "dirty", "final"]
    assert len(part(root, "passes").find_class("bar")) == 5


@pytest.mark.parametrize(("more", "told"), [(0, None), (1, "1 pass left out"), (2, "2 passes left out")])
def test_passes_that_have_no_bar_are_counted(more, told):
    b = StreamBuilder.pv(4)
    for _ in range(MOST_BARS - 1 + more):  # the same pfn again: a step back, which begins a pass
        b.insert("PAGE_DATA", page_data([(1, PageType.XTAB, None)]), after="PAGE_DATA")
    section = part(parsed(page(b.build())), "passes")
    caption = text_of(section.find(".//caption"))
    assert len(section.find_class("bar")) == MOST_BARS
    assert caption == "; ".join(filter(None, ("Pages that each pass sent", told)))


def test_each_checkpoint_of_a_remus_stream_has_a_verdict():
    root = parsed(page(SAMPLES / "x417-pv32.remus.libxc.zst", target="4.20", placement="high"))
    rows = [text_of(row) for row in part(root, "checkpoints").find(".//tbody").iter("tr")]
    assert len(rows) == 3
    assert all(" refuse HYP-22: " in row for row in rows)


def test_all_records_have_a_row_without_any_script(refused):
    rows = list(refused.get_element_by_id("s1-record-table").find("tbody"))
    assert len(rows) == 2 + 16  # two headers, and as many records as the verdict's facts tell
    assert [row.get("hidden") for row in rows] == [None] * len(rows)
    assert "hidden" in refused.forms[0].attrib


def test_a_stream_of_many_records_shares_rows_and_says_so():
    b = StreamBuilder.pv(4)
    for _ in range(2000):
        b.insert("VERIFY", before="END")
    root = parsed(page(b.build()))
    caption = text_of(root.get_element_by_id("s1-record-table").find("caption"))
    assert re.search(r"\d+ records that are alike share lines", caption)
    assert len(root.get_element_by_id("s1-record-table").find("tbody")) < 100


def test_vcpus_have_their_registers_with_a_link_to_the_root(chained):
    vcpu = chained.get_element_by_id("s1-vcpu-0")
    assert "0x00000000000d8000" in text_of(vcpu)
    assert "#s1-table-d8" in vcpu.xpath(".//@href")


def test_an_hvm_guest_has_vcpus_and_says_why_it_has_no_page_tables():
    root = parsed(page(StreamBuilder.hvm(vcpus=2).build()))
    assert "there are page tables of PV guests only" in text_of(root.get_element_by_id("s1"))
    assert [one.get("id") for one in part(root, "vcpus").iter("details")] == ["s1-vcpu-0", "s1-vcpu-1"]


def test_findings_beyond_a_number_are_counted():
    each = range(2 * MOST_FINDINGS)
    many = [Finding(RULES["REC-29"], f"pfn {pfn:#x}", Severity.INFO, Effect.HOST, pfn=pfn) for pfn in each]
    shown, left_out = entries(folded(many), Anchors("s1"))
    ((cause,),) = [entry.causes for entry in shown]
    assert (1 + len(cause.others), left_out + cause.more) == (MOST_FINDINGS, MOST_FINDINGS)


# -- several streams -----------------------------------------------------------------------------------


def overview(text):
    """The overview's headline, and its groups: the reason, and the streams' names."""
    glance = parsed(text).get_element_by_id("overview")
    groups = [
        (text_of(group.find("summary")), [text_of(row[0]) for row in group.find("ul")])
        for group in glance.find_class("group")
    ]
    return text_of(glance.find("h2")), groups


def made(*named, lost=()):
    """The document about some streams by name."""
    parts = [
        inspect(b.build(), placement="low", then=lambda found, name=name, number=number: section(found, name, number))
        for number, (name, b) in enumerate(named, 1)
    ]
    parts += [lost_section(name, "No such file or directory", len(parts) + 1 + at) for at, name in enumerate(lost)]
    return written(*parts)


def broken(id):
    b = StreamBuilder.pv(4)
    RULES[id].violation(b)
    return b


def test_several_streams_are_grouped_by_what_became_of_them_and_why_the_worst_first():
    fine = StreamBuilder.pv(4)
    no_vcpu = StreamBuilder.pv(4)
    no_vcpu.drop("X86_PV_VCPU_BASIC")
    streams = [
        ("good", fine),
        ("odd", broken("REC-21")),
        ("bad", no_vcpu),
        ("end", broken("ORD-01")),
        ("bad2", no_vcpu),
    ]
    text = made(*streams, lost=["gone"])
    assert_sound(text)
    headline, groups = overview(text)
    assert headline == "3 refused, 1 not readable, 1 damaged, 1 restores"
    assert [names for _, names in groups] == [["bad", "bad2"], ["end"], ["gone"], ["odd"], ["good"]]
    assert groups[0][0].startswith("✗ 2 refused: the stream has no X86_PV_VCPU_BASIC of vcpu 0")
    assert groups[2][0] == "? 1 not readable: No such file or directory"
    assert groups[3][0].startswith("! 1 damaged: ")
    assert groups[4][0] == "✓ 1 restores"
    shown = [
        one.get("id") for one in parsed(text).iter("article", "section") if re.fullmatch(r"s\d+", one.get("id") or "")
    ]
    assert shown == ["s3", "s5", "s4", "s6", "s2", "s1"]


def test_streams_that_break_one_rule_in_different_words_are_told_the_rule_and_each_its_words():
    small, large = StreamBuilder.pv(4), StreamBuilder.pv(4)
    large.new_page()
    for b in (small, large):
        RULES["REC-07"].violation(b)
    text = made(("one", small), ("two", large))
    ((told, names),) = overview(text)[1]
    assert told == f"✗ 2 refused: REC-07 {RULES['REC-07'].slug}: {RULES['REC-07'].title}"
    assert names == ["one", "two"]
    words = [text_of(row.find_class("why")[0]) for row in parsed(text).find_class("streams")[0]]
    assert [f"pfn {b.max_pfn + 1:#x} " in word for b, word in zip((small, large), words, strict=True)] == [True, True]


@pytest.mark.parametrize(("many", "unfolded"), [(MOST_UNFOLDED, True), (MOST_UNFOLDED + 1, False)])
def test_a_list_that_one_could_not_see_at_once_is_folded(many, unfolded):
    text = written(*(lost_section(f"{number}", "No such file or directory", number) for number in range(many)))
    (group,) = parsed(text).find_class("group")
    assert ("open" in group.attrib, "data-wide" in group.attrib) == (unfolded, unfolded)


@pytest.mark.parametrize(
    ("names", "folder", "told"),
    [
        (["/srv/a/x", "/srv/b/y"], "/srv/", ["a/x", "b/y"]),
        (["a/x", "a/y"], "a/", ["x", "y"]),
        (["/srv/a", "b/c"], "", ["/srv/a", "b/c"]),
        (["/srv/ab/x", "/srv/a/y"], "/srv/", ["ab/x", "a/y"]),
        (["-", "/srv/a"], "", ["-", "/srv/a"]),
        (["/a", "/b"], "/", ["a", "b"]),
    ],
)
def test_what_all_paths_have_in_common_is_told_once(names, folder, told):
    text = made(*((name, StreamBuilder.pv(4)) for name in names))
    assert overview(text)[1] == [("✓ 2 restore", told)]
    notes = [text_of(note) for note in parsed(text).get_element_by_id("overview").find_class("note")]
    assert notes == ([f"All below {folder}"] if folder else [])


# -- what a stream may say ---------------------------------------------------------------------------


def xl(name):
    b = StreamBuilder.hvm()
    b.wrap("xl")
    config = json.loads(b.xl_config)
    config["c_info"]["name"] = name
    b.xl_config = json.dumps(config).encode()
    return b


def keys(word):
    b = xl("guest")
    data = b"".join(part.encode() + b"\0" for part in (f"/{word}", word))
    b.libxl_after.insert(0, type(b.libxl_after[0])(LibxlRecordType.EMULATOR_XENSTORE_DATA, bytearray(data)))
    b.libxl_after[0].body[:0] = EMULATOR_HEADER.pack(2, 0)
    return b


def vendor(word):
    b = StreamBuilder.pv(4)
    letters = word.encode()[:12].ljust(12, b" ")
    b.cpuid_policy[0] |= dict(zip(("b", "d", "c"), (letters[:4], letters[4:8], letters[8:]), strict=True))
    for register in "bdc":
        b.cpuid_policy[0][register] = int.from_bytes(b.cpuid_policy[0][register], "little")
    return b


def xenops(word):
    b = StreamBuilder.pv(4)
    b.wrap("xapi")
    told = b'(("' + re.sub(r'[\\"\x00-\x1f]', "", word).encode() + b'" 1))'
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, told)
    return b


@pytest.mark.parametrize("guest", [xl, keys, vendor, xenops])
def test_text_of_a_stream_changes_nothing_but_text(guest):
    hostile, plain = page(guest(HOSTILE).build(), name="a"), page(guest(PLAIN).build(), name="a")
    assert_sound(hostile)
    assert [one[:2] for one in skeleton(hostile)] == [one[:2] for one in skeleton(plain)]


def test_what_the_configuration_calls_the_guest_is_there_to_read():
    assert SCRIPT in parsed(page(xl(SCRIPT).build())).text_content()


def test_a_policy_says_its_vendor_in_harmless_letters():
    assert CPUID_LEAF.size == 24
    assert "<script>aler" in parsed(page(vendor(SCRIPT).build())).text_content()


@pytest.mark.parametrize("name", [HOSTILE, "a\udcff\udcfe", "\x00\x1b]0;x\x07", "javascript:alert(1)", "{{ 7*7 }}"])
def test_the_name_of_a_file_changes_nothing_but_text(name):
    stream = StreamBuilder.pv(4).build()
    hostile = page(stream, stream, name=name)
    assert_sound(hostile)
    plain = "a/b" if "/" in name else PLAIN
    assert skeleton(hostile) == skeleton(page(stream, stream, name=plain))
    assert_sound(written(lost_section(name, name, 1)))


def test_a_name_without_end_is_cut():
    text = page(StreamBuilder.pv(4).build(), name="a" * MIB)
    assert len(text) < MIB // 2
    assert "a" * LONGEST_VALUE + " …" in text


def test_no_template_lets_a_value_through_unescaped():
    templates = Path(document.__file__).parent / "templates"
    for template in templates.glob("*.j2"):
        text = template.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), template.name
        # A value in an attribute without quotes could end it.
        assert not re.search(r"=\{\{", text), template.name
        assert "<script" not in text.replace("<script>{{ script }}</script>", ""), template.name


# -- how it looks ------------------------------------------------------------------------------------


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes():
    style = (Path(document.__file__).parent / "templates" / "report.css").read_text()
    light, dark = re.findall(r":root \{([^}]*--ground[^}]*)\}", style)
    return {name: dict(re.findall(r"--([\w-]+): (#\w{6});", text)) for name, text in (("light", light), ("dark", dark))}


PAIRS = [
    *[(ink, ground) for ink in ("text", "muted", "accent", "refuse", "warn") for ground in ("ground", "panel")],
    *[(ink, "warn-ground") for ink in ("text", "warn", "accent")],
    *[(ink, "refuse-ground") for ink in ("text", "muted", "refuse", "accent")],
    *[(ink, "accent-ground") for ink in ("text", "accent")],
    *[("text", f"k-{kind}") for kind in ("absent", "data", "1", "2", "3", "4", "other")],
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), PAIRS)
def test_text_has_the_contrast_that_wcag_aa_asks_for(scheme, ink, ground):
    colours = schemes()[scheme]
    assert contrast(colours[ink], colours[ground]) >= 4.5


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def streams(tmp_path):
    bad = StreamBuilder.pv(8)
    bad.drop("X86_PV_VCPU_BASIC")
    (tmp_path / "good").write_bytes(StreamBuilder.pv(8).build())
    (tmp_path / "bad").write_bytes(bad.build())
    (tmp_path / "junk").write_bytes(b"no stream at all " * 8)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        (["good"], 0),
        (["bad"], 1),
        (["junk"], 3),
        (["good", "junk"], 3),
        (["good", "bad", "junk"], 1),
        (["bad", "gone"], 2),
    ],
)
def test_the_exit_code_is_that_of_check_and_the_report_is_written(streams, names, ending):
    paths = [streams / name for name in names]
    assert run(*paths, "-o", streams / "out.html").exit_code == ending
    assert CliRunner().invoke(main, ["check", *map(str, paths)]).exit_code == ending
    assert_sound((streams / "out.html").read_text())


@pytest.mark.parametrize(("names", "ending"), [(["bad"], 0), (["junk"], 0), (["bad", "gone"], 2)])
def test_with_exit_zero_only_what_cannot_be_read_is_a_failure(streams, names, ending):
    assert run(*(streams / name for name in names), "-o", streams / "out.html", "--exit-zero").exit_code == ending


def test_a_stream_that_cannot_be_read_has_a_section_that_says_so(streams):
    result = run(streams / "gone", streams / "good", "-o", streams / "out.html")
    assert "No such file or directory" in result.stderr
    assert "? Not readable Because No such file or directory" in text_of(parsed((streams / "out.html").read_text()))


def test_where_no_stream_can_be_read_no_report_is_written(streams):
    assert run(streams / "gone", "-o", streams / "out.html").exit_code == 2
    assert not (streams / "out.html").exists()


def test_a_file_is_overwritten_only_if_asked(streams):
    target = streams / "out.html"
    target.write_text("mine")
    refused = run(streams / "good", "-o", target)
    assert (refused.exit_code, target.read_text()) == (2, "mine")
    assert "--force overwrites it" in refused.stderr
    assert run(streams / "good", "-o", target, "--force").exit_code == 0
    assert target.read_text().startswith("<!doctype html>")


def test_a_failed_run_with_force_leaves_the_old_report(streams):
    target = streams / "out.html"
    target.write_text("mine")
    assert run(streams / "gone", "-o", target, "--force").exit_code == 2
    assert target.read_text() == "mine"


def test_a_dash_is_standard_output_and_standard_input(streams):
    result = subprocess.run(
        [sys.executable, "-m", "migrate", "report", "-", "-o", "-"],
        input=(streams / "good").read_bytes(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert_sound(result.stdout.decode())
    assert result.stderr == b""


def test_the_options_are_those_of_the_question(streams):
    result = run(PV32, "-o", streams / "out.html", "--target", "4.20", "--placement", "high", "--l3-rule", "L3V-1")
    assert (
        result.exit_code
        == CliRunner()
        .invoke(main, ["check", str(PV32), "--target", "4.20", "--placement", "high", "--l3-rule", "L3V-1"])
        .exit_code
    )
    assert "on Xen 4.20.0 with frames above 4 GiB Because" in text_of(parsed((streams / "out.html").read_text()))


def folder_of(streams, *names, to="out/", args=()):
    return run(*(streams / name for name in names), "-o", f"{streams}/{to}", *args)


def assert_whole(folder):
    """What holds of a folder: each page is sound, those of the index are there, and they lead back."""
    index = (folder / "index.html").read_text()
    pages = {link for link in parsed(index).xpath("//@href") if not link.startswith("#")}
    assert pages == {page.name for page in folder.iterdir()} - {"index.html"}
    assert_sound(index, beside=pages)
    for name in pages:
        assert_sound((folder / name).read_text(), beside={"index.html"})
    return index


def test_a_folder_gets_a_page_for_each_stream_and_one_that_leads_to_them(streams):
    result = folder_of(streams, "good", "gone", "bad", "junk")
    assert result.exit_code == 2
    index = assert_whole(streams / "out")
    assert sorted(page.name for page in (streams / "out").iterdir()) == [
        "001-good.html",
        "003-bad.html",
        "004-junk.html",
        "index.html",
    ]
    headline, groups = overview(index)
    assert headline == "1 refused, 1 not readable, 1 not judged, 1 restores"
    # What cannot be read does not count for the folder that all have in common.
    assert [names for _, names in groups] == [["bad"], ["gone"], ["junk"], ["good"]]
    size = sum(page.stat().st_size for page in (streams / "out").iterdir())
    assert result.stdout == f"{streams}/out/: 4 pages, {size} bytes; {headline}\n"


def test_a_folder_that_is_there_needs_no_slash(streams):
    (streams / "out").mkdir()
    assert folder_of(streams, "good", to="out").exit_code == 0
    assert_whole(streams / "out")


def test_a_report_that_is_there_is_overwritten_only_if_asked(streams):
    assert folder_of(streams, "good").exit_code == 0
    before = (streams / "out" / "001-good.html").read_bytes()
    refused = folder_of(streams, "bad")
    assert refused.exit_code == 2
    assert "index.html exists; --force overwrites it" in refused.stderr
    assert [page.name for page in sorted((streams / "out").iterdir())] == ["001-good.html", "index.html"]
    assert (streams / "out" / "001-good.html").read_bytes() == before
    assert folder_of(streams, "good", "bad", args=["--force"]).exit_code == 1
    assert_whole(streams / "out")


def test_a_page_that_is_there_is_not_overwritten_and_nothing_is_left_beside_it(streams):
    (streams / "out").mkdir()
    (streams / "out" / "002-bad.html").write_text("mine")
    result = folder_of(streams, "good", "bad")
    assert result.exit_code == 2
    assert "002-bad.html exists; --force overwrites it" in result.stderr
    assert [page.name for page in (streams / "out").iterdir()] == ["002-bad.html"]


def test_a_stream_is_not_overwritten_by_its_own_page(streams):
    (streams / "001-good.html").write_bytes((streams / "good").read_bytes())
    (streams / "001-good").symlink_to("001-good.html")
    (streams / "out").symlink_to(".")
    os.rename(streams / "good", streams / "copy")
    (streams / "good").symlink_to("001-good.html")
    result = folder_of(streams, "good", args=["--force"])
    assert result.exit_code == 2
    assert "is what is read" in result.stderr


def test_where_no_stream_can_be_read_there_is_no_folder_either(streams):
    assert folder_of(streams, "gone").exit_code == 2
    assert not (streams / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(streams):
    result = folder_of(streams, "good", to="no/such/")
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr


def test_names_of_streams_make_names_of_pages_that_need_no_escape(streams):
    hostile = "a b%2f#?\"'<script>" + "x" * 200
    (streams / hostile).write_bytes((streams / "good").read_bytes())
    assert folder_of(streams, hostile).exit_code == 0
    assert_whole(streams / "out")
    (page,) = [page.name for page in (streams / "out").iterdir() if page.name != "index.html"]
    assert re.fullmatch(r"001-[A-Za-z0-9._-]{1,80}\.html", page)


def test_the_index_of_300_streams_is_below_3_mb():
    named = [f"/srv/guests/{'a' * 40}-{number}.xl" for number in range(300)]
    sentence = "vcpu 1's setvcpucontext fails with ERANGE (HYP-22): " + "lies above 4 GiB, " * 12
    sections = [replace(lost_section(name, "", 1), sentence=f"{name} {sentence}", guest="g" * 80) for name in named]
    out = io.BytesIO()
    # Each has a reason of its own: the longest an index can be.
    assert document.write_index(sections, [f"{number}.html" for number in range(300)], out) < 3_000_000


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["good"],
        ["good", "-o", "out.html", "--placement", "nowhere"],
        ["good", "-o", "out.html", "--target", "3.4"],
        ["-", "-", "-o", "out.html"],
    ],
)
def test_wrong_usage_ends_with_2_and_leaves_no_file(streams, args, monkeypatch):
    monkeypatch.chdir(streams)
    assert run(*args).exit_code == 2
    assert not (streams / "out.html").exists()


def test_what_is_done_is_told_in_a_line(streams):
    result = run(streams / "good", streams / "bad", "-o", streams / "out.html")
    size = (streams / "out.html").stat().st_size
    assert result.stdout == f"{streams / 'out.html'}: {size} bytes; 1 refused, 1 restores\n"
