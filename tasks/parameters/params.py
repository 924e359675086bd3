"""The parameters of every stage: one frozen model per section of params.yaml, the only home of defaults."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tasks.parameters.merge import MergeParams
from tasks.parameters.section import Section, load_yaml, override, parse

PARAMS_FILE = Path("params.yaml")
"""In the directory of a project, where every command runs."""


class FetchParams(Section):
    """Which training run, and when it counts as finished."""

    source: str
    """A Trainer output directory, hf://org/name (checkpoint-* folders), hf://org/name@step* (revisions), or
    mlflow:/runs/RUN_ID/PATH (checkpoint-* folders among a run's artifacts)."""
    wait: Annotated[float, Field(ge=0)] = 0.0
    """Seconds to wait for checkpoints that are still being written before leaving them out."""
    settle: Annotated[float, Field(ge=0)] = 1.0
    """Seconds between the two looks that show that nothing changes any more."""


class SelectParams(Section):
    """Which checkpoints of the trajectory are merged."""

    rule: Literal["last_k", "top_k", "spaced", "steps"] = "last_k"
    """last_k: the newest; top_k: the best by `metric`; spaced: over the last `fraction`; steps: those."""
    k: Annotated[int, Field(ge=1)] = 5
    """How many checkpoints last_k, top_k and spaced take."""
    metric: str = "eval_loss"
    """A metric the Trainer logged; it also names the best single checkpoint the merge is compared with."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger `metric` is better."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """spaced: the share of the run, counted from its end, that the checkpoints are spread over."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """steps: exactly these training steps."""


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
    margin: Annotated[float, Field(ge=0)] = 0.01
    """How far the mean of any other metric may fall, in its units, without blocking PROMOTE."""
    margins: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Exceptions to `margin`, by task/metric."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Evaluate only the first so many items of each task."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples shown before each item; unset: what the task says."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Items per forward pass."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, or cuda[:i]."""
    seed: int = 0
    """Seed of lm-eval's sampling and of the bootstrap."""


class RegisterParams(Section):
    """Where the merge is registered and who may promote it."""

    name: Annotated[str, Field(pattern=r"^[^/:]+$", max_length=250)] = "loreline"
    """The MLflow registered model."""
    tracking_uri: str | None = None
    """MLflow server; unset: $MLFLOW_TRACKING_URI, else SQLite in the state directory."""

    @field_validator("tracking_uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        """Keep secrets out of what is logged, hashed and committed."""
        if uri and "@" in urlsplit(uri).netloc:
            raise ValueError(
                "holds a user or password; leave it null and set MLFLOW_TRACKING_URI, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment"
            )
        return uri

    promote: Literal["manual", "auto"] = "manual"
    """auto: a PROMOTE verdict moves the alias champion; manual: only `loreline promote` does."""


class VersionParams(Section):
    """How the outputs are versioned."""

    branch: Annotated[str, Field(pattern=r"^[\w][\w./-]*$")] = "merges"
    """The git branch that gets a commit of dvc.lock and params.yaml for each merged run; made if missing."""
    push: bool = False
    """dvc push to the default remote after the run; until it succeeds, the merge cannot be promoted."""


class WatchParams(Section):
    """Where training runs appear, and when one counts as ended."""

    roots: tuple[str, ...] = ()
    """Globs of output directories (runs/*), hf://org/name[@step*], mlflow:/experiments/NAME[/PATH]."""
    quiet_for: Annotated[float, Field(ge=0)] = 1800.0
    """Seconds without a change after which a run has ended although its training state does not say so."""


class Params(Section):
    """params.yaml as a whole."""

    fetch: FetchParams
    select: SelectParams = SelectParams()
    merge: MergeParams = MergeParams()
    evaluate: EvaluateParams
    register_: Annotated[RegisterParams, Field(alias="register")] = RegisterParams()
    version: VersionParams = VersionParams()
    watch: WatchParams = WatchParams()


def read_params(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read params.yaml and apply `section.key=value` overrides.

    Raises BadInput naming the key, what is wrong and what would be right.
    """
    tree = load_yaml(path)
    for setting in overrides:
        override(tree, setting)
    return parse(Params, tree, where=path.name)
