"""adapter_config.json of PEFT: the scaling of the factors, and settings beyond scaling · B·A."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.layout import ADAPTER_CONFIG

BEYOND = (
    "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip
"""Settings under which the change of a weight is not scaling · B·A, or not all of the change."""

CHANGED_BASE = re.compile(r"(pissa|corda|olora|loftq|lora_ga)", re.IGNORECASE)
"""Initialisations that take their factors out of the base, so that the adapter fits another one."""

REPEATS, REPEATED_GROUP = re.compile(r"(?<![(\\])[*+?{]"), re.compile(r"\)[*+{]")
MOST_REPEATS, LONGEST_PATTERN = 3, 1000
"""Of a regular expression in alpha_pattern: one from anybody could otherwise be matched for years."""


class AdapterConfig(BaseModel):
    """What a merge needs of adapter_config.json; the rest is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None
    lora_alpha: float = Field(default=8, allow_inf_nan=False)
    alpha_pattern: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    """Whether weights lie as in × out (Conv1D of GPT-2)."""
    init_lora_weights: bool | str | None = True

    @property
    def base(self) -> str:
        """The model that the adapter was trained on, as PEFT names it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.base_model_name_or_path or 'an unnamed model'}{revision}"

    def scaling(self, module: str, rank: int) -> float:
        """Return what multiplies B·A: α/r, or α/√r with rank-stabilised LoRA (Kalajdzievski 2023)."""
        patterns = self.alpha_pattern or {}
        found = (key for key in patterns if re.match(_rule(key), module))
        key = next(found, None)
        alpha = self.lora_alpha if key is None else patterns[key]
        return alpha / (rank**0.5 if self.use_rslora else rank)


def read_config(directory: Path) -> AdapterConfig:
    """Read a configuration of LoRA or DoRA; raises BadInput for any other adapter."""
    path = directory / ADAPTER_CONFIG
    tree = read_json(path)
    try:
        config = AdapterConfig.model_validate(tree)
        for key in config.alpha_pattern or {}:
            _check_cost(path, key)
            re.compile(_rule(key))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in found["loc"])
        raise BadInput(path, f"{key}: {found['msg']}", "save the adapter again") from None
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(path, f"alpha_pattern is no regular expression ({error})", "correct it") from None
    advice = "merge it into its base with peft's merge_and_unload first"
    if config.peft_type != "LORA":
        raise BadInput(path, f"peft_type is {config.peft_type}, not LORA", advice)
    if found_beyond := [key for key in BEYOND if tree.get(key)]:
        raise BadInput(path, f"{found_beyond[0]} is more than low-rank factors", advice)
    if CHANGED_BASE.match(str(config.init_lora_weights)):
        raise BadInput(
            path,
            f"init_lora_weights {config.init_lora_weights} changes the base",
            "save the adapter with peft's path_initial_model_for_weight_conversion first",
        )
    return config


def _rule(key: str) -> str:
    """Return the regular expression by which PEFT finds the modules of a key of alpha_pattern."""
    return rf"(.*\.)?({key})$"


def _check_cost(path: Path, key: str) -> None:
    costly = len(REPEATS.findall(key)) > MOST_REPEATS or REPEATED_GROUP.search(key)
    if costly or len(key) > LONGEST_PATTERN:
        raise BadInput(path, f"alpha_pattern {key} takes too long to match", "name the modules in full")
