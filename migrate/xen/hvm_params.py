"""Which HVM parameters Xen lets the toolstack set, and which values.

Sources: hvm_set_param, hvm_allow_set_param (`xen/arch/x86/hvm/hvm.c`), pmtimer_change_ioport (`pmtimer.c`); for the
record handle_hvm_params (`xg_sr_restore_x86_hvm.c`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from migrate.destination import releases
from migrate.destination.releases import Change, Release
from migrate.rules.declaring import Severity
from migrate.xen.objection import Objection
from streams.counting import count
from streams.values import dataclass, field
from streams.wire.framing import HVM_PARAM, PARAMS_HEADER
from streams.wire.hvm_names import HvmParam, param_name

CALL = "hvm_set_param"

_U32 = 0xFFFF_FFFF
DOMID_SELF = 0x7FF0

_ALWAYS_ONCE = (HvmParam.VIRIDIAN, HvmParam.IOREQ_SERVER_PFN, HvmParam.NR_IOREQ_SERVER_PAGES, HvmParam.ALTP2M)
_ONCE: dict[int, Change] = {
    **dict.fromkeys((*_ALWAYS_ONCE, HvmParam.MCA_CAP), releases.every_release),
    HvmParam.IOREQ_PFN: releases.params_denied,
    HvmParam.BUFIOREQ_PFN: releases.params_denied,
}
"""Parameters that keep their first value once it is not zero, and since when."""

_MEMORY_EVENTS = frozenset(
    {
        HvmParam.MEMORY_EVENT_CR0,
        HvmParam.MEMORY_EVENT_CR3,
        HvmParam.MEMORY_EVENT_CR4,
        HvmParam.MEMORY_EVENT_INT3,
        HvmParam.MEMORY_EVENT_SINGLE_STEP,
        HvmParam.MEMORY_EVENT_MSR,
    }
)
_OVERWRITTEN = frozenset({HvmParam.STORE_EVTCHN, HvmParam.CONSOLE_EVTCHN})
"""Set by libxc itself at END."""

_NAMED: tuple[tuple[Change, int], ...] = (
    (releases.lmce, HvmParam.MCA_CAP),
    (releases.param_vm86_tss_sized, HvmParam.VM86_TSS_SIZED),
    (releases.param_x87_fip_width, HvmParam.X87_FIP_WIDTH),
    (releases.every_release, HvmParam.ALTP2M),
)
"""The last parameter that there is, the newest first."""

_VIRIDIAN: tuple[tuple[Change, int], ...] = (
    (releases.viridian_many_vcpus, 0x1FFF),
    (releases.hvm_viridian_synic, 0x3FF),
    (releases.viridian_crash_control, 0x7F),
    (releases.hvm_viridian_assist, 0x3F),
    (releases.every_release, 0xF),
)
"""The bits that VIRIDIAN may have, the newest first; bit 0 it must have."""

_TIMER_MODES = 4
_IOREQ_SERVER_PAGES = 64
_LEAST_TSS, _MOST_TSS = 104, 8329  # bytes, in the upper half of VM86_TSS_SIZED


def last_param(release: Release) -> int:
    """The last index that a release knows."""
    return next(index for since, index in _NAMED if release.has(since))


def length_objection(length: int, body: bytes | None) -> tuple[str, Change] | None:
    """What libxc has against the length of an HVM_PARAMS record, and since which change; None for nothing."""
    header = PARAMS_HEADER.size
    if body is None or len(body) < header:
        return f"{count(length, 'byte')}; at least {header}", releases.every_release
    params, _ = PARAMS_HEADER.unpack_from(body)
    expected = header + HVM_PARAM.size * params
    if length == expected:
        return None
    since = releases.every_release if length < expected else releases.params_length_exact
    return f"{count(length, 'byte')}; {count(params, 'param takes', 'params take')} {expected}", since


def pairs(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Index, value and offset of each parameter of an HVM_PARAMS body, as many as are counted and there."""
    params, _ = PARAMS_HEADER.unpack_from(body)
    there = (len(body) - PARAMS_HEADER.size) // HVM_PARAM.size
    for at in range(PARAMS_HEADER.size, PARAMS_HEADER.size + HVM_PARAM.size * min(params, there), HVM_PARAM.size):
        yield *HVM_PARAM.unpack_from(body, at), at


@dataclass(slots=True)
class Params:
    """The parameters of a new domain, as a stream's are set one after the other.

    Attributes
    ----------
    release:
        the Xen, and the libxc beside it.
    emulated:
        whether the domain has the devices of a PC; None where nobody knows.
    intel:
        whether its host is Intel's; None where nobody knows.
    values:
        what they are now; at first, what the toolstack has set before the stream is read.
    """

    release: Release
    emulated: bool | None = None
    intel: bool | None = None
    values: dict[int, int] = field(default_factory=dict)

    @property
    def viridian(self) -> bool:
        """Whether the interface of Hyper-V is on."""
        return bool(self.values.get(HvmParam.VIRIDIAN, 0) & 1)

    @property
    def nested(self) -> bool:
        """Whether a parameter has switched nested virtualisation on."""
        return bool(self.values.get(HvmParam.NESTEDHVM, 0))

    def set(self, index: int, value: int, offset: int = 0) -> Iterator[Objection]:
        """One pair of the record: what is to be said of it; the last that is certain is Xen's answer.

        Parameters
        ----------
        offset:
            of the pair in the record's body.
        """
        if index == HvmParam.PAE_ENABLED and self.release.has(releases.params_allowed):
            return
        known = index & _U32  # all that is left of it on its way to Xen
        what = f"{param_name(known)} = {value:#x}"
        if index != known:
            note = f"HVM param {index:#x}: Xen gets {known:#x}, {param_name(known)}"
            yield Objection("HVM-24", None, note, offset=offset, severity=Severity.INFO)
        refusal = self._refusal(known, value)
        if refusal:
            rule, why, errno = refusal
            yield Objection(rule, errno, f"HVM param {what}: {why}", offset=offset)
            return
        held = self._held(known, value)
        self.values[known] = held
        if held != value:
            yield Objection("HVM-24", None, f"HVM param {what}: Xen holds {held:#x}", offset=offset)
        if known in _OVERWRITTEN and value:
            why = "libxc sets it anew at END, from the new domain's channels"
            yield Objection("HVM-24", None, f"HVM param {what}: {why}", offset=offset, severity=Severity.INFO)
        if known == HvmParam.MCA_CAP and value and self.intel is None:
            why = "the host has to have local machine checks, which only processors of Intel have"
            yield Objection("HVM-14", "EINVAL", f"HVM param {what}: {why}", certain=False, offset=offset)

    def _refusal(self, index: int, value: int) -> tuple[str, str, str] | None:
        """The rule that a value breaks, why, and the errno."""
        last = last_param(self.release)
        if index > last:
            return "REC-109", f"{self.release} knows 0 to {last}", "EINVAL"
        denied = self._denied(index, value)
        if denied:
            return "REC-109", "the toolstack may not set it", denied
        before = self.values.get(index, 0)
        if index in _ONCE and self.release.has(_ONCE[index]) and before and value != before:
            return "REC-109", f"it is {before:#x}, and keeps its first value", "EEXIST"
        if index == HvmParam.ACPI_IOPORTS_LOCATION:
            return self._ioports(value, before)
        check = _VALUES.get(index)
        bound = check(value, self.release, self.intel) if check else None
        return ("HVM-14", bound, "EINVAL") if bound else None

    def _denied(self, index: int, value: int) -> str | None:
        """What is answered for a parameter that nobody may set; None for others."""
        has = self.release.has
        listed = has(releases.params_allowed)
        match index:
            case HvmParam.DM_DOMAIN if has(releases.dm_domain_self):
                if listed or not has(releases.params_denied):
                    return "EINVAL" if listed or value != DOMID_SELF else None
                return "EPERM"
            case HvmParam.BUFIOREQ_EVTCHN:
                return "EPERM" if has(releases.params_denied) and not listed else "EINVAL"
            case HvmParam.NESTEDHVM if has(releases.nested_at_creation):
                return "EINVAL"
            case HvmParam.ALTP2M if has(releases.altp2m_at_creation):
                return "EEXIST"
            case _ if index in _MEMORY_EVENTS:
                return "EINVAL" if listed else "EOPNOTSUPP"
        return None

    def _ioports(self, value: int, before: int) -> tuple[str, str, str] | None:
        if self.release.has(releases.hvm_devices_checked) and self.emulated is False:
            return "HVM-15", "a PVH guest has no such device", "ENODEV"
        compared = value if self.release.has(releases.params_allowed) else value & _U32
        if compared != before and compared ^ before != 1:
            return "HVM-14", f"it is {before:#x}; 0 and 1 are all there are", "EINVAL"
        return None

    def _held(self, index: int, value: int) -> int:
        """What Xen makes of a value that it takes."""
        if index == HvmParam.VM86_TSS_SIZED:
            return min(value >> 32, _MOST_TSS) << 32 | value & _U32
        return value


Bound = str | None
"""Why a value is refused; None where it is not."""


def _viridian(value: int, release: Release, intel: bool | None) -> Bound:
    mask = next(mask for since, mask in _VIRIDIAN if release.has(since))
    if not value & 1:
        return "without bit 0, the base features"
    return f"bits outside {mask:#x}" if value & ~mask else None


def _nested(value: int, release: Release, intel: bool | None) -> Bound:
    return "0 or 1 expected" if value > 1 else None


def _altp2m(value: int, release: Release, intel: bool | None) -> Bound:
    most = 3 if release.has(releases.altp2m_modes) else 1
    return f"at most {most}" if value > most else None


def _vm86_tss(value: int, release: Release, intel: bool | None) -> Bound:
    return "above 4 GiB" if value > _U32 and release.has(releases.param_vm86_tss_sized) else None


def _triple_fault(value: int, release: Release, intel: bool | None) -> Bound:
    most = 5 if release.has(releases.triple_fault_soft_reset) else 4
    return f"at most {most}" if value > most else None


def _mca_cap(value: int, release: Release, intel: bool | None) -> Bound:
    if value & ~1:
        return "bits other than bit 0"
    return "processors of AMD have no local machine checks" if value and intel is False else None


def _one_of(*values: int) -> Callable[[int, Release, bool | None], Bound]:
    text = f"expected {', '.join(map(str, values))}"
    return lambda value, release, intel: None if value in values else text


def _between(least: int, most: int) -> Callable[[int, Release, bool | None], Bound]:
    text = f"expected {least} to {most}"
    return lambda value, release, intel: None if least <= value <= most else text


_VALUES: Mapping[int, Callable[[int, Release, bool | None], Bound]] = {
    HvmParam.VIRIDIAN: _viridian,
    HvmParam.TIMER_MODE: _between(0, _TIMER_MODES - 1),
    HvmParam.ACPI_S_STATE: _one_of(0, 3),
    HvmParam.VM86_TSS: _vm86_tss,
    HvmParam.NESTEDHVM: _nested,
    HvmParam.TRIPLE_FAULT_REASON: _triple_fault,
    HvmParam.NR_IOREQ_SERVER_PAGES: _between(1, _IOREQ_SERVER_PAGES),
    HvmParam.ALTP2M: _altp2m,
    HvmParam.X87_FIP_WIDTH: _one_of(0, 4, 8),
    HvmParam.VM86_TSS_SIZED: lambda value, release, intel: (
        f"room for {count(value >> 32, 'byte')}; at least {_LEAST_TSS}" if value >> 32 < _LEAST_TSS else None
    ),
    HvmParam.MCA_CAP: _mca_cap,
}
"""Which values are refused, for parameters that do not take any."""
