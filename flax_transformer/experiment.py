"""An experiment from its config to its test score."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.config import (
    ExperimentConfig,
    check_continuation,
    load_config,
    save_config,
)
from flax_transformer.data.pipeline import make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sources import describe_direction, load_sentence_pairs
from flax_transformer.data.tokenizer import TranslationTokenizer, train_tokenizer
from flax_transformer.evaluation.metrics import corpus_bleu, corpus_chrf, corpus_scores
from flax_transformer.evaluation.translate import translate
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.parameters import abstract_parameters, num_parameters
from flax_transformer.run_layout import (
    CHECKPOINT_DIRECTORY,
    CONFIG_FILE,
    MODEL_DIRECTORY,
    RESULTS_FILE,
    TOKENIZER_DIRECTORY,
)
from flax_transformer.training.attachments import pack_files, unpack_files
from flax_transformer.training.averaging import average_checkpoints
from flax_transformer.training.checkpoint_reader import list_steps, read_attachments
from flax_transformer.training.directory_lock import lock_directory
from flax_transformer.training.loop import DEV_SCORE, Ending, train
from flax_transformer.training.optimizer import make_optimizer, make_schedule
from flax_transformer.training.sharding import make_mesh, num_batch_shards


class Corpus(NamedTuple):
    """The sentence pairs of an experiment; the test set is translated once, at the end."""

    train: Sequence[SentencePair]
    dev: Sequence[SentencePair]
    test: Sequence[SentencePair] | None


def run_experiment(config: ExperimentConfig, workdir: Path) -> bool:
    """Train, or go on training, what ``config`` describes; then choose on dev and test once.

    ``workdir`` gets ``config.json``, ``tokenizer/``, ``checkpoints/``, ``metrics.jsonl``,
    ``tensorboard/``, ``model/`` (the best parameters so far) and, at the end, ``results.json``.

    Returns:
        False if a signal ended the training before its time.

    Raises:
        InputError: the config, the data or what is in ``workdir`` cannot be used.
        DivergenceError: the loss is not a finite number.
    """
    is_first = jax.process_index() == 0
    with lock_directory(workdir) if is_first else contextlib.nullcontext():
        return _run(config, workdir)


def _run(config: ExperimentConfig, workdir: Path) -> bool:
    start = time.perf_counter()
    mesh = make_mesh(config.mesh)
    corpus = _load_corpus(config)
    _say(f"{describe_direction(config.data)}, {_describe_sizes(corpus)}")
    if steps := list_steps(workdir / CHECKPOINT_DIRECTORY):
        unpack_files(read_attachments(workdir / CHECKPOINT_DIRECTORY / str(steps[-1])), workdir)
        tokenizer = TranslationTokenizer.load(workdir / TOKENIZER_DIRECTORY)
        config = _with_vocabulary(config, tokenizer)
        check_continuation(load_config(workdir / CONFIG_FILE), config, workdir)
    else:
        tokenizer = train_tokenizer(config.tokenizer, corpus.train, seed=config.training.seed)
        config = _with_vocabulary(config, tokenizer)
    batches = _make_batches(config, corpus, tokenizer, mesh)
    # Only now: what cannot work leaves the directory as it was.
    tokenizer.save(workdir / TOKENIZER_DIRECTORY)
    save_config(config, workdir / CONFIG_FILE)

    ending = _train(config, corpus, tokenizer, batches, mesh, workdir)
    if ending is Ending.INTERRUPTED:
        return False
    _say(f"training ended after {_minutes(start)}: {ending.value}")
    dev_bleu = _choose_on_dev(config, corpus, workdir)
    if corpus.test:
        _test(config, corpus.test, workdir, dev_bleu)
    return True


def _load_corpus(config: ExperimentConfig) -> Corpus:
    data = config.data
    return Corpus(
        train=load_sentence_pairs(data, data.train),
        dev=load_sentence_pairs(data, data.dev),
        test=None if data.test is None else load_sentence_pairs(data, data.test),
    )


def _describe_sizes(corpus: Corpus) -> str:
    sizes = {name: pairs for name, pairs in corpus._asdict().items() if pairs}
    return "sentence pairs: " + ", ".join(f"{len(pairs):,} {name}" for name, pairs in sizes.items())


def _with_vocabulary(config: ExperimentConfig, tokenizer: TranslationTokenizer) -> ExperimentConfig:
    """Set the model's vocabulary sizes to the tokenizer's."""
    model = dataclasses.replace(
        config.model,
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
    )
    return dataclasses.replace(config, model=model)


def _make_batches(
    config: ExperimentConfig, corpus: Corpus, tokenizer: TranslationTokenizer, mesh: Mesh
) -> grain.DatasetIterator:
    return make_training_batches(
        corpus.train,
        tokenizer,
        config.pipeline,
        seed=config.training.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        row_multiple=num_batch_shards(mesh) * config.training.accumulation_steps,
    )


def _train(
    config: ExperimentConfig,
    corpus: Corpus,
    tokenizer: TranslationTokenizer,
    batches: grain.DatasetIterator,
    mesh: Mesh,
    workdir: Path,
) -> Ending:
    model = EncoderDecoder(config.model)
    num_steps = config.training.num_steps
    _say(
        f"{num_parameters(abstract_parameters(model)):,} parameters, "
        f"{' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items())} devices"
    )

    def evaluate(params: Parameters) -> dict[str, float]:
        pretrained = Pretrained(model, params, config.model, tokenizer)
        hypotheses = _translate(config, pretrained, corpus.dev, config.evaluation.dev_beam_size)
        references = [pair.target for pair in corpus.dev]
        return {
            DEV_SCORE: corpus_bleu(hypotheses, references).value,
            "dev_chrf": corpus_chrf(hypotheses, references).value,
        }

    def export_best(params: Parameters) -> None:
        pretrained = Pretrained(model, params, config.model, tokenizer)
        save_model(workdir / MODEL_DIRECTORY, pretrained)

    result = train(
        model,
        make_optimizer(config.optimizer, num_steps=num_steps),
        make_schedule(config.optimizer, num_steps=num_steps),
        batches,
        config=config.training,
        mesh=mesh,
        workdir=workdir,
        evaluate=evaluate,
        export_best=export_best,
        attachments=pack_files(workdir, [CONFIG_FILE, TOKENIZER_DIRECTORY]),
    )
    return result.ending


def _choose_on_dev(config: ExperimentConfig, corpus: Corpus, workdir: Path) -> float:
    """Compare the best checkpoint with the average of the last ones; leave the better one.

    Returns its BLEU on dev, with the search that the test set will be translated with.
    """
    best = load_pretrained(workdir / MODEL_DIRECTORY)
    best_bleu = _dev_bleu(config, best, corpus.dev)
    directory = workdir / CHECKPOINT_DIRECTORY
    steps = list_steps(directory)[-config.training.average_last :]
    if len(steps) < 2:
        return best_bleu
    params = average_checkpoints(directory, steps, like=abstract_parameters(best.model))
    average = best._replace(params=params)
    average_bleu = _dev_bleu(config, average, corpus.dev)
    _say(
        f"dev BLEU {best_bleu:.2f} (best checkpoint), {average_bleu:.2f} "
        f"(average of the last {len(steps)})"
    )
    if average_bleu > best_bleu:
        save_model(workdir / MODEL_DIRECTORY, average)
    return max(best_bleu, average_bleu)


def _dev_bleu(
    config: ExperimentConfig, pretrained: Pretrained, pairs: Sequence[SentencePair]
) -> float:
    hypotheses = _translate(config, pretrained, pairs, config.evaluation.test_beam_size)
    return corpus_bleu(hypotheses, [pair.target for pair in pairs]).value


def _test(
    config: ExperimentConfig, pairs: Sequence[SentencePair], workdir: Path, dev_bleu: float
) -> None:
    """Translate the test set with the chosen parameters; print and store the scores."""
    pretrained = load_pretrained(workdir / MODEL_DIRECTORY)
    hypotheses = _translate(config, pretrained, pairs, config.evaluation.test_beam_size)
    scores = corpus_scores(hypotheses, [pair.target for pair in pairs])
    results = {
        "seed": config.training.seed,
        "dev_bleu": dev_bleu,
        "test_bleu": scores.bleu,
        "test_chrf": scores.chrf,
        "test_ter": scores.ter,
        "signatures": scores.signatures,
    }
    (workdir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
    for index in np.linspace(0, len(pairs) - 1, config.evaluation.num_examples).astype(int):
        _say(f"  source       {pairs[index].source}")
        _say(f"  translation  {hypotheses[index]}")
        _say(f"  reference    {pairs[index].target}\n")
    _say(f"test BLEU {scores.bleu:.2f}  chrF {scores.chrf:.2f}  {scores.signatures['bleu']}")
    _say(f"the model is in {workdir}: flax-transformer translate {workdir}")


def _translate(
    config: ExperimentConfig,
    pretrained: Pretrained,
    pairs: Sequence[SentencePair],
    beam_size: int,
) -> list[str]:
    """Return the best translation of each pair's source."""
    translations = translate(
        pretrained.model,
        pretrained.params,
        pretrained.tokenizer,
        [pair.source for pair in pairs],
        strategy=config.evaluation.strategy(beam_size),
        batch_tokens=config.evaluation.batch_tokens,
    )
    return [best[0].text for best in translations]


def _minutes(start: float) -> str:
    return f"{(time.perf_counter() - start) / 60:.1f} minutes"


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)
