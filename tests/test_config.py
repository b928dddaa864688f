import dataclasses
import json
import math
from pathlib import Path

import pytest

from flax_transformer.config import (
    MAY_CHANGE,
    ExperimentConfig,
    check_continuation,
    flatten_config,
    load_config,
    read_config_file,
    save_config,
)
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.errors import InputError
from flax_transformer.evaluation.evaluation_config import EvaluationConfig
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.lora import LoraConfig
from flax_transformer.training.training_config import TrainingConfig

CONFIG_FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def replace(config, name, value):
    """Return ``config`` with the field of a dotted name changed."""
    first, _, rest = name.partition(".")
    if rest:
        value = replace(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_configs_load_and_survive_json(path, tmp_path):
    config = read_config_file(path)
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_configs_say_how_to_run_them(path):
    text = path.read_text()
    assert f"python train.py --config configs/{path.name} --workdir runs/{path.stem}" in text or (
        f"flax-transformer plan --config configs/{path.name} --mesh" in text
    )


def test_some_configs_were_found():
    assert "quickstart" in {path.stem for path in CONFIG_FILES}


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("optimizer", "learning_rat", 0.1, r"config\.json\.optimizer must not have .*learning_rat"),
        ("training", "num_steps", "5", r"config\.json\.training\.num_steps must be int, got '5'"),
        ("training", "num_steps", 0, r"training\.num_steps must be at least 1, got 0"),
        ("model", "num_heads", 7, "model_dim must be a multiple of num_heads, got 512 and 7"),
        ("mesh", "data", None, r"config\.json\.mesh\.data must be int, got None"),
    ],
)
def test_stored_configs_are_read_strictly(tmp_path, section, field, value, message):
    path = tmp_path / "config.json"
    values = dataclasses.asdict(ExperimentConfig())
    values[section][field] = value
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must be a Python file, got .*config.py, which is none"),
        ("config = 1", r"must define get_config\(\) -> ExperimentConfig"),
        ("get_config = 1", r"must define get_config\(\) -> ExperimentConfig"),
        ("def get_config(): return {}", r"must define get_config\(\) -> ExperimentConfig"),
        ("def get_config(:", r"config.py .*line 1"),
        ("\n\nraise SystemExit(3)", r"config.py, line 3, must run, got SystemExit: 3"),
        ("def get_config():\n    return 1 / 0", r"config.py, line 2, must run, got ZeroDivision"),
        ("import flax_transformers", r"config.py.*No module named 'flax_transformers'"),
    ],
)
def test_files_that_give_no_config_are_refused(tmp_path, text, message):
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_config_file(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.dropout_rate", 0.3),
        ("tokenizer.vocab_size", 123),
        ("data.dataset", "other"),
        ("pipeline.batch_tokens", 999),
        ("training.seed", 7),
        ("training.label_smoothing", 0.2),
    ],
)
def test_another_run_is_refused_with_both_values(tmp_path, name, value):
    stored = ExperimentConfig()
    old = flatten_config(stored)[name]
    with pytest.raises(InputError) as error:
        check_continuation(stored, replace(stored, name, value), tmp_path)
    assert str(error.value).startswith(f"{name} must stay {old!r} in {tmp_path}")
    assert f"got {value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("training.num_steps", 7),
        ("training.patience", 3),
        ("optimizer.learning_rate", 0.5),
        ("mesh.fsdp", 2),
        ("evaluation.num_examples", 0),
        ("data.data_dir", "elsewhere"),
    ],
)
def test_a_run_may_go_on_with(tmp_path, name, value):
    stored = ExperimentConfig()
    check_continuation(stored, replace(stored, name, value), tmp_path)


def test_a_field_that_only_one_of_two_configs_has_is_a_difference(tmp_path, monkeypatch):
    stored = ExperimentConfig()
    given = flatten_config(stored) | {"model.part.size": 3}
    configs = iter([flatten_config(stored), given])
    monkeypatch.setattr("flax_transformer.config.flatten_config", lambda _: next(configs))
    with pytest.raises(InputError, match=r"model\.part\.size must stay None in .*, got 3"):
        check_continuation(stored, stored, tmp_path)


def test_what_may_change_exists():
    names = flatten_config(ExperimentConfig())
    for allowed in MAY_CHANGE:
        assert any(name == allowed or name.startswith(f"{allowed}.") for name in names), allowed


@pytest.mark.parametrize(
    ("make_config", "message"),
    [
        (
            lambda: ExperimentConfig(
                model=TransformerConfig(max_positions=64), pipeline=PipelineConfig(max_length=65)
            ),
            r"pipeline\.max_length must be at most model\.max_positions = 64, got 65",
        ),
        (
            lambda: ExperimentConfig(tokenizer=TokenizerConfig(shared=False)),
            r"model\.share_source_target_embedding must be off without tokenizer\.shared",
        ),
        (
            lambda: ExperimentConfig(data=DataConfig(kind="text", classes=("a", "b"))),
            r"data\.classes must be empty for translation, got \('a', 'b'\)",
        ),
        (
            lambda: LoraConfig(trained=("^classifier/",)),
            r"lora\.rank must be at least 1 where training\.lora\.trained is set, got 0",
        ),
        (lambda: LoraConfig(alpha=8.0), r"lora\.rank must .* where training\.lora\.alpha is set"),
        (lambda: TrainingConfig(keep_last=2, average_last=3), "average_last must be at most"),
        (lambda: TrainingConfig(seed=-1), r"training\.seed must be from 0"),
        (lambda: TrainingConfig(label_smoothing=1.0), r"training\.label_smoothing must lie in"),
        (lambda: TrainingConfig(label_smoothing=math.nan), r"training\.label_smoothing .* nan"),
        (lambda: TrainingConfig(patience=0), r"training\.patience must be at least 1 or None"),
        (lambda: TrainingConfig(log_every=0), r"training\.log_every must be at least 1, got 0"),
        (lambda: EvaluationConfig(batch_tokens=0), r"evaluation\.batch_tokens must be at least 1"),
        (lambda: EvaluationConfig(num_examples=-1), r"evaluation\.num_examples must not be neg"),
        (lambda: EvaluationConfig(dev_beam_size=0), "beam_size must be at least 1, got 0"),
        (lambda: EvaluationConfig(length_penalty=math.nan), "length_penalty must be"),
        (lambda: EvaluationConfig(max_length=0), "max_length must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_refused(make_config, message):
    with pytest.raises(InputError, match=message):
        make_config()


TRAINING = """
import pathlib
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.training.training_config import TrainingConfig
def get_config():
    data = DataConfig(data_dir=pathlib.Path("corpora"))
    return ExperimentConfig(data=data, training=TrainingConfig({}))
"""


def test_a_config_file_gives_what_is_saved(tmp_path):
    """A list in place of a tuple would make the run another one when it is resumed."""
    path = tmp_path / "config.py"
    path.write_text(TRAINING.format('frozen=["encoder/"]'))
    config = read_config_file(path)
    assert config.training.frozen == ("encoder/",)
    assert config.data.data_dir == "corpora"
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("log_every=1.5", r"config\.py\.training\.log_every must be int, got 1\.5\."),
        ("log_examples=3", r"config\.py\.training\.log_examples must be bool, got 3\."),
        ("log_examples={1}", r"config\.py: training\.log_examples must be .* JSON has, got \{1\}"),
        ("num_steps=0", r"config\.py: training\.num_steps must be at least 1, got 0\.$"),
    ],
)
def test_values_of_wrong_types_are_refused_when_a_config_file_is_read(tmp_path, fields, message):
    path = tmp_path / "config.py"
    path.write_text(TRAINING.format(fields))
    with pytest.raises(InputError, match=message):
        read_config_file(path)
