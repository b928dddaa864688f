import dataclasses

import pytest

from flax_transformer.cli.command_parser import UsageError
from flax_transformer.cli.overrides import apply_overrides
from flax_transformer.config import ExperimentConfig, flatten_config

CONFIG = ExperimentConfig()


def changes(*argv):
    """Return the fields that a command line changes, and their values."""
    old, new = flatten_config(CONFIG), flatten_config(apply_overrides(CONFIG, argv))
    return {name: value for name, value in new.items() if value != old[name]}


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--optimizer.learning-rate", "1e-3", 1e-3),
        ("--training.num-steps", "7", 7),
        ("--training.checkpoint-every", "7", 7),
        ("--training.eval-every", "7", 7),
        ("--training.log-every", "7", 7),
        ("--training.seed", "7", 7),
        ("--mesh.data", "2", 2),
        ("--mesh.fsdp", "2", 2),
        ("--mesh.tensor", "2", 2),
        ("--training.patience", "3", 3),
        ("--optimizer.clip-norm", "None", None),
        ("--optimizer.schedule", "cosine", "cosine"),
        ("--data.test", "None", None),
        ("--data.data-dir", "/some_where/else", "/some_where/else"),
    ],
)
def test_fields_are_set_in_every_spelling(option, value, expected):
    name = option.removeprefix("--").replace("-", "_")
    for spelling in (option, f"--{name}"):
        assert changes(spelling, value) == {name: expected}
        assert changes(f"{spelling}={value}") == {name: expected}


def test_several_fields_and_none():
    argv = ["--mesh.data=2", "--training.num_steps", "5", "--model.pre-norm"]
    assert changes(*argv) == {"mesh.data": 2, "training.num_steps": 5, "model.pre_norm": True}
    assert changes() == {}


def test_flags_are_cleared_and_lists_take_several_values():
    assert changes("--model.no-scale-embedding") == {"model.scale_embedding": False}
    text = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, kind="text"))
    assert apply_overrides(text, ["--data.labels", "a", "b"]).data.labels == ("a", "b")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--optimizer.lerning-rate", "1"], "did you mean --optimizer.learning-rate?"),
        (["--training.num_step=5"], "'--training.num-step'; did you mean --training.num-steps?"),
        (["--learning-rate", "1"], "unknown option '--learning-rate'"),
        (["--training.num-steps", "x"], "--training.num-steps: invalid literal for int"),
        (["--training.num-steps", "1.5"], "--training.num-steps: invalid literal for int"),
        (["--training.num-steps"], "Missing value for argument '--training.num-steps'"),
        (["--training.num-steps", "0"], "training.num_steps must be at least 1, got 0."),
        (["--optimizer.learning-rate", "nan"], "optimizer.learning_rate must be positive and"),
        (["--optimizer.name", "adma"], "'adma' for argument '--optimizer.name'"),
        (["--model.num-heads", "3"], "model: model_dim must be a multiple of num_heads"),
        (["--pipeline.max-length", "4000"], "pipeline.max_length must be at most"),
        (["--model.pre-norm", "yes"], "Unrecognized options: yes"),
        (["surplus"], "Unrecognized options: surplus"),
    ],
)
def test_what_is_wrong_is_one_line(argv, message):
    with pytest.raises(UsageError) as error:
        apply_overrides(CONFIG, argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "─" not in str(error.value)


def test_help_lists_the_fields(capsys):
    with pytest.raises(SystemExit, match="0"):
        apply_overrides(CONFIG, ["--help"])
    output = capsys.readouterr().out
    assert all(f"--{section.name}." in output for section in dataclasses.fields(CONFIG))
    assert "--optimizer.learning-rate FLOAT" in output
