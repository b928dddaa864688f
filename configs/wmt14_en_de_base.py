"""English to German news, WMT 2014: the base model of "Attention Is All You Need".

    flax-transformer prepare wmt14_translate/de-en
    python train.py --config configs/wmt14_en_de_base.py --workdir runs/wmt14_en_de_base

The paper's recipe (sections 5 and 6): 37,000 shared BPE tokens, batches of about 25,000 source and
25,000 target tokens, 100,000 updates, label smoothing 0.1, the average of the last 5 checkpoints,
beam 4 with length penalty 0.6. Hardware of the paper: 8 P100 GPUs, 12 hours. Its score: 27.3 BLEU
on newstest2014 (tokenised BLEU, which sacreBLEU's is not). Not trained here.
"""

import dataclasses

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.evaluation.evaluation_config import EvaluationConfig
from flax_transformer.models.presets import transformer_base
from flax_transformer.training.optimizer import OptimizerConfig, peak_learning_rate
from flax_transformer.training.training_config import TrainingConfig


def get_config() -> ExperimentConfig:
    """Return the experiment."""
    return ExperimentConfig(
        model=dataclasses.replace(transformer_base(), compute_dtype="bfloat16"),
        data=DataConfig(
            dataset="wmt14_translate/de-en", source_language="en", target_language="de"
        ),
        tokenizer=TokenizerConfig(vocab_size=37_000, algorithm="bpe"),
        pipeline=PipelineConfig(
            batch_tokens=24_576, max_length=256, window_size=16_384, num_streams=8
        ),
        optimizer=OptimizerConfig(
            learning_rate=peak_learning_rate(model_dim=512, warmup_steps=4000),
            warmup_steps=4000,
            clip_norm=None,
        ),
        training=TrainingConfig(num_steps=100_000, eval_every=4500, checkpoint_every=1500),
        evaluation=EvaluationConfig(test_beam_size=4),
    )
