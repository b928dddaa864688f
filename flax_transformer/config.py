"""The config of an experiment: all that a run depends on, as one tree of dataclasses."""

import dataclasses
import json
import os
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.errors import InputError
from flax_transformer.evaluation.evaluation_config import EvaluationConfig
from flax_transformer.json_config import config_from_json, read_json_object
from flax_transformer.models.transformer_config import Architecture, Head, TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.optimizer import OptimizerConfig
from flax_transformer.training.training_config import Task, TrainingConfig
from flax_transformer.whole_file import write_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment.

    Attributes:
        model: sizes and choices of the model; its vocabulary sizes are set from the tokenizer.
        data: the sentence pairs, or other texts.
        tokenizer: how text becomes tokens.
        pipeline: how texts become batches.
        optimizer: the optimizer and its learning rate.
        training: how long, and what how often.
        mesh: the arrangement of devices.
        sharding: how arrays lie on them.
        evaluation: how the dev and the test set are evaluated.
    """

    model: TransformerConfig = TransformerConfig()
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pipeline: PipelineConfig = PipelineConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    mesh: MeshConfig = MeshConfig()
    sharding: ShardingRules = ShardingRules()
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if self.pipeline.max_length > self.model.max_positions:
            raise InputError(
                f"pipeline.max_length must be at most model.max_positions = "
                f"{self.model.max_positions}, got {self.pipeline.max_length}."
            )
        dtypes = (self.model.compute_dtype, self.model.product_dtype)
        if "float16" in dtypes and self.training.loss_scale.initial is None:
            raise InputError(
                "training.loss_scale.initial must be set when model.compute_dtype or "
                "model.product_dtype is float16, got None. 32768 is a good start."
            )
        if self.model.share_source_target_embedding and not self.tokenizer.shared:
            raise InputError(
                "model.share_source_target_embedding must be off without tokenizer.shared."
            )
        if self.training.task != "translation":
            self._check_text_task()
        has_classes = self.training.task == "sequence_classification"
        if self.data.classes and not has_classes:
            raise InputError(
                f"data.classes must be empty for {self.training.task}, got {self.data.classes}."
            )

    def _check_text_task(self) -> None:
        """Refuse a model or data that do not fit a task of one language."""
        task = self.training.task
        architecture, head = _MODELS[task]
        expected: dict[str, tuple[object, object]] = {
            "model.architecture": (architecture, self.model.architecture),
            "model.head": (head, self.model.head),
            "data.kind": ("text", self.data.kind),
            "tokenizer.shared": (True, self.tokenizer.shared),
        }
        if task == "sequence_classification":
            if not self.data.classes:
                raise InputError("data.classes must name the classes, got none.")
            num_classes = len(self.data.classes)
            expected["model.num_labels"] = (num_classes, self.model.num_labels)
        for name, (needed, given) in expected.items():
            if needed != given:
                raise InputError(f"{name} must be {needed} for {task}, got {given}.")


_MODELS: Mapping[Task, tuple[Architecture, Head]] = {
    "language_modelling": ("decoder_only", "none"),
    "masked_language_modelling": ("encoder_only", "masked_lm"),
    "sequence_classification": ("encoder_only", "sequence_classification"),
}
"""The architecture and the head of the model of each task of one language."""


MAY_CHANGE = (
    "data.data_dir",
    "pipeline.num_threads",
    "training.num_steps",
    "training.checkpoint_every",
    "training.eval_every",
    "training.log_every",
    "training.accumulation_steps",
    "training.vocab_chunks",
    "training.max_skipped_steps",
    "training.max_loss_rise",
    "training.log_examples",
    "training.keep_last",
    "training.keep_best",
    "training.patience",
    "training.average_last",
    "optimizer",
    "mesh",
    "sharding",
    "evaluation",
)
"""What may differ between a run and its continuation; all else would make it another run."""

MAY_CHANGE_WITH_THE_DATA = ("data", "pipeline", "training.seed")
"""What may differ, besides, where the data begin anew."""


def read_config_file(path: Path) -> ExperimentConfig:
    """Run ``get_config()`` of a Python file.

    Raises:
        InputError: there is no such file, it fails, or it does not give an ExperimentConfig with
            values of the right types.
    """
    if not path.is_file():
        raise InputError(f"--config must be a Python file, got {path}, which is none.")
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        config = get_config() if callable(get_config) else None
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        place = f"{path}, line {lines[-1]}," if lines else f"{path}"
        raise InputError(f"{place} must run, got {type(error).__name__}: {error}.") from error
    if not isinstance(config, ExperimentConfig):
        raise InputError(f"{path} must define get_config() -> ExperimentConfig.")
    # As it will be read when the run is resumed: with tuples in place of lists, say.
    return config_from_json(ExperimentConfig, _encode_config(config, path), str(path))


def _encode_config(config: ExperimentConfig, path: Path) -> dict[str, Any]:
    def encode(value: Any) -> str:
        return json.dumps(value, default=os.fspath)

    try:
        return json.loads(encode(dataclasses.asdict(config)))
    except (TypeError, ValueError) as error:
        for name, value in flatten_config(config).items():
            try:
                encode(value)
            except (TypeError, ValueError):
                raise InputError(
                    f"{path}: {name} must be a value that JSON has, got {value!r}."
                ) from error
        raise InputError(f"{path} must give values that JSON has, got: {error}.") from error


def save_config(config: ExperimentConfig, path: Path) -> None:
    """Write a config as JSON."""
    write_file(path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def load_config(path: Path) -> ExperimentConfig:
    """Read what :func:`save_config` wrote.

    Raises:
        InputError: the file is missing, damaged, or has an unknown key.
    """
    return config_from_json(ExperimentConfig, read_json_object(path), str(path))


def check_continuation(
    stored: ExperimentConfig,
    given: ExperimentConfig,
    workdir: Path,
    *,
    restart_data: bool = False,
) -> None:
    """Raise InputError if ``given`` would make another run than the one ``stored`` began.

    With ``restart_data`` the data may be others. The message names the first field that differs,
    and both values.
    """
    old, new = flatten_config(stored), flatten_config(given)
    num_steps = "training.num_steps"
    if given.optimizer.schedule == "cosine" and old[num_steps] != new[num_steps]:
        raise InputError(
            f"{num_steps} must stay {old[num_steps]} in {workdir}, because the cosine schedule "
            f"ends there, got {new[num_steps]}. Use another --workdir for another run."
        )
    allowed = (*MAY_CHANGE, *(MAY_CHANGE_WITH_THE_DATA if restart_data else ()))
    for name in sorted(old.keys() | new.keys()):
        may_change = any(name == field or name.startswith(f"{field}.") for field in allowed)
        if not may_change and old.get(name) != new.get(name):
            raise InputError(
                f"{name} must stay {old.get(name)!r} in {workdir}, which was started with it, got "
                f"{new.get(name)!r}. Use another --workdir for another run."
            )


def flatten_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """Map dotted names to the values of a tree of dataclasses.

    >>> flatten_config(ExperimentConfig())["mesh.data"]
    -1
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten_config(value, f"{prefix}{field.name}.")
        else:
            flat[f"{prefix}{field.name}"] = value
    return flat
