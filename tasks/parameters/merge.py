"""The merge section of params.yaml: one model per method, the only home of defaults."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.parameters.section import Section
from tasks.parameters.varying import VARYING

Number = Annotated[float, Field(allow_inf_nan=False), VARYING]
Share = Annotated[float, Field(gt=0, le=1), VARYING]
CheckpointWeights = Annotated[
    Annotated[Literal["uniform", "nan", "metagpt"], Tag("<rule>")]
    | Annotated[tuple[Number, ...], Tag("<list>")],
    Discriminator(lambda value: "<rule>" if isinstance(value, str) else "<list>"),
]
Fraction = Annotated[float, Field(ge=0, lt=1), VARYING]


def _one_or_each(value: Any) -> str:
    """Tell one value for all checkpoints from a list of one for each; a list of rules is one value."""
    rules = isinstance(value, list) and value and all(isinstance(e, Mapping) and "value" in e for e in value)
    return "<each>" if isinstance(value, list | tuple) and not rules else "<one>"


Shares = Annotated[
    Annotated[Share, Tag("<one>")] | Annotated[tuple[Share, ...], Tag("<each>")], Discriminator(_one_or_each)
]
Fractions = Annotated[
    Annotated[Fraction, Tag("<one>")] | Annotated[tuple[Fraction, ...], Tag("<each>")],
    Discriminator(_one_or_each),
]


def value_for(value: float | tuple[float, ...], checkpoint: int) -> float:
    """Return the value for the checkpoint at a position, of one for all or one for each."""
    return value[checkpoint] if isinstance(value, tuple) else value


Tolerance = Annotated[
    Annotated[Literal["auto"], Tag("<word>")] | Annotated[float, Field(gt=0, lt=1), Tag("<number>")],
    Discriminator(lambda value: "<word>" if value == "auto" else "<number>"),
]


PAPER = {"mu": 0.01, "mu_scale": "absolute", "rank_ratio": 0.2}
"""Of Liu et al. 2025; λ = 1 goes with it."""


class LoreParams(Section):
    """LoRE merging: an approximate base plus low-rank task vectors (Liu et al. 2025)."""

    preset: Literal["paper"] | None = None
    """paper: what is not given is as in the paper: λ = 1, μ = 0.01 absolute, rank_ratio 0.2."""
    mu: Annotated[float, Field(gt=0, allow_inf_nan=False), VARYING] = 1.05
    """Singular value threshold, in units of `mu_scale`."""
    mu_scale: Literal["auto", "absolute", "sigma1", "noise_edge", "rank"] = "auto"
    """auto: × the noise edge, or × the singular value that 5 % exceed where that is larger; noise_edge: × the
    edge; rank: μ is the share of singular values that may exceed the threshold; sigma1: × the largest one;
    absolute: μ itself."""
    penalty: Literal["nuclear", "squared"] = "nuclear"
    """nuclear: μ‖δ‖_*, whose update the paper prints; squared: ½μ‖δ‖_*², as it writes the objective."""
    rank_ratio: Share = 1.0
    """Each task vector keeps at most this share of min(rows, columns) singular values."""
    anchor: Literal["mean"] | int = "mean"
    """Two checkpoints only: the step whose weights break the symmetry that makes LoRE plain averaging."""
    combine: Literal["sum", "mean", "ties"] = "sum"
    """How the task vectors δ_i become τ: their sum, their mean, or the sign-elected mean of TIES."""
    embeddings: Literal["solve", "average"] = "solve"
    """average: embeddings and output heads are averaged, not decomposed."""
    tolerance: Tolerance = "auto"
    """auto: the merged weights are proven to be within half a last place of the exact merge, or 1/256 of the
    checkpoints' own deviation where that is more; a number: the relative duality gap that is proven."""
    passes: Annotated[int, Field(ge=1)] | None = None
    """Run the paper's Algorithm 1 so many times instead of solving the problem."""
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Minutes of a merge after which matrices that are not solved are averaged, and named in the report."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Fill what is not given from the preset."""
        paper = isinstance(given, Mapping) and given.get("preset") == "paper"
        return {**PAPER, **given} if paper else given


class EmaParams(Section):
    """Exponential moving average over the selected checkpoints."""

    decay: Annotated[float, Field(gt=0, lt=1), VARYING] = 0.6
    """Weight of a checkpoint relative to the next newer one."""
    half_life: Annotated[float, Field(gt=0, allow_inf_nan=False), VARYING] | None = None
    """Training steps after which a weight has halved, in place of `decay`: right for uneven spacing, too."""


class PowerEmaParams(Section):
    """Post-hoc EMA with a power profile (Karras et al. 2024, arXiv 2312.02696)."""

    width: Annotated[float, Field(gt=0, le=0.28), VARYING] = 0.1
    """Standard deviation of the profile t^γ, as a share of training; γ = 16.97 at 0.05, 6.94 at 0.1."""


class WsmParams(Section):
    """What is left of a decay of the learning rate (Tian et al. 2025)."""

    profile: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """The decay, from the first checkpoint's rate to 0 at the last; less what the logged rate did of it."""


class TrendParams(Section):
    """The mean, moved along the line that fits the checkpoints."""

    kappa: Number = 0.5
    """κ: 0 is the mean, 1 the end of the fitted line."""


class LawaParams(Section):
    """Average of the latest checkpoints, spaced widely (Kaddour 2022)."""

    k: Annotated[int, Field(ge=1)] = 3
    """How many checkpoints are averaged."""
    spacing: Annotated[int, Field(ge=1)] = 1
    """Every so many-th checkpoint counts, the newest first."""


class TrimmedMeanParams(Section):
    """The mean of the middle values, element by element (Yin et al. 2018)."""

    share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Share of the checkpoints that is left out at either end, rounded down."""


class TiesParams(Section):
    """Trim, elect sign, disjoint mean (Yadav et al. 2023)."""

    density: Shares = 0.2
    """Share of each task vector that is kept, by magnitude; or one for each checkpoint, oldest first."""
    scope: Literal["tensor", "model"] = "tensor"
    """What the share is counted over: each tensor, or the whole model (the paper's)."""
    normalize: bool = True
    """Whether the values that agree in sign are averaged (the paper's) or added up (mergekit's dare_ties)."""


class DareParams(Section):
    """Drop and rescale (Yu et al. 2023)."""

    p: Fractions = 0.5
    """Probability that an element of a task vector is dropped, or one for each checkpoint, oldest first; the
    rest is multiplied by 1/(1 − p)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """With tensor name and checkpoint it decides what is dropped."""


class BreadcrumbsParams(Section):
    """Drop outliers and small changes (Davari and Belilovsky 2023)."""

    density: Shares = 0.9
    """Share of each task vector that is kept; or one for each checkpoint, oldest first."""
    gamma: Fractions = 0.01
    """Share of the largest magnitudes that is dropped; or one for each checkpoint, oldest first."""


class SlerpParams(Section):
    """Spherical interpolation of two checkpoints."""

    t: Annotated[float, Field(ge=0, le=1), VARYING] = 0.5
    """0 is the first checkpoint, 1 the second."""


class MetagptParams(Section):
    """Weights ∝ ‖τ_i‖² (Zhou et al. 2024)."""

    per: Literal["tensor", "model"] = "model"
    """What the norms are taken over."""


class NanParams(Section):
    """Weights ∝ 1/‖·‖ (Si et al. 2025)."""

    of: Literal["weights", "task_vectors"] = "weights"
    """Whose norm: the paper's weights, or their differences from the anchor."""
    per: Literal["tensor", "model"] = "tensor"
    """What the norms are taken over."""
    scale: Number = 1.0
    """Multiplies λ."""


class WidenParams(Section):
    """Weight disentanglement (Yu et al. 2024, arXiv 2408.03092)."""

    t: Number = 1.0
    """A rank over t times its mean makes the score s; t < 0: always."""
    s: Number = 1.0
    """The score of what changed much."""


class RegmeanParams(Section):
    """Regression on the inputs of linear layers (Jin et al. 2023, arXiv 2212.09849)."""

    alpha: Annotated[float, Field(ge=0, le=1), VARYING] = 0.9
    """α: multiplies the products of different inputs; at 0 each input counts by its square alone."""


class AdamergingParams(Section):
    """Coefficients of task vectors, learned on text (Yang et al. 2024, arXiv 2310.02575)."""

    steps: Annotated[int, Field(ge=1)] = 20
    """Of Adam, each on 16 of the texts. The paper takes 500; more than 20 lost on some runs tried here."""
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001
    """Of learning: about how far a coefficient moves in a step."""


class CalibrationParams(Section):
    """The text on which methods measure every checkpoint that weigh by more than the weights themselves."""

    file: str | None = None
    """A text file, one document a line, or JSON lines with the key text, and prompt for what stands
    before it; unset: the items of `evaluate.select_tasks`, each a prompt with its right answer."""
    items: Annotated[int, Field(ge=1)] = 128
    """How many of them are used, spread evenly."""


class MergeParams(Section):
    """How the selected checkpoints become one model."""

    method: Literal[
        "lore",
        "average",
        "ema",
        "wma",
        "lawa",
        "power_ema",
        "planned",
        "wsm",
        "trend",
        "drift",
        "median",
        "trimmed_mean",
        "geometric_median",
        "fisher",
        "regmean",
        "adamerging",
        "task_arithmetic",
        "ties",
        "dare",
        "dare_ties",
        "breadcrumbs",
        "slerp",
        "model_stock",
        "metagpt",
        "widen",
        "tsv_m",
        "iso_c",
    ] = "planned"
    """The merge method."""
    base: str | None = None
    """The model the checkpoints started from: a directory. Task vectors are differences from it. Adapters are
    merged into a full model on it."""
    full: bool = False
    """Of adapters: merge them into a full model, on their own base where merge.base is not set."""
    adapter_rank: Annotated[int, Field(ge=1)] | None = None
    """Of adapters: the largest rank of the merged one, whose smallest singular values are left out; unset: it
    is exact, and its rank up to the sum of theirs."""
    lam: Number | None = None
    """λ of θ* = θ_0 + λ·τ; unset: 1; for the sum of LoRE 0.75/N, a quarter of the way from mean to θ_0."""
    weights: CheckpointWeights = "uniform"
    """Weight of each checkpoint, or one for each, oldest first."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the merged weights; auto: the checkpoints' own, the wider one where they differ."""
    on_nan: Literal["stop", "drop"] = "stop"
    """drop: a checkpoint that holds NaN or Inf is left out, and the report says so."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto (a GPU for methods that decompose matrices), cpu, cuda (every GPU) or cuda:i."""
    max_shard_size: Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*([KMGT]i?B|B)?$")] = "5GB"
    """Largest weight file; a bigger model is sharded with an index."""
    lore: LoreParams = LoreParams()
    ema: EmaParams = EmaParams()
    lawa: LawaParams = LawaParams()
    power_ema: PowerEmaParams = PowerEmaParams()
    wsm: WsmParams = WsmParams()
    trend: TrendParams = TrendParams()
    trimmed_mean: TrimmedMeanParams = TrimmedMeanParams()
    ties: TiesParams = TiesParams()
    dare: DareParams = DareParams()
    breadcrumbs: BreadcrumbsParams = BreadcrumbsParams()
    slerp: SlerpParams = SlerpParams()
    metagpt: MetagptParams = MetagptParams()
    nan: NanParams = NanParams()
    widen: WidenParams = WidenParams()
    regmean: RegmeanParams = RegmeanParams()
    adamerging: AdamergingParams = AdamergingParams()
    calibration: CalibrationParams = CalibrationParams()

    @model_validator(mode="after")
    def _names_lore(self) -> Self:
        """Refuse settings of what was the default method until 0.1.0, which would be passed over."""
        if "lore" in self.model_fields_set and "method" not in self.model_fields_set:
            raise ValueError("lore is set and method is not, whose default is planned", "set method: lore")
        return self

    @property
    def for_each(self) -> dict[str, int]:
        """Name the parameters that have a value for each checkpoint, and how many."""
        sections = {"": self, "ties.": self.ties, "dare.": self.dare, "breadcrumbs.": self.breadcrumbs}
        return {
            f"{prefix}{key}": len(value)
            for prefix, section in sections.items()
            for key, value in section
            if isinstance(value, tuple)
        }
