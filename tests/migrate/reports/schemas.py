"""Documents against the schemas of their formats (tests/schemas)."""

import json

from jsonschema import Draft4Validator
from lxml import etree
from project import ROOT

SCHEMAS = ROOT / "tests" / "schemas"
SARIF = Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text()))
JUNIT = etree.XMLSchema(file=str(SCHEMAS / "junit.xsd"))


def sarif(text):
    """A SARIF log file that is one."""
    told = json.loads(text)
    assert [error.message for error in SARIF.iter_errors(told)] == []
    return told


def junit(text):
    """The test cases of a JUnit document that is one, by name."""
    document = etree.fromstring(text.encode())
    JUNIT.assertValid(document)
    (suite,) = document.iter("testsuite")
    cases = list(document.iter("testcase"))
    kinds = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    counted = {name: str(len(list(document.iter(tag)))) for name, tag in kinds.items()}
    assert {name: suite.get(name) for name in kinds} == counted
    return {f"{case.get('classname')}/{case.get('name')}": case for case in cases}


def outcome(case):
    """What came of a test case: "passed", or the tag that says otherwise."""
    return next((child.tag for child in case if child.tag != "system-out"), "passed")
