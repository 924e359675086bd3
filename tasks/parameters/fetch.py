"""The section fetch: which training run, and when it counts as finished."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from tasks.parameters.address import no_secret
from tasks.parameters.section import Section

SEVERAL = " + "
"""Between the addresses of several runs."""


def _one_alone(given: Any) -> Any:
    """Return a list of one run as that run: nothing about it is another than by its address alone."""
    match given:
        case [str(run)]:
            return run
    return given


def _each_once(source: tuple[str, ...]) -> tuple[str, ...]:
    if not source:
        raise ValueError("names no run", "name one")
    if twice := [own for own in source if source.count(own) > 1]:
        raise ValueError(f"names {twice[0]} twice", "name every run once")
    return source


def _kind(given: Any) -> str:
    return "<runs>" if isinstance(given, list | tuple) else "<run>"


OneRun = Annotated[str, no_secret, Tag("<run>")]
SeveralRuns = Annotated[tuple[Annotated[str, no_secret], ...], AfterValidator(_each_once), Tag("<runs>")]


class FetchParams(Section):
    """Which training run, and when it counts as finished."""

    source: Annotated[OneRun | SeveralRuns, Discriminator(_kind), BeforeValidator(_one_alone)]
    """A Trainer output directory, hf://org/name (checkpoint-* folders), hf://org/name@step* (revisions),
    mlflow:/runs/RUN_ID/PATH (checkpoint-* folders among a run's artifacts), or a folder in an object store,
    s3://bucket/run (checkpoint-* folders; every protocol that fsspec knows). Or a list of such runs, trained
    from one base: their selected checkpoints become one merge, in which every run weighs the same."""
    base: str | None = None
    """Of a run of adapters: the model that they are made for, a directory or a repository in the Hub's cache
    (org/name or org/name@revision); unset: the one that adapter_config.json names. Of a run that is converted
    and has no config.json: the model whose configuration and tokenizer it has."""
    convert: bool = False
    """Convert checkpoints of a directory that are in pickles (pytorch_model*.bin, FSDP's shards, DeepSpeed's
    ZeRO partitions) to safetensors, once: by torch's restricted loader, in a process of its own without
    network, beside the artifacts. Unset, they are refused."""
    means: bool = False
    """Merge, in place of each checkpoint, the mean of the weights over all steps since the one before, which
    MergeAfterTraining(keep=5, mean=True) kept in training; the merge is judged against the checkpoints."""
    wait: Annotated[float, Field(ge=0)] = 0.0
    """Seconds to wait for checkpoints that are still being written before leaving them out."""
    settle: Annotated[float, Field(ge=0)] = 1.0
    """Seconds between the two looks that show that nothing changes any more."""

    @property
    def runs(self) -> tuple[str, ...]:
        """The address of every run."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def address(self) -> str:
        """The address of the run; of several, all of them in words."""
        return SEVERAL.join(self.runs)

    def of(self, address: str) -> Self:
        """Return the section for one of its runs."""
        return self.model_copy(update={"source": address})
