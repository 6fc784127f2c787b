"""How far a run has come: by steps, or by the time of a budget, resumes included."""

import time

from pylm.config import ScheduleConfig, TrainConfig

N_BUDGET_INTERVALS = 10  # a run that ends by time evaluates and saves so often,
MAX_WARMUP_SHARE = 0.05  # of a budget: a recipe's warm-up may be longer than all its steps
MIN_INTERVAL_S = 20.0  # but not more often than this: below it the pauses would eat the budget


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
        self._agreed_s: float | None = None

    def elapsed_s(self) -> float:
        """Seconds of this run, from the command's start, over all its processes."""
        return self._offset_s + time.monotonic()

    def decided_s(self) -> float:
        """The time that decisions go by: what the processes of a run agreed on last, where there are several."""
        return self.elapsed_s() if self._agreed_s is None else self._agreed_s

    def agree(self, elapsed_s: float) -> None:
        """From now on decide by this time, the same in all processes."""
        self._agreed_s = elapsed_s

    def reserve(self, seconds: float) -> None:
        """Stop stepping so long before a budget ends: the last evaluation and save belong to it."""
        self._reserved_s = seconds

    def progress(self, step: int) -> float:
        """How much of the run is done before step `step`, 0 to 1."""
        if self._train.budget_s:
            return min(1.0, self.decided_s() / max(self._train.budget_s - self._reserved_s, 1e-9))
        return min(1.0, step / self._train.steps)

    def schedule_progress(self, step: int) -> float:
        """The learning-rate schedule's progress: what follows the warm-up, when steps end the run."""
        if self._train.budget_s:
            return self.progress(step)
        warmup = min(self._warmup, self._train.steps - 1)
        return max(0.0, (step - warmup) / (self._train.steps - warmup))

    def warm(self, step: int) -> float:
        """How far the warm-up has come at step `step`, above 0 to 1; of a budget it takes no more than its share."""
        by_steps = (step + 1) / (self._warmup + 1)
        by_time = self.progress(step) / MAX_WARMUP_SHARE if self._train.budget_s else 0.0
        return min(1.0, max(by_steps, by_time))

    def due(self, every: int, step: int, progress_before: float) -> bool:
        """Whether what happens every so many steps (at fixed parts of a budget) is due after `step` steps."""
        if self._train.budget_s:
            n_intervals = max(1, min(N_BUDGET_INTERVALS, int(self._train.budget_s / MIN_INTERVAL_S)))
            return int(progress_before * n_intervals) < int(self.progress(step) * n_intervals) < n_intervals
        return step % every == 0 and step < self._train.steps

    def save_due(
        self, step: int, progress_before: float, before: tuple[float, float], now: tuple[float, float]
    ) -> bool:
        """Whether a save is due after `step` steps; `before` and `now` are elapsed seconds and epochs."""
        train = self._train
        every = (60 * train.save_minutes, train.save_epochs)
        passed = any(e > 0 and int(n / e) > int(b / e) for e, b, n in zip(every, before, now, strict=True))
        if train.budget_s or train.save_every:
            return passed or self.due(train.save_every, step, progress_before)
        return passed

    def eta_s(self, step: int, step_s: float) -> float:
        """Seconds to the end, a step taking `step_s`."""
        if self._train.budget_s:
            return self._train.budget_s - self.elapsed_s()
        return (self._train.steps - step) * step_s
