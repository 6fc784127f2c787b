"""How far a run has come: by steps, or by the time of a budget, resumes included."""

import time

from pylm.config import ScheduleConfig, TrainConfig

N_BUDGET_INTERVALS = 10  # a run that ends by time evaluates, saves and samples at every tenth of it


class Clock:
    """Progress of one run: `elapsed_s` continues from earlier processes, `reserve` keeps time for a budget's end."""

    def __init__(
        self, train: TrainConfig, schedule: ScheduleConfig, elapsed_before_s: float, started_s: float
    ) -> None:
        """Start at `started_s` (monotonic), with `elapsed_before_s` from the processes before this one."""
        self._train = train
        self._warmup = schedule.warmup
        self._offset_s = elapsed_before_s - started_s
        self._reserved_s = 0.0

    def elapsed_s(self) -> float:
        """Seconds of this run, from the command's start, over all its processes."""
        return self._offset_s + time.monotonic()

    def reserve(self, seconds: float) -> None:
        """Stop stepping so long before a budget ends: the last evaluation and save belong to it."""
        self._reserved_s = seconds

    def progress(self, step: int) -> float:
        """How much of the run is done before step `step`, 0 to 1."""
        if self._train.budget_s:
            return min(1.0, self.elapsed_s() / max(self._train.budget_s - self._reserved_s, 1e-9))
        return min(1.0, step / self._train.steps)

    def schedule_progress(self, step: int) -> float:
        """The learning-rate schedule's progress: what follows the warm-up, when steps end the run."""
        if self._train.budget_s:
            return self.progress(step)
        warmup = min(self._warmup, self._train.steps - 1)
        return max(0.0, (step - warmup) / (self._train.steps - warmup))

    def due(self, every: int, step: int, progress_before: float) -> bool:
        """Whether what happens every so many steps (every tenth of a budget) is due after `step` steps."""
        if self._train.budget_s:
            interval = int(self.progress(step) * N_BUDGET_INTERVALS)
            return int(progress_before * N_BUDGET_INTERVALS) < interval < N_BUDGET_INTERVALS
        return step % every == 0 and step < self._train.steps

    def eta_s(self, step: int, step_s: float) -> float:
        """Seconds to the end, a step taking `step_s`."""
        if self._train.budget_s:
            return self._train.budget_s - self.elapsed_s()
        return (self._train.steps - step) * step_s
