"""The mean of a model's weights over the steps since the last save, in float32."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

MEAN_FILE = "mean.json"
"""Beside the weights of a mean: the steps that it is of."""


class RunningMean:
    """The mean of every parameter that is trained: beside the model, or in the host's memory (`on_cpu`)."""

    def __init__(self, on_cpu: bool) -> None:
        self.count = 0
        self.first = self.last = 0
        """The steps whose weights came first and last."""
        self._on_cpu = on_cpu
        self._means: list[tuple[Any, Any]] = []
        """Parameter and mean, each once however many names it has."""

    def add(self, model: Any, step: int) -> None:
        """Count the weights that the model has after `step`."""
        if not self.count:
            self._means, self.first = self._start(model), step
        self.count, self.last = self.count + 1, step
        for parameter, mean in self._means:
            # The mean itself, not a sum, whose last places would be lost over many steps.
            mean.lerp_(parameter.detach().to(mean.device).float(), 1 / self.count)

    def save(self, model: Any, directory: Path) -> None:
        """Write the mean as a model directory, in the model's own dtypes.

        What is not trained is as the model has it now.
        """
        trained = {id(parameter): mean.to(parameter.dtype) for parameter, mean in self._means}
        named = dict(model.named_parameters(remove_duplicate=False))  # a tied one under each of its names
        state = {name: trained.get(id(named.get(name)), now) for name, now in model.state_dict().items()}
        model.save_pretrained(directory, state_dict=state)
        steps = {"by": "loreline", "first": self.first, "last": self.last, "count": self.count}
        (directory / MEAN_FILE).write_text(json.dumps(steps))

    def reset(self) -> None:
        """Begin anew, in the same memory."""
        self.count = 0

    def _start(self, model: Any) -> list[tuple[Any, Any]]:
        """Return the parameters that are trained now, each with its present value; memory is used again."""
        old = {id(parameter): mean for parameter, mean in self._means}
        return [
            (each, self._fresh(each, old.get(id(each)))) for each in model.parameters() if each.requires_grad
        ]

    def _fresh(self, parameter: Any, old: Any) -> Any:
        if old is not None:
            return old.copy_(parameter.detach())
        fresh = parameter.detach().float().clone()
        return fresh.cpu() if self._on_cpu else fresh


def why_no_mean(args: TrainingArguments, model: Any) -> str | None:
    """Return why the mean of a training's weights cannot be kept; None where it can."""
    if args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "FSDP shards the weights over its processes"
    if args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "DeepSpeed holds the weights, and may shard them over its processes"
    if getattr(model, "peft_config", None):
        return "the mean of an adapter's factors A and B is not the mean of its updates B·A"
    if not hasattr(model, "save_pretrained"):
        return f"{type(model).__name__} has no save_pretrained"
    if any(each.is_meta or hasattr(each, "full_tensor") for each in model.parameters()):
        return "the weights are not whole on this process"
    return None
