"""The tasks by their names in a config."""

from flax_transformer.experiment.classification import ClassificationTask
from flax_transformer.experiment.language_modelling import LanguageTask
from flax_transformer.experiment.task import Task
from flax_transformer.experiment.translation import TranslationTask
from flax_transformer.training import training_config


def make_task(name: training_config.Task) -> Task:
    """Return the task of ``training.task``.

    >>> make_task("sequence_classification").dev_score
    'dev_accuracy'
    """
    match name:
        case "translation":
            return TranslationTask()
        case "sequence_classification":
            return ClassificationTask()
        case "language_modelling":
            return LanguageTask(is_masked=False)
        case "masked_language_modelling":
            return LanguageTask(is_masked=True)
