"""The parameters of every stage: one frozen model per section of params.yaml, the only home of defaults."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import BadInput


class Section(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True
    )


class FetchParams(Section):
    """Which training run, and when it counts as finished."""

    source: str
    """A Trainer output directory, hf://org/name (checkpoint-* folders) or hf://org/name@step* (revisions)."""
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


class LoreParams(Section):
    """LoRE merging: an approximate base plus low-rank task vectors (Liu et al. 2025)."""

    mu: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Singular value threshold, in units of `mu_scale`."""
    mu_scale: Literal["absolute", "sigma1", "noise_edge"] = "noise_edge"
    """absolute: μ itself; sigma1: × the largest singular value; noise_edge: × the edge of the noise."""
    rank_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each task vector keeps at most this share of min(rows, columns) singular values."""
    anchor: Literal["mean"] | int = "mean"
    """Two checkpoints only: the step whose weights break the symmetry that makes LoRE plain averaging."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Relative duality gap at which a matrix counts as solved."""


class EmaParams(Section):
    """Exponential moving average over the selected checkpoints."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Weight of a checkpoint relative to the next newer one."""


class MergeParams(Section):
    """How the selected checkpoints become one model."""

    method: Literal["lore", "average", "ema"] = "lore"
    """The merge method."""
    lam: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """λ of θ* = θ_0 + λ·τ; unset: 1.25/N for lore, a quarter as far beyond the mean as θ_0 lies before it."""
    max_shard_size: Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*([KMGT]i?B|B)?$")] = "5GB"
    """Largest weight file; a bigger model is sharded with an index."""
    lore: LoreParams = LoreParams()
    """Parameters of method lore."""
    ema: EmaParams = EmaParams()
    """Parameters of method ema."""


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
    margins: dict[str, Annotated[float, Field(ge=0)]] = {}
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

    git_commit: bool = False
    """Commit dvc.lock after the run."""
    push: bool = False
    """dvc push to the default remote after the run."""


class Params(Section):
    """params.yaml as a whole."""

    fetch: FetchParams
    select: SelectParams = SelectParams()
    merge: MergeParams = MergeParams()
    evaluate: EvaluateParams
    register_: Annotated[RegisterParams, Field(alias="register")] = RegisterParams()
    version: VersionParams = VersionParams()


SectionT = TypeVar("SectionT", bound=Section)


class _PlainLoader(yaml.SafeLoader):
    """Plain YAML only: an alias can expand without bound, so there are none."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, compose everything else."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


def read_params(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Read params.yaml and apply `section.key=value` overrides.

    Raises BadInput naming the key, what is wrong and what would be right.
    """
    tree = _load_yaml(path)
    for override in overrides:
        _apply(tree, override)
    return parse(Params, tree, where=path.name)


def read_merge_params(overrides: Iterable[str]) -> MergeParams:
    """Build the merge section alone, from `merge.key=value` overrides: for merges outside a pipeline."""
    tree: dict[str, Any] = {"merge": {}}
    for override in overrides:
        if not override.startswith("merge."):
            raise BadInput(f"--set {override}: a merge of named checkpoints takes only merge.* keys")
        _apply(tree, override)
    return parse(MergeParams, tree["merge"], where="--set", prefix="merge.")


def parse(section: type[SectionT], tree: Mapping[str, Any], where: str, prefix: str = "") -> SectionT:
    """Validate a plain tree, turning the first error into one sentence (BadInput)."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise BadInput(f"{where}: {_sentence(section, error, prefix)}") from None


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError:
        raise BadInput(
            f"{path}: no such file; run loreline where params.yaml is, or name it with --params"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: not readable as plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: must hold sections (fetch, select, merge, ...), not {type(tree).__name__}")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise BadInput(f"--set {override}: write it as section.key=value")
    try:
        value = yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError:
        raise BadInput(f"--set {override}: {text!r} is not a YAML value") from None
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise BadInput(f"--set {override}: {parent} is not a section")
    tree[leaf] = value


def _sentence(section: type[Section], error: ValidationError, prefix: str) -> str:
    first = error.errors(include_url=False)[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _keys(section, first["loc"][:-1]), n=1)
        parent = key.rpartition(".")[0]
        meant = (
            f"; did you mean {near[0]}?"
            if near
            else f"; see tasks/params.py for the keys of {parent or 'it'}"
        )
        return f"unknown key {key}{meant}"
    if first["type"] == "missing":
        return f"{key} is missing; set it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # ours; the value may be a secret
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, but it is {first['input']!r}"


def _keys(section: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        field = _fields(section).get(str(part))
        if field is None or not (isinstance(field, type) and issubclass(field, Section)):
            return []
        section = field
    return list(_fields(section))


def _fields(section: type[Section]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}
