"""How an experiment gets its data, its tokenizer, its model and its first parameters."""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.attachments import unpack_files
from flax_transformer.checkpoints.reader import list_steps, read_attachments
from flax_transformer.config import ExperimentConfig, check_continuation, load_config
from flax_transformer.data.public_tokenizer import load_tokenizer
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.experiment.start import adopt_architecture, take_parameters
from flax_transformer.experiment.task import Corpus, Setting, Task
from flax_transformer.interop.pretrained import load_pretrained
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.processes import is_first_process, wait_for_all
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY, CONFIG_FILE, TOKENIZER_DIRECTORY
from flax_transformer.training.training_config import TrainingConfig


def make_setting(
    config: ExperimentConfig,
    task: Task,
    corpus: Corpus,
    mesh: Mesh,
    workdir: Path,
    *,
    init_from: Path | None,
    restart_data: bool,
) -> tuple[Setting, Parameters | None]:
    """Get the tokenizer from the run's checkpoint, from another model, or by training one.

    Returns:
        The setting, and the parameters to start from, of another model, where they lie on the mesh;
        None for random ones, and where there is a checkpoint to go on from.

    Raises:
        InputError: the config is not that of the run in ``workdir``, or does not fit ``init_from``.
    """
    params = None
    if steps := list_steps(workdir / CHECKPOINT_DIRECTORY):
        if is_first_process():
            unpack_files(read_attachments(workdir / CHECKPOINT_DIRECTORY / str(steps[-1])), workdir)
        wait_for_all("files of the checkpoint")
        tokenizer = load_tokenizer(workdir / TOKENIZER_DIRECTORY)
        stored = load_config(workdir / CONFIG_FILE)
        config = _with_sizes_of(config, stored.model)
        check_continuation(stored, config, workdir, restart_data=restart_data)
    elif init_from is not None:
        pretrained = load_pretrained(init_from, mesh=mesh, rules=config.sharding)
        if pretrained.tokenizer is None:
            raise InputError(f"{init_from} must have a tokenizer to train on, got none.")
        tokenizer = _with_sampling(pretrained.tokenizer, config.tokenizer.subword_regularization)
        config = _with_sizes_of(config, pretrained.config)
        params = take_parameters(config, pretrained, mesh, str(init_from))
    else:
        _check_starts_from_nothing(config.training)
        tokenizer = _train_tokenizer(config, task, corpus, workdir)
        config = _with_vocabulary(config, tokenizer.source.vocab_size, tokenizer.target.vocab_size)
    model = make_model(config.model)
    return Setting(config, task, corpus, tokenizer, model, mesh, workdir), params


def _check_starts_from_nothing(training: TrainingConfig) -> None:
    """Refuse what has a meaning only with the parameters of another model."""
    if training.adopt_architecture:
        raise InputError("training.adopt_architecture needs --init-from, got none.")
    if training.frozen or training.lora.rank:
        field = "training.lora.rank" if training.lora.rank else "training.frozen"
        raise InputError(
            f"{field} needs --init-from, or parameters that are not trained would stay random, "
            "got none."
        )


def load_corpus(config: ExperimentConfig, task: Task) -> Corpus:
    """Load the splits; the first process does so alone first, since it may have to make files."""
    if not is_first_process():
        wait_for_all("corpus")
        return task.load_corpus(config)
    corpus = task.load_corpus(config)
    wait_for_all("corpus")
    return corpus


def _with_sampling(
    tokenizer: TranslationTokenizer, subword_regularization: float
) -> TranslationTokenizer:
    """Return a tokenizer as it is, but for the exponent of its sampling.

    Raises:
        InputError: it is one of a public model, which has one segmentation of a text.
    """
    source, target = tokenizer.source, tokenizer.target
    if isinstance(source, Tokenizer) and isinstance(target, Tokenizer):
        resampled = Tokenizer(source.model, subword_regularization)
        if tokenizer.shared:
            return TranslationTokenizer(resampled, resampled)
        return TranslationTokenizer(resampled, Tokenizer(target.model, subword_regularization))
    if subword_regularization:
        raise InputError(
            "tokenizer.subword_regularization must be 0 with the tokenizer of a public model, got "
            f"{subword_regularization}."
        )
    return tokenizer


def _with_sizes_of(config: ExperimentConfig, model: TransformerConfig) -> ExperimentConfig:
    """Set the sizes of the vocabularies, and, where it is adopted, the architecture."""
    if config.training.adopt_architecture:
        return dataclasses.replace(config, model=adopt_architecture(config.model, model))
    return _with_vocabulary(config, model.source_vocab_size, model.target_vocab_size)


def _with_vocabulary(
    config: ExperimentConfig, source_vocab_size: int, target_vocab_size: int
) -> ExperimentConfig:
    model = dataclasses.replace(
        config.model, source_vocab_size=source_vocab_size, target_vocab_size=target_vocab_size
    )
    return dataclasses.replace(config, model=model)


def _train_tokenizer(
    config: ExperimentConfig, task: Task, corpus: Corpus, workdir: Path
) -> TranslationTokenizer:
    """Train the tokenizer in the first process; the others wait for it."""
    if jax.process_count() == 1:
        return task.train_tokenizer(config, corpus)
    directory = workdir / TOKENIZER_DIRECTORY
    if is_first_process():
        task.train_tokenizer(config, corpus).save(directory)
    wait_for_all("tokenizer")
    return load_tokenizer(directory)
