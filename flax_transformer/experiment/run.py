"""An experiment from its config to its test score."""

import contextlib
import tempfile
import time
from pathlib import Path

import grain

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.attachments import Attachments, pack_files
from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.config import ExperimentConfig, save_config
from flax_transformer.data.pipeline import make_training_batches
from flax_transformer.data.sources import describe_direction
from flax_transformer.errors import InputError
from flax_transformer.evaluation.metrics import corpus_bleu, corpus_chrf
from flax_transformer.experiment.selection import (
    choose_on_dev,
    export_model,
    report_test_scores,
    translate_sources,
)
from flax_transformer.experiment.setting import Corpus, Setting, load_corpus, make_setting
from flax_transformer.models.parameters import abstract_parameters, num_parameters
from flax_transformer.parallel.mesh import batch_part, make_mesh, num_batch_shards
from flax_transformer.parallel.processes import (
    do_once,
    fetch,
    is_first_process,
    say,
    wait_for_all,
)
from flax_transformer.run_layout import CONFIG_FILE, TOKENIZER_DIRECTORY, TOKENS_DIRECTORY
from flax_transformer.training.loop import DEV_SCORE, Ending, Start, train
from flax_transformer.training.optimizer import make_optimizer, make_schedule


def run_experiment(
    config: ExperimentConfig,
    workdir: Path,
    *,
    init_from: Path | None = None,
    restart_data: bool = False,
    strict: bool = False,
) -> bool:
    """Train, or go on training, what ``config`` describes; then choose on dev and test once.

    ``workdir`` gets ``config.json``, ``tokenizer/``, ``tokens/``, ``checkpoints/``,
    ``metrics.jsonl``, ``tensorboard/``, ``model/`` (the best parameters so far) and, at the end,
    ``results.json``.
    Every process of a run on several hosts calls this with the same arguments; ``workdir`` must be
    one directory that all of them share.

    Args:
        config: the experiment.
        workdir: where it is, or shall be.
        init_from: a run or a model directory whose parameters and tokenizer a new run starts with.
        restart_data: go on with other data, or begin the same data anew.
        strict: stop at a damaged checkpoint instead of going back to an earlier one.

    Returns:
        False if a signal ended the training before its time.

    Raises:
        InputError: the config, the data or what is in ``workdir`` cannot be used.
        DivergenceError: the training does no good any more.
    """
    if config.model.architecture != "encoder_decoder":
        raise InputError(
            "model.architecture must be encoder_decoder to be trained on sentence pairs, got "
            f"{config.model.architecture}. `flax-transformer plan` takes both."
        )
    with lock_directory(workdir) if is_first_process() else contextlib.nullcontext():
        return _run(config, workdir, init_from, restart_data=restart_data, strict=strict)


def _run(
    config: ExperimentConfig,
    workdir: Path,
    init_from: Path | None,
    *,
    restart_data: bool,
    strict: bool,
) -> bool:
    begin = time.perf_counter()
    mesh = make_mesh(config.mesh)
    corpus = load_corpus(config)
    say(f"{describe_direction(config.data)}, {_describe_sizes(corpus)}")
    setting = make_setting(
        config, corpus, mesh, workdir, init_from=init_from, restart_data=restart_data
    )
    batches = _make_batches(setting)
    start = Start(params=setting.initial_params, restart_data=restart_data, strict=strict)
    ending = _train(setting, batches, start)
    if ending is Ending.INTERRUPTED:
        return False
    say(f"training ended after {(time.perf_counter() - begin) / 60:.1f} minutes: {ending.value}")
    dev_bleu = choose_on_dev(setting)
    if corpus.test:
        report_test_scores(setting, corpus.test, dev_bleu)
    wait_for_all("end of the run")
    return True


def _train(setting: Setting, batches: grain.DatasetIterator, start: Start) -> Ending:
    config, model, mesh = setting.config, setting.model, setting.mesh
    num_steps = config.training.num_steps
    say(
        f"{num_parameters(abstract_parameters(model)):,} parameters, "
        f"{' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items())} devices"
    )

    def evaluate(params: Parameters) -> dict[str, float]:
        hypotheses = translate_sources(
            setting, params, setting.corpus.dev, config.evaluation.dev_beam_size
        )
        references = [pair.target for pair in setting.corpus.dev]
        return {
            DEV_SCORE: corpus_bleu(hypotheses, references).value,
            "dev_chrf": corpus_chrf(hypotheses, references).value,
        }

    result = train(
        model,
        make_optimizer(config.optimizer, num_steps=num_steps),
        make_schedule(config.optimizer, num_steps=num_steps),
        batches,
        config=config.training,
        mesh=mesh,
        workdir=setting.workdir,
        evaluate=evaluate,
        export_best=lambda params: export_model(setting, fetch(params)),
        rules=config.sharding,
        attachments=_pack_setting(setting),
        start=start,
        # Only then: what cannot work leaves the directory as it was.
        begin=lambda: do_once(lambda: _save_setting(setting, setting.workdir), "the start"),
    )
    return result.ending


def _save_setting(setting: Setting, directory: Path) -> None:
    setting.tokenizer.save(directory / TOKENIZER_DIRECTORY)
    save_config(setting.config, directory / CONFIG_FILE)


def _pack_setting(setting: Setting) -> Attachments:
    """Return the files of :func:`_save_setting`, to go with every checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        _save_setting(setting, Path(directory))
        return pack_files(Path(directory), [CONFIG_FILE, TOKENIZER_DIRECTORY])


def _make_batches(setting: Setting) -> grain.DatasetIterator:
    config, part = setting.config, batch_part(setting.mesh)
    return make_training_batches(
        setting.corpus.train,
        setting.tokenizer,
        config.pipeline,
        seed=config.training.seed,
        part_index=part.index,
        part_count=part.count,
        row_multiple=num_batch_shards(setting.mesh) * config.training.accumulation_steps,
        cache_directory=setting.workdir / TOKENS_DIRECTORY,
    )


def _describe_sizes(corpus: Corpus) -> str:
    sizes = {name: pairs for name, pairs in corpus._asdict().items() if pairs}
    return "sentence pairs: " + ", ".join(f"{len(pairs):,} {name}" for name, pairs in sizes.items())
