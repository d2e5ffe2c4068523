"""The learning rate that is applied is the one that the schedule says."""

import math

from dora_diffusion.errors import TrainingError
from dora_diffusion.training.sentinels.sentinel import Sentinel


class Rate(Sentinel):
    """A schedule that is stepped twice, not at all, or not put back by a resume, trains at a rate nobody asked for."""

    def before_step(self) -> None:
        step = self.progress.step
        for k, (group, due) in enumerate(zip(self.progress.optimizer.param_groups, self._due(), strict=True)):
            if not math.isclose(float(group["lr"]), due, rel_tol=1e-6, abs_tol=1e-12):
                raise TrainingError(
                    f"Step {step + 1} would be taken at learning rate {float(group['lr']):g}, and the schedule says "
                    f"{due:g} (parameter group {k}): the schedule was not stepped with the run, or something else set "
                    "the rate. Resume from the last checkpoint; if it comes back, use --lr_scheduler constant."
                )

    def _due(self) -> list[float]:
        """The rate of each parameter group at this step, from the schedule's shape; else what it says of itself."""
        schedule = self.progress.schedule
        if not hasattr(schedule, "lr_lambdas"):
            return [float(rate) for rate in schedule.get_last_lr()]
        shapes = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        return [float(peak * shape(self.progress.step)) for peak, shape in shapes]
