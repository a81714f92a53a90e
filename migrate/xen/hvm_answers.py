"""What Xen answers to the calls that an HVM guest's parameters and context are set with."""

from __future__ import annotations

from migrate.rules.declaring import GuestKind, Stage
from migrate.xen.cpu_policy import processor
from migrate.xen.hvm_context import context_objections, no_context
from migrate.xen.hvm_entry import HvmDomain
from migrate.xen.hvm_params import Params
from migrate.xen.hypercalls import SetHvmContext, SetHvmParam
from streams.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.xen.answers import Answering, StepAnswer


class HvmAnswering:
    """The part of an `Answering` that knows HVM guests; what was set before is remembered."""

    def __init__(self, xen: Answering) -> None:
        self._xen = xen
        self._params = Params(xen.release, intel=xen.intel)

    def answer(self, step: SetHvmParam | SetHvmContext) -> StepAnswer:
        """The answer to one call."""
        return self._set_param(step) if isinstance(step, SetHvmParam) else self._set_context(step)

    def _set_param(self, step: SetHvmParam) -> StepAnswer:
        """hvm_set_param."""
        params = self._params
        params.emulated = step.guest.emulated
        return self._xen.answered(step, params.set(step.index, step.value, step.offset), step.place, Stage.RECORD)

    def _set_context(self, step: SetHvmContext) -> StepAnswer:
        """hvm_load."""
        xen = self._xen
        # What a policy without leaves leaves out is the host's to say.
        policy = xen.policy if xen.policy and xen.policy.leaves else None
        hap = step.guest.hap is not False and (xen.host is None or xen.host.hap.value is not False)
        nested = step.guest.nested is not False or self._params.nested
        domain = HvmDomain(
            xen.release,
            processor(
                policy,
                GuestKind.HVM,
                xen.release,
                hap=hap,
                nested=nested,
                host_max=xen.host_max,
                intel=xen.intel,
            ),
            host=xen.host_max,
            vcpus=xen.vcpus,
            emulated=step.guest.emulated,
            viridian=self._params.viridian,
            has_frame=step.guest.populated.__contains__,
        )
        if step.content is None or step.place is None:
            return xen.answered(step, [no_context(domain)], None)
        start = step.place.body
        found = (
            replace(objection, message=f"HVM_CONTEXT: {objection.message}", offset=start + (objection.offset or 0))
            for objection in context_objections(step.content, domain)
        )
        return xen.answered(step, found, step.place)
