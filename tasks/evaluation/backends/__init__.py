"""Backends, which run a model for lm-eval: each module here is one, and evaluate.backend names it."""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams

if TYPE_CHECKING:
    from lm_eval.api.model import LM

Samples = list[dict[str, Any]]
"""What lm-eval logs of a task, item by item."""


class Backend(ABC):
    """A loaded model that answers lm-eval. Its file imports heavy libraries inside functions only."""

    loggers: ClassVar[tuple[str, ...]] = ()
    """Names of the libraries' loggers, which are silenced while the model loads and answers."""

    @staticmethod
    @abstractmethod
    def settings(params: EvaluateParams) -> dict[str, Any]:
        """Return the settings that decide the numbers besides model, task and lm-eval, such as versions.

        JSON-able: it is part of the key under which results are kept. Raises BadInput for a device, or a
        library, that cannot be used here.
        """

    @staticmethod
    @abstractmethod
    def check(files: ModelFiles, tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
        """Raise BadInput for a model that cannot be asked these tasks; reads no weights."""

    @abstractmethod
    def __init__(self, files: ModelFiles, params: EvaluateParams) -> None:
        """Load a model, or an adapter on its base, running no code of theirs; BadInput when it cannot be."""

    @abstractmethod
    def answer(self, ask: Callable[["LM"], Samples], where: str) -> Samples:
        """Call `ask` with the model as an lm-eval LM, and return its samples.

        `ask` may be called again, such as with smaller batches. `where` names model and task in messages.
        """

    @abstractmethod
    def free(self) -> None:
        """Free the model's memory; `answer` is not called again."""


def backend_named(name: str) -> type[Backend]:
    """Return the class that the file of this name defines; BadInput lists the names when there is none."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise BadInput("evaluate.backend", f"there is no backend {name}", f"take one of {', '.join(known)}")
    module = import_module(f"{__name__}.{name}")
    classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Backend)]
    (backend,) = (each for each in classes if each.__module__ == module.__name__)
    return backend
