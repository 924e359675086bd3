"""The section fetch: which training run, and when it counts as finished."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.address import no_secret
from tasks.parameters.section import Section


class FetchParams(Section):
    """Which training run, and when it counts as finished."""

    source: Annotated[str, no_secret]
    """A Trainer output directory, hf://org/name (checkpoint-* folders), hf://org/name@step* (revisions),
    mlflow:/runs/RUN_ID/PATH (checkpoint-* folders among a run's artifacts), or a folder in an object store,
    s3://bucket/run (checkpoint-* folders; every protocol that fsspec knows)."""
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
