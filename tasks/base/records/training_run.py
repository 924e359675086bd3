"""Records of training runs: their checkpoints, and those that were left out."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pydantic import Field

from tasks.base.json_digest import digest_of
from tasks.base.records.model import AdapterBase, digest_on
from tasks.base.records.record import FileDigest, Record, absent, is_empty

SAMPLED = "sampled:"


def _is_one(count: int) -> bool:
    return count == 1


class Conversion(Record):
    """The pickled state that a checkpoint's weights were converted from."""

    files: tuple[FileDigest, ...]
    """Relative to the checkpoint's directory at its source."""
    beside: str | None = None
    """Address of the directory that configuration and tokenizer are from; None: the checkpoint's own."""


class Checkpoint(Record):
    """One saved state of a training run, as it was when it was fetched."""

    name: str
    """checkpoint-N, or whatever its kind of source calls it; of one of several runs RUN/checkpoint-N."""
    step: int
    source: str
    """Its address: a directory, hf://org/name@commit[/folder], mlflow:/runs/RUN_ID/PATH/folder, or
    s3://bucket/run/folder."""
    metrics: dict[str, float]
    """What the Trainer logged at this step."""
    files: tuple[FileDigest, ...]
    """Digested once it is merged or evaluated."""
    sample: str = Field(default="", exclude_if=is_empty)
    """Digest of some of its bytes; empty in records of releases that digested every checkpoint."""
    base: AdapterBase | None = Field(default=None, exclude_if=absent)
    """The model that it is an adapter of; None for a whole model."""
    averaged: int = Field(default=1, exclude_if=_is_one)
    """Steps whose weights' mean it is; 1 for the weights of its own step."""
    conversion: Conversion | None = Field(default=None, exclude_if=absent)
    """Set where its weights were pickled, and `files` are those that were made of them."""
    run: str = Field(default="", exclude_if=is_empty)
    """Name of its run, where several are merged."""

    @property
    def digest(self) -> str:
        """Identity of its model: weights, configuration and base, wherever they are."""
        return digest_on(self.base, self.files)

    @property
    def is_digested(self) -> bool:
        """Whether its files were digested."""
        return all(file.is_digested for file in self.files)

    @property
    def identity(self) -> str:
        """Its digest, and its sample until it is digested."""
        return self.digest if self.is_digested else self.sample


class LeftOut(Record):
    """A checkpoint that was not taken, and why."""

    name: str
    reason: str


class OneOfRuns(Record):
    """A training run that is merged with others."""

    name: str
    """Unlike that of every other."""
    source: str
    rates: tuple[tuple[int, float], ...] = ()


class TrainingRun(Record):
    """A training run, or several of one base: the usable checkpoints in step order, run by run."""

    name: str
    source: str
    checkpoints: tuple[Checkpoint, ...]
    left_out: tuple[LeftOut, ...]
    rates: tuple[tuple[int, float], ...] = ()
    """The learning rates that its newest checkpoint's log has, by step; none where they were not logged."""
    means: tuple[Checkpoint, ...] = Field(default=(), exclude_if=is_empty)
    """Means over the steps up to each checkpoint, merged in its place; empty unless asked for."""
    several: tuple[OneOfRuns, ...] = Field(default=(), exclude_if=is_empty)
    """The runs, where it is more than one."""

    @property
    def runs(self) -> tuple["TrainingRun", ...]:
        """Each run alone."""
        if not self.several:
            return (self,)
        return tuple(
            TrainingRun(
                name=own.name,
                source=own.source,
                checkpoints=tuple(one for one in self.checkpoints if one.run == own.name),
                left_out=tuple(one for one in self.left_out if one.name.partition("/")[0] == own.name),
                rates=own.rates,
                means=tuple(one for one in self.means if one.run == own.name),
            )
            for own in self.several
        )

    @property
    def digest(self) -> str:
        """Identity of the run: that of its checkpoints, and of the means that are merged.

        It is made of samples, and of digests where a checkpoint could be taken for another; it begins with
        SAMPLED then, as those of releases that digested all did not.
        """
        own = (*self.checkpoints, *self.means)
        parts: Any = (
            [run.digest for run in self.runs] if self.several else [(one.step, one.identity) for one in own]
        )
        return (SAMPLED if any(one.sample for one in own) else "") + digest_of(parts)


def shares_of_runs(chosen: Sequence[Checkpoint]) -> list[tuple[float, ...]]:
    """Return run by run the weights of its checkpoints in its own average, which add up to 1."""
    runs = [[own.averaged for own in group] for _, group in groupby(chosen, lambda own: own.run)]
    return [tuple(count / sum(counts) for count in counts) for counts in runs]
