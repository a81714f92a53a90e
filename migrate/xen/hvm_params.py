"""Which HVM parameters Xen does not let the toolstack set.

Source: hvm_allow_set_param and hvm_set_param (`xen/arch/x86/hvm/hvm.c`). Only what is certain whatever the host:
a parameter that hangs on features, ports or memory is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from migrate.destination import releases
from migrate.destination.releases import Change
from streams.wire.hvm_names import HvmParam

# Since when these are known to be refused; earlier releases may have, too.
SETTLED_SINCE = releases.version_3

# Parameters that Xen refuses whatever the value, and its answer.
DEPRECATED: dict[int, str] = {
    HvmParam.DM_DOMAIN: "EPERM",
    HvmParam.BUFIOREQ_EVTCHN: "EPERM",
    HvmParam.MEMORY_EVENT_CR0: "EOPNOTSUPP",
    HvmParam.MEMORY_EVENT_CR3: "EOPNOTSUPP",
    HvmParam.MEMORY_EVENT_CR4: "EOPNOTSUPP",
    HvmParam.MEMORY_EVENT_INT3: "EOPNOTSUPP",
    HvmParam.MEMORY_EVENT_SINGLE_STEP: "EOPNOTSUPP",
    HvmParam.MEMORY_EVENT_MSR: "EOPNOTSUPP",
}

ONCE = frozenset(
    {
        HvmParam.VIRIDIAN,
        HvmParam.IOREQ_PFN,
        HvmParam.BUFIOREQ_PFN,
        HvmParam.IOREQ_SERVER_PFN,
        HvmParam.NR_IOREQ_SERVER_PAGES,
        HvmParam.MCA_CAP,
    }
)
"""Parameters that keep their first value, once it is not zero."""

_TIMER_MODES = 4
_IOREQ_SERVER_PAGES = 64
_VIRIDIAN_BASE = 1 << 0

# Whether a value is one that Xen takes, for parameters with few of them.
_VALUES: dict[int, Callable[[int], bool]] = {
    HvmParam.TIMER_MODE: lambda value: value < _TIMER_MODES,
    HvmParam.ACPI_S_STATE: lambda value: value in (0, 3),
    HvmParam.X87_FIP_WIDTH: lambda value: value in (0, 4, 8),
    HvmParam.VIRIDIAN: lambda value: bool(value & _VIRIDIAN_BASE),
    HvmParam.NR_IOREQ_SERVER_PAGES: lambda value: 0 < value <= _IOREQ_SERVER_PAGES,
}


class ParamObjection(NamedTuple):
    """Why Xen does not set a parameter; `since` is None where every release refuses it."""

    rule: str
    message: str
    errno: str
    since: Change | None = None


def param_objection(index: int, value: int, before: int) -> ParamObjection | None:
    """What Xen has against one parameter; None for nothing.

    Parameters
    ----------
    before:
        the value that this stream has set it to already; 0 for none.
    """
    if index > max(HvmParam):
        return ParamObjection("REC-109", f"{index}; Xen knows 0 to {max(HvmParam)}", "EINVAL")
    name = HvmParam(index).name
    if index in DEPRECATED:
        return ParamObjection("REC-109", f"{name} is deprecated", DEPRECATED[index], SETTLED_SINCE)
    if index in ONCE and before and value != before:
        return ParamObjection("REC-109", f"{name} = {value:#x} after {before:#x}", "EEXIST", SETTLED_SINCE)
    if index in _VALUES and not _VALUES[index](value):
        return ParamObjection("HVM-14", f"{name} = {value:#x}", "EINVAL")
    return None
