"""Loading models with transformers: nothing is fetched, no code of theirs runs, no pickle is opened."""

from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput, brief

SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_causal_model(model_dir: Path, dtype: str = "auto") -> Any:
    """Load a causal language model in `dtype`, auto: as it was saved; BadInput where weights are missing."""
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=dtype, use_safetensors=True, output_loading_info=True, **SAFE
        )
    except Exception as error:
        raise not_loaded(model_dir, error) from error
    model, info = loaded
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadInput(model_dir, f"weights are missing, among them {names}", "save or merge the model again")
    return model


def load_tokenizer(directory: Path) -> Any:
    """Load a tokenizer; raises BadInput where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, **SAFE)
    except Exception as error:
        raise BadInput(
            directory,
            f"has no tokenizer that can be loaded ({brief(error)})",
            "save it beside the weights, as the Trainer does with processing_class=tokenizer",
        ) from error


def not_loaded(model_dir: Path, error: Exception) -> BadInput:
    """Return the error of a directory that transformers cannot load."""
    problem = f"cannot be loaded as a causal language model ({brief(error)})"
    return BadInput(model_dir, problem, "mend it, or leave it out")
