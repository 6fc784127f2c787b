"""The training loop: batches in, checkpoints and records out; stopped at any moment it goes on where it was."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from pylm import checkpoint
from pylm.batches import Windows, key
from pylm.checkpoint import State
from pylm.clock import Clock
from pylm.config import Config
from pylm.dataset import Dataset
from pylm.errors import Interrupted, TrainingError
from pylm.evaluate import Evaluation, evaluate
from pylm.generate import sample_text
from pylm.metrics import JsonLines
from pylm.models.build import build_model
from pylm.optim import build_optimizers, learning_rate_factor, set_learning_rate
from pylm.progress import ProgressLine, duration
from pylm.sampling import SamplingSettings
from pylm.step import MAX_SKIPPED, Report, Stepper
from pylm.tokenizer import Tokenizer

# Of a budget: each evaluation on the way, the last one; seconds for the last sample and the picture.
EVALUATION_SHARE, FINAL_EVALUATION_SHARE, END_S = 0.004, 0.03, 1.5


@dataclass(frozen=True)
class Outcome:
    """How a finished run ended; `evaluation` is None without a validation split."""

    state: State
    evaluation: Evaluation | None


class Trainer:
    """One run in one process: built once, then `run` to the end or to a signal."""

    def __init__(
        self, run: Path, config: Config, dataset: Dataset, resume_command: str, started_s: float
    ) -> None:
        """Build the model and load the last checkpoint, if there is one.

        `started_s` (time.monotonic) is when the command began; `resume_command` is told to whoever stops the run.
        """
        self.path = run
        self.config = config
        self.dataset = dataset
        self.resume_command = resume_command
        self.tokenizer = Tokenizer.load(dataset.path / "tokenizer.json")
        self.token_bytes_V = self.tokenizer.token_lengths().astype(np.int64)
        self.windows = Windows(dataset.train.tokens, config.train.context, config.train.seed)
        self.device = torch.device(config.train.device)
        self.model = build_model(config.model, seed=config.train.seed).to(self.device)
        self.model.activation_checkpointing = config.train.activation_checkpointing
        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.state = self._load()
        self.stepper = Stepper(
            self.model, self.optimizers, clip=config.optimizer.clip, skipped=self.state.skipped
        )
        self.clock = Clock(config.train, config.schedule, self.state.elapsed_s, started_s)
        self.progress = ProgressLine()
        self._stop_signal: int | None = None
        self._save_s = self._steps_s = 0.0  # seconds of the last save; of all steps of this process
        self._eval_tokens, self._final_tokens = config.train.eval_tokens, config.train.final_eval_tokens
        self._eval_rate = 1.0  # tokens a second

    def run(self) -> Outcome:
        """Train to the end of the schedule. Raises Interrupted after a signal, with the state saved."""
        self.metrics = JsonLines(self.path / "metrics.jsonl", self.state.step)
        self.samples = JsonLines(self.path / "samples.jsonl", self.state.step)
        self._first_step = self.state.step
        try:
            with self._signals(), self.progress:
                self._begin()
                while self.clock.progress(self.state.step) < 1:
                    self._step()
                    if self._stop_signal is not None:
                        self._stop(self._stop_signal)
                return self._finish()
        finally:
            self.metrics.close()
            self.samples.close()

    def _load(self) -> State:
        step = checkpoint.pointed_step(self.path, "last")
        if step is None:
            return State(seed=self.config.train.seed)
        state = checkpoint.load_state(self.path, step)
        checkpoint.load_weights(self.path, step, self.model)
        checkpoint.load_optimizer(self.path, step, self.model, self.optimizers)
        checkpoint.prune(self.path)
        return state

    def _begin(self) -> None:
        """Evaluate, sample and save the untrained model; plan how a budget will end."""
        if self.config.train.budget_s:
            self._fit_evaluations()
        if self.state.step == 0:
            self._evaluate_and_log()
            self._sample()
            self._save()
        if self.config.train.budget_s:
            n_final = self._n_evaluated(self._final_tokens) + self._n_evaluated(self._eval_tokens)
            self.clock.reserve(n_final / self._eval_rate + self._save_s + END_S)

    def _fit_evaluations(self) -> None:
        """Cut the evaluations of a budget to their share of it, by how fast a first few windows are."""
        probe = self._n_evaluated(8 * self.config.train.context)
        for _ in range(2):  # the first one pays for memory and kernels that later ones find ready
            began = time.monotonic()
            self._evaluate(probe)
            self._eval_rate = probe / (time.monotonic() - began)
        affordable = int(self.config.train.budget_s * self._eval_rate)
        self._eval_tokens = min(self._eval_tokens, max(probe, int(affordable * EVALUATION_SHARE)))
        self._final_tokens = min(self._final_tokens, max(probe, int(affordable * FINAL_EVALUATION_SHARE)))

    def _n_evaluated(self, max_tokens: int) -> int:
        """Targets of an evaluation of at most `max_tokens`; at least one, for rates."""
        return max(1, min(max_tokens, self.dataset.val.n_tokens if self.dataset.val else 0))

    def _step(self) -> None:
        """One optimizer step, and whatever is due after it."""
        settings, state = self.config.train, self.state
        progress_before = self.clock.progress(state.step)
        began = time.monotonic()
        factor = learning_rate_factor(
            self.clock.warm(state.step), self.clock.schedule_progress(state.step), self.config.schedule
        )
        set_learning_rate(self.optimizers, factor)
        # Dropout at step s depends on (seed, s) alone: a resumed run needs no stored random state.
        torch.manual_seed(key(settings.seed, state.step) >> 1)
        self.stepper.step(self._micro_batches(), settings.batch_size * settings.context)
        state.step += 1
        state.samples_seen += settings.batch_size
        state.tokens += settings.batch_size * settings.context
        state.epoch = self.windows.epoch_of(state.samples_seen)
        self._steps_s += time.monotonic() - began
        if state.step % settings.log_every == 0 or state.step == 1:
            self._log(factor * self.config.optimizer.lr)
        if self.clock.due(settings.eval_every, state.step, progress_before):
            self._evaluate_and_log()
        if settings.sample_every and self.clock.due(settings.sample_every, state.step, progress_before):
            self._sample()
        if self.clock.due(settings.save_every, state.step, progress_before):
            self._save()

    def _micro_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets (B, T) of the next step, on the device."""
        settings = self.config.train
        for number in range(settings.accumulation):
            first = self.state.samples_seen + number * settings.micro_batch
            ids_BL = torch.from_numpy(self.windows.batch(first, settings.micro_batch)).to(self.device)
            yield ids_BL[:, :-1], ids_BL[:, 1:]

    def _checked(self) -> Report:
        """How the steps went. Raises TrainingError when the last ones all had to be skipped."""
        report = self.stepper.report()
        state = self.state
        if report.skipped > state.skipped:
            self.progress.log(
                f"step {state.step:,}: {report.skipped - state.skipped} steps skipped since the last report: "
                "the loss or a gradient was not finite"
            )
        state.skipped = report.skipped
        if report.in_a_row >= MAX_SKIPPED:
            last = checkpoint.pointed_step(self.path, "last")
            raise TrainingError(
                f"training has diverged: the last {report.in_a_row} steps, up to {state.step}, had no finite gradient; "
                f"the last good checkpoint is step {last} of {self.path}; start anew with a lower --lr than "
                f"{self.config.optimizer.lr:g}"
            )
        return report

    def _log(self, rate: float) -> None:
        state, report = self.state, self._checked()
        step_s = self._steps_s / (state.step - self._first_step)
        tokens_per_s = self.config.train.batch_size * self.config.train.context / step_s
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "loss": report.loss,
            "learning_rate": rate,
            "grad_norm": report.grad_norm,
            "tokens_per_s": round(tokens_per_s, 1),
            "elapsed_s": round(self.clock.elapsed_s(), 3),
            "skipped": report.skipped,
        }
        # JSON has no word for a number that is none: a skipped step has no loss.
        self.metrics.write({name: value for name, value in line.items() if math.isfinite(value)})
        of_steps = f"/{self.config.train.steps:,}" if self.config.train.steps else ""
        self.progress.update(
            f"step {state.step:,}{of_steps}  loss {report.loss:.4f}  {tokens_per_s:,.0f} tokens/s  lr {rate:.2e}  "
            f"ETA {duration(self.clock.eta_s(state.step, step_s))}"
        )

    def _evaluate(self, max_tokens: int) -> Evaluation | None:
        if self.dataset.val is None:
            return None
        return evaluate(
            self.model,
            self.dataset.val.tokens,
            self.token_bytes_V,
            self.dataset.end_of_text_id,
            context=self.config.train.context,
            batch_size=self.config.train.micro_batch,
            max_tokens=max_tokens,
        )

    def _evaluate_and_log(self) -> None:
        """Evaluate; the best checkpoint is the one with the lowest loss on these same windows."""
        evaluation = self._evaluate(self._eval_tokens)
        if evaluation is None:
            return
        state = self.state
        self._write_evaluation(evaluation)
        self.progress.log(
            f"step {state.step:,}: validation {evaluation.loss:.4f} nats per token, "
            f"{evaluation.bits_per_byte:.4f} bits per byte"
        )
        if state.step and (state.best_loss is None or evaluation.loss < state.best_loss):
            state.best_loss, state.best_step = evaluation.loss, state.step
            if self._save():
                checkpoint.point(self.path, "best", state.step)

    def _write_evaluation(self, evaluation: Evaluation, **more: bool) -> None:
        self.metrics.write(
            {
                "step": self.state.step,
                "tokens": self.state.tokens,
                "val_loss": evaluation.loss,
                "val_bits_per_byte": evaluation.bits_per_byte,
                "elapsed_s": round(self.clock.elapsed_s(), 3),
                **more,
            }
        )

    def _sample(self) -> None:
        """Print and keep a sample; it neither reads nor moves the training's random state."""
        n_tokens = self.config.train.sample_tokens
        if not self.config.train.sample_every or not n_tokens:
            return
        prompt = (
            ""
            if self.dataset.end_of_text_id is not None
            else self.tokenizer.decode(self.dataset.train.tokens[:1])
        )
        text = sample_text(self.model, self.tokenizer, prompt, n_tokens, SamplingSettings())
        self.samples.write({"step": self.state.step, "prompt": prompt, "text": text})
        self.progress.log(f"step {self.state.step:,}: sample:\n{text}\n")

    def _save(self, bear: int = 0) -> bool:
        """Save, unless more than the last `bear` steps failed: the weights may be why, and nothing to go back to."""
        began = time.monotonic()
        if self._checked().in_a_row > bear:
            return False
        self.state.elapsed_s = self.clock.elapsed_s()
        checkpoint.save(self.path, self.state, self.model, self.optimizers)
        self._save_s = time.monotonic() - began
        return True

    def _stop(self, signal_number: int) -> None:
        self._save(bear=2)
        saved = checkpoint.pointed_step(self.path, "last")
        raise Interrupted(
            f"at step {saved:,}, the state is saved; go on with: {self.resume_command}",
            signal_number,
        )

    def _finish(self) -> Outcome:
        """The last evaluation (of more windows than the others), sample and save."""
        self._evaluate_and_log()
        evaluation = self._evaluate(self._final_tokens)
        if evaluation is not None:
            self._write_evaluation(evaluation, final=True)
        self._sample()
        self._save(bear=2)
        return Outcome(self.state, evaluation)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM end the current step and save; a second SIGINT interrupts at once."""

        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
