"""The end of an experiment: choose the parameters on the dev set, and test them once."""

import json
from collections.abc import Sequence
from pathlib import Path

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.averaging import average_parameters
from flax_transformer.checkpoints.reader import list_steps, restore_parameters
from flax_transformer.errors import InputError
from flax_transformer.experiment.task import Setting
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.models.make_model import Model
from flax_transformer.parallel.parameter_sharding import place_parameters
from flax_transformer.parallel.processes import do_once, is_first_process, say
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY, MODEL_DIRECTORY, RESULTS_FILE
from flax_transformer.training.lora import LoraConfig, merge_adapters
from flax_transformer.training.state import abstract_trained_model
from flax_transformer.whole_file import write_file


def choose_on_dev(setting: Setting) -> float:
    """Compare the best checkpoint with the average of the last ones; leave the better one.

    Returns its score on dev, measured as that of the test set will be.

    Raises:
        InputError: no evaluation has given a score.
    """
    if not (setting.workdir / MODEL_DIRECTORY).is_dir():
        raise InputError(
            f"{setting.task.dev_score} must be a number in one evaluation at least, got none, so "
            f"that no model is chosen. Checkpoints are in {setting.workdir / CHECKPOINT_DIRECTORY}."
        )
    best = setting.task.choose(setting, _load_chosen(setting))
    directory = setting.workdir / CHECKPOINT_DIRECTORY
    steps = list_steps(directory)[-setting.config.training.average_last :]
    if len(steps) < 2:
        return best
    average = average_run(directory, steps, setting.model, setting.config.training.lora)
    placed = place_parameters(average, setting.mesh, setting.config.sharding)
    averages = setting.task.choose(setting, placed)
    say(
        f"{setting.task.dev_score} {best:.4g} (the best so far), {averages:.4g} "
        f"(average of the last {len(steps)})"
    )
    if averages > best:
        export_model(setting, average)
    return max(best, averages)


def average_run(
    directory: Path, steps: Sequence[int], model: Model, lora: LoraConfig
) -> Parameters:
    """Average the parameters of several checkpoints, adapters merged; see average_parameters."""
    like = abstract_trained_model(model, lora)
    return average_parameters(
        merge_adapters(restore_parameters(directory / str(step), like=like), lora) for step in steps
    )


def report_test_scores(setting: Setting, dev_score: float) -> None:
    """Measure the chosen parameters on the test set; print and store the scores."""
    results = {
        "seed": setting.config.training.seed,
        setting.task.dev_score: dev_score,
        **setting.task.test(setting, _load_chosen(setting)),
    }
    if is_first_process():
        write_file(setting.workdir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")


def export_model(setting: Setting, params: Parameters) -> None:
    """Write parameters that every process has to the model directory, once."""
    config = setting.config
    pretrained = Pretrained(
        setting.model, params, config.model, setting.tokenizer, labels=config.data.classes
    )
    do_once(lambda: save_model(setting.workdir / MODEL_DIRECTORY, pretrained), "the export")


def _load_chosen(setting: Setting) -> Parameters:
    """Load the parameters of the model directory, each where it lies on the mesh."""
    path, rules = setting.workdir / MODEL_DIRECTORY, setting.config.sharding
    return load_pretrained(path, mesh=setting.mesh, rules=rules).params
