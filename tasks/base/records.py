"""Records that stages pass to each other: small, frozen, JSON on disk, never a tensor."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.base.errors import BadInput, brief
from tasks.base.hub_address import HUB
from tasks.base.measures import DeviationSummary, TensorMeasures
from tasks.base.passage import Passage
from tasks.base.regular_files import open_regular

Decision = Literal["PROMOTE", "KEEP", "INCONCLUSIVE"]
SAMPLED = "sampled:"
HUB_MODEL = re.compile(rf"{HUB}([^@/]+/[^@/]+)")
GateRule = Literal[
    "equal",
    "gain_ruled_out",
    "too_few_items",
    "too_few_clusters",
    "constant_gain",
    "gain_open",
    "may_be_chance",
    "others_worsen",
    "guard_open",
    "harm_open",
    "better",
    "spent",
    "not_confirmed",
    "harm_on_vault",
    "not_chosen",
]
"""Recorded with every verdict: a name may be added, but not taken away."""


class Record(BaseModel):
    """A frozen record that reads and writes itself as JSON with stable bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        """Write as indented JSON; the same record gives the same bytes."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from JSON; raises BadInput when the file is missing or not such a record."""
        try:
            file, _ = open_regular(path)
            with file:
                return cls.model_validate_json(file.read())
        except FileNotFoundError:
            raise BadInput(path, "not there", "run the stage that writes it first") from None
        except (OSError, ValidationError) as error:
            problem = brief(error) if isinstance(error, OSError) else str(error).splitlines()[0]
            raise BadInput(
                path, f"not a {cls.__name__} record ({problem})", "remove it and run again"
            ) from None


def _with_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_with_zone)]
"""A time in ISO 8601, with its zone."""


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"not JSON-able: {type(value).__name__}")


def _below(name: str) -> str:
    """Refuse names that lead out: files are replaced and removed by them."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
        raise ValueError("leads out of its directory")
    return name


def _absent(value: Any) -> bool:
    return value is None


class FileDigest(Record):
    """A file below its directory."""

    name: Annotated[str, AfterValidator(_below)]
    """Relative to the directory, with slashes."""
    size: int
    sha256: str | None = Field(default=None, exclude_if=_absent)
    """In records of releases that knew no other digest."""
    blake3: str | None = Field(default=None, exclude_if=_absent)

    @property
    def digest(self) -> str:
        """What tells its bytes from all others, with the name of the algorithm unless that is SHA-256."""
        assert self.is_digested, f"{self.name} is not digested yet"
        return self.sha256 or f"blake3:{self.blake3}"

    @property
    def is_digested(self) -> bool:
        """Whether it has a digest."""
        return bool(self.sha256 or self.blake3)


def model_digest(files: tuple[FileDigest, ...]) -> str:
    """Return the digest of the files that decide a model's outputs; trainer_state.json does not."""
    return digest_of(sorted((file.name, file.digest) for file in files if file.name != "trainer_state.json"))


class AdapterBase(Record):
    """The model that adapters are made for, as it was when they were fetched."""

    address: str
    """A directory, or hf://org/name@commit in the Hub's cache."""
    files: tuple[FileDigest, ...]

    @property
    def digest(self) -> str:
        """Identity of the model, wherever it is."""
        return model_digest(self.files)


def _digest_on(base: AdapterBase | None, files: tuple[FileDigest, ...]) -> str:
    """Return the digest of a model: of its files, and where it is an adapter of its base too."""
    own = model_digest(files)
    return digest_of(["adapter", own, base.digest]) if base else own


def _is_empty(given: Collection[Any]) -> bool:
    return not given


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
    sample: str = Field(default="", exclude_if=_is_empty)
    """Digest of some of its bytes; empty in records of releases that digested every checkpoint."""
    base: AdapterBase | None = Field(default=None, exclude_if=_absent)
    """The model that it is an adapter of; None for a whole model."""
    averaged: int = Field(default=1, exclude_if=_is_one)
    """Steps whose weights' mean it is; 1 for the weights of its own step."""
    conversion: Conversion | None = Field(default=None, exclude_if=_absent)
    """Set where its weights were pickled, and `files` are those that were made of them."""
    run: str = Field(default="", exclude_if=_is_empty)
    """Name of its run, where several are merged."""

    @property
    def digest(self) -> str:
        """Identity of its model: weights, configuration and base, wherever they are."""
        return _digest_on(self.base, self.files)

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
    means: tuple[Checkpoint, ...] = Field(default=(), exclude_if=_is_empty)
    """Means over the steps up to each checkpoint, merged in its place; empty unless asked for."""
    several: tuple[OneOfRuns, ...] = Field(default=(), exclude_if=_is_empty)
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


class FarCheckpoint(Record):
    """A checkpoint that lies far from the others, as one that has diverged does."""

    step: int
    times: float | None
    """Its median distance to the others, in units of the median of these; None where those are equal."""
    tensor: str | None = None
    """The tensor in which it does; None: the whole model."""

    @property
    def sentence(self) -> str:
        """How far it lies from the others, and where."""
        where = f" in {self.tensor}" if self.tensor else ""
        if self.times is None:
            return f"lies apart from the others, which are equal{where}"
        return f"lies {self.times:.3g} times as far from the others as is usual among them{where}"


class RunPlan(Record):
    """What kind of run it is by its learning rate, and what a merge can be expected to do."""

    schedule: Literal["constant", "decaying", "decayed", "unknown"]
    peak: float
    last_rate: float
    since: int
    """The first step from which the rate is near its peak."""
    until: int
    """The last step at which it is."""
    window: tuple[int, ...]
    """Steps of the checkpoints that it would merge; the last alone where no merge is expected to help."""
    weights: tuple[float, ...]
    """What would be left of a decay, as weights of these."""
    before_decay: tuple[int, ...]
    """Steps of checkpoints before a decay that could be merged instead."""
    far: tuple[FarCheckpoint, ...] = ()
    """Checkpoints that the window leaves out."""
    rates: tuple[tuple[int, float], ...] = ()
    sentence: str = ""


class Selection(Record):
    """The checkpoints to merge, oldest first."""

    run: str
    rule: str
    chosen: tuple[Checkpoint, ...]
    left_out: tuple[LeftOut, ...]
    best: Checkpoint | None
    """Best single checkpoint of the whole run by the selection metric; None when it was never logged."""
    last: Checkpoint
    metric: str
    plan: RunPlan | None = None
    """What the run's learning rate says of a merge; None of several runs, and in records of 0.1.0."""
    plans: dict[str, RunPlan] = Field(default_factory=dict, exclude_if=_is_empty)
    """Of several runs: run → what its learning rate says."""

    @property
    def planned(self) -> tuple[str, ...]:
        """What the plan says, a sentence for each run."""
        if self.plan:
            return (self.plan.sentence,)
        return tuple(f"{run}: {plan.sentence}" for run, plan in self.plans.items())


class TriedMerge(Record):
    """A merge that a search tried."""

    candidate: str
    mean: float
    """Of the metric; its direction is the report's."""
    gain: float
    """Over what the merge section says, item by item; positive: better."""
    error: float
    """Standard error of the gain."""
    items: int | None = Field(default=None, exclude_if=_absent)
    """How many items it was asked; fewer than others where it lost on those that are asked first."""


class SearchReport(Record):
    """What a search of the merge tried on the select items, and what is to be merged."""

    made_for: str
    """Identity of the selection's checkpoints and of the merge section."""
    merge: dict[str, Any] = Field(default_factory=dict)
    """The merge section that was found; empty where nothing was searched."""
    newest: int = 0
    """How many of the selection's checkpoints are merged, the newest ones."""
    metric: str = ""
    """task/metric"""
    higher_is_better: bool = False
    items: int = 0
    sampler: str = ""
    tried: tuple[TriedMerge, ...] = ()
    """In their order, what the merge section says first."""
    accepted: bool = False
    """Whether the best one beats what the merge section says by more than a standard error."""
    sentence: str = ""


class MergeInput(Record):
    """An input of a merge."""

    path: str
    step: int
    digest: str
    run: str = Field(default="", exclude_if=_is_empty)
    """Name of its run, where several are merged."""

    @property
    def label(self) -> str:
        """Its name among the inputs."""
        return f"{self.run} step {self.step}".strip()


class CalibrationText(Record):
    """The texts that a merge measured its checkpoints on."""

    items: int
    sha256: str

    @classmethod
    def of(cls, texts: Sequence[Passage]) -> Self | None:
        """Describe texts; None where there are none."""
        return cls(items=len(texts), sha256=digest_of(list(texts))) if texts else None


class MergeReport(Record):
    """What a merge did: written into the model directory as merge.json."""

    method: str
    parameters: dict[str, Any]
    inputs: tuple[MergeInput, ...]
    outputs: tuple[FileDigest, ...]
    notes: tuple[str, ...]
    tensors: dict[str, TensorMeasures]
    """What was measured on each tensor."""
    base: AdapterBase | None = Field(default=None, exclude_if=_absent)
    """The model that the merge is an adapter of, where that is known; None for a whole model."""
    calibration: CalibrationText | None = Field(default=None, exclude_if=_absent)
    """None where the method needs no text."""

    @property
    def hub_models(self) -> list[str]:
        """The Hub's repositories among what it was made from: an adapter's base, else the checkpoints."""
        addresses = [self.base.address] if self.base else [source.path for source in self.inputs]
        return sorted({match[1] for match in map(HUB_MODEL.match, addresses) if match})

    @property
    def deviations(self) -> dict[str, DeviationSummary]:
        """Deviations of the checkpoints, tensor by tensor; integers have no task vectors."""
        return {name: own.deviation for name, own in self.tensors.items() if own.deviation}

    @property
    def digest(self) -> str:
        """Identity of the merged model."""
        return _digest_on(self.base, self.outputs)


class MergedBase(Record):
    """The base in a merge.json of any release, whose other fields may be in another form."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: AdapterBase | None = None


class Interval(Record):
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


class Score(Record):
    """One model on one metric."""

    model: str
    """Its role."""
    metric: str
    """task/metric"""
    items: int
    value: Interval


class Difference(Record):
    """The merge minus another model, item by item, signed so that positive means the merge is better."""

    against: str
    """The other's role."""
    metric: str
    items: int
    gain: Interval
    p_value: float | None
    """Exact two-sided test that the gain is 0, where every win counts the same and so does every loss."""
    wins: int
    losses: int


class EvaluatedModel(Record):
    """A model that took part in an evaluation."""

    role: str
    """merge, last, best, average, champion, base: what adapters were made for, which nothing is held to,
    reference: a fixed model that other metrics are held to, or run-N: the average of one of several runs"""
    label: str
    digest: str


class Worsening(Record):
    """A metric that the merge worsens by more than its margin."""

    metric: str
    loss: float
    margin: float
    against: str | None = None
    """The other model's role; None in records of 0.1.0: that of the verdict."""


class Standing(Record):
    """How the merge stands against one opponent on the deciding metric."""

    against: str
    """The opponent's role; gain, interval, wins, losses and p are in the differences."""
    rule: GateRule
    """What holds against this opponent alone; `better` where the gain is shown."""


class GuardedMetric(Record):
    """A metric that must not suffer, against one model."""

    metric: str
    margin: float
    gain: Interval
    """Each end is a bound at 5 % one-sided."""
    worse: bool
    """Shown to worsen, and by more than its margin on average."""
    finds: float
    """The smallest loss that these items find four times in five."""
    strict: bool
    """Named in `evaluate.guard_strictly`: PROMOTE needs it held."""

    @property
    def held(self) -> bool:
        """Tell whether it is shown to lose no more than its margin."""
        return self.gain.low >= -self.margin


class Guard(Record):
    """All metrics but the deciding one, against one model."""

    against: str
    metrics: tuple[GuardedMetric, ...]
    pooled: Interval | None
    """Mean gain over the metrics, each in units of its margin, 5 % one-sided; None without margins."""

    @property
    def held(self) -> bool:
        """Tell whether the metrics together are shown to lose no more than their margins."""
        return self.pooled is None or self.pooled.low > -1


class Confirmation(Record):
    """What a vault said of a merge that the test items would have promoted."""

    against: str
    """The role of the model that it would replace."""
    items: int
    gain: Interval
    """Each end is a bound at `level` one-sided."""
    level: float
    look: int
    """The how many-th look at this vault it was."""
    excess: float
    """The gain on the test items less that on the vault's: what the test items promised too much."""
    worsened: tuple[Worsening, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether the gain is confirmed, and nothing is shown to suffer."""
        return self.gain.low > 0 and not self.worsened


class Reason(Record):
    """Which of the gate's rules decided, and by what bounds; the gain itself is in the differences."""

    rule: GateRule
    min_gain: float
    worsened: tuple[Worsening, ...]


class Verdict(Record):
    """Whether the merge should replace what is in use, and on what evidence."""

    decision: Decision
    sentence: str = ""
    """The fields in words: tasks/verdict/sentence.py."""
    against: str
    """The role of the opponent that decides: the one that blocks, else the strongest."""
    primary: str
    items_needed: int | None = None
    """Written by 0.1.0 only."""
    finds: float | None = None
    """The smallest gain over that opponent that these items find four times in five; None where unknown."""
    level: float = 0.025
    """One-sided, of every opponent's interval and exact test."""
    opponents: tuple[Standing, ...] = ()
    """Every model that the merge must beat, the champion first."""
    guards: tuple[Guard, ...] = ()
    """What the other metrics show, against each model that they are held to."""
    look: int | None = None
    """The how many-th look at these test items it is; None where none was counted."""
    chance: float | None = None
    """Up to which the chance of a false promotion in all these looks has grown, were nothing better."""
    trained_on: int = 0
    """Test items that occur in the run's training data, as far as its files are named."""
    confirmation: Confirmation | None = None
    """What the vault said; None where it was not asked."""
    reason: Reason | None = None
    """None where 0.1.0 recorded the verdict: it kept the sentence alone."""
    beside_average: Literal["no_better", "not_shown_better"] | None = None
    """Set where a gain over the opponent is no gain, or not shown to be one, over the plain average."""
    not_measured: tuple[str, ...] = ()
    """Labels of models that took part when it was recorded and have no results on this machine."""
    recorded: Decision | None = None
    """The recorded decision, which counts for those."""


class Evaluation(Record):
    """Everything measured about a merge."""

    primary: str
    models: tuple[EvaluatedModel, ...]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    verdict: Verdict
    items: dict[str, str] = Field(default_factory=dict, exclude_if=_is_empty)
    """Task → digest of the items that judged; empty in records of 0.1.0."""
    higher_is_better: dict[str, bool] = Field(default_factory=dict, exclude_if=_is_empty)
    """task/metric → its direction; empty in records of 0.1.0."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Hold what readers look up: every model on every metric, and the difference that decides."""
        roles = {model.role for model in self.models}
        metrics = {self.primary, *(score.metric for score in self.scores)}
        wanted = {(role, metric) for role in roles for metric in metrics}
        decisive = (self.verdict.against, self.verdict.primary)
        compared = {(found.against, found.metric) for found in self.differences}
        scored = {(score.model, score.metric) for score in self.scores}
        if scored != wanted or decisive not in compared or not compared <= wanted:
            raise ValueError("models, scores and differences do not match")
        return self

    @property
    def decisive(self) -> Difference:
        """The difference that the verdict rests on."""
        wanted = (self.verdict.against, self.verdict.primary)
        return next(found for found in self.differences if (found.against, found.metric) == wanted)


class Unregistered(Record):
    """That a merge was not registered, and why."""

    digest: str
    """Of the merge."""
    reason: str


class Registration(Record):
    """The model version that a merge became."""

    name: str
    version: int
    model_id: str
    run_id: str
    digest: str
    aliases: tuple[str, ...]
    """The aliases set at registration, whatever moved since."""
