"""Streams with n of something, for everything that a stream can have many of.

Each kind gives about as many bytes as n of it take, and is judged within seconds where costs grow with n: what grows
faster shows between n and 8 n.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from hostile import OPTIONAL, before_end, record, with_config, with_device_model, with_xenops, with_xenstore, with_xml

from migrate.building import parts
from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RO, PTE_RW, TABLE, entry, page_data
from migrate.building.qemu_state import QemuStateBuilder
from streams.pages import PageType, PfnWords
from streams.wire.framing import (
    HVM_PARAM,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PARAMS_HEADER,
    TSC_INFO,
    VCPU_HEADER,
    LibxlRecordType,
    RecordType,
)

ENTRIES = 512
FULL = slice(273, None)  # of an L4: behind Xen's slots and the one that maps the kernel
Flood = Callable[[int], bytes]
PAGE = bytes(4096)


def _added(guest: Callable[[], StreamBuilder], flood: Callable[[StreamBuilder, int], bytes]) -> Flood:
    def build(n: int) -> bytes:
        b = guest()
        return before_end(b.build(), flood(b, n))

    return build


def pv() -> StreamBuilder:
    return StreamBuilder.pv(8)


def tsc(mode: int = 0) -> bytes:
    return record(RecordType.X86_TSC_INFO, TSC_INFO.pack(mode, 0, 0, 0, 0))


def vcpu_part(vcpu: int, kind: int = RecordType.X86_PV_VCPU_EXTENDED, content: bytes = bytes(8)) -> bytes:
    return record(kind, VCPU_HEADER.pack(vcpu, 0) + content)


def hvm_param(n: int) -> bytes:
    return record(RecordType.HVM_PARAMS, PARAMS_HEADER.pack(1, 0) + struct.pack("<QQ", n % 60, n))


def _words(pfns: np.ndarray, kind: int) -> bytes:
    """PAGE_DATA records of so many pfns, a saver's batch each, all of one type, and zeros for data."""
    out = []
    for start in range(0, len(pfns), 1024):
        some = pfns[start : start + 1024].astype(np.int64)
        words = PfnWords.build(some, np.full(len(some), kind, np.uint8))
        body = PAGE_DATA_HEADER.pack(len(some), 0) + words.raw + bytes(4096 * words.data_pages)
        out.append(record(RecordType.PAGE_DATA, body))
    return b"".join(out)


def _data(pfn: int, kind: int = PageType.NOTAB, page: bytes = PAGE) -> bytes:
    return record(RecordType.PAGE_DATA, page_data([(pfn, kind, page)]))


def _turns(b: StreamBuilder, n: int) -> bytes:
    """One page, a table and data by turns."""
    table = b.new_table(1)
    return (_data(table, PageType.L1TAB) + _data(table)) * (n // 2)


def many_pages(n: int) -> bytes:
    """A PV guest of so many more data pages."""
    b = pv()
    for number in range(n):
        b.new_page(content=number.to_bytes(8, "little"))
    return b.build()


def absent(guest: Callable[[], StreamBuilder]) -> Flood:
    """Pfns beyond the guest's that are sent without data; a PV guest is made as large as that."""

    def build(n: int) -> bytes:
        b = guest()
        first = b.max_pfn + 1
        if b.p2m_frames:
            rows = -(-(first + n) // b.pfns_per_p2m_page)
            listed = np.full(rows, b.p2m_frames[0], "<u8").tobytes()
            b.record(RecordType.X86_PV_P2M_FRAMES).body[:] = P2M_HEADER.pack(0, first + n - 1) + listed
        return before_end(b.build(), _words(np.arange(first, first + n), PageType.XTAB))

    return build


def long_p2m(n: int) -> bytes:
    """A list of so many p2m pages, most of them of pfns that never come."""
    b = pv()
    listed = np.full(n, b.p2m_frames[0], "<u8").tobytes()
    b.record(RecordType.X86_PV_P2M_FRAMES).body[:] = P2M_HEADER.pack(0, n * b.pfns_per_p2m_page - 1) + listed
    return b.build()


def growing_p2m(n: int) -> bytes:
    """So many lists, each of which adds a page."""
    b = pv()
    one = np.array(b.p2m_frames[:1], "<u8").tobytes()
    per = b.pfns_per_p2m_page
    lists = (record(RecordType.X86_PV_P2M_FRAMES, P2M_HEADER.pack(i * per, (i + 1) * per - 1) + one) for i in range(n))
    return before_end(b.build(), b"".join(lists))


def checkpointed(guest: Callable[[], StreamBuilder], between: bytes, n: int) -> bytes:
    b = guest()
    b.checkpoints = 1
    return b.build() + (between + record(RecordType.CHECKPOINT)) * n


def checkpoints(n: int) -> bytes:
    """Checkpoints, each with a new version of the root: every one is judged."""
    b = pv()
    return checkpointed(pv, _data(b.roots[0], PageType.L4TAB_PINNED, bytes(b.table(b.roots[0]))), n)


def waiting_tables(n: int) -> bytes:
    """So many tables that wait for one checkpoint."""
    b = pv()
    tables = [b.new_table(1) for _ in range(64)]
    b.checkpoints = 1
    each = page_data([(pfn, PageType.L1TAB, PAGE) for pfn in tables])
    return b.build() + record(RecordType.PAGE_DATA, each) * (n // 64) + record(RecordType.CHECKPOINT)


def vcpus(n: int) -> bytes:
    """So many vcpus with all their state."""
    b = StreamBuilder.pv(8, vcpus=1, extended=True)
    base = b.build()
    states = {kind: bytes(b.record(kind).body)[8:] for kind in _VCPU_RECORDS if any(r.type == kind for r in b.records)}
    return before_end(base, b"".join(vcpu_part(i, kind, body) for i in range(1, n) for kind, body in states.items()))


_VCPU_RECORDS = (
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
)


def msrs(n: int) -> bytes:
    b = pv()
    body = b"".join(struct.pack("<IIQ", 0xC001_1027, 0, i) for i in range(n))
    return before_end(b.build(), vcpu_part(0, RecordType.X86_PV_VCPU_MSRS, body))


def leaves(n: int) -> bytes:
    b = pv()
    b.record(RecordType.X86_CPUID_POLICY).body += struct.pack("<6I", 0x8000_0008, 0xFFFF_FFFF, 0, 0, 0, 0) * n
    return b.build()


def policy_msrs(n: int) -> bytes:
    b = pv()
    b.record(RecordType.X86_MSR_POLICY).body += struct.pack("<IIQ", 0xCE, 0, 0) * n
    return b.build()


def save_entries(n: int) -> bytes:
    b = StreamBuilder.hvm()
    b.record(RecordType.HVM_CONTEXT).body[-8:-8] = struct.pack("<HHI", 99, 0, 0) * n
    return b.build()


def params(n: int) -> bytes:
    """HVM params of one record."""
    b = StreamBuilder.hvm()
    body = b.record(RecordType.HVM_PARAMS).body
    have = (len(body) - PARAMS_HEADER.size) // HVM_PARAM.size
    body[:] = PARAMS_HEADER.pack(have + n, 0) + body[PARAMS_HEADER.size :]
    body += b"".join(struct.pack("<QQ", 5 + i % 3, i) for i in range(n))
    return b.build()


def context_before_params(n: int) -> bytes:
    """A context of so many entries that do not tell what devices the guest has, and then as many params."""
    b = StreamBuilder.hvm()
    context = record(RecordType.HVM_CONTEXT, struct.pack("<HHI", 99, 0, 0) * n)
    many = PARAMS_HEADER.pack(n, 0) + b"".join(struct.pack("<QQ", 5 + i % 3, i) for i in range(n))
    return before_end(b.build(), context + record(RecordType.HVM_PARAMS, many))


def libxl_records(kind: int, body: bytes) -> Flood:
    def build(n: int) -> bytes:
        b = StreamBuilder.hvm()
        b.wrap("libxl")
        return before_end(b.build(), record(kind, body) * n)

    return build


def xapi_blocks(n: int) -> bytes:
    b = StreamBuilder.hvm()
    b.wrap("xapi")
    b.xapi_blocks[1:1] = [(0xFFF, b"")] * n
    return b.build()


def config(n: int) -> bytes:
    keys = ", ".join(f'"k{i}": {{"a": [{i}]}}' for i in range(n))
    return with_config(b'{"c_info": {"type": "pv"}, "b_info": {"type.pv": {}}, %b}\0' % keys.encode())


def xenops(n: int) -> bytes:
    pairs = b"".join(b"(k%d v)" % i for i in range(n))
    return with_xenops(b"((time x)(word_size 64)(xs_subtree (" + pairs + b")))")


# -- page tables ---------------------------------------------------------------------------------------


def _linked(b: StreamBuilder, table: int, slots: slice | int, targets: int | list[int], flags: int = TABLE) -> None:
    if isinstance(targets, int):
        b.table(table)[slots] = entry(targets, flags)
    else:
        b.table(table)[slots] = np.array([entry(pfn, flags) for pfn in targets], np.uint64)


def _spread(pages: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(pages), ENTRIES):
        yield pages[start : start + ENTRIES]


def tables(n: int) -> bytes:
    """Pinned L1s, each of which maps other pages."""
    b = pv()
    for _ in range(n):
        b.table(b.new_table(1, pinned=True))[:] = entry(b.store_pfn, PTE_RW)
    return b.build()


def self_maps(n: int) -> bytes:
    b = pv()
    for _ in range(n):
        table = b.new_table(4, pinned=True)
        _linked(b, table, FULL, table, PTE_RO)
    return b.build()


def shared_subtrees(n: int) -> bytes:
    """So many L4s over the same L3s, over the same L2s, over the same L1s: each names sixteen of those below."""
    b = pv()
    each = [[b.new_table(level, pinned=level == 4) for _ in range(n)] for level in (1, 2, 3, 4)]
    for below, above in pairwise(each):
        for number, table in enumerate(above):
            some = [below[(number + 7 * i) % n] for i in range(min(n, 16))]
            _linked(b, table, slice(ENTRIES - len(some), None), some)
    return b.build()


def bad_subtrees(n: int) -> bytes:
    """Roots over one subtree whose last table is refused."""
    b = pv()
    bad = b.new_table(1)
    _linked(b, bad, 0, bad, PTE_RW)
    l2, l3 = b.new_table(2), b.new_table(3)
    _linked(b, l2, 0, bad)
    _linked(b, l3, 0, l2)
    for _ in range(n):
        _linked(b, b.new_table(4, pinned=True), 272, l3)
    return b.build()


def mapped_writable(n: int) -> bytes:
    """Pinned tables, all of them mapped writable."""
    b = pv()
    pinned = [b.new_table(1, pinned=True) for _ in range(n)]
    for some in _spread(pinned):
        _linked(b, b.new_table(1, pinned=True), slice(0, len(some)), some, PTE_RW)
    return b.build()


def untyped(level: int) -> Flood:
    """Pinned tables of a level that name data pages."""

    def build(n: int) -> bytes:
        b = pv()
        data = [b.new_page() for _ in range(n)]
        for some in _spread(data):
            _linked(b, b.new_table(level, pinned=True), slice(0, len(some)), some)
        return b.build()

    return build


def lone_untyped(n: int) -> bytes:
    """So many tables that each name a data page of their own."""
    b = pv()
    for _ in range(n):
        _linked(b, b.new_table(2, pinned=True), 0, b.new_page())
    return b.build()


def resent_pages(n: int) -> bytes:
    """A VERIFY phase in which so many pages differ."""
    b = pv()
    pages = [b.new_page() for _ in range(n)]
    again = b"".join(_data(pfn, page=b"\x01" * 4096) for pfn in pages)
    return before_end(b.build(), record(RecordType.VERIFY) + again)


def device_model_sections(n: int) -> bytes:
    """A device model's state of so many sections."""
    return with_device_model(QemuStateBuilder.of(*["timer"] * n).build())


def xml_elements(n: int) -> bytes:
    """An image of libvirt's with so many elements in its XML."""
    rest = b"".join(b"<e%d a='%d'>x</e%d>" % (i, i, i) for i in range(n))
    return with_xml(b"<domain type='xen'><name>n</name>%b</domain>" % rest)


# -- other inputs --------------------------------------------------------------------------------------


def libxc_failed(n: int) -> str:
    """A line that libxc writes of a failed restore, of its own domain."""
    return f"xc: error: Dom {n}, Failed to set vcpu1's basic info (34 = Numerical result out of range)"


def log_of(line: Callable[[int], str]) -> Flood:
    """A log of so many lines."""
    return lambda n: "\n".join(map(line, range(n))).encode()


KINDS: dict[str, tuple[int, Flood]] = {
    "unknown optional records": (16_000, _added(pv, lambda b, n: record(OPTIONAL) * n)),
    "unknown mandatory records": (16_000, _added(pv, lambda b, n: record(0x33) * n)),
    "records of the other kind": (16_000, _added(StreamBuilder.hvm, lambda b, n: vcpu_part(0) * n)),
    "empty vcpu records": (8_000, _added(pv, lambda b, n: record(RecordType.X86_PV_VCPU_BASIC) * n)),
    "clocks": (8_000, _added(pv, lambda b, n: (tsc(1) + tsc(2)) * (n // 2))),
    "VERIFY records": (8_000, _added(pv, lambda b, n: record(RecordType.VERIFY) * n)),
    "HVM contexts": (2_000, _added(StreamBuilder.hvm, lambda b, n: record(RecordType.HVM_CONTEXT, PAGE) * n)),
    "records without data, PV": (4_000, _added(pv, lambda b, n: _words(np.array([b.absent_pfn]), PageType.XTAB) * n)),
    "records of one page, PV": (2_000, _added(pv, lambda b, n: _data(b.store_pfn) * n)),
    "records of one page, HVM": (4_000, _added(StreamBuilder.hvm, lambda b, n: _data(0) * n)),
    "table and data by turns": (1_000, _added(pv, _turns)),
    "pages": (4_000, many_pages),
    "pages that differ in VERIFY": (500, resent_pages),
    "absent pfns, PV": (500_000, absent(pv)),
    "absent pfns, HVM": (500_000, absent(StreamBuilder.hvm)),
    "p2m pages": (50_000, long_p2m),
    "p2m lists": (1_000, growing_p2m),
    "empty checkpoints": (8_000, lambda n: checkpointed(pv, b"", n)),
    "checkpoints": (100, checkpoints),
    "tables that wait": (2_000, waiting_tables),
    "vcpus": (500, vcpus),
    "MSRs": (8_000, msrs),
    "CPUID leaves": (8_000, leaves),
    "MSRs of a policy": (8_000, policy_msrs),
    "HVM save entries": (16_000, save_entries),
    "HVM params": (2_000, params),
    "HVM params, one by one": (
        2_000,
        _added(StreamBuilder.hvm, lambda b, n: b"".join(map(hvm_param, range(n)))),
    ),
    "HVM params behind as many save entries": (1_000, context_before_params),
    "device model's states": (1_000, libxl_records(LibxlRecordType.EMULATOR_CONTEXT, parts.DEVICE_MODEL)),
    "unknown libxl records": (8_000, libxl_records(0x55, b"")),
    "xapi blocks": (8_000, xapi_blocks),
    "keys of a configuration": (2_000, config),
    "elements of libvirt's XML": (2_000, xml_elements),
    "sections of a device model": (1_000, device_model_sections),
    "pairs of xenopsd's": (8_000, xenops),
    "xenstore pairs": (100_000, lambda n: with_xenstore(b"ab\0cd\0" * n)),
    "tables": (500, tables),
    "self maps": (250, self_maps),
    "shared subtrees": (300, shared_subtrees),
    "bad subtrees": (250, bad_subtrees),
    "tables mapped writable": (250, mapped_writable),
    "data pages for L1s": (1_000, untyped(2)),
    "data pages for L2s": (1_000, untyped(3)),
    "a data page for each L2": (250, lone_untyped),
}
"""Name: n, and what makes a stream of it."""

LOGS: dict[str, tuple[int, Flood]] = {
    "lines of nothing": (100_000, log_of(lambda i: f"libxl: debug: libxl_event.c:{i}: nothing of note")),
    "empty lines": (500_000, log_of(lambda i: "")),
    "failed restores": (4_000, log_of(lambda i: libxc_failed(i % 3))),
    "failed domains": (4_000, log_of(libxc_failed)),
    "messages on one line": (8_000, lambda n: (libxc_failed(1) + " ").encode() * n),
    "marks on one line": (100_000, lambda n: b"<1>(XEN) x" * n),
    "escapes": (100_000, lambda n: b"\x1b[1m\x1b]\n" * n),
    "bytes of one line": (4_000_000, bytes),
    "starts of sequences": (1_000_000, lambda n: b"\x1b]" * n),
}
"""The same of logs, for `explain --log`."""

CORPORA: dict[str, tuple[int, Callable[[int], dict[str, bytes]]]] = {
    "streams": (50, lambda n: {f"{i:04}.libxc": pv().build() for i in range(n)}),
    "refused streams": (50, lambda n: {f"{i:04}.libxc": pv().build()[:-8] for i in range(n)}),
    "files that are no streams": (500, lambda n: {f"{i:04}.txt": b"no stream" for i in range(n)}),
    "folders": (50, lambda n: {"/".join(["f"] * (i % 20) + [f"{i:04}"]): pv().build() for i in range(n)}),
    "expectations": (
        50,
        lambda n: (
            {f"{i:04}.libxc": pv().build() for i in range(n)}
            | {f"{i:04}.expect.toml": b'verdict = "accept"\n' for i in range(n)}
        ),
    ),
}
"""The same of directories: contents by path."""

ORDERS: dict[str, tuple[int, Callable[[int], str]]] = {
    "pages of a guest": (16_384, lambda n: f"--size {4 * n}K"),
    "pages of an HVM guest": (16_384, lambda n: f"--kind hvm --size {4 * n}K"),
    "vcpus of a guest": (32, lambda n: f"--vcpus {n}"),
    "vcpus of an HVM guest": (32, lambda n: f"--kind hvm --vcpus {n}"),
    "roots of a guest": (128, lambda n: f"--roots {n}"),
    "rounds of a guest": (8, lambda n: f"--rounds {n}"),
}
"""The same of what `synth` is told."""
