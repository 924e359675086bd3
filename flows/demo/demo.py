"""The demo: a real training run, merged like a user's."""

from pathlib import Path

from flows.demo.training import DEFAULT_STEPS, finished_run
from flows.progress import say
from tasks.parameters.params import Params, read_params


def train_demo(seed: int, steps: int | None, params_file: Path) -> Params:
    """Train, unless this run is there already; return the parameters to merge it with."""
    steps = steps or DEFAULT_STEPS
    directory = demo_directory(seed, steps)
    params = demo_params(directory, params_file)
    say(f"demo: a fine-tuning run of {steps} steps with seed {seed} in {directory}")
    finished_run(directory, seed=seed, steps=steps)
    say("demo: the flow, as after any training run")
    return params


def demo_directory(seed: int, steps: int) -> Path:
    """Return a demo run's directory; that of the default one is named in params.yaml."""
    default = (seed, steps) == (0, DEFAULT_STEPS)
    return Path("runs") / ("demo" if default else f"demo-seed{seed}-steps{steps}")


def demo_params(directory: Path, params_file: Path) -> Params:
    """Return the user's parameters, pointed at the demo's run and its tasks."""
    return read_params(
        params_file,
        [
            f"fetch.source={directory}",
            f"evaluate.include_path={directory}/tasks",
            "evaluate.tasks=[word_problems, word_problems_nll]",
            "evaluate.primary=word_problems_nll/nll",
        ],
    )
