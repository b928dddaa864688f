import subprocess
import sys

HEAVY = (
    "grain",
    "orbax",
    "sacrebleu",
    "sentencepiece",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "tqdm",
    "transformers",
    "tyro",
)


def imported_by(code):
    """Return the top-level modules that are loaded after ``code`` in a new process."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_loads_nothing_heavy():
    assert not imported_by("import flax_transformer") & set(HEAVY)
