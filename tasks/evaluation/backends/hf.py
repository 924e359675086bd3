"""The transformers backend: loads models safely, on a GPU or the CPU, and halves batches that do not fit."""

import gc
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import BadInput, LorelineError, brief
from tasks.base.loading import SAFE, load_causal_model, load_tokenizer, not_loaded
from tasks.base.model_files import ModelFiles
from tasks.base.threads import torch_threads_for
from tasks.evaluation.backends import Backend, Samples
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams

if TYPE_CHECKING:
    from lm_eval.api.model import LM

log = logging.getLogger(__name__)

SOFTMAX_DTYPE = "float32"
"""Of log-softmax and the sum over a target's tokens: in bfloat16 that sum comes in steps of 0.25 nats."""
AUTO_BATCH_CPU, AUTO_BATCH_GPU = 16, 256
"""What `auto` starts with; on a GPU it is halved until a batch fits, the longest coming first."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that lm-eval knows for the same, the first one counting most."""
DEFAULT_MAX_GEN_TOKS = 256
"""lm-eval's, where a task does not say."""


class HuggingFace(Backend):
    """A causal language model and its tokenizer, in the dtype that it was saved in."""

    loggers = ("transformers", "accelerate")

    @staticmethod
    def settings(params: EvaluateParams) -> dict[str, Any]:
        """Return versions, kind of device, dtype and batch size, which change the last digits of results."""
        import torch

        device = _device(params)
        kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
        versions = {package: version(package) for package in ("transformers", "torch", "peft")}
        return {
            **versions,
            "device": kind,
            "dtype": "auto",
            "softmax_dtype": SOFTMAX_DTYPE,
            "batch_size": params.batch_size,
        }

    @staticmethod
    def check(files: ModelFiles, tasks: Sequence[TaskSpec], params: EvaluateParams) -> None:
        """Raise BadInput without a tokenizer, a wanted chat template, or room for what tasks generate."""
        from lm_eval.models.utils import resolve_max_length

        config, tokenizer = _configuration(files)
        _check_template(files.directory, tokenizer, params)
        context = resolve_max_length(config, tokenizer)
        for task in tasks:
            if (wanted := _generated(task, params)) >= context:
                raise BadInput(
                    task.name,
                    f"generates up to {wanted} tokens, and the context of {files.directory} holds {context} "
                    "in all",
                    "set evaluate.generation.max_gen_toks lower",
                )

    def __init__(self, files: ModelFiles, params: EvaluateParams) -> None:
        """Load the model onto the device that evaluate.device names."""
        device = _device(params)
        self._model, self._tokenizer = _load(files, device)
        auto = AUTO_BATCH_CPU if device == "cpu" else AUTO_BATCH_GPU
        self._batch_size = auto if params.batch_size == "auto" else params.batch_size
        named = params.chat_template if isinstance(params.chat_template, str) else None
        self._template = {"chat_template": named} if named else {}

    def answer(self, ask: Callable[["LM"], Samples], where: str) -> Samples:
        """Run `ask`; when a batch does not fit in GPU memory, again with batches of half the size."""
        import torch
        from lm_eval.models.huggingface import HFLM

        batch_size = self._batch_size
        with torch_threads_for(self._model.num_parameters()):
            while batch_size:
                try:
                    return ask(
                        HFLM(
                            pretrained=self._model,
                            tokenizer=self._tokenizer,
                            batch_size=batch_size,
                            softmax_dtype=SOFTMAX_DTYPE,
                            chat_template_args=self._template,
                        )
                    )
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


def _generated(task: TaskSpec, params: EvaluateParams) -> int:
    """Return the most tokens that a task generates for an item."""
    if task.config.get("output_type", "generate_until") != "generate_until":
        return 0
    own = task.config.get("generation_kwargs") or {}
    found = (params.generation.max_gen_toks, *(own.get(name) for name in MAX_TOKENS))
    return int(next((tokens for tokens in found if tokens is not None), DEFAULT_MAX_GEN_TOKS))


def _check_template(model_dir: Path, tokenizer: Any, params: EvaluateParams) -> None:
    """Raise BadInput where the chat template that the parameters ask for is not there."""
    there, wanted = tokenizer.chat_template, params.chat_template
    if not wanted:
        return
    if not there:
        raise BadInput(
            model_dir,
            "has no chat template, and evaluate.chat_template asks for one",
            "set it to false, or save the tokenizer with its template",
        )
    if isinstance(wanted, str) and not (isinstance(there, dict) and wanted in there):
        names = f"only {', '.join(there)}" if isinstance(there, dict) else "only one, without a name"
        raise BadInput(
            "evaluate.chat_template",
            f"{model_dir} has no template {wanted}, {names}",
            "name one, or set true",
        )


def _configuration(files: ModelFiles) -> tuple[Any, Any]:
    """Return configuration and tokenizer, without running code; an adapter's own tokenizer comes first."""
    from transformers import AutoConfig

    whole = files.base or files.directory
    own = any((files.directory / name).is_file() for name in TOKENIZERS)
    try:
        config = AutoConfig.from_pretrained(whole, **SAFE)
    except Exception as error:
        raise not_loaded(whole, error) from error
    return config, load_tokenizer(files.directory if own else whole)


def _load(files: ModelFiles, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer, without running code, reading pickles or initialising missing weights."""
    _, tokenizer = _configuration(files)
    whole = load_causal_model(files.base or files.directory)
    model = _adapted(whole, files.directory) if files.base else whole
    return model.to(device).eval(), tokenizer


def _adapted(base: Any, directory: Path) -> Any:
    """Return a base with an adapter on it, as PEFT computes it: added to what layers give, not to weights."""
    from peft import LoraConfig, PeftModel

    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():  # PEFT would open a pickle, or ask the Hub
        raise BadInput(directory, f"has no {weights.name}", "save the adapter again")
    try:
        _resize(base, weights)
        config = LoraConfig.from_pretrained(str(directory))
        model = PeftModel.from_pretrained(base, directory, config=config, torch_device="cpu")
    except Exception as error:
        raise BadInput(
            directory, f"does not fit its base ({brief(error)})", "name the model that it was trained on"
        ) from error
    return model


def _resize(base: Any, weights: Path) -> None:
    """Give a base as many tokens as the embedding that an adapter holds whole, as its training did."""
    from safetensors import safe_open

    table = base.get_input_embeddings()
    [name] = [name for name, module in base.named_modules() if module is table]
    whole = {f"base_model.model.{name}{ending}" for ending in (".weight", ".base_layer.weight")}
    with safe_open(weights, "pt") as file:
        for key in whole & set(file.keys()):
            rows = file.get_slice(key).get_shape()[0]
            if rows != table.num_embeddings:
                base.resize_token_embeddings(rows, mean_resizing=False)
