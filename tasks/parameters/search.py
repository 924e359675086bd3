"""The section search: how many merges are tried before one is made, and which."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.address import no_secret
from tasks.parameters.section import Section

NEWEST = "newest"
"""The key of `over` that is none of the merge section."""


class SearchParams(Section):
    """Trying merges on evaluate.select_tasks before one is made; the test items are not touched."""

    budget: Annotated[int, Field(ge=0)] = 0
    """Merges that are tried, what merge says among them; 0: none, what merge says is made."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Begin to try no further one after so many minutes."""
    first_items: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the select items, by their content, that every merge is asked first: one that loses there by
    more than a standard error to the best so far is asked no more. 1: all are asked at once, as for surface,
    with evaluate.limit, and where that would be fewer than 50 items."""
    devices: tuple[str, ...] = ()
    """Where merges are tried at the same time, one on each: [cuda:0, cuda:1]; none: evaluate.device."""
    sampler: Literal["surface", "greedy", "tpe", "cmaes", "gp"] = "tpe"
    """tpe, cmaes, gp: Optuna's; surface: the weights that are best by a quadratic model, of as many of the
    newest checkpoints as the budget is enough for: 18 for five; greedy: the best checkpoint, and every other
    that does no harm, 10 for five."""
    over: dict[str, tuple[str | int | float | bool, ...]] = Field(default_factory=dict)
    """For Optuna's samplers, values to choose from, by key of merge: {method: [ema, trend]}; `newest` is how
    many of the selected checkpoints are merged. Neither this nor `between`: for tpe average, ema, trend and
    drift of 2 or more, for cmaes and gp the weights of an average."""
    between: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """For Optuna's samplers, ends of ranges, by key of merge: {ema.decay: [0.3, 0.95]}."""
    by_layer_kind: bool = False
    """Draw each number of `between` for embeddings and heads, attention, MLPs and the rest by itself."""
    storage: Annotated[str, no_secret] | None = None
    """Where Optuna keeps the trials, as sqlite:///FILE or postgresql://HOST/DATABASE, for its dashboard;
    null: a journal in the state directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of Optuna's samplers."""

    @property
    def at_once(self) -> int:
        """How many merges are tried at the same time."""
        return max(1, len(self.devices))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.budget in (1, 2):
            raise ValueError("budget: two of them are what merge says and one more", "take 3 or more, or 0")
        if twice := self.over.keys() & self.between.keys():
            raise ValueError(f"{min(twice)} is in over and in between", "leave out one of them")
        for key, values in self.over.items():
            if not values:
                raise ValueError(f"over.{key} has no values", "list some")
        for key, (low, high) in self.between.items():
            if not low < high:
                raise ValueError(f"between.{key} is no range", "write it as [low, high]")
        return self
