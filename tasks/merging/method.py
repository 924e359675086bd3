"""A merge method's row of the table: its program, requirements and checks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from tasks.base.measures import TensorMeasures
from tasks.merging.low_rank import check_no_span
from tasks.merging.program import FamilyProgram, Program, Settings, together
from tasks.parameters.merge import MergeParams


class Method(NamedTuple):
    """A named merge method."""

    summary: str
    reference: str
    program: Callable[[Settings], Program]
    base: Literal["required", "unused"] = "unused"
    """Whether task vectors are differences from a base model."""
    at_least: int = 2
    """How many checkpoints it needs."""
    at_most: int | None = None
    sections: tuple[str, ...] = ()
    """The keys of the merge section that it reads, beside those that every method reads."""
    whole: bool = False
    """Whether it takes whole matrices (decompositions), in the files' precision, instead of rows."""
    measures: Literal["gradients", "inputs", "coefficients"] | None = None
    """What is measured on text beforehand: of every checkpoint gradients of the likelihood, for
    `Block.importance`, or inputs of linear layers, for `Block.grams`; or coefficients of the task vectors,
    for `Settings.coefficients`."""
    spans_model: Callable[[MergeParams], bool] = lambda params: False
    """Whether its measurements have to see the whole model before any tensor can be merged."""
    check: Callable[[Settings], None] = lambda settings: None
    """Raises BadInput for settings that do not fit the checkpoints."""
    notes: Callable[[Settings], list[str]] = lambda settings: []
    """Notes for the report on these settings, such as that they reduce to averaging."""
    findings: Callable[[Settings, Mapping[str, TensorMeasures]], list[str]] = lambda settings, tensors: []
    """Notes for the report on what was measured, which come before all others."""
    averages: Callable[[Settings], bool] = lambda settings: False
    """Whether these settings make it a plain average, which needs no decomposition."""
    by_age: bool = False
    """Whether it weighs checkpoints by their order or steps, which have no meaning over several runs."""
    averages_weights: bool = False
    """Whether it averages the weights themselves: whole tensors beside the factors of adapters, too."""
    check_span: Callable[[MergeParams], None] = check_no_span
    """Raises BadInput for parameters that cannot merge low-rank matrices within the span of their factors."""
    family: Callable[[Sequence[Settings]], FamilyProgram] | None = None
    """Merges several variants over the same blocks; without one, their programs run side by side."""
    cores: Callable[[Sequence[Settings]], FamilyProgram] | None = None
    """Merges the cores of low-rank matrices, where several tensors at once take less time than one by one."""

    def run(self, variants: Sequence[Settings]) -> FamilyProgram:
        """Return the program of these variants; their settings differ in parameters only."""
        family = self.family or (lambda variants: together([self.program(own) for own in variants]))
        return family(variants)

    def run_on_cores(self, variants: Sequence[Settings]) -> FamilyProgram:
        """Return the program of these variants for the cores of low-rank matrices."""
        return self.cores(variants) if self.cores else self.run(variants)
