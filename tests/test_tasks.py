"""Experiments on texts of one language, from the config to the test score."""

import collections
import dataclasses
import json
import math

import chex
import jax
import numpy as np
import pytest
import tokenizers
from process_group import finish, start_group
from tiny_experiment import VERBS
from tiny_public_models import make_public
from tiny_tasks import TASKS, make_text_experiment, write_texts

from flax_transformer.checkpoints.reader import list_steps, restore_parameters
from flax_transformer.config import ExperimentConfig, load_config
from flax_transformer.errors import InputError
from flax_transformer.evaluation.classify import accuracy, classify
from flax_transformer.experiment import language_modelling, start
from flax_transformer.experiment.classification import ClassificationTask
from flax_transformer.experiment.run import run_experiment
from flax_transformer.experiment.start import take_parameters
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.training.lora import LoraConfig
from flax_transformer.training.state import abstract_trained_model
from flax_transformer.tree_paths import flatten_tree

CONFIG = """
from pathlib import Path
from tiny_tasks import make_text_experiment

def get_config():
    return make_text_experiment("{task}", Path("{data_dir}"))
"""


def replace(config, section, **changes):
    changed = dataclasses.replace(getattr(config, section), **changes)
    return dataclasses.replace(config, **{section: changed})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    write_texts(directory / "tiny")
    return directory


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """The work directories of finished runs, by task."""
    directory = tmp_path_factory.mktemp("runs")
    for task in TASKS:
        assert run_experiment(make_text_experiment(task, data_dir), directory / task)
    return directory


def read_results(workdir):
    return json.loads((workdir / "results.json").read_text())


def final_params(workdir, lora=LoraConfig()):
    model = make_model(load_config(workdir / "config.json").model)
    step = list_steps(workdir / "checkpoints")[-1]
    like = abstract_trained_model(model, lora)
    return restore_parameters(workdir / "checkpoints" / str(step), like=like)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_leaves_a_model_and_scores(runs, task):
    results = read_results(runs / task)
    pretrained = load_pretrained(runs / task)
    assert pretrained.config.architecture == make_model(pretrained.config).config.architecture
    if task == "sequence_classification":
        assert {"dev_accuracy", "test_accuracy", "seed"} == results.keys()
        assert pretrained.labels == VERBS
    else:
        assert results["test_perplexity"] == pytest.approx(
            math.exp(-results["test_log_likelihood"])
        )
        vocab_size = pretrained.config.target_vocab_size
        assert 1.0 < results["test_perplexity"] < 1.5 * vocab_size


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_equals_an_unbroken_one(runs, data_dir, tmp_path, task, capsys):
    config = make_text_experiment(task, data_dir)
    assert run_experiment(replace(config, "training", num_steps=2), tmp_path / "run")
    assert run_experiment(config, tmp_path / "run")
    assert "resuming after step 2 of 4" in capsys.readouterr().out
    chex.assert_trees_all_equal(final_params(tmp_path / "run"), final_params(runs / task))
    assert read_results(tmp_path / "run") == read_results(runs / task)


def read_losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["language_modelling", "sequence_classification"])
def test_two_processes_on_another_mesh_compute_what_one_computes(runs, data_dir, tmp_path, task):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(task=task, data_dir=data_dir))
    options = ("--config", config, "--workdir", tmp_path / "run", "--mesh.data=2", "--mesh.fsdp=4")
    ended = finish(*start_group("train.py", "--default-allocator", "--distributed", *options))
    assert [process.status for process in ended] == [0, 0], ended
    np.testing.assert_allclose(read_losses(tmp_path / "run"), read_losses(runs / task), rtol=1e-4)
    actual, expected = read_results(tmp_path / "run"), read_results(runs / task)
    assert actual == pytest.approx(expected, rel=1e-3)


def test_perplexity_does_not_depend_on_how_text_is_cut_into_batches(runs, data_dir, tmp_path):
    task = "language_modelling"
    config = replace(make_text_experiment(task, data_dir), "evaluation", batch_tokens=8 * 24 * 3)
    assert run_experiment(config, tmp_path)
    actual, expected = read_results(tmp_path), read_results(runs / task)
    assert actual["test_tokens"] == expected["test_tokens"]
    assert actual["test_perplexity"] == pytest.approx(expected["test_perplexity"], rel=1e-5)


@pytest.mark.slow
def test_a_classifier_knows_what_it_was_trained_on(data_dir, tmp_path):
    config = make_text_experiment("sequence_classification", data_dir)
    config = replace(config, "data", dev="train", test="train")
    config = replace(config, "training", num_steps=120, eval_every=120, checkpoint_every=120)
    assert run_experiment(config, tmp_path)
    assert read_results(tmp_path)["test_accuracy"] == 100.0


def test_no_class_depends_on_the_other_texts(runs):
    pretrained = load_pretrained(runs / "sequence_classification")
    texts = ["the cat sees it", "dog", "the bird has the old ship " * 9]
    arguments = (pretrained.model, pretrained.params, pretrained.tokenizer)
    logits = classify(*arguments, texts)
    alone = np.concatenate([classify(*arguments, [text], batch_tokens=1) for text in texts])
    np.testing.assert_allclose(logits, alone, atol=1e-5)
    assert accuracy(logits, logits.argmax(axis=-1).tolist()) == 100.0
    with pytest.raises(InputError, match=r"max_length must lie between 3 and max_positions = 32"):
        classify(*arguments, texts, max_length=33)
    with pytest.raises(InputError, match="texts must be several texts, got one: 'dog'"):
        classify(*arguments, "dog")
    other = load_pretrained(runs / "masked_language_modelling")
    with pytest.raises(InputError, match="head sequence_classification, got masked_lm"):
        classify(other.model, other.params, other.tokenizer, texts)


def fine_tuning(data_dir, **changes):
    """Return the config of a classifier that starts from the masked language model."""
    config = make_text_experiment("sequence_classification", data_dir)
    config = replace(config, "model", dropout_rate=0.0)
    return replace(config, "training", num_steps=2, **changes)


def test_a_new_head_is_named_and_the_rest_is_taken(runs, data_dir, tmp_path, capsys):
    source = runs / "masked_language_modelling"
    config = fine_tuning(data_dir, frozen=("^encoder/", "embedding"))
    assert run_experiment(config, tmp_path / "run", init_from=source)
    output = capsys.readouterr().out
    new = "classifier/bias, classifier/kernel, pooler/bias, pooler/kernel"
    assert f"new, at random: {new}\n" in output
    assert "dropped: masked_lm_head/norm/bias, " in output
    assert "trained and" in output
    taken, given = (
        flatten_tree(load_pretrained(path).params) for path in (tmp_path / "run", source)
    )
    common = taken.keys() & given.keys()
    assert common == {path for path in taken if path not in new.split(", ")}
    for path in common:
        np.testing.assert_array_equal(taken[path], given[path])


def test_adapters_are_merged_into_the_exported_model(runs, data_dir, tmp_path, capsys):
    source = runs / "masked_language_modelling"
    lora = LoraConfig(rank=2, trained=("^pooler/", "^classifier/"))
    config = fine_tuning(data_dir, lora=lora)
    assert run_experiment(config, tmp_path / "run", init_from=source)
    exported = load_pretrained(tmp_path / "run")
    expected = flatten_tree(abstract_parameters(exported.model))
    assert flatten_tree(exported.params).keys() == expected.keys()
    saved = flatten_tree(final_params(tmp_path / "run", lora))
    assert saved.keys() > expected.keys()
    given = flatten_tree(load_pretrained(source).params)
    for path in saved.keys() & given.keys():
        np.testing.assert_array_equal(saved[path], given[path])
    kernel = "encoder/layers_0/self_attention/query/kernel"
    assert not np.array_equal(flatten_tree(exported.params)[kernel], given[kernel])
    # It goes on, too, and its average is of merged parameters.
    assert run_experiment(replace(config, "training", num_steps=3), tmp_path / "run")
    assert "resuming after step 2 of 3" in capsys.readouterr().out


def test_the_architecture_can_be_taken_from_the_model_to_start_from(runs, data_dir, tmp_path):
    source = runs / "masked_language_modelling"
    config = replace(fine_tuning(data_dir), "model", feed_forward_dim=8, activation="gelu")
    with pytest.raises(
        InputError, match=r"must fit the config's model, but .*feed_forward.*adopt-"
    ):
        run_experiment(config, tmp_path / "run", init_from=source)
    config = replace(config, "training", adopt_architecture=True)
    with pytest.raises(InputError, match=r"adopt_architecture needs --init-from"):
        run_experiment(config, tmp_path / "run")
    assert run_experiment(config, tmp_path / "run", init_from=source)
    model = load_pretrained(tmp_path / "run").config
    assert (model.feed_forward_dim, model.activation) == (24, "relu")
    assert (model.head, model.num_labels, model.dropout_rate) == (
        "sequence_classification",
        len(VERBS),
        0.0,
    )
    assert run_experiment(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("labels", "changes", "new"),
    [
        (VERBS, {}, ""),
        (VERBS[:2], {"num_labels": 2}, "classifier/bias, classifier/kernel"),
        (VERBS[::-1], {}, "classifier/bias, classifier/kernel"),
        (VERBS, {"pooler": "relu"}, "pooler/bias, pooler/kernel"),
    ],
)
def test_a_head_is_taken_only_where_it_means_the_same(runs, data_dir, capsys, labels, changes, new):
    pretrained = load_pretrained(runs / "sequence_classification")
    config = fine_tuning(data_dir)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(
            pretrained.config, **{"num_labels": len(VERBS)} | changes, dropout_rate=0.0
        ),
        data=dataclasses.replace(config.data, classes=labels),
    )
    mesh = make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2])
    params = flatten_tree(take_parameters(config, pretrained, mesh, "model"))
    expected = flatten_tree(abstract_parameters(make_model(config.model))).keys()
    assert sorted(expected - params.keys()) == [name for name in new.split(", ") if name]
    assert (f"new, at random: {new}\n" in capsys.readouterr().out) == bool(new)
    assert {leaf.sharding.mesh for leaf in params.values()} == {mesh}


def test_no_second_copy_of_the_parameters_is_kept(runs, data_dir, tmp_path, monkeypatch):
    taken, alive = [], []
    take, evaluate = start.take_parameters, ClassificationTask.evaluate

    def remember(*arguments):
        taken.append(take(*arguments))
        return taken[0]

    def count(self, setting, params):
        alive.extend(leaf for leaf in jax.tree.leaves(taken[0]) if not leaf.is_deleted())
        return evaluate(self, setting, params)

    monkeypatch.setattr("flax_transformer.experiment.setting.take_parameters", remember)
    monkeypatch.setattr(ClassificationTask, "evaluate", count)
    source = runs / "masked_language_modelling"
    assert run_experiment(fine_tuning(data_dir), tmp_path / "run", init_from=source)
    assert taken
    assert not alive


def test_sampling_is_the_configs_also_where_the_tokenizer_is_anothers(runs, data_dir, tmp_path):
    source = runs / "masked_language_modelling"
    config = replace(fine_tuning(data_dir), "tokenizer", subword_regularization=0.3)
    assert run_experiment(config, tmp_path / "run", init_from=source)
    side = load_pretrained(tmp_path / "run").tokenizer.source
    assert side.subword_regularization == 0.3
    assert side.model == load_pretrained(source).tokenizer.source.model


@pytest.mark.parametrize("task", ["language_modelling", "masked_language_modelling"])
def test_the_dev_text_is_tokenised_once(data_dir, tmp_path, monkeypatch, task):
    counts = collections.Counter()
    prepare = language_modelling.prepare_pieces

    def count(documents, *arguments, **options):
        counts[tuple(documents)] += 1
        return prepare(documents, *arguments, **options)

    monkeypatch.setattr(language_modelling, "prepare_pieces", count)
    config = replace(make_text_experiment(task, data_dir), "training", vocab_chunks=3)
    assert run_experiment(config, tmp_path)
    assert list(counts.values()) == [1, 1]


def test_a_dev_text_without_a_token_to_predict_is_refused(data_dir, tmp_path):
    config = make_text_experiment("masked_language_modelling", data_dir)
    config = replace(config, "pipeline", mask_rate=1e-9)
    with pytest.raises(InputError, match=r"data\.dev must have tokens to predict, got none in 6"):
        run_experiment(config, tmp_path / "run")


def write_public_encoder(directory, texts):
    """Write a tiny BERT of random parameters, with a tokenizer of the words of ``texts``."""
    words = sorted({word for text in texts for word in text.split()})
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: index for index, word in enumerate([*special.values(), "[UNK]", *words])}
    sizes = {"source_vocab_size": len(vocabulary), "target_vocab_size": len(vocabulary)}
    save_pretrained(
        make_public("BertForMaskedLM", model_dim=24, max_positions=32, **sizes), directory
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(special))
    return vocabulary


def test_a_public_model_is_fine_tuned_and_goes_on_with_its_tokenizer(data_dir, tmp_path, capsys):
    texts = (data_dir / "tiny" / "train.txt").read_text().split("\n\n")
    vocabulary = write_public_encoder(tmp_path / "public", texts)
    config = fine_tuning(data_dir, adopt_architecture=True, frozen=("embedding",))
    assert run_experiment(config, tmp_path / "run", init_from=tmp_path / "public")
    assert "new, at random: classifier/bias, classifier/kernel, pooler/" in capsys.readouterr().out
    tuned, public = (load_pretrained(tmp_path / name) for name in ("run", "public"))
    assert tuned.tokenizer.source.encode("the cat") == [vocabulary["the"], vocabulary["cat"]]
    for name in ("source_embedding", "token_type_embedding"):
        chex.assert_trees_all_equal(tuned.params[name], public.params[name])
    assert run_experiment(replace(config, "training", num_steps=3), tmp_path / "run")
    assert "resuming after step 2 of 3" in capsys.readouterr().out
    config = replace(config, "tokenizer", subword_regularization=0.3)
    with pytest.raises(InputError, match=r"subword_regularization must be 0 with .* public model"):
        run_experiment(config, tmp_path / "other", init_from=tmp_path / "public")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"adopt_architecture": True}, "adopt_architecture"),
        ({"frozen": ("^encoder/",)}, "frozen"),
        ({"lora": LoraConfig(rank=1)}, r"lora\.rank"),
    ],
)
def test_what_needs_another_model_is_refused_without_one(data_dir, tmp_path, changes, field):
    with pytest.raises(InputError, match=rf"training\.{field} needs --init-from.*, got none\."):
        run_experiment(fine_tuning(data_dir, **changes), tmp_path)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "model",
            {"activation": "gelu"},
            r"model\.activation must be 'relu', as in .*, got 'gelu'",
        ),
        ("training", {"frozen": ("^class",)}, r"training\.frozen must not match .*classifier/bias"),
        ("training", {"lora": LoraConfig(rank=1)}, r"training\.lora\.trained must match .*pooler"),
        ("training", {"frozen": ("dekoder",)}, r"training\.frozen must match .*'dekoder'"),
    ],
)
def test_what_does_not_fit_is_refused(runs, data_dir, tmp_path, section, changes, message):
    config = replace(fine_tuning(data_dir), section, **changes)
    with pytest.raises(InputError, match=message) as error:
        run_experiment(config, tmp_path / "run", init_from=runs / "masked_language_modelling")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            "training",
            {"task": "masked_language_modelling"},
            r"model\.head must be masked_lm for masked",
        ),
        ("training", {"task": "language_modelling"}, r"model\.architecture must be decoder_only"),
        ("data", {"classes": ("a",)}, r"model\.num_labels must be 1 for sequence_classification"),
        ("data", {"classes": ()}, r"data\.classes must name the classes, got none"),
        ("data", {"kind": "tfds"}, r"data\.kind must be text for sequence_classification"),
        ("tokenizer", {"shared": False}, r"tokenizer\.shared must be True"),
    ],
)
def test_configs_must_fit_their_task(data_dir, section, changes, message):
    config = make_text_experiment("sequence_classification", data_dir)
    if section == "tokenizer":
        config = replace(config, "model", share_source_target_embedding=False)
    with pytest.raises(InputError, match=message):
        replace(config, section, **changes)


def test_the_default_is_translation():
    assert ExperimentConfig().training.task == "translation"
