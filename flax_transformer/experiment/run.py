"""An experiment from its config to its test score."""

import contextlib
import functools
import tempfile
import time
from pathlib import Path

import grain
import jax

from flax_transformer.checkpoints.attachments import Attachments, pack_files
from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.config import ExperimentConfig, flatten_config, save_config
from flax_transformer.errors import InputError
from flax_transformer.experiment.selection import (
    choose_on_dev,
    export_model,
    report_test_scores,
)
from flax_transformer.experiment.setting import load_corpus, make_setting
from flax_transformer.experiment.task import Setting
from flax_transformer.experiment.tasks import make_task
from flax_transformer.models.parameters import num_parameters
from flax_transformer.parallel.mesh import make_mesh
from flax_transformer.parallel.processes import (
    check_same,
    do_once,
    fetch,
    is_first_process,
    say,
    wait_for_all,
)
from flax_transformer.run_layout import CONFIG_FILE, TOKENIZER_DIRECTORY
from flax_transformer.training.loop import Ending, Start, train
from flax_transformer.training.lora import merge_adapters
from flax_transformer.training.optimizer import make_optimizer, make_schedule
from flax_transformer.training.state import abstract_trained_model, find_trained
from flax_transformer.training.trained_part import split_parameters


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
        init_from: a run, a model directory or a public model whose parameters and tokenizer a new
            run starts with; see :func:`.start.take_parameters`.
        restart_data: go on with other data, or begin the same data anew.
        strict: stop at a damaged checkpoint instead of going back to an earlier one.

    Returns:
        False if a signal ended the training before its time.

    Raises:
        InputError: the config, the data or what is in ``workdir`` cannot be used.
        DivergenceError: the training does no good any more.
    """
    is_translation = config.training.task == "translation"
    if is_translation and config.model.architecture != "encoder_decoder":
        raise InputError(
            "model.architecture must be encoder_decoder to be trained on sentence pairs, got "
            f"{config.model.architecture}. `flax-transformer plan` takes all; other tasks are "
            "chosen by training.task."
        )
    _check_rows_of_sparse_encoder(config)
    with lock_directory(workdir) if is_first_process() else contextlib.nullcontext():
        return _run(config, workdir, init_from, restart_data=restart_data, strict=strict)


def _check_rows_of_sparse_encoder(config: ExperimentConfig) -> None:
    """Refuse several texts in a row: the pattern of blocks is laid over the row as one text."""
    if not config.model.encoder_sparsity.block_size or config.pipeline.batching != "packed":
        return
    if config.training.task == "translation":
        raise InputError(
            "pipeline.batching must be bucketed with model.encoder_sparsity, whose pattern is laid "
            "over whole rows, got packed."
        )
    if not config.data.join_documents:
        raise InputError(
            "data.join_documents must be True with model.encoder_sparsity, whose pattern is laid "
            "over whole rows, got False."
        )


def _run(
    config: ExperimentConfig,
    workdir: Path,
    init_from: Path | None,
    *,
    restart_data: bool,
    strict: bool,
) -> bool:
    begin = time.perf_counter()
    options = {"--init-from": init_from, "--restart-data": restart_data, "--strict-resume": strict}
    check_same(_what_must_agree(config) | options)
    mesh = make_mesh(config.mesh)
    task = make_task(config.training.task)
    corpus = load_corpus(config, task)
    say(task.describe(config, corpus))
    setting, params = make_setting(
        config, task, corpus, mesh, workdir, init_from=init_from, restart_data=restart_data
    )
    batches = task.make_batches(setting)
    check_same(batches.get_state()["stream"])
    start = Start(params=params, restart_data=restart_data, strict=strict)
    ending = _train(setting, batches, start)
    if ending is Ending.INTERRUPTED:
        return False
    say(f"training ended after {(time.perf_counter() - begin) / 60:.1f} minutes: {ending.value}")
    dev_score = choose_on_dev(setting)
    if corpus.test:
        report_test_scores(setting, dev_score)
    wait_for_all("end of the run")
    return True


def _what_must_agree(config: ExperimentConfig) -> dict[str, object]:
    """Return the fields that every process must have alike."""
    of_a_host = {"data.data_dir", "pipeline.num_threads"}
    return {name: v for name, v in flatten_config(config).items() if name not in of_a_host}


def _train(setting: Setting, batches: grain.DatasetIterator, start: Start) -> Ending:
    config, task, mesh = setting.config, setting.task, setting.mesh
    num_steps, lora = config.training.num_steps, config.training.lora
    say(
        f"{_describe_parameters(setting)}, "
        f"{' x '.join(f'{size} {axis}' for axis, size in mesh.shape.items())} devices"
    )
    merge = jax.jit(functools.partial(merge_adapters, config=lora)) if lora.rank else lambda x: x
    result = train(
        setting.model,
        make_optimizer(config.optimizer, num_steps=num_steps),
        make_schedule(config.optimizer, num_steps=num_steps),
        batches,
        config=config.training,
        mesh=mesh,
        workdir=setting.workdir,
        evaluate=lambda params: task.evaluate(setting, merge(params)),
        export_best=lambda params: export_model(setting, fetch(merge(params))),
        dev_score=task.dev_score,
        rules=config.sharding,
        attachments=_pack_setting(setting),
        start=start,
        # Only then: what cannot work leaves the directory as it was.
        begin=lambda: do_once(lambda: _save_setting(setting, setting.workdir), "the start"),
    )
    return result.ending


def _describe_parameters(setting: Setting) -> str:
    """Return the number of parameters, and how many of them are trained, if not all."""
    training = setting.config.training
    params = abstract_trained_model(setting.model, training.lora)
    trained = find_trained(params, frozen=training.frozen, lora=training.lora)
    total = num_parameters(params)
    num_trained = num_parameters(split_parameters(params, trained)[0])
    if num_trained == total:
        return f"{total:,} parameters"
    return f"{total:,} parameters, {num_trained:,} trained and {total - num_trained:,} frozen"


def _save_setting(setting: Setting, directory: Path) -> None:
    setting.tokenizer.save(directory / TOKENIZER_DIRECTORY)
    save_config(setting.config, directory / CONFIG_FILE)


def _pack_setting(setting: Setting) -> Attachments:
    """Return the files of :func:`_save_setting`, to go with every checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        _save_setting(setting, Path(directory))
        return pack_files(Path(directory), [CONFIG_FILE, TOKENIZER_DIRECTORY])
