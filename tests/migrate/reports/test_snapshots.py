"""What people see on a terminal, at 80 and 160 columns, with colour and without, as files to look at in a change.

After a change that is meant: UPDATE_SNAPSHOTS=1 pytest tests/migrate/reports/test_snapshots.py, and read what differs.
"""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from threading import Thread

import at_once
import pytest
from project import ROOT

SNAPSHOTS = Path(__file__).parent / "snapshots"
REFUSED = "sample_streams/x417-pv32.plain.libxc.zst"
LIVE = "sample_streams/x417-pv64.live4.libxc.zst"
LINKED = "sample_streams/oracle/pv64.plain__l1_maps_l1_writable.libxc.zst"  # refused by way of a chain of tables
DAMAGED = "sample_streams/oracle/pv32x.live4__pd_pfn_never_sent.libxc.zst"
UNJUDGED = "LICENSE"
QUESTION = ["--target", "4.20", "--placement", "high"]

COMMANDS = {
    "check-refused": ["check", REFUSED, *QUESTION],
    "check-accepted": ["check", LIVE, *QUESTION],
    "check-damaged": ["check", DAMAGED, *QUESTION],
    "check-unjudged": ["check", UNJUDGED, *QUESTION],
    "check-chain": ["check", LINKED, *QUESTION],
    "check-assumed": ["check", REFUSED],
    "check-unfolded": ["check", REFUSED, *QUESTION, "-v"],
    "check-releases": ["check", REFUSED, "--target", "all"],
    "explain": ["explain", "HYP-22"],
    "trace": ["trace", LINKED, *QUESTION, "--only", "failed"],
    "policy": ["policy", LIVE],
    "show": ["show", REFUSED, *QUESTION],
    "show-record": ["show", REFUSED, *QUESTION, "--record", "4", "--hexdump"],
    "show-vcpu": ["show", REFUSED, *QUESTION, "--vcpu", "1"],
    "show-pfn": ["show", REFUSED, *QUESTION, "--pfn", "0x19"],
    "show-rounds": ["show", LIVE, *QUESTION, "--rounds"],
    "show-tables": ["show", REFUSED, *QUESTION, "--tables"],
    "show-map": ["show", REFUSED, *QUESTION, "--map"],
}
# A line per call, for pipes and eyes alike: neither coloured nor folded.
LINES = {"trace"}


_OVER = b"\0"


def seen(arguments, columns, colour):
    """What the command writes to a terminal of so many columns; escapes made visible."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "COLORTERM")}
    environment = {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **({} if colour else {"NO_COLOR": "1"})}

    def show():
        try:
            at_once.run(*arguments, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT)
        finally:  # a terminal that loses its last writer may lose what it has written: we write last
            os.write(theirs, _OVER)

    Thread(target=show).start()
    text = b""
    while not text.endswith(_OVER):
        text += os.read(ours, 1 << 16)
    os.close(theirs)
    os.close(ours)
    return text.removesuffix(_OVER).decode().replace("\r\n", "\n").replace("\x1b", "␛")


def test_a_refusal_fits_a_screen():
    text = seen(["check", REFUSED], 80, False)
    assert len(text.splitlines()) <= 24
    assert text.startswith("refused: ")
    assert "HYP-27" in text.partition("repair")[0]


@pytest.mark.parametrize("colour", [True, False], ids=["colour", "plain"])
@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_seen_is_what_was_agreed_on(name, columns, colour):
    text = seen(COMMANDS[name], columns, colour)
    assert text
    assert ("␛[" in text) == (colour and name not in LINES)
    if not colour:
        assert max(len(line) for line in text.splitlines()) <= columns or name in LINES
    file = SNAPSHOTS / f"{name}-{columns}-{'colour' if colour else 'plain'}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert text == file.read_text()
