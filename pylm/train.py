"""The training loop: batches in, checkpoints and records out; stopped at any moment it goes on where it was."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pylm import checkpoint
from pylm.batches import key
from pylm.checkpoint import State
from pylm.clock import Clock
from pylm.compiling import compiles, compiling, eagerly
from pylm.config import Config
from pylm.errors import Interrupted, TrainingError
from pylm.evaluate import Evaluation, evaluate
from pylm.feed import Feed
from pylm.generate import sample_text
from pylm.interrupts import Interrupts
from pylm.metrics import JsonLines
from pylm.mixture import Mixture
from pylm.models.build import build_model
from pylm.optim import build_optimizers, learning_rate_factor, set_learning_rate
from pylm.parallel import Parallel
from pylm.precision import Precision
from pylm.progress import ProgressLine, duration
from pylm.reporter import Reporter
from pylm.samples import Samples
from pylm.sampling import SamplingSettings
from pylm.step import MAX_SKIPPED, Report, Stepper
from pylm.tokenizer import Tokenizer
from pylm.world import World

# Of a budget: each evaluation on the way, the last one; seconds for the last sample and the picture.
EVALUATION_SHARE, FINAL_EVALUATION_SHARE, END_S = 0.004, 0.03, 1.5


@dataclass(frozen=True)
class Outcome:
    """How a finished run ended; `evaluation` is None without a validation split."""

    state: State
    evaluation: Evaluation | None


class Trainer:
    """One run in one process, or in each of several: built once, then `run` to the end or to a signal."""

    def __init__(
        self,
        run: Path,
        config: Config,
        data: Mixture,
        resume_command: str,
        started_s: float,
        world: World | None = None,
    ) -> None:
        """Build the model and load the last checkpoint, if there is one.

        `started_s` (time.monotonic) is when the command began; `resume_command` is told to whoever stops the run.
        """
        train = config.train
        self.world = world or World()
        self.path, self.config, self.data, self.resume_command = run, config, data, resume_command
        self.tokenizer = Tokenizer.load(data.first.path / "tokenizer.json")
        self.token_bytes_V = self.tokenizer.token_lengths().astype(np.int64)
        self.samples = Samples(
            [dataset.train for dataset in data.datasets],
            data.weights,
            train,
            end_of_text_id=data.end_of_text_id,
            vocab_size=data.first.vocab_size,
        )
        self.val = data.val
        self.device = self.world.device(train.device)
        model = build_model(config.model, seed=train.seed)
        sharded = train.shard == "on"
        # A model in parts goes to the device block by block: all of it may not fit.
        self.model = model if sharded else model.to(self.device)
        self.model.activation_checkpointing = train.activation_checkpointing
        self.parallel = Parallel(
            self.model, self.world, self.device, sharded=sharded, early_update=train.early_update
        )
        self.optimizers = build_optimizers(self.model, config.optimizer, train.dtype)
        self.state = self._load()
        self.precision = Precision(train.dtype, self.device, self.state.scale, self.state.finite_steps)
        self.stepper = Stepper(
            self.model,
            self.optimizers,
            clip=config.optimizer.clip,
            precision=self.precision,
            early_update=train.early_update,
            skipped=self.state.skipped,
            parallel=self.parallel,
        )
        self.clock = Clock(train, config.schedule, self.state.elapsed_s, started_s)
        self.progress = ProgressLine(shown=self.world.is_first)
        self._compiled = self._to_compile = compiles(train.compile, self.device)
        self._save_s = 0.0  # seconds of the last save
        self._eval_tokens, self._final_tokens = train.eval_tokens, train.final_eval_tokens
        self._eval_rate = 1.0  # tokens a second

    def run(self) -> Outcome:
        """Train to the end of the schedule. Raises Interrupted after a signal, with the state saved."""
        train = self.config.train
        writes = self.world.is_first
        self.reporter = Reporter(self.path, self.config, self.state, self.progress, self.device, writes)
        self.texts = JsonLines(self.path / "samples.jsonl", self.state.step) if writes else None
        self.feed = Feed(
            self.samples,
            train.batch_size,
            train.micro_batch,
            self.state.samples_seen,
            self.device,
            self.world,
        )
        try:
            with Interrupts(patient=self.world.size > 1) as self.interrupts, self.progress:
                self._begin()
                self._agree()
                gc.freeze()  # what is there by now stays: collections need not look through it again
                while self.clock.progress(self.state.step) < 1:
                    self._step()
                    if self._signal:
                        self._stop(self._signal)
                return self._finish()
        finally:
            gc.unfreeze()
            self.feed.close()
            self.reporter.close()
            if self.texts is not None:
                self.texts.close()

    def _agree(self) -> None:
        """Take the first process's time for all, so that they decide alike, and a signal that any has heard."""
        own = self.clock.elapsed_s() if self.world.is_first else 0.0
        elapsed_s, signal = self.world.largest(own, self.interrupts.number or 0)
        self._signal = int(signal)
        if self.world.size > 1:
            self.clock.agree(elapsed_s)

    def _load(self) -> State:
        world = self.world
        step = world.decided(lambda: checkpoint.pointed_step(self.path, "last"))
        if step is None:
            return State(seed=self.config.train.seed)
        state = State(**world.decided(lambda: asdict(checkpoint.load_state(self.path, step))))
        checkpoint.load_weights(self.path, step, self.model, world)
        checkpoint.load_optimizer(self.path, step, self.model, self.optimizers, world)
        if world.is_first:
            checkpoint.prune(self.path, self.config.train.keep)
        return state

    def _begin(self) -> None:
        """Evaluate, sample and save the untrained model; plan how a budget will end."""
        if self.config.train.budget_s:
            self._time_evaluations()
        if self.state.step == 0:
            self._evaluate_and_log()
            self._sample()
            self._save()
        if self.config.train.budget_s:
            self._plan_end(self._eval_rate)

    def _time_evaluations(self) -> None:
        """Cut the evaluations of a budget to their share of it, by how fast a first few windows are."""
        probe = self._n_evaluated(8 * self.config.train.context)
        for _ in range(2):  # the first one pays for memory and kernels that later ones find ready
            began = time.monotonic()
            self._evaluate(probe)
            rate = probe / (time.monotonic() - began)
        self._plan_end(rate)
        affordable = int(self.config.train.budget_s * self._eval_rate * EVALUATION_SHARE)
        # Not again later: the best checkpoint is found by the same windows all along.
        self._eval_tokens = min(self._eval_tokens, max(probe, affordable))

    def _plan_end(self, own_rate: float) -> None:
        """Set what a budget keeps for its end by the first process's last measurements, tokens a second and a save."""
        self._eval_rate, save_s = self.world.decided(lambda: (own_rate, self._save_s))
        least = self._n_evaluated(8 * self.config.train.context)
        affordable = int(self.config.train.budget_s * self._eval_rate * FINAL_EVALUATION_SHARE)
        self._final_tokens = min(self._final_tokens, max(least, affordable))
        n_final = self._n_evaluated(self._final_tokens) + self._n_evaluated(self._eval_tokens)
        self.clock.reserve(n_final / self._eval_rate + save_s + END_S)

    def _n_evaluated(self, max_tokens: int) -> int:
        """Targets of an evaluation of at most `max_tokens`; at least one, for rates."""
        return max(1, min(max_tokens, self.val.n_tokens if self.val else 0))

    def _step(self) -> None:
        """One optimizer step, and whatever is due after it."""
        settings, state = self.config.train, self.state
        progress_before, position_before = self.clock.progress(state.step), self._position()
        factor = learning_rate_factor(
            self.clock.warm(state.step), self.clock.schedule_progress(state.step), self.config.schedule
        )
        set_learning_rate(self.optimizers, factor)
        # Dropout at step s depends on (seed, process, s) alone: a resumed run needs no stored random state.
        seed = key(settings.seed ^ (self.world.rank << 32), state.step) >> 1
        if self.device.type == "cpu":  # torch.manual_seed thinks of GPUs too: 0.2 ms
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        self._take_step()
        state.step += 1
        state.samples_seen += settings.batch_size
        state.tokens += settings.batch_size * settings.context
        state.epoch = self.samples.epoch_of(state.samples_seen)
        self._agree()
        if state.step % settings.log_every == 0 or state.step == 1:
            rate = factor * self.config.optimizer.lr
            self.reporter.steps(state, self._checked(), rate, self.clock)
        # All of it by the time agreed on after the step: processes that decided apart would wait for each other.
        evaluates = self.clock.due(settings.eval_every, state.step, progress_before)
        samples = settings.sample_every and self.clock.due(settings.sample_every, state.step, progress_before)
        saves = self.clock.save_due(state.step, progress_before, position_before, self._position())
        if evaluates:
            self._evaluate_and_log()
        if samples:
            self._sample()
        if saves:
            self._save()
        if evaluates or samples or saves:
            self._agree()

    def _take_step(self) -> None:
        """Step; the first one of a process compiles, if it is to, and says so."""
        batch = self.feed.take()
        if not self._to_compile:
            return self.stepper.step(batch)
        self._to_compile = False
        self.progress.log("torch.compile: the first step compiles the blocks, which can take a minute")
        began = time.monotonic()
        with compiling(self.model):
            self.stepper.step(batch)
            self.stepper.report()
        self.progress.log(f"torch.compile: done in {duration(time.monotonic() - began)}")

    def _position(self) -> tuple[float, float]:
        """Seconds and epochs since the run's start: what saves may go by."""
        return self.clock.decided_s(), self.state.samples_seen / self.samples.n_windows

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Time that is not the steps'."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what is under way still is
        began = time.monotonic()
        try:
            yield
        finally:
            self.reporter.paused(time.monotonic() - began)

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
            diverged = TrainingError(
                f"training has diverged: the last {report.in_a_row} steps, up to {state.step}, had no finite gradient; "
                f"the last good checkpoint is step {last} of {self.path}; start anew with a lower --lr than "
                f"{self.config.optimizer.lr:g}"
            )
            raise self.world.everywhere(diverged)
        return report

    def _evaluate(self, max_tokens: int) -> Evaluation | None:
        if self.val is None:
            return None
        train = self.config.train
        with self._pause(), eagerly(self._compiled), self.precision.context():
            return evaluate(
                self.model,
                self.val.tokens,
                self.token_bytes_V,
                self.data.end_of_text_id,
                context=train.context,
                batch_size=train.micro_batch,
                max_tokens=max_tokens,
                offsets=self.val.offsets if train.document_masking else None,
                parallel=self.parallel,
            )

    def _evaluate_and_log(self) -> None:
        """Evaluate; the best checkpoint is the one with the lowest loss on these same windows."""
        began = time.monotonic()
        evaluation = self._evaluate(self._eval_tokens)
        if evaluation is None:
            return
        if self.config.train.budget_s and self.state.step:
            self._plan_end(evaluation.n_tokens / (time.monotonic() - began))
        state = self.state
        self.reporter.evaluation(state, evaluation, self.clock)
        self.progress.log(
            f"step {state.step:,}: validation {evaluation.loss:.4f} nats per token, "
            f"{evaluation.bits_per_byte:.4f} bits per byte"
        )
        if state.step and (state.best_loss is None or evaluation.loss < state.best_loss):
            state.best_loss, state.best_step = evaluation.loss, state.step
            if self._save() and self.world.is_first:
                checkpoint.point(self.path, "best", state.step, self.config.train.keep)

    def _sample(self) -> None:
        """Print and keep a sample; it neither reads nor moves the training's random state."""
        n_tokens = self.config.train.sample_tokens
        if not self.config.train.sample_every or not n_tokens or self._checked().in_a_row:
            return
        if not (self.world.is_first or self.parallel.sharded):
            return  # the first process has all it takes
        prompt = (
            ""
            if self.data.end_of_text_id is not None
            else self.tokenizer.decode(self.data.first.train.tokens[:1])
        )
        with self._pause(), eagerly(self._compiled):
            text = self.parallel.look(sample_text, self.tokenizer, prompt, n_tokens, SamplingSettings())
        if self.texts is not None:
            self.texts.write({"step": self.state.step, "prompt": prompt, "text": text})
        self.progress.log(f"step {self.state.step:,}: sample:\n{text}\n")

    def _save(self, bear: int = 0) -> bool:
        """Save, unless more than the last `bear` steps failed: the weights may be why, and nothing to go back to."""
        began = time.monotonic()
        if self._checked().in_a_row > bear:
            return False
        self.state.elapsed_s = self.clock.elapsed_s()
        self.state.scale, self.state.finite_steps = self.precision.read()
        with self._pause():
            checkpoint.save(
                self.path, self.state, self.model, self.optimizers, self.config.train.keep, self.world
            )
        self._save_s = time.monotonic() - began
        return True

    def _stop(self, signal_number: int) -> None:
        self._save(bear=2)
        saved = self.world.decided(lambda: checkpoint.pointed_step(self.path, "last"))
        stopped = Interrupted(
            f"at step {saved:,}, the state is saved; go on with: {self.resume_command}",
            signal_number,
        )
        raise self.world.everywhere(stopped)

    def _finish(self) -> Outcome:
        """The last evaluation (of more windows than the others), sample and save."""
        self._evaluate_and_log()
        evaluation = self._evaluate(self._final_tokens)
        if evaluation is not None:
            self.reporter.evaluation(self.state, evaluation, self.clock, final=True)
        self._sample()
        self._save(bear=2)
        return Outcome(self.state, evaluation)
