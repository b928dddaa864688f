"""What an experiment is made of: its data, its tokenizer, its model and its devices."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.attachments import unpack_files
from flax_transformer.checkpoints.reader import list_steps, read_attachments
from flax_transformer.config import ExperimentConfig, check_continuation, load_config
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sources import load_sentence_pairs
from flax_transformer.data.tokenizer import TranslationTokenizer, train_tokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.pretrained import Pretrained, load_pretrained
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.stack import stack_layers, unstack_layers
from flax_transformer.parallel.processes import is_first_process, wait_for_all
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY, CONFIG_FILE, TOKENIZER_DIRECTORY
from flax_transformer.tree_paths import describe_differences, flatten_tree, shorten


class Corpus(NamedTuple):
    """The sentence pairs of an experiment; the test set is translated once, at the end."""

    train: Sequence[SentencePair]
    dev: Sequence[SentencePair]
    test: Sequence[SentencePair] | None


class Setting(NamedTuple):
    """What the parts of an experiment share.

    Attributes:
        config: with the vocabulary sizes of the tokenizer.
        corpus: the sentence pairs.
        tokenizer: of both languages.
        model: what is trained.
        mesh: the devices.
        workdir: where the run is.
        initial_params: parameters to start from, of another run; None for random ones, and where
            there is a checkpoint to go on from.
    """

    config: ExperimentConfig
    corpus: Corpus
    tokenizer: TranslationTokenizer
    model: EncoderDecoder
    mesh: Mesh
    workdir: Path
    initial_params: Parameters | None


def make_setting(
    config: ExperimentConfig,
    corpus: Corpus,
    mesh: Mesh,
    workdir: Path,
    *,
    init_from: Path | None,
    restart_data: bool,
) -> Setting:
    """Get the tokenizer from the run's checkpoint, from another run, or by training one.

    Raises:
        InputError: the config is not that of the run in ``workdir``, or does not fit ``init_from``.
    """
    params = None
    if steps := list_steps(workdir / CHECKPOINT_DIRECTORY):
        if is_first_process():
            unpack_files(read_attachments(workdir / CHECKPOINT_DIRECTORY / str(steps[-1])), workdir)
        wait_for_all("files of the checkpoint")
        tokenizer = TranslationTokenizer.load(workdir / TOKENIZER_DIRECTORY)
        config = _with_vocabulary(config, tokenizer)
        stored = load_config(workdir / CONFIG_FILE)
        check_continuation(stored, config, workdir, restart_data=restart_data)
    elif init_from is not None:
        pretrained = load_pretrained(init_from)
        tokenizer = pretrained.tokenizer
        config = _with_vocabulary(config, tokenizer)
        params = _take_parameters(config, pretrained, init_from)
    else:
        tokenizer = _train_tokenizer(config, corpus, workdir)
        config = _with_vocabulary(config, tokenizer)
    model = EncoderDecoder(config.model)
    return Setting(config, corpus, tokenizer, model, mesh, workdir, params)


def load_corpus(config: ExperimentConfig) -> Corpus:
    """Load the splits; the first process does so alone first, since it may have to make files."""
    if not is_first_process():
        wait_for_all("corpus")
        return _read_splits(config)
    corpus = _read_splits(config)
    wait_for_all("corpus")
    return corpus


def _read_splits(config: ExperimentConfig) -> Corpus:
    data = config.data
    return Corpus(
        train=load_sentence_pairs(data, data.train),
        dev=load_sentence_pairs(data, data.dev),
        test=None if data.test is None else load_sentence_pairs(data, data.test),
    )


def _with_vocabulary(config: ExperimentConfig, tokenizer: TranslationTokenizer) -> ExperimentConfig:
    """Set the model's vocabulary sizes to the tokenizer's."""
    model = dataclasses.replace(
        config.model,
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
    )
    return dataclasses.replace(config, model=model)


def _train_tokenizer(
    config: ExperimentConfig, corpus: Corpus, workdir: Path
) -> TranslationTokenizer:
    """Train the tokenizer in the first process; the others wait for it."""
    if jax.process_count() == 1:
        return train_tokenizer(config.tokenizer, corpus.train, seed=config.training.seed)
    directory = workdir / TOKENIZER_DIRECTORY
    if is_first_process():
        seed = config.training.seed
        train_tokenizer(config.tokenizer, corpus.train, seed=seed).save(directory)
    wait_for_all("tokenizer")
    return TranslationTokenizer.load(directory)


def _take_parameters(config: ExperimentConfig, pretrained: Pretrained, path: Path) -> Parameters:
    """Return the parameters, stacked as the config's model has them; refuse another model's."""
    expected = flatten_tree(abstract_parameters(EncoderDecoder(config.model)))
    params = jax.tree.map(
        lambda leaf: leaf.astype(config.model.param_dtype), unstack_layers(pretrained.params)
    )
    if config.model.scan_layers:
        params = stack_layers(params)
    if differences := describe_differences(expected, flatten_tree(params)):
        raise InputError(f"{path} must fit the config's model, but {shorten(differences)}.")
    return params
