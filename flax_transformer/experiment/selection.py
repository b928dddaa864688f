"""The end of an experiment: choose the parameters on the dev set, and test them once."""

import json
from collections.abc import Sequence

import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.averaging import average_checkpoints
from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.evaluation.metrics import corpus_bleu, corpus_scores
from flax_transformer.evaluation.translate import translate
from flax_transformer.experiment.setting import Setting
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.parallel.parameter_sharding import place_parameters
from flax_transformer.parallel.processes import do_once, is_first_process, say
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY, MODEL_DIRECTORY, RESULTS_FILE


def choose_on_dev(setting: Setting) -> float:
    """Compare the best checkpoint with the average of the last ones; leave the better one.

    Returns its BLEU on dev, with the search that the test set will be translated with.
    """
    best_bleu = _dev_bleu(setting, load_pretrained(setting.workdir / MODEL_DIRECTORY).params)
    directory = setting.workdir / CHECKPOINT_DIRECTORY
    steps = list_steps(directory)[-setting.config.training.average_last :]
    if len(steps) < 2:
        return best_bleu
    average = average_checkpoints(directory, steps, like=abstract_parameters(setting.model))
    average_bleu = _dev_bleu(setting, average)
    say(
        f"dev BLEU {best_bleu:.2f} (best checkpoint), {average_bleu:.2f} "
        f"(average of the last {len(steps)})"
    )
    if average_bleu > best_bleu:
        export_model(setting, average)
    return max(best_bleu, average_bleu)


def _dev_bleu(setting: Setting, params: Parameters) -> float:
    pairs, config = setting.corpus.dev, setting.config
    placed = place_parameters(params, setting.mesh, config.sharding)
    hypotheses = translate_sources(setting, placed, pairs, config.evaluation.test_beam_size)
    return corpus_bleu(hypotheses, [pair.target for pair in pairs]).value


def report_test_scores(setting: Setting, pairs: Sequence[SentencePair], dev_bleu: float) -> None:
    """Translate the test set with the chosen parameters; print and store the scores."""
    config = setting.config
    params = load_pretrained(setting.workdir / MODEL_DIRECTORY).params
    placed = place_parameters(params, setting.mesh, config.sharding)
    hypotheses = translate_sources(setting, placed, pairs, config.evaluation.test_beam_size)
    scores = corpus_scores(hypotheses, [pair.target for pair in pairs])
    results = {
        "seed": config.training.seed,
        "dev_bleu": dev_bleu,
        "test_bleu": scores.bleu,
        "test_chrf": scores.chrf,
        "test_ter": scores.ter,
        "signatures": scores.signatures,
    }
    if is_first_process():
        (setting.workdir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
    for index in np.linspace(0, len(pairs) - 1, config.evaluation.num_examples).astype(int):
        say(f"  source       {pairs[index].source}")
        say(f"  translation  {hypotheses[index]}")
        say(f"  reference    {pairs[index].target}\n")
    say(f"test BLEU {scores.bleu:.2f}  chrF {scores.chrf:.2f}  {scores.signatures['bleu']}")
    say(f"the model is in {setting.workdir}: flax-transformer translate {setting.workdir}")


def translate_sources(
    setting: Setting, params: Parameters, pairs: Sequence[SentencePair], beam_size: int
) -> list[str]:
    """Return the best translation of each pair's source; all devices share the work."""
    evaluation = setting.config.evaluation
    translations = translate(
        setting.model,
        params,
        setting.tokenizer,
        [pair.source for pair in pairs],
        strategy=evaluation.strategy(beam_size),
        batch_tokens=evaluation.batch_tokens,
        mesh=setting.mesh,
    )
    return [best[0].text for best in translations]


def export_model(setting: Setting, params: Parameters) -> None:
    """Write parameters that every process has to the model directory, once."""
    pretrained = Pretrained(setting.model, params, setting.config.model, setting.tokenizer)
    do_once(lambda: save_model(setting.workdir / MODEL_DIRECTORY, pretrained), "the export")
