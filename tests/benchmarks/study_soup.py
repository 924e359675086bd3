"""What a soup of three runs of one base gains over each run alone, on the demo's task.

study_soup.py [DIRECTORY]

Prints the tables of docs/how-to/several-runs.md. The base is the demo after 1200 steps; each run trains it on for 300 with
data and order of its own. Every merge goes through the stages, with 500 test items. Runs that are there are not trained again.
"""

import os
import sys
from pathlib import Path

from flows.demo import training
from tasks.base.records.evaluation import Evaluation
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.evaluate_merge import evaluate_merge
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.params import Params
from tasks.search_merge import search_merge
from tasks.select_checkpoints import select_checkpoints

SEEDS, BASE_STEPS, STEPS = (11, 12, 13), 1200, 300
CASES = (("linear", 1), ("linear", 5))
"""Schedule, and checkpoints of each run."""


def trained_on(schedule: training.Schedule) -> list[str]:
    """Train the base and its runs where they are not there; return the runs."""
    from transformers import LlamaForCausalLM

    base = training.finished_run(Path("runs/base"), seed=0, steps=BASE_STEPS)
    newest = numbered_checkpoints(base)[-1][1]
    training.make_model = lambda tokenizer: LlamaForCausalLM.from_pretrained(newest)
    runs = {seed: Path(f"runs/{schedule}{seed}") for seed in SEEDS}
    for seed, place in runs.items():
        training.finished_run(place, seed=seed, steps=STEPS, schedule=schedule)
    return [str(place) for place in runs.values()]


def soup(runs: list[str], k: int, budget: int, artifacts: Path) -> tuple[str, Evaluation]:
    """Merge and judge; return what the search said, too."""
    task, select = "word_problems_nll", "word_problems_select"
    params = Params.model_validate({
        "fetch": {"source": runs, "settle": 0}, "select": {"k": k}, "merge": {"method": "average"},
        "search": {"budget": budget, "sampler": "greedy"}, "register": {"name": "soup"},
        "evaluate": {
            "tasks": [task], "select_tasks": [select], "primary": f"{task}/nll", "limit": 500, "batch_size": 64,
            "include_path": "runs/base/tasks", "device": "cpu",
        },
    })  # fmt: skip
    fetch_run(params.fetch, artifacts)
    select_checkpoints(params.select, artifacts)
    found = search_merge(params.search, params.merge, params.evaluate, artifacts)
    merge_checkpoints(params.merge, artifacts)
    return found.sentence, evaluate_merge(params.evaluate, params.register_, artifacts)


def main(directory: Path) -> None:
    """Print the scores of every model, and the merge's gain over it."""
    directory.mkdir(exist_ok=True)
    os.chdir(directory)
    os.environ["LORELINE_HOME"] = str(directory / "home")
    for schedule, k in CASES:
        runs = trained_on(schedule)  # type: ignore[arg-type]
        for budget in (0, 8):
            said, evaluation = soup(runs, k, budget, Path(f"artifacts-{schedule}-{k}-{budget}"))
            print(f"\n{schedule}, {k} of each, {evaluation.verdict.decision}. {said}")
            scores = {
                own.model: own.value.mean for own in evaluation.scores if own.metric == evaluation.primary
            }
            gains = {
                own.against: own.gain for own in evaluation.differences if own.metric == evaluation.primary
            }
            for model in evaluation.models:
                told = f"| {model.label} | {scores[model.role]:.3f} |"
                if gain := gains.get(model.role):
                    told += f" {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |"
                print(told)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "study-soup").resolve())
