"""What the stages around a merge take, beside what they cannot avoid: `python -m tests.benchmarks.around [RUN...]`.

RUN is a Trainer's output_dir; without one, runs of 439 M parameters are made, noise-dominated and with strong spikes. Of
each the newest three checkpoints are averaged in a project with git, DVC and MLflow's local store; the evaluation is a
record. Seconds of the clock and of the CPU, child processes included; the page cache is warm, no digest is known.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from tests.benchmarks.measure import REPOSITORY, say, warm
from tests.benchmarks.models import CHECKPOINTS, SCALES, models
from tests.support.dvc_project import dvc, make_project

if TYPE_CHECKING:
    from tasks.base.records.evaluation import Evaluation
    from tasks.base.records.merge import MergeReport

TAKEN = 3
STRENGTH = 40.0


def main(runs: Sequence[str]) -> None:
    """Print a table for each run."""
    for run in map(Path, runs or made_runs(Path(os.environ.get("LORELINE_BENCH", tempfile.gettempdir())))):
        with tempfile.TemporaryDirectory() as place:
            print(around(run.resolve(), Path(place)), flush=True)


def made_runs(root: Path) -> Iterable[str]:
    """Make runs of three checkpoints, unless they are there."""
    for llama in (SCALES[4], replace(SCALES[4], strength=STRENGTH)):
        directory = models(root, llama)
        for step, name in enumerate(CHECKPOINTS, 1):
            (directory / name / "trainer_state.json").write_text(
                json.dumps({"global_step": step, "max_steps": len(CHECKPOINTS), "log_history": []})
            )
        yield str(directory)


def around(run: Path, place: Path) -> str:
    """Measure the stages on a run, in a project at `place`; return the table."""
    os.environ |= {
        f"GIT_{who}_{what}": "bench@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    os.environ |= {"LORELINE_HOME": str(place / "state"), "XDG_CACHE_HOME": str(place / "cache")}
    from tasks.fetch_run import fetch_run
    from tasks.merge_checkpoints import merge_checkpoints
    from tasks.parameters.params import read_params
    from tasks.register_model import register_model
    from tasks.registry.store import connect
    from tasks.select_checkpoints import select_checkpoints
    from tasks.version_artifacts import version_artifacts

    root = make_project(place / "project")
    shutil.copyfile(REPOSITORY / ".dvc" / "config", root / ".dvc" / "config")
    own = [
        f"fetch.source={run}",
        "fetch.settle=0",
        f"select.k={TAKEN}",
        "select.far=keep",
        "merge.method=average",
    ]
    params, artifacts = read_params(root / "params.yaml", own), root / "artifacts"
    params_file = "\n".join(
        json.dumps({key: value})[1:-1] for key, value in params.model_dump(mode="json").items()
    )
    (root / "params.yaml").write_text(params_file)
    warm(run)
    rows = {
        "fetch": seconds(lambda: fetch_run(params.fetch, artifacts)),
        "select": seconds(lambda: select_checkpoints(params.select, artifacts)),
        "merge (average)": seconds(lambda: merge_checkpoints(params.merge, artifacts)),
    }
    for name in ("search", "evaluation"):
        (artifacts / name).mkdir(exist_ok=True)
    write_evaluation(artifacts)
    connect(params.register_)  # imports MLflow and makes its database

    rows |= {
        "register": seconds(lambda: register_model(params.register_, artifacts)),
        "version": seconds(lambda: said(version_artifacts(params, artifacts, "0" * 64).sentence)),
    }
    taken = sorted(run.glob("checkpoint-*/*.safetensors"), key=lambda path: int(path.parent.name[11:]))
    weights = artifacts / "merged" / "model.safetensors"
    rows |= {
        f"BLAKE3 of the {TAKEN} merged": seconds(lambda: [digest(path, blake3) for path in taken[-TAKEN:]]),
        f"SHA-256 of all {len(taken)}": seconds(lambda: [digest(path, hashlib.sha256) for path in taken]),
        "cp of the model, and sync": seconds(lambda: copied(weights, place / "copy")),
        "MD5 of the model": seconds(lambda: digest(weights, hashlib.md5)),
        "dvc status": seconds(lambda: said(dvc(root, "status"))),
    }
    copies = {path.stat().st_ino for path in root.parent.rglob("*") if is_copy(path, weights)} - {
        (place / "copy").stat().st_ino
    }
    lines = [f"{name:28} {clock:7.2f} s {cpu:7.2f} s CPU" for name, (clock, cpu) in rows.items()]
    size = weights.stat().st_size / 1e9
    return "\n".join(
        [f"{run}: {len(taken)} checkpoints, the merge has {size:.2f} GB, {len(copies)} on disk", *lines]
    )


def is_copy(path: Path, weights: Path) -> bool:
    """Tell whether a file holds the merged weights, by its size."""
    return (
        path.is_file()
        and not path.is_symlink()
        and "checkpoints" not in path.parts
        and (path.stat().st_size == weights.stat().st_size)
    )


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """Return what a call took: seconds of the clock, and of the CPU with its child processes."""
    os.sync()
    clock, cpu = time.perf_counter(), used()
    act()
    return time.perf_counter() - clock, used() - cpu


def used() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def digest(path: Path, algorithm: Callable[[], "hashlib._Hash"]) -> str:
    found, buffer = algorithm(), memoryview(bytearray(2**22))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            found.update(buffer[:size])
    return found.hexdigest()


def copied(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    os.sync()


def said(text: str) -> None:
    say(text.strip())


def write_evaluation(artifacts: Path) -> None:
    """Write a verdict, as evaluate does."""
    from tasks.base.publish import publishing
    from tasks.base.records.merge import MergeReport

    shutil.rmtree(artifacts / "evaluation")
    with publishing(artifacts / "evaluation", "bench") as out:
        evaluation_of(MergeReport.read(artifacts / "merged" / "merge.json")).write(out / "evaluation.json")
        for name in ("report.html", "metrics.json"):
            (out / name).write_text("{}")


def evaluation_of(report: "MergeReport") -> "Evaluation":
    from tasks.base.records.evaluation import Evaluation
    from tasks.base.records.record import Interval
    from tasks.base.records.score import Difference, EvaluatedModel, Score
    from tasks.base.records.verdict import Verdict

    interval = Interval(mean=0.1, low=0.05, high=0.15)
    models = (
        EvaluatedModel(role="last", label="last", digest="3"),
        EvaluatedModel(role="merge", label="average merge", digest=report.digest),
    )
    return Evaluation(
        primary="t/acc",
        models=models,
        scores=tuple(Score(model=own.role, metric="t/acc", items=9, value=interval) for own in models),
        differences=(
            Difference(
                against="last", metric="t/acc", items=9, gain=interval, p_value=0.01, wins=5, losses=0
            ),
        ),
        verdict=Verdict(
            decision="PROMOTE", sentence="PROMOTE", against="last", primary="t/acc", items_needed=None
        ),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
