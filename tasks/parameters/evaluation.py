"""The section evaluate: tasks, metrics and the gate's bounds."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.section import Section


class EvaluateParams(Section):
    """What the merge is measured on, and what it has to show."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """lm-eval task names: of `include_path`, or that lm-eval ships."""
    include_path: str | None = None
    """Directory of local task YAML files; their relative data_files are relative to the YAML file."""
    primary: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    """The metric that decides, as task/metric, such as gsm8k/exact_match or word_problems_nll/nll."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """What the lower end of the primary metric's 95 % interval must exceed for PROMOTE, in its units."""
    beat_average: bool = True
    """PROMOTE needs a gain over the checkpoints' plain average too, unless the merge is just that."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """How far any other metric may fall, in its units; 0: it must not be shown to fall."""
    margins: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Exceptions to `margin`, by task/metric."""
    guard_strictly: tuple[str, ...] = ()
    """Metrics, as task/metric, that must each be shown to fall by no more than their margin."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Evaluate only the first so many items of each task."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples shown before each item; unset: what the task says."""
    backend: str = "hf"
    """What runs the models: hf (transformers), or another file of tasks/evaluation/backends."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Items per forward pass."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, or cuda[:i]."""
    seed: int = 0
    """Seed of lm-eval's sampling."""
