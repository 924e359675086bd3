"""The transformers backend: loads models safely, on a GPU or the CPU, and halves batches that do not fit."""

import gc
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput, LorelineError, brief
from tasks.base.threads import torch_threads_for
from tasks.evaluation.backends import Backend, Samples
from tasks.parameters.evaluation import EvaluateParams

if TYPE_CHECKING:
    from lm_eval.api.model import LM

log = logging.getLogger(__name__)


class HuggingFace(Backend):
    """A causal language model and its tokenizer, in the dtype that it was saved in."""

    loggers = ("transformers", "accelerate")

    @staticmethod
    def settings(params: EvaluateParams) -> dict[str, Any]:
        """Return versions, kind of device, dtype and batch size, which change the last digits of results."""
        import torch

        device = _device(params)
        kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        versions = {package: version(package) for package in ("transformers", "torch")}
        return {**versions, "device": kind, "dtype": "auto", "batch_size": params.batch_size}

    def __init__(self, model_dir: Path, params: EvaluateParams) -> None:
        """Load the model onto the device that evaluate.device names."""
        self._model, self._tokenizer = _load(model_dir, _device(params))
        self._batch_size = params.batch_size

    def answer(self, ask: Callable[["LM"], Samples], where: str) -> Samples:
        """Run `ask`; when a batch does not fit in GPU memory, again with batches of half the size."""
        import torch
        from lm_eval.models.huggingface import HFLM

        batch_size = self._batch_size
        with torch_threads_for(self._model.num_parameters()):
            while batch_size:
                try:
                    return ask(HFLM(pretrained=self._model, tokenizer=self._tokenizer, batch_size=batch_size))
                except torch.OutOfMemoryError:
                    log.warning("%s: batches of %d do not fit in GPU memory", where, batch_size)
                # outside the except block: the exception held references to the batch's tensors
                torch.cuda.empty_cache()
                batch_size //= 2
        raise LorelineError(where, "not even one item fits in GPU memory", "set evaluate.device to cpu")

    def free(self) -> None:
        """Drop the model, with reference cycles around it, before another one is loaded."""
        import torch

        del self._model, self._tokenizer
        gc.collect()
        torch.cuda.empty_cache()


def _device(params: EvaluateParams) -> str:
    import torch

    if params.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=params.device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            "evaluate.device", f"{params.device} cannot be used here ({brief(error)})", "try auto"
        ) from None
    return params.device


def _load(model_dir: Path, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer, without running code, reading pickles or initialising missing weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **safe)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype="auto", use_safetensors=True, output_loading_info=True, **safe
        )
    except Exception as error:
        raise BadInput(
            model_dir,
            f"cannot be loaded as a causal language model with its tokenizer ({brief(error)})",
            "mend it, or leave it out",
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadInput(model_dir, f"weights are missing, among them {names}", "save or merge the model again")
    return model.to(device).eval(), tokenizer
