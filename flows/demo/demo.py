"""The demo: a real training run, merged like a user's."""

from pathlib import Path

from flows.demo.training import DEFAULT_STEPS, Schedule, finished_run
from flows.progress import say
from tasks.parameters.params import Params, read_params


def train_demo(seed: int, steps: int | None, schedule: Schedule, params_file: Path) -> Params:
    """Train, unless this run is there already; return the parameters to merge it with."""
    steps = steps or DEFAULT_STEPS
    directory = demo_directory(seed, steps, schedule)
    params = demo_params(directory, params_file)
    say(f"demo: a fine-tuning run of {steps} steps, {schedule} rate, with seed {seed} in {directory}")
    finished_run(directory, seed=seed, steps=steps, schedule=schedule)
    say("demo: the flow, as after any training run")
    return params


def demo_directory(seed: int, steps: int, schedule: Schedule = "constant") -> Path:
    """Return a demo run's directory; that of the default one is named in params.yaml."""
    parts = [
        "demo",
        *([] if (seed, steps) == (0, DEFAULT_STEPS) else [f"seed{seed}-steps{steps}"]),
        *([] if schedule == "constant" else [schedule]),
    ]
    return Path("runs") / "-".join(parts)


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
