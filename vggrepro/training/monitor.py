"""Reports on a training: readings from the device, metrics.jsonl, progress.json, the progress bar, warnings."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.paper import Run
from vggrepro.recipe import Recipe
from vggrepro.runs.folder import RunFolder
from vggrepro.runs.metrics import Epoch, Progress, Steps, parsed, record
from vggrepro.system import advice, processes
from vggrepro.system.files import write_json, write_text
from vggrepro.system.progress import Track, say
from vggrepro.training.loader import Batch

LAG = 2  # steps that a GPU may be ahead of what the host knows
PROGRESS_SECONDS = 5.0  # between two writes of progress.json
LINES = 10  # of metrics within an epoch, about
LOSS_JUMP, NORM_JUMP = 3.0, 10.0  # a loss or gradient norm this many times its usual level is reported
CHANCE_EPOCHS = 2  # after this many epochs, a loss above log K - CHANCE_MARGIN is reported
CHANCE_MARGIN = 0.01


@dataclass(slots=True)
class State:
    """How far a training has come; saved in its checkpoint."""

    step: int = 0  # steps done in the current epoch, which `history` does not contain yet
    loss_sum: float = 0.0  # over the images of this epoch so far
    line_loss: float = 0.0  # the same, since the last line of metrics
    line_norm: float = 0.0  # largest gradient norm since the last line of metrics
    rate: float = 0.0  # learning rate of the last step
    seconds: float = 0.0  # spent on this epoch so far
    waited: float = 0.0  # of these, seconds in which training waited for data
    micro_batch: int = 0  # images at a time on each device, since memory was short; 0: it was not
    scaler: dict[str, float] = field(default_factory=dict)  # how fp16 scales the loss; empty at other precisions
    history: list[Epoch] = field(default_factory=list)  # the finished epochs

    @classmethod
    def of(cls, values: dict[str, Any]) -> State:
        """From a checkpoint's values.

        Raises:
            TypeError, ValueError: the values are not those of a training's state.
        """
        return cls(**values | {"history": [record(Epoch, each) for each in values.get("history", [])]})


class Readings:
    """A queue of small tensors that are copied from the device to the host; each is read `lag` steps after its step.

    The host runs at most `lag` steps ahead of a GPU: enough to keep it busy, and no step waits for its own result.
    What is read depends on the step number alone, so all processes of torchrun read the same values at the same step.
    """

    def __init__(self, device: torch.device) -> None:
        self.lag = LAG if device.type == "cuda" else 0
        self._queue: deque[tuple[int, float, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, rate: float, figures: Tensor) -> None:
        """Queues the figures (n,) of a step and the learning rate of that step."""
        if not figures.is_cuda:
            self._queue.append((step, rate, figures, None))
            return
        host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
        host.copy_(figures, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._queue.append((step, rate, host, copied))

    def take(self, *, everything: bool = False) -> Iterator[tuple[int, float, list[float]]]:
        """Gives step, learning rate and figures of each step that is due, oldest first.

        `everything` gives all queued steps and waits for the device.
        """
        while len(self._queue) > (0 if everything else self.lag):
            step, rate, figures, copied = self._queue.popleft()
            if copied is not None:
                copied.synchronize()
            yield step, rate, figures.tolist()


class Level:
    """The running mean of a positive number, and whether a new value jumps far above it.

    Args:
        factor: a value above `factor` times the mean is a jump.
        floor: a value below it never is.
        memory: weight of the old mean when a value is added.
        settle: number of first values that are never a jump.
    """

    def __init__(self, factor: float, floor: float = 0.0, memory: float = 0.95, settle: int = 10) -> None:
        self.factor, self.floor, self.memory, self.settle = factor, floor, memory, settle
        self.value = 0.0
        self._count = 0

    def jumps(self, value: float) -> bool:
        """Whether `value` is a jump. A value that is none is added to the mean."""
        jump = self._count >= self.settle and value > max(self.floor, self.factor * self.value)
        self._count += 1
        weight = max(1 - self.memory, 1 / self._count)  # a plain mean at first
        if not jump:
            self.value += weight * (value - self.value)
        return jump


class Curves:
    """A run's metrics.jsonl and, if wanted, the same curves in its `tensorboard` folder.

    Raises:
        InputError: TensorBoard is wanted but not installed.
    """

    def __init__(self, folder: RunFolder, tensorboard: bool = False) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        self._board: Any = None
        if tensorboard:
            _summary_writer()

    def open(self, step: int, history: Sequence[Epoch]) -> None:
        """Continues after `step` steps of the run and the epochs of `history`; removes lines of later steps."""
        known = _lines(self.folder) if self.folder.metrics_path.is_file() else []
        between = [line for line in known if isinstance(line, Steps) and line.step <= step]
        lines: list[Epoch | Steps] = []
        for epoch in history:
            lines += [line for line in between if line.epoch == epoch.epoch] + [epoch]
        lines += [line for line in between if line.epoch == len(history) + 1]
        write_text(self.folder.metrics_path, "".join(json.dumps(asdict(line)) + "\n" for line in lines))
        if self.tensorboard:
            self._board = _summary_writer()(self.folder.tensorboard_path, purge_step=step + 1)

    def write(self, step: int, line: Epoch | Steps) -> None:
        """Adds a line at step `step` of the run."""
        values = asdict(line)
        with open(self.folder.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self._board is not None:
            kind = "step" if isinstance(line, Steps) else "epoch"
            for name, value in values.items():
                if name not in ("epoch", "step") and value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Call it before a checkpoint: then an interruption after the checkpoint loses no point of a curve."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _lines(folder: RunFolder) -> Iterator[Epoch | Steps]:
    """The complete lines of metrics.jsonl; skips lines cut off by an interruption or a full disk."""
    for text in folder.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            yield parsed(text)


def _summary_writer() -> Any:
    """The class with which torch writes TensorBoard files.

    Raises:
        InputError: the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            f"--tensorboard: not usable here ({error}); install it with 'pip install vggrepro[tensorboard]'"
        ) from None
    return SummaryWriter


class Monitor:
    """Reports on a run's training while it runs; never changes the training itself.

    Writes metrics.jsonl and progress.json (the first process only), shows the progress bar, warns of trouble.

    Args:
        run: the run in training.
        recipe: its batch size, and values that warnings name.
        learning_rate: of the first epoch.
        epochs: largest number of epochs.
        steps: number of steps in an epoch.
        classes: K; the loss at chance is log K.
        curves: where metrics go.
        start: what the user chose to start the run from; None: the paper's choice.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        learning_rate: float,
        epochs: int,
        steps: int,
        classes: int,
        curves: Curves,
        start: str | None = None,
    ) -> None:
        self.run, self.recipe, self.learning_rate = run, recipe, learning_rate
        self.epochs, self.steps, self.curves = epochs, steps, curves
        self.start = start
        self.chance = math.log(classes)
        self._loss_level = Level(LOSS_JUMP, floor=2 * self.chance)
        self._norm_level = Level(NORM_JUMP)

    def open(self, state: State) -> None:
        """Opens the curves where `state` stands."""
        if processes.is_first():
            self.curves.open(len(state.history) * self.steps + state.step, state.history)

    # An epoch

    @contextmanager
    def epoch(self, state: State, rate: float) -> Iterator[None]:
        """Shows the progress bar and counts the seconds of an epoch until the block ends.

        Args:
            state: where the epoch begins or continues; the monitor adds losses and seconds to it.
            rate: the schedule's learning rate of this epoch.
        """
        began = time.monotonic()
        self._state, self._rate, self._number = state, rate, len(state.history) + 1
        self._began = began - state.seconds
        self._shown = began  # when progress.json was last written
        self._last_line = state.step, state.seconds, state.waited
        self._warned = False  # of a jump in this epoch
        self._text = f"epoch {self._number}/{self.epochs}"
        done = (self._number - 1) * self.steps + state.step
        total, batch = self.epochs * self.steps, self.recipe.batch
        with Track(f"train {self.run.name}", total * batch, done=done * batch) as self._track:
            yield

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; counts the seconds that training waits for each."""
        asked = time.monotonic()
        for batch in batches:
            self._state.waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def step_done(self) -> None:
        """Counts the seconds of a step and moves the bar."""
        self._state.seconds = time.monotonic() - self._began
        self._track.advance(self.recipe.batch, self._text)

    def add(self, step: int, rate: float, loss: float, norm: float) -> None:
        """Adds what a step measured to the epoch's record.

        Args:
            step: its number in the epoch, from 1.
            rate: its learning rate.
            loss: summed over the images of its batch.
            norm: of its gradient, before clipping.

        Raises:
            InputError: loss or norm is not finite.
        """
        state = self._state
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self.diverged("the loss is" if not math.isfinite(loss) else "the gradient is", self._number)
        state.loss_sum += loss
        state.line_loss += loss
        state.line_norm = max(state.line_norm, norm)
        self._warn_of_jumps(step, loss / self.recipe.batch, norm)
        every = -(-self.steps // LINES)
        if step % every == 0:
            self._write_line(step, rate, every)
        if time.monotonic() - self._shown > PROGRESS_SECONDS:
            self._shown = time.monotonic()
            loss = state.loss_sum / (step * self.recipe.batch)
            self._text = f"epoch {self._number}/{self.epochs} loss {loss:.3f}"
            self.write_progress()

    def _write_line(self, step: int, rate: float, every: int) -> None:
        """Writes a line of metrics about the last `every` steps; speeds leave out steps before a resumption."""
        state, batch = self._state, self.recipe.batch
        first, seconds, waited = self._last_line
        taken = max(state.seconds - seconds, 1e-9)
        line = Steps(
            epoch=self._number,
            step=(self._number - 1) * self.steps + step,
            learning_rate=rate,
            loss=state.line_loss / (every * batch),
            gradient_norm=state.line_norm,
            images_per_second=round((step - first) * batch / taken, 1),
            data_wait=round((state.waited - waited) / taken, 4),
            micro_batch=state.micro_batch,
        )
        if processes.is_first():
            self.curves.write(line.step, line)
        state.line_loss = state.line_norm = 0.0
        self._last_line = step, state.seconds, state.waited

    def write_progress(self, speed: float | None = None) -> None:
        """Writes progress.json; `speed` is in images/s, that of the progress bar by default."""
        if not processes.is_first():
            return
        speed = self._track.rate if speed is None else speed
        progress = Progress(
            epoch=round(self._number - 1 + self._state.step / self.steps, 2),
            epochs=self.epochs,
            learning_rate=self._rate,
            images_per_second=round(speed, 1),
            seconds_left=self._track.seconds_left,
            time=round(time.time()),
        )
        write_json(self.curves.folder.progress_path, asdict(progress))

    def end_epoch(self, top1_error: float, top5_error: float | None) -> Epoch:
        """Writes and returns the finished epoch; the errors (%) are those of its validation."""
        state, images = self._state, self.steps * self.recipe.batch
        seconds = max(state.seconds, 1e-9)
        epoch = Epoch(
            epoch=self._number,
            learning_rate=self._rate,
            loss=state.loss_sum / images,
            top1_error=top1_error,
            top5_error=top5_error,
            images_per_second=round(images / seconds, 1),
            data_wait=round(state.waited / seconds, 4),
            seconds=round(seconds, 3),
            micro_batch=state.micro_batch,
        )
        if processes.is_first():
            self.curves.write(self._number * self.steps, epoch)
        self.write_progress(images / seconds)
        return epoch

    # Messages

    def say_epoch(self, epoch: Epoch) -> None:
        """Prints a line about a finished epoch, and a warning if the net has learnt nothing yet."""
        say(
            f"{self.run.name} epoch {epoch.epoch}/{self.epochs}: rate {epoch.learning_rate:.2g}, "
            f"loss {epoch.loss:.3f}, {self.summary([epoch])}, {epoch.images_per_second:,.0f} images/s, "
            f"waiting for data {100 * epoch.data_wait:.0f} %"
        )
        if epoch.epoch == CHANCE_EPOCHS and epoch.loss > self.chance - CHANCE_MARGIN:
            self._warn_at_chance(epoch.loss)

    def summary(self, history: Sequence[Epoch]) -> str:
        """The validation errors of the last epoch in words; empty before the first."""
        if not history:
            return ""
        last = history[-1]
        top5 = "" if last.top5_error is None else f", {last.top5_error:.1f} % top-5"
        kind = "held-out" if self.recipe.held_out else "validation"
        return f"{kind} error {last.top1_error:.1f} % top-1{top5}"

    def diverged(self, what: str, epoch: int) -> InputError:
        """The error to raise when `what` ("the loss is") not finite; nothing is saved after it."""
        return InputError(
            f"{self.run.name}: {what} no longer finite in epoch {epoch}; the checkpoint before it is kept. "
            f"Try a lower rate: {self._lower_rate()}"
        )

    def _lower_rate(self) -> str:
        """The command that trains the run again at a third of its learning rate."""
        name = "rescale_rate" if self.run.is_rescaling else "learning_rate"
        rate = f"{name}={self.learning_rate / 3:.2g}"
        return advice.training(self.run, "--retrain", "--set", rate, start=self.start)

    def _warn_of_jumps(self, step: int, loss: float, norm: float) -> None:
        """Warns, once per epoch, of a loss or a gradient norm that may be exploding."""
        jumps = [
            f"{name} jumped to {value:.3g}, {value / usual:.0f} times its usual level"
            for name, value, usual, jump in (
                ("the loss", loss, self._loss_level.value, self._loss_level.jumps(loss)),
                ("the gradient's norm", norm, self._norm_level.value, self._norm_level.jumps(norm)),
            )
            if jump
        ]
        if jumps and not self._warned:
            self._warned = True
            say(
                f"warning: {self.run.name}, epoch {self._number}, step {step}: {' and '.join(jumps)}. "
                f"If it does not come down again, try clip_norm={2 * self._norm_level.value:.2g}, warmup_steps or a "
                f"lower rate: {self._lower_rate()}"
            )

    def _warn_at_chance(self, loss: float) -> None:
        """Warns of a net that is no better than guessing."""
        recipe = self.recipe
        changes = [
            f"more warmup_steps (now {recipe.warmup_steps})",
            f"another learning_rate (now {recipe.learning_rate:g})",
            f"a smaller batch (now {recipe.batch})",
        ]
        if recipe.dropout:
            changes.append(f"less dropout (now {recipe.dropout:g})")
        if recipe.initialisation not in ("looks-linear", "dirac"):
            changes.append(f"initialisation=looks-linear (now {recipe.initialisation})")
        say(
            f"warning: {self.run.name} is still at chance after {CHANCE_EPOCHS} epochs (loss {loss:.3f}, chance "
            f"{self.chance:.3f}); it may never learn. Try {', '.join(changes[:-1])} or {changes[-1]}, each with --set"
        )
