"""Merges in a registry that got exactly as many items right as a test wants: what promotion decides on."""

from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.publish import publishing
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.base.records.record import FileDigest
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.evaluation.measure import result_paths
from tasks.evaluation.result_cache import store
from tasks.evaluation.results import TaskResult
from tasks.evaluation.task_files import load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.reporting.model_card import model_card
from tasks.verdict.gate import evaluate_results
from tests.support.tiny_world import write_world

ITEMS = 100
LAST = Checkpoint(
    name="checkpoint-9",
    step=9,
    source="/training/checkpoint-9",
    metrics={},
    files=(FileDigest(name="model.safetensors", size=1, sha256=f"{9:064d}"),),
)


def promotable(root: Path, register: RegisterParams) -> Params:
    """Return parameters whose task exists, and whose results the caches will hold."""
    include = str(write_world(root / "world"))
    evaluate = EvaluateParams(tasks=("likely",), primary="likely/acc", include_path=include, device="cpu")
    return Params(fetch=FetchParams(source="runs/tiny"), evaluate=evaluate, register=register)


def register(params: Params, root: Path, right: int, last: int = 40) -> int:
    """Register a merge that gets the first `right` of 100 items right; its last checkpoint, `last`."""
    report = _merge(root / "merged", right)
    remember(params, LAST.digest, last)
    remember(params, report.digest, right)
    for stage in ("run", "selection", "evaluation"):
        (root / stage).mkdir(parents=True)
    TrainingRun(name="tiny", source="/training", checkpoints=(LAST,), left_out=()).write(
        root / "run" / "run.json"
    )
    Selection(
        run="tiny", rule="last_k", chosen=(LAST,), left_out=(), best=None, last=LAST, metric="eval_loss"
    ).write(root / "selection" / "selection.json")
    models = [
        EvaluatedModel(role="last", label="last (checkpoint-9)", digest=LAST.digest),
        EvaluatedModel(role="merge", label="lore merge", digest=report.digest),
    ]
    results = {"last": {"likely": _result(last)}, "merge": {"likely": _result(right)}}
    evaluate_results(models, results, params.evaluate).write(root / "evaluation" / "evaluation.json")
    return register_model(params.register_, root).version


def remember(params: Params, digest: str, right: int) -> Path:
    """Put a model's result where evaluate_model keeps what this machine measured."""
    tasks = load_tasks(params.evaluate.tasks, Path(params.evaluate.include_path or ""))
    (path,) = result_paths(digest, tasks, params.evaluate).values()
    store(path, _result(right))
    return path


def _result(right: int) -> TaskResult:
    return TaskResult(
        task="likely",
        items=tuple(map(str, range(ITEMS))),
        values={"acc": (1.0,) * right + (0.0,) * (ITEMS - right)},
        higher_is_better={"acc": True},
    )


def _merge(directory: Path, right: int) -> MergeReport:
    with publishing(directory, made_from=str(right)) as out:
        (out / "model.safetensors").write_bytes(f"weights of {directory.parent.name}".encode())
        report = MergeReport(
            method="lore",
            parameters={"lam": 0.3},
            inputs=(MergeInput(path=LAST.source, step=LAST.step, digest=LAST.digest),),
            outputs=file_digests(out, out.iterdir()),
            notes=(),
            tensors={},
        )
        report.write(out / "merge.json")
        (out / "README.md").write_text(model_card(report))
    return report
