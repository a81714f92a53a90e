"""What holds for any bytes at all. Each law takes an input and returns, or raises where it is broken."""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any

from limits import bounded, compressed

from migrate import Checker, check
from migrate.destination.destination import Destination
from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import read_policy
from migrate.judging.check import survey
from migrate.judging.pipe_filter import Filter, FilterResult, Mode
from migrate.judging.report import Report
from migrate.judging.report_json import dumps, report_object
from migrate.reports.rules.failures import log_object
from migrate.reports.rules.failures_text import render_log
from migrate.reports.verdict.text import console_for, render
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Stage
from migrate.rules.messages.log import Log, read
from migrate.rules.selection import Selection
from migrate.toolstack.config import ConfigSource
from migrate.toolstack.config_edit import EditError, set_json, set_xml
from migrate.toolstack.config_libvirt import read_xml
from migrate.toolstack.config_libxl import read_json
from migrate.toolstack.configuration import read as read_configuration
from migrate.xen.cpu_policy import processor
from migrate.xen.hvm_context import context_objections
from migrate.xen.hvm_entry import HvmDomain
from migrate.xen.hvm_guest import has_emulated_devices, saved_vcpus
from streams.decoder import Consumer, Decoder, drive
from streams.encoder import DecodeError, decode, encode
from streams.feeder import Feeder
from streams.forwarding import ForwardingTransport
from streams.hvm_context import decode_context, encode_context
from streams.pages import PfnWords
from streams.qemu_state import walk
from streams.records import Event, PageData, Place, Record
from streams.transports import BytesTransport, TransportError
from streams.wire.framing import RecordType, padded

VERDICTS = {"accept", "refuse", "unjudged"}
HVM_RELEASES = [resolve(name) for name in ("4.6", "4.18", "4.22")]
TARGETS = ("newest", "4.20", "4.18", "4.17", "4.13", "4.6")
PLACEMENTS = ("source", "high", "low", "identity")
# Of so many inputs' reports one is looked at as text, which takes long.
PRINTED_ONE_IN = 3
# Uneven, so that edges of pieces fall anywhere in a record; the large ones get through a stream in no time.
PIECES = (1, 7, 8, 40, 4099, 70_001)


class Broken(AssertionError):
    """A law does not hold."""


def holds(condition: object, what: str) -> None:
    """Raise Broken unless a condition is true. Not an assert, which fuzzing without debugging would drop."""
    if not condition:
        raise Broken(what)


def question(data: bytes) -> dict[str, str]:
    """A target and a placement, in a way that edits which keep an input's length keep them too."""
    turn = len(data) // 8
    return {"target": TARGETS[turn % len(TARGETS)], "placement": PLACEMENTS[turn // len(TARGETS) % len(PLACEMENTS)]}


def pieces(data: bytes) -> Iterator[bytes]:
    """An input in pieces of many sizes."""
    at = 0
    for size in cycle(PIECES):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


# -- the decoder -------------------------------------------------------------------------------------


class Listener:
    """A consumer that wants this and not that, and does nothing but note what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def wants_body(self, place: Place) -> bool:
        return place.index % 2 == 0

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        count = words.data_pages
        return ((first, min(2, count - first)) for first in range(place.index % 3, count, 3))

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        return bytes(data) if first % 2 else None

    def event(self, item: Event) -> None:
        if isinstance(item, PageData):
            self.told.append((item.place, item.count, item.words.raw, item.runs, item.padding))
        else:
            self.told.append((item,))


def _driven(data: bytes) -> tuple[list[tuple[Any, ...]], int, bool]:
    listener, transport = Listener(), BytesTransport(data)
    complete = drive(Decoder(listener).run(), transport)
    return listener.told, transport.position, complete


def _fed(data: bytes) -> tuple[list[tuple[Any, ...]], int]:
    listener = Listener()
    feeder = Feeder(Decoder(listener).run())
    for piece in pieces(data):
        feeder.feed(piece)
    feeder.close()
    return listener.told, feeder.position


def _recoded(data: bytes) -> bytes | None:
    try:
        return encode(decode(data))
    except DecodeError:
        return None


def decodes(data: bytes) -> None:
    """The decoder tells the same whoever answers it, and what can be decoded encodes to the same bytes."""
    said, position, complete = bounded(_driven, data)
    holds(bounded(_fed, data) == (said, position), "fed in pieces, the decoder tells another story")
    holds(not complete or position == len(data), "a complete stream was not read to its end")
    holds(bounded(_recoded, data) in (data, None), "what was decoded encodes to other bytes")


# -- check -------------------------------------------------------------------------------------------


def told(report: Report) -> dict[str, Any]:
    """A report as JSON object, after a look at whether it is a sane one."""
    holds(report.verdict in VERDICTS, f"verdict {report.verdict!r}")
    holds((report.failure is not None) == (report.verdict == "refuse"), "a failure without a refusal, or a refusal …")
    unjudged = report.unjudged_because is not None
    holds(unjudged == (report.verdict == "unjudged"), "a verdict, and a reason for none; or neither")
    holds(report.ok == (report.reason is None), "a reason where all is well, or none where it is not")
    size = report.stream.bytes
    for finding in report.findings:
        holds(finding.count > 0, f"{finding.rule.id} is told {finding.count} times")
        holds(finding.offset is None or 0 <= finding.offset <= size, f"{finding.rule.id} at {finding.offset}")
    return report_object(report)


def printable(report: Report) -> None:
    """Whatever a report says, neither its text nor its JSON can harm a terminal."""
    out = io.StringIO()
    render(report, console_for(out))
    holds(all(line.isprintable() for line in out.getvalue().split("\n")), "the text has control characters")
    holds(dumps(report_object(report)).isascii(), "the JSON is not ASCII")


def _checked_in_pieces(data: bytes, asked: dict[str, str]) -> Report:
    checker = Checker(**asked)
    for piece in pieces(data):
        checker.feed(piece)
    return checker.close()


def answers(data: bytes) -> Report | None:
    """`check` gives one report, however the bytes come; None where they cannot be read."""
    asked = question(data)
    try:
        report = bounded(check, data, **asked)
    except TransportError:
        holds(compressed(data), "plain bytes cannot fail to be read")
        return None
    said = told(report)
    if not len(data) // 8 % PRINTED_ONE_IN:
        printable(report)
    if not compressed(data):
        fed = bounded(_checked_in_pieces, data, asked)
        holds(told(fed) == said, "fed in pieces, a stream is judged otherwise")
    return report


def answers_all(data: bytes) -> None:
    """The same, and by turns of all targets at once, or with a VERIFY phase compared."""
    report = answers(data)
    if report is None:
        return
    asked = question(data)
    match len(data) // 8 // len(TARGETS) // len(PLACEMENTS) % 3:
        case 0:
            for one in bounded(survey, data, [Destination(target, asked["placement"]) for target in TARGETS]):
                same = one.target == report.target
                holds(told(one) == told(report) or not same, "asked with others, a target gives another verdict")
        case 1:
            told(bounded(check, data, **asked, verify=True))


# -- the filter --------------------------------------------------------------------------------------


class _Image(Consumer):
    """Notes where the libxc image of a stream ends: behind its END."""

    end: int | None = None

    def event(self, item: Event) -> None:
        if isinstance(item, Record) and item.type == RecordType.END and self.end is None:
            self.end = item.place.body + padded(item.place.length)

    def wants_body(self, place: Place) -> bool:
        return False

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        return ()

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        return None


def image_of(data: bytes) -> bytes:
    """A stream up to the END of its libxc image; all of it, where there is none."""
    image = _Image()
    drive(Decoder(image).run(), BytesTransport(data))
    return data[: image.end]


def _facts(report: Report) -> list[tuple[Any, ...]]:
    return [(f.rule.id, f.offset or 0, f.message, f.count) for f in report.findings]


def _filtered(data: bytes, mode: Mode, asked: dict[str, str]) -> tuple[bytes, FilterResult]:
    """What comes out of a filter, and what it says. A pipe goes in where it holds all; a file takes what comes."""
    sink = os.memfd_create("out")
    source, feed = os.pipe()
    try:
        if len(data) <= fcntl.fcntl(feed, fcntl.F_SETPIPE_SZ, 1 << 20):
            os.set_blocking(feed, False)
            view = memoryview(data)
            while len(view):
                view = view[os.write(feed, view) :]
        else:
            os.close(source)
            source = os.memfd_create("in")
            os.write(source, data)
            os.lseek(source, 0, os.SEEK_SET)
        os.close(feed)
        feed = -1
        transport = ForwardingTransport(source, sink, hold=mode is Mode.GUARD)
        judge = Filter(
            transport, mode=mode, destination=Destination(asked["target"], asked["placement"]), selection=Selection()
        )
        outcome = judge.run()
        if outcome.failure is not None:
            raise outcome.failure
        return os.pread(sink, len(data) + 1, 0), outcome
    finally:
        for fd in (source, sink, feed):
            if fd >= 0:
                os.close(fd)


def passes(data: bytes) -> None:
    """A filter passes all on; one that guards a prefix, and all unless `check` refuses. Both say what `check` says."""
    asked = question(data)
    came, outcome = bounded(_filtered, data, Mode.OBSERVE, asked)
    holds(came == data, "an observed stream comes out altered")
    said = told(outcome.report)
    guarded, guarding = bounded(_filtered, data, Mode.GUARD, asked)
    holds(data.startswith(guarded), "a guarded stream comes out as no prefix of what went in")
    told(guarding.report)
    if compressed(data):
        return
    checked = bounded(check, data, **asked)
    holds(_facts(outcome.report) == _facts(checked), "the filter finds something else than check")
    holds(said["verdict"] == checked.verdict, f"verdict {said['verdict']}; {checked.verdict} by check")
    holds(outcome.report.failure == checked.failure, "the filter's failure is another than check's")
    if guarding.stopped is None:
        holds(guarded == data, "a guarded stream that was not stopped is not whole")
        if checked.verdict == "refuse" and not guarding.stood_down:
            # What follows the image's END the receiver refuses if it gets to see it, and takes for zeros if not.
            failure = bounded(check, image_of(data), **asked).failure
            holds(not failure or failure.step is Stage.DEVICE_MODEL, "the guard did not stop what check refuses")
        holds(sorted(_facts(guarding.report)) == sorted(_facts(checked)), "the guard finds something else than check")
        return
    failure = guarding.report.failure
    if failure is None and checked.failure is None:
        holds(any(found.effect.harms_host for found in checked.findings), "the guard stopped a stream for nothing")
        return
    holds(failure is not None, "the guard stopped a stream for nothing")
    if checked.verdict == "unjudged":  # for something that came after what stopped it
        rules = {finding.rule.id for finding in checked.findings if finding.fatal}
        holds(failure is not None and failure.rule in rules, "the guard stopped what check does not refuse")
    else:
        holds(failure == checked.failure, "the guard's failure is another than check's")
    again = bounded(check, guarded, **asked).verdict
    # A beginning may be too short to tell what it is the beginning of.
    holds(again != "accept", "what the guard let through is no refusal")


# -- HVM contexts ------------------------------------------------------------------------------------


def context_holds(body: bytes) -> None:
    """What is done with a context costs no more than it may."""
    bounded(_context_holds, body)


def _context_holds(body: bytes) -> None:
    """A context is taken apart and put together again; what is said of it is about places in it."""
    state = decode_context(body)
    holds(encode_context(state) == body, "a context encodes to other bytes")
    for entry in state.entries:
        try:
            fields = entry.parse()
        except ValueError:
            continue
        if not entry.cut:
            holds(entry.build(fields) == entry, f"{entry.name} parses and builds to another entry")
    for release in HVM_RELEASES:
        for promised, vcpus in ((None, None), (None, saved_vcpus(body)), (read_policy(), 1)):
            made = processor(promised, "hvm", release)
            domain = HvmDomain(release, made, None, vcpus, has_emulated_devices(body), True, lambda pfn: False)
            for objection in context_objections(body, domain):
                holds(0 <= objection.offset <= len(body), f"{objection.rule} at {objection.offset}")


# -- device models and configurations -------------------------------------------------------------------


def device_model_holds(state: bytes) -> None:
    """A state is walked, and all that is said of it is about places in it."""
    walked = bounded(walk, state)
    for fault in (walked.fault, walked.doubt):
        holds(fault is None or 0 <= fault.offset <= len(state), "a fault lies outside of the state")
    holds(walked.fault is not None or walked.end is not None or walked.doubt or walked.sections, "nothing is said")
    holds(0 <= walked.trailing <= len(state), "more lies behind the end than there is")
    ends = [section.data + (section.length or 0) for section in walked.sections]
    holds(ends == sorted(ends) and max(ends, default=0) <= len(state), "sections overlap, or lie outside of the state")


def configuration_holds(text: bytes) -> None:
    """Every reader makes something of any text; what is edited reads as was set, or cannot be edited."""
    for source in ConfigSource:
        found = bounded(read_configuration, text, source)
        holds(found is not None and all(problem.message for problem in found.problems), "a problem without words")
    for edit, reader, key in ((set_json, read_json, "c_info.name"), (set_xml, read_xml, "name")):
        try:
            edited = bounded(edit, text, key, "other")
        except EditError:
            continue
        name = reader(edited).name
        holds(name in ("other", None), f"the name is {name!r} after it was set")


# -- logs ---------------------------------------------------------------------------------------------


def _log(data: bytes) -> Log:
    return read([data])


def explained(data: bytes) -> None:
    """Any bytes are a log: read the same however they come, and what is said of it harms no terminal."""
    log = bounded(_log, data)
    holds(log_object(log, "log") == log_object(read(pieces(data)), "log"), "in pieces, a log is read otherwise")
    holds(dumps(log_object(log, "log")).isascii(), "the JSON is not ASCII")
    holds(all(id in RULES for failure in log.failures for id in failure.rules), "a rule is named that there is not")
    if len(data) % PRINTED_ONE_IN:
        return
    out = io.StringIO()
    render_log(log, "log", console_for(out))
    holds(all(line.isprintable() for line in out.getvalue().split("\n")), "the text has control characters")
