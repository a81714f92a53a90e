"""Which values of an MSR a guest may have, by its processor and the release; with the standard library alone.

Sources: `guest_wrmsr` (`xen/arch/x86/msr.c`), `msr_spec_ctrl_valid_bits`; before 4.12 XEN_DOMCTL_set_vcpu_msrs itself.
"""

from __future__ import annotations

from migrate.destination import releases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.releases import Release
    from migrate.xen.cpu_policy import Processor

# Bits of SPEC_CTRL, by what allows them; any one feature of a row is enough.
_ALWAYS = 0b11  # IBRS, STIBP
_SSBD = 1 << 2
_PSFD = 1 << 7
_IPRED, _RRSBA, _BHI = 0b11 << 3, 0b11 << 5, 1 << 10


def either(*answers: bool | None) -> bool | None:
    """Whether at least one holds; None where that hangs on one that is not known."""
    return True if True in answers else None if None in answers else False


def spec_ctrl_allowed(value: int, cpu: Processor, release: Release) -> bool | None:
    """Whether a guest may have this value in SPEC_CTRL: yes, no, or (None) its host's to say."""
    amd = release.has(releases.spec_ctrl_amd)
    allowed = [either(cpu.has("ibrs_ibpb"), cpu.has("ibrs") if amd else False)]
    rows = [(_SSBD, either(cpu.has("ssbd"), cpu.has("amd_ssbd") if amd else False))]
    if not release.has(releases.spec_ctrl_ssbd):
        rows = []
    if amd:
        rows.append((_PSFD, either(cpu.has("psfd"), cpu.has("amd_psfd"))))
    if release.has(releases.spec_ctrl_more):
        rows += [(_IPRED, cpu.has("ipred_ctrl")), (_RRSBA, cpu.has("rrsba_ctrl")), (_BHI, cpu.has("bhi_ctrl"))]
    known = _ALWAYS
    for bits, answer in rows:
        known |= bits
        if value & bits:
            allowed.append(answer)
    if value & ~known:
        return False
    return False if False in allowed else None if None in allowed else True


def misc_features_allowed(value: int, cpu: Processor, release: Release) -> bool | None:
    """The same for MISC_FEATURES_ENABLES."""
    if not release.has(releases.misc_features_judged):
        return None if value else True
    if value >> 1:
        return False
    return cpu.faults_on_cpuid if value else True


def tsc_aux_allowed(value: int, cpu: Processor) -> bool | None:
    """The same for TSC_AUX."""
    return False if value >> 32 else either(cpu.has("rdtscp"), cpu.has("rdpid"))


def address_mask_allowed(value: int, cpu: Processor, release: Release) -> bool | None:
    """The same for one of AMD's debug address masks, which before 4.12 took a host that has them."""
    if value >> 32:
        return False
    return cpu.has("dbext") if release.has(releases.address_masks_by_policy) else cpu.dbext
