"""English to German news, WMT 2014: the big model of "Attention Is All You Need".

    flax-transformer prepare wmt14_translate/de-en
    python train.py --config configs/wmt14_en_de_big.py --workdir runs/wmt14_en_de_big

As ``wmt14_en_de_base``, but 300,000 updates and the average of the last 20 checkpoints (section
6.1). Hardware of the paper: 8 P100 GPUs, 3.5 days. Its score: 28.4 BLEU on newstest2014 (tokenised
BLEU, which sacreBLEU's is not). Not trained here.
"""

import dataclasses

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.evaluation.evaluation_config import EvaluationConfig
from flax_transformer.models.presets import transformer_big
from flax_transformer.training.optimizer import OptimizerConfig, peak_learning_rate
from flax_transformer.training.training_config import TrainingConfig


def get_config() -> ExperimentConfig:
    """Return the experiment."""
    return ExperimentConfig(
        model=dataclasses.replace(transformer_big(), compute_dtype="bfloat16"),
        data=DataConfig(
            dataset="wmt14_translate/de-en", source_language="en", target_language="de"
        ),
        tokenizer=TokenizerConfig(vocab_size=37_000, algorithm="bpe"),
        pipeline=PipelineConfig(
            batch_tokens=24_576, max_length=256, window_size=16_384, num_streams=8
        ),
        optimizer=OptimizerConfig(
            learning_rate=peak_learning_rate(model_dim=1024, warmup_steps=4000),
            warmup_steps=4000,
            clip_norm=None,
        ),
        training=TrainingConfig(
            num_steps=300_000,
            eval_every=9000,
            checkpoint_every=1500,
            keep_last=20,
            average_last=20,
        ),
        evaluation=EvaluationConfig(test_beam_size=4),
    )
