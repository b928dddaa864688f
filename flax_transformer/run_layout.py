"""The names of what lies in a run's work directory and in a model directory."""

CONFIG_FILE = "config.json"
"""In a run the whole experiment's config, in a model directory the model's."""

TOKENIZER_DIRECTORY = "tokenizer"
WEIGHTS_FILE = "model.safetensors"

TOKENS_DIRECTORY = "tokens"
"""The training data's token ids; whoever removes it, gets it made again."""

CHECKPOINT_DIRECTORY = "checkpoints"
MODEL_DIRECTORY = "model"
METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"
RESULTS_FILE = "results.json"
EXAMPLES_FILE = "examples.jsonl"
SKIPPED_FILE = "skipped.jsonl"
