"""The report as a browser shows it: nothing is loaded, nothing is obeyed that a stream says, and it can be used."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from project import SAMPLES  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="there is no chromium with its chromedriver"),
]

STREAMS = {
    "good": SAMPLES / "x417-pv64.live4.libxc.zst",
    "refused": SAMPLES / "x417-pv32.plain.libxc.zst",
    "chained": SAMPLES / "oracle" / "pv64.plain__l1_maps_l1_writable.libxc.zst",
    "damaged": SAMPLES / "oracle" / "pv64.plain__l1_pte_to_xtab.libxc.zst",
    "cut": SAMPLES / "oracle" / "pv64.plain__length_field_off_by_8.libxc.zst",
    "hvm": SAMPLES / "x417-pvh.xl.zst",
}
VERDICTS = {
    "good": "Restores",
    "refused": "Refused",
    "chained": "Refused",
    "damaged": "Restores, but damaged",
    "cut": "Refused",
    "hvm": "Restores",
}
HOSTILE = "<script>document.title='owned';alert(1)</script>\"'><img src=x onerror=alert(2)>"
# A file's name has no slash.
HOSTILE_NAME = "<script>alert(1)<\\script>\"'><img src=x onerror=alert(2)>.xl"

every_report = pytest.mark.parametrize("kind", STREAMS)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    for word in (*quiet, "--force-prefers-reduced-motion"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for kind, stream in STREAMS.items():
        write(folder / f"{kind}.html", stream, "--target", "4.20", "--placement", "high")
    write(folder / "all.html", *STREAMS.values(), "--target", "4.20", "--placement", "high")
    write(f"{folder / 'many'}/", *STREAMS.values(), "--target", "4.20", "--placement", "high")
    write(folder / "scattered.html", STREAMS["refused"], "--target", "4.20", "--placement", "source")
    return folder


def write(target, *args):
    result = CliRunner().invoke(main, ["report", *map(str, args), "-o", str(target), "--exit-zero"])
    assert result.exit_code == 0, result.output


@pytest.fixture(autouse=True)
def _as_it_was(browser):
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def show(browser, path, width=1280, fragment=""):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri() + fragment)


def requests(browser):
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def seen(browser, selector):
    return [one for one in browser.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]


@pytest.mark.parametrize("kind", [*STREAMS, "all"])
def test_nothing_is_loaded_but_the_document_and_the_console_stays_empty(browser, reports, kind):
    show(browser, reports / f"{kind}.html")
    assert requests(browser) == [(reports / f"{kind}.html").as_uri()]
    assert browser.get_log("browser") == []


@every_report
def test_the_verdict_can_be_read_at_once(browser, reports, kind):
    show(browser, reports / f"{kind}.html")
    (verdict,) = seen(browser, ".verdict")
    assert VERDICTS[kind] in verdict.text
    assert verdict.rect["y"] + verdict.rect["height"] < 900


@pytest.mark.parametrize("kind", [*STREAMS, "all"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_never_scrolls_sideways(browser, reports, kind, width):
    show(browser, reports / f"{kind}.html", width)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_chain_that_fails_is_unfolded_and_other_tables_unfold_on_a_click_or_a_key(browser, reports):
    show(browser, reports / "chained.html")
    assert [one.get_attribute("id") for one in seen(browser, ".on-chain")] == [
        f"s1-table-{pfn}" for pfn in ("d8", "118", "119", "11b")
    ]
    for act in (lambda one: one.click(), lambda one: one.send_keys(Keys.ENTER)):
        folded = seen(browser, ".forest details:not([open])")[0]
        act(folded.find_element(By.TAG_NAME, "summary"))
        assert folded.get_attribute("open") is not None
    seen(browser, "button[data-unfold]")[0].click()
    assert seen(browser, ".forest details:not([open])") == []


def dark(browser):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )


def colour(element, of="color"):
    """Red, green and blue of what a browser shows."""
    return tuple(int(part) for part in re.findall(r"\d+", element.value_of_css_property(of))[:3])


def beyond(browser, selector, width):
    """Texts of what lies beside the page, or is cut off in something that does not scroll."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility() &&"
        " (one.getBoundingClientRect().right > arguments[1] + 0.5 || one.getBoundingClientRect().left < 0))"
        ".map(one => one.textContent.slice(0, 80))",
        selector,
        width,
    )


at_every_size = pytest.mark.parametrize("width", [1280, 400])
in_every_scheme = pytest.mark.parametrize("scheme", ["light", "dark"])


@at_every_size
@in_every_scheme
@every_report
def test_the_box_has_the_verdict_and_counts_then_the_cause_then_the_repair(browser, reports, kind, width, scheme):
    if scheme == "dark":
        dark(browser)
    show(browser, reports / f"{kind}.html", width)
    (box,) = seen(browser, ".verdict")
    head, where, *why = box.find_elements(By.TAG_NAME, "p")
    assert VERDICTS[kind] in head.text
    assert float(head.find_element(By.TAG_NAME, "strong").value_of_css_property("font-size")[:-2]) >= 19
    assert where.text.startswith("on Xen 4.20.0")
    assert [one.text.split()[0] for one in why] == ([] if VERDICTS[kind] == "Restores" else ["Because", "Repair"])
    heading = browser.find_element(By.TAG_NAME, "h2")
    sizes = [float(one.value_of_css_property("font-size")[:-2]) for one in (heading, *seen(browser, "h2 .folder"))]
    assert sizes[0] > 1.5 * sizes[1]


@in_every_scheme
def test_the_three_verdicts_and_warnings_have_colours_that_tell_them_apart(browser, reports, scheme):
    if scheme == "dark":
        dark(browser)
    found = {}
    for kind in ("good", "damaged", "refused"):
        show(browser, reports / f"{kind}.html")
        found[kind] = colour(browser.find_element(By.CSS_SELECTOR, ".verdict .head strong"))
    show(browser, reports / "refused.html")
    warning = colour(seen(browser, ".tag.warning")[0])
    assert len(set(found.values())) == 3
    assert found["damaged"] == warning
    # Amber: red before green before blue, and far from either.
    assert warning[0] > warning[1] > warning[2] + 40


def test_what_stops_the_restore_is_the_first_finding_and_the_rest_is_folded_by_rule(browser, reports):
    show(browser, reports / "refused.html")
    entries = seen(browser, ".findings > li")
    assert [entry.find_element(By.TAG_NAME, "a").text for entry in entries] == ["HYP-22", "REC-32", "L3C-1", "REC-29"]
    assert "this stops the restore" in entries[0].text


@at_every_size
@pytest.mark.parametrize("kind", ["refused", "scattered", "good", "hvm"])
def test_no_cell_of_a_map_lies_beside_the_page(browser, reports, kind, width):
    show(browser, reports / f"{kind}.html", width)
    assert seen(browser, ".map .run span")
    assert beyond(browser, ".map *, .zoomed *, .bars *, .legend *", width) == []


@pytest.mark.parametrize(("width", "rows"), [(1280, 1), (800, 2), (400, 4)])
def test_the_64_cells_of_a_row_wrap_where_there_is_no_room_and_each_line_has_its_first_frame(
    browser, reports, width, rows
):
    show(browser, reports / "scattered.html", width)
    strips = browser.find_element(By.CSS_SELECTOR, ".map .row").find_elements(By.CLASS_NAME, "strip")
    assert len(strips) == 4
    lines = {}
    for strip in strips:
        lines.setdefault(strip.rect["y"], []).append(strip)
    assert len(lines) == rows
    labels = [label.text for label in seen(browser, ".map:first-of-type .row:first-child .at")]
    assert labels == (["0x0"] if rows == 1 else ["0x0", "0x10", "0x20", "0x30"])


def test_cells_lie_below_one_another(browser, reports):
    show(browser, reports / "refused.html", 400)
    widths = browser.execute_script(
        "return [...document.querySelectorAll('.strip .run')].map(one =>"
        " one.lastElementChild.getBoundingClientRect().right - one.getBoundingClientRect().left)"
    )
    assert max(widths) - min(widths) < 1


def test_no_page_table_is_unfolded_but_on_the_way_to_the_failure(browser, reports):
    show(browser, reports / "chained.html")
    unfolded = "return [...document.querySelectorAll('.forest details[open]')].map(one => one.parentElement.id)"
    assert browser.execute_script(unfolded) == ["s1-table-d8", "s1-table-118", "s1-table-119"]
    seen(browser, "#s1-tables > p > a")[0].click()
    assert browser.find_element(By.ID, "s1-table-11b").is_displayed()
    show(browser, reports / "good.html")
    assert browser.execute_script(unfolded) == []


def test_calls_that_succeed_are_folded_and_unfold_on_a_click(browser, reports):
    show(browser, reports / "refused.html")
    # What a real restore ends with, then a click away what else would fail.
    assert len(seen(browser, ".calls > .failed")) == 1
    seen(browser, "#s1-calls > details > summary")[0].click()
    assert len(seen(browser, ".calls > .failed")) == 7
    assert seen(browser, ".calls .fine ol") == []
    seen(browser, ".calls .fine summary")[0].click()
    assert [one.get_attribute("value") for one in seen(browser, ".calls .fine ol li")] == ["1", "2", "3", "4", "5", "6"]


@in_every_scheme
@at_every_size
def test_the_index_of_many_streams_has_a_headline_and_nothing_that_is_cut_off(browser, reports, width, scheme):
    if scheme == "dark":
        dark(browser)
    show(browser, reports / "many" / "index.html", width)
    assert browser.find_element(By.TAG_NAME, "h2").text == "3 refused, 1 damaged, 2 restore"
    groups = [one.text.split()[:3] for one in seen(browser, ".group summary")]
    assert groups == [["✗", "1", "refused:"]] * 3 + [["!", "1", "damaged:"], ["✓", "2", "restore"]]
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert len(seen(browser, ".streams li")) == len(STREAMS)
    assert beyond(browser, "main *", width) == []
    clipped = (
        "return [...document.querySelectorAll('main *')]"
        ".filter(one => one.clientWidth && one.scrollWidth > one.clientWidth + 1).length"
    )
    assert browser.execute_script(clipped) == 0


def test_an_index_leads_to_pages_that_lead_back_and_only_then_are_they_loaded(browser, reports):
    folder = reports / "many"
    show(browser, folder / "index.html")
    assert requests(browser) == [(folder / "index.html").as_uri()]
    link = seen(browser, ".group.damaged .streams a")[0]
    assert link.text == "oracle/pv64.plain__l1_pte_to_xtab.libxc.zst"
    link.click()
    assert "Restores, but damaged" in seen(browser, ".verdict")[0].text
    assert browser.get_log("browser") == []
    browser.find_element(By.LINK_TEXT, "All streams").click()
    assert browser.find_element(By.TAG_NAME, "h2").text.startswith("3 refused")


@pytest.mark.parametrize("name", ["many/index.html", "all.html"])
def test_lists_of_streams_are_folded_on_a_phone_alone(browser, reports, name):
    show(browser, reports / name, 400)
    assert seen(browser, ".streams li, .contents li") == []
    assert len(seen(browser, ".group summary")) == 5
    seen(browser, ".group.restores summary")[0].click()
    assert len(seen(browser, ".streams li")) == 2
    show(browser, reports / name, 1280)
    assert len(seen(browser, ".streams li")) == len(STREAMS)


def test_what_was_folded_on_a_narrow_page_unfolds_as_it_gets_wide(browser, reports):
    show(browser, reports / "all.html", 400)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    WebDriverWait(browser, 10).until(lambda _: len(seen(browser, ".streams li")) == len(STREAMS))
    assert seen(browser, ".contents li")


def test_search_and_type_and_findings_narrow_the_records(browser, reports):
    show(browser, reports / "refused.html")
    rows = "#s1-record-table tbody tr"
    told = browser.find_element(By.NAME, "told")
    assert (len(seen(browser, rows)), told.text) == (18, "18 of 18 rows")
    words = browser.find_element(By.NAME, "words")
    words.send_keys("VCPU_basic")
    assert (len(seen(browser, rows)), told.text) == (2, "2 of 18 rows")
    words.send_keys(" 0x7fe128")
    assert [row.get_attribute("id") for row in seen(browser, rows)] == ["s1-record-7fe128"]
    words.clear()
    words.send_keys(" ")
    Select(browser.find_element(By.NAME, "kind")).select_by_visible_text("PAGE_DATA")
    assert len(seen(browser, rows)) == 2
    Select(browser.find_element(By.NAME, "kind")).select_by_visible_text("all")
    browser.find_element(By.NAME, "found").click()
    # REC-29 in the first PAGE_DATA, HYP-22 in vcpu 1's context.
    assert [row.get_attribute("id") for row in seen(browser, rows)] == ["s1-record-570", "s1-record-7fe128"]


def test_a_link_to_something_folded_unfolds_it(browser, reports):
    show(browser, reports / "refused.html")
    assert browser.find_element(By.ID, "rule-HYP-22").get_attribute("open") is None
    seen(browser, ".findings a[href='#rule-HYP-22']")[0].click()
    assert browser.find_element(By.ID, "rule-HYP-22").get_attribute("open") is not None
    seen(browser, ".findings a[href='#s1-vcpu-1']")[0].click()
    assert browser.find_element(By.ID, "s1-vcpu-1").get_attribute("open") is not None


def test_an_address_with_a_fragment_unfolds_what_it_names(browser, reports):
    show(browser, reports / "refused.html", fragment="#rule-HYP-22")
    assert browser.find_element(By.ID, "rule-HYP-22").get_attribute("open") is not None


def test_the_keyboard_comes_first_to_a_link_that_skips_to_the_verdict(browser, reports):
    show(browser, reports / "refused.html")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert (focused.text, focused.get_attribute("hash")) == ("Skip to the verdict", "#s1")
    assert focused.rect["x"] >= 0
    assert focused.value_of_css_property("outline-style") == "solid"


def test_what_scrolls_can_be_reached_with_the_keyboard(browser, reports):
    show(browser, reports / "refused.html", 400)
    assert (
        browser.execute_script(
            "return [...document.querySelectorAll('*')].filter(one => one.scrollWidth > one.clientWidth + 1 &&"
            " getComputedStyle(one).overflowX === 'auto' && one.tabIndex < 0 && one.checkVisibility()).length"
        )
        == 0
    )


def test_on_paper_everything_is_unfolded_and_nothing_is_to_be_clicked(browser, reports):
    show(browser, reports / "refused.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = browser.execute_script(
        "return [...document.querySelectorAll('details:not([open]) > :not(summary)')].map(one => one.checkVisibility())"
    )
    assert shown
    assert all(shown)
    assert seen(browser, "nav.contents, form.filter, button") == []


def test_without_scripts_all_rows_are_there_and_no_control_that_does_nothing(browser, reports):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    show(browser, reports / "refused.html")
    hidden = browser.execute_cdp_cmd(
        "Runtime.evaluate",
        {
            "expression": "JSON.stringify(['#s1-record-table tbody tr', 'form.filter, button']"
            ".map(s => [...document.querySelectorAll(s)].filter(one => one.checkVisibility()).length))",
            "returnByValue": True,
        },
    )
    assert json.loads(hidden["result"]["value"]) == [18, 0]


def test_a_dark_scheme_is_dark(browser, reports):
    show(browser, reports / "refused.html")
    light = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (light, dark) == ("rgba(255, 255, 255, 1)", "rgba(21, 24, 27, 1)")


def elements(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('*')].map(one => one.tagName + ' ' +"
        " one.getAttributeNames().join(' ') + ' ' + one.id)"
    )


def written(folder, name, says):
    b = StreamBuilder.hvm()
    b.wrap("xl")
    config = json.loads(b.xl_config)
    config["c_info"]["name"] = says
    text = json.dumps(config).encode()
    b.xl_config = text + b" " * (len(text) % 2)
    (folder / name).write_bytes(b.build())
    write(folder / "report.html", folder / name)
    return folder / "report.html"


def test_what_a_stream_says_is_neither_markup_nor_obeyed(browser, tmp_path):
    for folder in ("plain", "hostile"):
        (tmp_path / folder).mkdir()
    show(browser, written(tmp_path / "plain", "guest.xl", "g" * (len(json.dumps(HOSTILE)) - len('""'))))
    plain = elements(browser)
    target = written(tmp_path / "hostile", HOSTILE_NAME, HOSTILE)
    show(browser, target)
    assert elements(browser) == plain
    assert requests(browser) == [target.as_uri()]
    assert browser.get_log("browser") == []
    assert browser.title.startswith("Restores: ")
    assert HOSTILE in browser.find_element(By.ID, "s1-records").text


def test_a_script_that_slipped_in_would_not_run(browser, reports, tmp_path):
    text = (reports / "good.html").read_text()
    planted = text.replace("<main>", "<main><script>document.title='owned'</script><img src=x onerror=alert(1)>", 1)
    (tmp_path / "planted.html").write_text(planted)
    show(browser, tmp_path / "planted.html")
    assert browser.title.startswith("Restores: ")
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert len(refused) >= 2
    assert all("Content Security Policy" in message for message in refused)
