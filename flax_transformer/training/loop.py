"""The training loop: steps, evaluations, checkpoints, and the end in good order."""

import contextlib
import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import grain
import jax
import optax
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.attachments import Attachments
from flax_transformer.checkpoints.checkpointer import Checkpointer
from flax_transformer.errors import InputError
from flax_transformer.models.make_model import Model
from flax_transformer.parallel.mesh import place_rows
from flax_transformer.parallel.parameter_sharding import parameter_shardings
from flax_transformer.parallel.processes import AnyProcess, is_first_process, say
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY
from flax_transformer.training.divergence import DivergenceWatch, StepOutcome
from flax_transformer.training.examples_log import ExamplesLog
from flax_transformer.training.interruption import InterruptionGuard
from flax_transformer.training.metrics_log import MetricsLog
from flax_transformer.training.program import TrainingProgram, make_program
from flax_transformer.training.progress import BestScore, StepMeter
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep
from flax_transformer.training.trained_part import join_parameters
from flax_transformer.training.training_config import TrainingConfig

DEV_SCORE = "dev_bleu"
"""The metric that chooses the best checkpoint of a translation model and stops a run early."""

Evaluate: TypeAlias = Callable[[Parameters], Mapping[str, float]]
"""Measure parameters on the dev set; the result holds the metric that chooses among them."""

ExportBest: TypeAlias = Callable[[Parameters], None]
"""Store parameters that scored higher than all before them."""


class Ending(enum.Enum):
    """Why a run ended."""

    FINISHED = "all steps are done"
    EARLY = "the dev score has stopped rising"
    INTERRUPTED = "a signal came"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a run begins with; the default is the latest sound checkpoint, or else nothing.

    Attributes:
        params: parameters to start from where there is no checkpoint; those that are not among
            them, and all if it is None, are random. Arrays that lie as the rules say are used up,
            not copied: the run writes over them.
        restart_data: with a checkpoint, begin the data anew all the same, and the memory of the
            best score, of the last evaluations and of the loss with them.
        strict: with a damaged checkpoint, stop instead of going back to an earlier one.
    """

    params: Parameters | None = None
    restart_data: bool = False
    strict: bool = False


class TrainingResult(NamedTuple):
    """The state at the end of a run, and why it ended."""

    state: TrainState
    ending: Ending


def train(
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    batches: grain.DatasetIterator,
    *,
    config: TrainingConfig,
    mesh: Mesh,
    workdir: Path,
    evaluate: Evaluate,
    export_best: ExportBest,
    dev_score: str = DEV_SCORE,
    rules: ShardingRules = ShardingRules(),
    attachments: Attachments | None = None,
    start: Start = Start(),
    begin: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Train from the latest checkpoint in ``workdir``, or from the start, to ``num_steps``.

    SIGINT and SIGTERM, to any of the processes, end the run after the current step with a
    checkpoint; where the update of that step was left out, with those there are.

    Args:
        model: the model.
        optimizer: what turns gradients into updates.
        schedule: the optimizer's learning rate, for the log.
        batches: this process's rows of each global batch; its position is set from the checkpoint.
        config: see TrainingConfig.
        mesh: the devices, with the axes ``data``, ``fsdp`` and ``tensor``.
        workdir: holds the checkpoints and the log.
        evaluate: measures parameters on the dev set; every process calls it.
        export_best: stores parameters that scored best so far; every process calls it.
        dev_score: the metric of ``evaluate`` that says which are the best; higher is better.
        rules: how arrays lie on the mesh.
        attachments: files that every checkpoint carries, such as config and tokenizer.
        start: what to begin with.
        begin: called once the state to begin with is there, before anything is written.

    Raises:
        DivergenceError: too many updates were left out, or the loss has risen.
        InputError: the checkpoints cannot be read or written, or do not fit the model.
    """
    program = make_program(model, optimizer, config, mesh, rules)
    with Checkpointer(
        workdir / CHECKPOINT_DIRECTORY,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        best_metric=dev_score,
        attachments=attachments,
    ) as checkpointer:
        state = _restore_state(checkpointer, program, config, start, batches)
        if state is None:
            state = _first_state(program, config, start, mesh, rules)
        start_step = int(state.step)
        begin()
        # Scores and losses on other data are not to be compared with.
        if start.restart_data:
            checkpointer.forget_scores()
        metrics = {} if start.restart_data else checkpointer.metrics(start_step)
        advise = functools.partial(_advise, checkpointer)
        examples = ExamplesLog(workdir, start_step=start_step, every_step=config.log_examples)
        with MetricsLog(
            workdir, num_steps=config.num_steps, start_step=start_step, progress=is_first_process()
        ) as log:
            loop = _Loop(
                train_step=program.train_step,
                schedule=schedule,
                config=config,
                mesh=mesh,
                checkpointer=checkpointer,
                log=log,
                examples=examples,
                best=BestScore.from_metrics(metrics),
                watch=DivergenceWatch(config, advise, start_step=start_step, metrics=metrics),
                evaluate=evaluate,
                export_best=export_best,
                dev_score=dev_score,
            )
            return loop.run(state, batches)


def _restore_state(
    checkpointer: Checkpointer,
    program: TrainingProgram,
    config: TrainingConfig,
    start: Start,
    batches: grain.DatasetIterator,
) -> TrainState | None:
    """Return the state of the latest sound checkpoint, and set ``batches`` to its position."""
    state = checkpointer.restore_latest(
        like=program.abstract_state,
        batches=None if start.restart_data else batches,
        strict=start.strict,
    )
    if state is not None:
        say(f"resuming after step {int(state.step):,} of {config.num_steps:,}")
    return state


def _first_state(
    program: TrainingProgram,
    config: TrainingConfig,
    start: Start,
    mesh: Mesh,
    rules: ShardingRules,
) -> TrainState:
    """Make the state of a run that has no checkpoint."""
    state = program.init_state(jax.random.key(config.seed))
    if start.params is None:
        return state
    given = jax.device_put(start.params, parameter_shardings(start.params, mesh, rules))
    return state.replace(params=join_parameters(state.params, given))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loop:
    """What the steps of a run share."""

    train_step: TrainStep
    schedule: optax.Schedule
    config: TrainingConfig
    mesh: Mesh
    checkpointer: Checkpointer
    log: MetricsLog
    examples: ExamplesLog
    best: BestScore
    watch: DivergenceWatch
    evaluate: Evaluate
    export_best: ExportBest
    dev_score: str

    def run(self, state: TrainState, batches: grain.DatasetIterator) -> TrainingResult:
        """Train to the last step, or until something ends the run."""
        config = self.config

        def check_step(outcome: StepOutcome) -> None:
            self.examples.write(outcome)
            self.watch.check(outcome)

        meter = StepMeter(check_step)
        agreement = AnyProcess()
        step = int(state.step)
        is_evaluation_due = is_save_due = False
        with InterruptionGuard() as interruption:
            # The evaluation of this step failed, or nobody asked for it when the step was saved.
            known = self.checkpointer.metrics(step)
            if self._is_evaluation_due(step) and self.dev_score not in known:
                self._evaluate_and_save(state, batches)
            while step < config.num_steps and not self._is_exhausted():
                batch = next(batches)
                state, metrics = self.train_step(state, place_rows(batch, self.mesh))
                step += 1
                meter.add(step, metrics, batch)
                self.log.advance(step)
                # Asked once: a signal that comes after this line is for the next step.
                is_interrupted = agreement.tell(interruption.requested is not None)
                is_last = step == config.num_steps
                if is_last or step % config.log_every == 0:
                    self.log.write(step, self._report(step, meter))
                is_evaluation_due |= self._is_evaluation_due(step)
                is_save_due |= is_evaluation_due or step % config.checkpoint_every == 0
                if is_save_due or is_interrupted:
                    with meter.paused():
                        # Where updates are left out there is nothing new, and good checkpoints
                        # must not give way to what may be spoilt: it is put off.
                        if is_last or not meter.is_skipping:
                            self._save_in_turn(
                                state, batches, evaluate=is_evaluation_due and not is_interrupted
                            )
                            is_evaluation_due = is_save_due = False
                else:
                    self.checkpointer.retry_if_failed(state, batches, metrics=self._memory())
                if is_interrupted:
                    break
            # Within the guard: a signal must not end the process while it is saving.
            self.checkpointer.finish(state, batches, metrics=self._memory())
            # Once more for a signal since then: what follows training shall not begin after it.
            is_interrupted = agreement.settle(interruption.requested is not None)
        if is_interrupted:
            signal = interruption.requested or "a signal to another process"
            say(f"{signal}: {_describe_last_save(self.checkpointer.latest_step(), step)}")
            return TrainingResult(state, Ending.INTERRUPTED)
        if step >= config.num_steps:
            return TrainingResult(state, Ending.FINISHED)
        return TrainingResult(state, Ending.EARLY)

    def _is_evaluation_due(self, step: int) -> bool:
        config = self.config
        return step == config.num_steps or (step > 0 and step % config.eval_every == 0)

    def _is_exhausted(self) -> bool:
        return self.config.patience is not None and self.best.num_since >= self.config.patience

    def _report(self, step: int, meter: StepMeter) -> dict[str, float]:
        report = meter.report()
        num_updates = max(step - 1 - report.get("num_skipped", 0.0), 0.0)
        return report | {"learning_rate": float(self.schedule(num_updates))}

    def _save_in_turn(
        self, state: TrainState, batches: grain.DatasetIterator, *, evaluate: bool
    ) -> None:
        if evaluate:
            self._evaluate_and_save(state, batches)
        else:
            self._save(state, batches, {})

    def _evaluate_and_save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        before = self._memory()
        try:
            scores = dict(self.evaluate(state.params))
            # Before the checkpoint, which remembers the score: should the process die in between,
            # the evaluation is repeated.
            if self.best.update(scores[self.dev_score]):
                self.export_best(state.params)
        except Exception:  # what has been trained shall not be lost with an evaluation
            self.checkpointer.save(state, batches, metrics=before)
            raise
        self.log.write(int(state.step), scores)
        self._save(state, batches, scores)

    def _save(
        self, state: TrainState, batches: grain.DatasetIterator, scores: Mapping[str, float]
    ) -> None:
        self.checkpointer.save(state, batches, metrics={**scores, **self._memory()})

    def _memory(self) -> dict[str, float]:
        """Return what the run must remember beside its state."""
        return self.best.as_metrics() | self.watch.as_metrics()


def _describe_last_save(saved: int | None, step: int) -> str:
    if saved == step:
        return f"saved step {step:,}"
    since = "the start" if saved is None else f"step {saved:,}"
    return f"the last updates were left out, so that nothing is saved since {since}"


def _advise(checkpointer: Checkpointer, last_good: int) -> str:
    """Say what to do about a run that does no good any more since ``last_good``."""
    # Should the save in flight fail, what is there already is what can be named.
    with contextlib.suppress(InputError):
        checkpointer.wait()
    steps = checkpointer.steps()
    good = [step for step in steps if step <= last_good]
    later = ", ".join(str(step) for step in steps if step > last_good)
    return (
        f"the last checkpoint known to be good is {f'step {good[-1]}' if good else 'none'}"
        + (f" (to go on from it, delete those after it: {later})" if good and later else "")
        + ". Try a lower --optimizer.learning-rate or a longer --optimizer.warmup-steps."
    )
