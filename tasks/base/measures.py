"""Measures of a merged tensor: the deviation of its inputs, and its method's own measures.

Plain data. Methods and engine make it, merge.json and the journal keep it, reports read it.
"""

import operator
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field


class Measures(BaseModel):
    """A frozen part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _unknown(value: object) -> bool:
    return value is None


class DeviationSummary(Measures):
    """Norms, cosines and conflicts of the task vectors; their anchor is the base, else the mean."""

    norms: tuple[float, ...]
    """‖δ_i‖"""
    anchor: float
    """‖θ_0‖"""
    cosines: tuple[float, ...]
    """Of the pairs (1, 2), (1, 3), ..., (2, 3), ...; 0 where one is zero."""
    conflict: float
    """Share of the elements that one task vector raises and another lowers."""
    elements: int
    sampled: int | None = Field(default=None, exclude_if=_unknown)
    """Elements that were measured, where these are not all; norms are scaled from them to all."""


class FactorMeasures(Measures):
    """The changes ΔW_i = BA of adapters, and the merged rank."""

    rank: int
    """Of the merged factors; 0 where no adapter has any."""
    norms: tuple[float, ...]
    """‖ΔW_i‖"""
    cosines: tuple[float, ...]
    """Of the pairs, as in `DeviationSummary`."""
    lost_energy: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """Share of the merge's ‖ΔW‖² that merge.adapter_rank left out; None without it."""


class WeightsUsed(Measures):
    """The weights of the checkpoints; their means where each column has its own (WIDEN)."""

    kind: Literal["weights"] = "weights"
    weights: tuple[float, ...]


class SlerpMeasures(Measures):
    """Interpolation along the arc between two checkpoints."""

    kind: Literal["slerp"] = "slerp"
    weights: tuple[float, ...]
    cosine: float
    """Of the angle between them."""


class ModelStockMeasures(Measures):
    """Interpolation between the base and the average."""

    kind: Literal["model_stock"] = "model_stock"
    t: float
    """0: the base; 1: the average."""
    cosine: float
    """The mean of the task vectors' pairs."""


class TsvMMeasures(Measures):
    """Task singular vectors."""

    kind: Literal["tsv_m"] = "tsv_m"
    ranks: tuple[int, ...]
    """How many were taken of each checkpoint."""


class IsoCMeasures(Measures):
    """The flat spectrum of the summed task vectors."""

    kind: Literal["iso_c"] = "iso_c"
    sigma: float
    """Every singular value of the result."""
    rank: int


class Averaged(Measures):
    """A plain average, where LoRE has nothing to decompose, is set not to, or had no time to."""

    kind: Literal["averaged"] = "averaged"
    identical: bool
    """Whether the checkpoints share the tensor; False where that was not compared."""
    out_of_time: bool = Field(default=False, exclude_if=operator.not_)
    """Whether merge.lore.time_limit was over before it was solved; of a stack, one of its matrices."""


class LoreMeasures(Measures):
    """A matrix m × n that LoRE decomposed into a common base and low-rank task vectors δ_i."""

    kind: Literal["lore"] = "lore"
    shape: tuple[int, int]
    solver: str
    passes: int
    gap: float
    """Proven bound on the objective's relative distance from its minimum."""
    error: float | None = None
    """Proven bound on the distance from the exact merge, root mean square over the elements, in last places
    of the dtype written; None where none was proven, or task vectors are cut or elected."""
    mu: float
    """merge.lore.mu for this tensor, in units of merge.lore.mu_scale."""
    threshold: float
    """The threshold that μ gave: the largest subtracted from a checkpoint's singular values."""
    edge: float
    """Noise edge: the largest singular value that noise alone would have."""
    active: tuple[int, ...]
    """How many singular values of each θ_i − θ_0 lie above the threshold."""
    ranks: tuple[int, ...]
    """Of the δ_i after merge.lore.rank_ratio."""
    effective_ranks: tuple[float, ...]
    """Effective rank of each δ_i: the exponential of its spectrum's entropy."""
    share: float
    """‖Σδ_i‖ / Σ‖δ_i‖"""
    explained: float
    """Share of the deviations' energy that the δ_i hold."""
    from_mean: float
    """Distance of the result from the average, over the mean distance of a checkpoint."""
    places_from_mean: float | None = None
    """The same distance, root mean square over the elements, in last places of the dtype written; None in
    records that were made before it was measured."""
    spectra: tuple[tuple[float, ...], ...]
    """The largest singular values of each θ_i − θ_0, descending."""


MethodMeasures: TypeAlias = Annotated[
    WeightsUsed | SlerpMeasures | ModelStockMeasures | TsvMMeasures | IsoCMeasures | Averaged | LoreMeasures,
    Field(discriminator="kind"),
]
"""A method's measures, by its family."""


class TensorMeasures(Measures):
    """All measures of a tensor; none for integers, which are copied. JSON leaves out what is None."""

    deviation: DeviationSummary | None = Field(default=None, exclude_if=_unknown)
    factors: FactorMeasures | None = Field(default=None, exclude_if=_unknown)
    """Of adapters that were merged by their factors; then there is no `deviation`."""
    method: MethodMeasures | None = Field(default=None, exclude_if=_unknown)
    """None where the method measures nothing, as with uniform weights."""
