"""The training loop: steps, evaluations, checkpoints, and the end in good order."""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import grain
import jax
import optax
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.data.batch import padding_fraction
from flax_transformer.errors import DivergenceError
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY
from flax_transformer.training.attachments import Attachments
from flax_transformer.training.checkpoint import Checkpointer
from flax_transformer.training.interruption import InterruptionGuard
from flax_transformer.training.metrics_log import MetricsLog
from flax_transformer.training.progress import BestScore, StepMeter
from flax_transformer.training.sharding import place_batch, placed_shapes
from flax_transformer.training.state import TrainState, init_state
from flax_transformer.training.step import TrainStep, make_train_step
from flax_transformer.training.training_config import TrainingConfig

DEV_SCORE = "dev_bleu"
"""The metric that chooses the best checkpoint and stops a run early; higher is better."""

Evaluate: TypeAlias = Callable[[Parameters], Mapping[str, float]]
"""Measure parameters on the dev set; the result holds DEV_SCORE."""

ExportBest: TypeAlias = Callable[[Parameters], None]
"""Store parameters that scored higher than all before them."""


class Ending(enum.Enum):
    """Why a run ended."""

    FINISHED = "all steps are done"
    EARLY = "the dev score has stopped rising"
    INTERRUPTED = "a signal came"


class TrainingResult(NamedTuple):
    """The state at the end of a run, and why it ended."""

    state: TrainState
    ending: Ending


def train(
    model: EncoderDecoder,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    batches: grain.DatasetIterator,
    *,
    config: TrainingConfig,
    mesh: Mesh,
    workdir: Path,
    evaluate: Evaluate,
    export_best: ExportBest,
    attachments: Attachments | None = None,
) -> TrainingResult:
    """Train from the latest checkpoint in ``workdir``, or from the start, to ``num_steps``.

    SIGINT and SIGTERM end the run after the current step with a checkpoint.

    Args:
        model: the model.
        optimizer: what turns gradients into updates.
        schedule: the optimizer's learning rate, for the log.
        batches: this process's rows of each global batch; its position is set from the checkpoint.
        config: see TrainingConfig.
        mesh: the devices, with the axes ``data``, ``fsdp`` and ``tensor``.
        workdir: holds the checkpoints and the log.
        evaluate: measures parameters on the dev set.
        export_best: stores parameters that scored best so far.
        attachments: files that every checkpoint carries, such as config and tokenizer.

    Raises:
        DivergenceError: the loss or its gradient is not finite.
        InputError: the checkpoints cannot be read or written, or do not fit the model.
    """
    key = jax.random.key(config.seed)
    make_state = functools.partial(init_state, model, optimizer)
    like = placed_shapes(jax.eval_shape(make_state, key), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    train_step = jax.jit(
        make_train_step(
            model,
            optimizer,
            label_smoothing=config.label_smoothing,
            accumulation_steps=config.accumulation_steps,
        ),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    with Checkpointer(
        workdir / CHECKPOINT_DIRECTORY,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        best_metric=DEV_SCORE,
        attachments=attachments,
    ) as checkpointer:
        state = checkpointer.restore_latest(like=like, batches=batches)
        if state is None:
            # Made where it will lie: no device ever holds it whole.
            state = jax.jit(make_state, out_shardings=shardings)(key)
        else:
            print(f"resuming after step {int(state.step):,} of {config.num_steps:,}", flush=True)
        start_step = int(state.step)
        with MetricsLog(
            workdir,
            num_steps=config.num_steps,
            start_step=start_step,
            progress=jax.process_index() == 0,
        ) as log:
            loop = _Loop(
                train_step=train_step,
                schedule=schedule,
                config=config,
                mesh=mesh,
                checkpointer=checkpointer,
                log=log,
                best=BestScore.from_metrics(checkpointer.metrics(start_step)),
                evaluate=evaluate,
                export_best=export_best,
            )
            return loop.run(state, batches)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loop:
    """What the steps of a run share."""

    train_step: TrainStep
    schedule: optax.Schedule
    config: TrainingConfig
    mesh: Mesh
    checkpointer: Checkpointer
    log: MetricsLog
    best: BestScore
    evaluate: Evaluate
    export_best: ExportBest

    def run(self, state: TrainState, batches: grain.DatasetIterator) -> TrainingResult:
        """Train to the last step, or until something ends the run."""
        config = self.config
        meter = StepMeter(self._check_finite)
        step = int(state.step)
        with InterruptionGuard() as interruption:
            while step < config.num_steps and not self._is_exhausted():
                batch = next(batches)
                state, metrics = self.train_step(state, place_batch(batch, self.mesh))
                step += 1
                meter.add(step, metrics, padding=padding_fraction(batch))
                self.log.advance(step)
                # Read once: a signal that comes after this line is for the next step.
                signal_name = interruption.requested
                is_last = step == config.num_steps
                if is_last or step % config.log_every == 0:
                    learning_rate = float(self.schedule(step - 1))
                    self.log.write(step, meter.report() | {"learning_rate": learning_rate})
                if is_last or step % config.eval_every == 0:
                    with meter.paused():
                        self._evaluate_and_save(state, batches)
                elif step % config.checkpoint_every == 0 or signal_name:
                    with meter.paused():
                        self._save(state, batches, {})
                if signal_name:
                    print(f"{signal_name}: saved step {step:,}", flush=True)
                    break
            # Within the guard: a signal must not end the process while it is saving.
            self.checkpointer.wait()
        if step >= config.num_steps:
            return TrainingResult(state, Ending.FINISHED)
        return TrainingResult(state, Ending.EARLY if self._is_exhausted() else Ending.INTERRUPTED)

    def _is_exhausted(self) -> bool:
        return self.config.patience is not None and self.best.num_since >= self.config.patience

    def _check_finite(self, step: int, loss: float, gradient_norm: float) -> None:
        # A finite loss with an infinite gradient has already spoilt the parameters.
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            last_good = self.checkpointer.latest_step()
            raise DivergenceError(
                f"the loss of step {step} is {loss}, its gradient norm {gradient_norm}, at "
                f"learning rate {float(self.schedule(step - 1)):.3g}; the last good checkpoint is "
                f"{'none' if last_good is None else f'step {last_good}'}. Try a lower "
                "--optimizer.learning-rate or a longer --optimizer.warmup-steps."
            )

    def _evaluate_and_save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        scores = dict(self.evaluate(state.params))
        self.log.write(int(state.step), scores)
        # Before the checkpoint, which remembers the score: should the process die in between,
        # the evaluation is repeated.
        if self.best.update(scores[DEV_SCORE]):
            self.export_best(state.params)
        self._save(state, batches, scores)

    def _save(
        self, state: TrainState, batches: grain.DatasetIterator, scores: Mapping[str, float]
    ) -> None:
        self.checkpointer.save(state, batches, metrics={**scores, **self.best.as_metrics()})
