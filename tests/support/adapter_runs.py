"""A training run of LoRA adapters on a real tiny model, as the Trainer leaves it."""

import json
from pathlib import Path
from typing import Any

from tests.support.tiny_adapters import write_adapter
from tests.support.tiny_world import write_model

TARGETS = {"target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}


def write_adapter_run(root: Path, steps: tuple[int, ...] = (1, 2, 3), **settings: Any) -> Path:
    """Write base/ with its tokenizer, and run/checkpoint-N; the middle one has the best metric."""
    base = root / "base" if (root / "base").exists() else write_model(root / "base")
    for step in steps:
        directory = root / "run" / f"checkpoint-{step}"
        write_adapter(directory, base, step, **{**TARGETS, **settings})
        loss = abs(step - steps[len(steps) // 2])
        log = [{"step": step, "eval_loss": loss}]
        (directory / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
    return root / "run"
