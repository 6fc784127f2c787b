"""What a run says while it trains: lines of metrics.jsonl, the progress line, TensorBoard on request."""

import math
import time
from pathlib import Path
from typing import Any

import torch

from pylm.accounting.counts import training_flops
from pylm.accounting.devices import gpu_called
from pylm.checkpoint import State
from pylm.clock import Clock
from pylm.config import Config
from pylm.errors import ConfigError
from pylm.evaluate import Evaluation
from pylm.measure import held_bytes, matmul_flops_per_s
from pylm.metrics import JsonLines
from pylm.progress import ProgressLine, duration
from pylm.step import Report

GIB = 1 << 30


class Reporter:
    """Opened once a process, after the lines past the checkpoint are cut; `close` it.

    Of several processes the first one writes; what it writes is of all of them.
    """

    def __init__(
        self,
        run: Path,
        config: Config,
        state: State,
        progress: ProgressLine,
        device: torch.device,
        writes: bool = True,
    ) -> None:
        """Measure what the device can do at most, for the MFU. Raises ConfigError when TensorBoard is not there."""
        train = config.train
        self._config, self._progress = config, progress
        self._board = _open_board(run, state.step) if writes and train.tensorboard else None
        self._metrics = JsonLines(run / "metrics.jsonl", state.step) if writes else None
        self._device = device
        self._token_flops = training_flops(config.model, train.context) / train.context / train.n_processes
        self._measured_peak = matmul_flops_per_s(self._device, train.dtype)
        gpu = gpu_called(torch.cuda.get_device_name(self._device)) if self._device.type == "cuda" else None
        self._datasheet_peak = gpu.peak(train.dtype) if gpu else None
        self._reported_tokens, self._reported_s, self._paused_s = state.tokens, time.monotonic(), 0.0

    def paused(self, seconds: float) -> None:
        """So many seconds since the last report were not spent on steps."""
        self._paused_s += seconds

    def steps(self, state: State, report: Report, rate: float, clock: Clock) -> None:
        """Write how the steps since the last report went, and show it."""
        now = time.monotonic()
        seconds = max(now - self._reported_s - self._paused_s, 1e-9)
        speed = (state.tokens - self._reported_tokens) / seconds
        self._reported_tokens, self._reported_s, self._paused_s = state.tokens, now, 0.0
        mfu = speed * self._token_flops / self._measured_peak
        held = held_bytes(self._device)
        line: dict[str, Any] = {
            "step": state.step,
            "tokens": state.tokens,
            "loss": report.loss,
            "learning_rate": rate,
            "grad_norm": report.grad_norm,
            "tokens_per_s": round(speed, 1),
            "mfu": round(mfu, 4),  # of a matrix product measured here, in the same dtype
            "elapsed_s": round(clock.elapsed_s(), 3),
            "memory_bytes": held,
            "skipped": report.skipped,
        }
        if self._datasheet_peak:
            line["mfu_datasheet"] = round(speed * self._token_flops / self._datasheet_peak, 4)
        self._write(line)
        train = self._config.train
        of_steps = f"/{train.steps:,}" if train.steps else ""
        step_s = train.batch_size * train.context / speed
        self._progress.update(
            f"step {state.step:,}{of_steps}  loss {report.loss:.4f}  {speed:,.0f} tokens/s  MFU {mfu:.0%}  "
            f"norm {report.grad_norm:.2f}  lr {rate:.2e}  {held / GIB:.1f} GiB  "
            f"ETA {duration(clock.eta_s(state.step, step_s))}"
        )

    def evaluation(self, state: State, found: Evaluation, clock: Clock, **more: bool) -> None:
        """Write an evaluation."""
        self._write(
            {
                "step": state.step,
                "tokens": state.tokens,
                "val_loss": found.loss,
                "val_bits_per_byte": found.bits_per_byte,
                "elapsed_s": round(clock.elapsed_s(), 3),
                **more,
            }
        )

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._board is not None:
            self._board.close()

    def _write(self, line: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        # JSON has no word for a number that is none: a skipped step has no loss.
        line = {name: value for name, value in line.items() if math.isfinite(value)}
        self._metrics.write(line)
        if self._board is not None:
            for name, value in line.items():
                if name not in ("step", "final"):
                    self._board.add_scalar(name, value, line["step"])


def _open_board(run: Path, step: int) -> Any:
    """TensorBoard's writer, which hides what it was told past `step`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "train.tensorboard: TensorBoard is not installed: pip install tensorboard, or leave the setting out"
        ) from None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
