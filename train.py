"""Train a model: ``python train.py --config configs/quickstart.py --workdir DIR``."""

import sys

from flax_transformer.cli.allocator import restart_with_tuned_allocator
from flax_transformer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *restart_with_tuned_allocator(sys.argv[1:])]))
