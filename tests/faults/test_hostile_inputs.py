"""Whatever a file or a setting holds, it is taken, or refused with one sentence within a second (P5, P6)."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tasks.base.errors import LorelineError
from tasks.base.publish import Manifest, is_intact
from tasks.base.records.merge import MergeReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.checkpoints.compatibility import check_compatible
from tasks.checkpoints.header import read_header
from tasks.checkpoints.layout import read_index
from tasks.checkpoints.peft.config import read_config
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.checkpoints.vocabularies import vocabularies_differ
from tasks.checkpoints.weights import open_weights
from tasks.evaluation.result_cache import load
from tasks.evaluation.task_files import load_tasks
from tasks.jobs.ledger import Ledger
from tasks.parameters.merge import MergeParams
from tasks.parameters.params import read_params
from tasks.recipes.recipe import read_merge_params, read_recipe
from tasks.recipes.sweep import grid
from tasks.trajectory.learning_rate import logged_rates, schedule_of
from tasks.trajectory.trainer_state import logged_metrics, read_state, says_ended, step_of_steps
from tests.faults.hostile import as_json, damaged, near, scalars, words
from tests.support.tiny import write_checkpoint
from tests.support.tiny_world import write_world

SEED = int(os.environ.get("SEED", "0"))
MANY = int(os.environ.get("INPUTS", "5000"))
FEW = 15
SLOWEST_S = 1.0


class Reader(NamedTuple):
    """What is read, from a directory in which one file was made hostile."""

    inputs: st.SearchStrategy[bytes]
    file: str
    read: Callable[[Path], object]


def yaml_of(right: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Return YAML of a tree that is almost right, with odd words in it that are not quoted, and damaged text."""
    text = yaml.safe_dump(right)
    lines = text.splitlines()
    odd = st.builds(
        lambda line, word: "\n".join(
            f"{old.partition(':')[0]}: {word}" if place == line else old for place, old in enumerate(lines)
        ).encode("utf-8", "surrogatepass"),
        st.integers(0, len(lines) - 1),
        words,
    )
    trees = near(right).map(lambda tree: yaml.safe_dump(tree, allow_unicode=False).encode("utf-8", "replace"))
    return trees | odd | damaged(text.encode())


def json_of(right: dict[str, Any]) -> st.SearchStrategy[bytes]:
    return near(right).map(as_json) | damaged(as_json(right))


HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"format": "pt"}}
STATE = {
    "global_step": 3,
    "max_steps": 7,
    "log_history": [{"step": 3, "learning_rate": 1e-4, "eval_loss": 0.5}],
    "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}},
}
ADAPTER = {
    "peft_type": "LORA",
    "lora_alpha": 8,
    "alpha_pattern": {"q_proj": 4},
    "base_model_name_or_path": "b",
}
PARAMS = {
    "fetch": {"source": "runs/x", "wait": 1.0},
    "select": {"rule": "last_k", "k": 3},
    "merge": {"method": "lore", "lam": 0.5, "lore": {"mu": 1}, "weights": [1, [{"match": "a", "value": 2}]]},
    "evaluate": {"tasks": ["t"], "primary": "t/nll", "margins": {"t/acc": 0.1}, "limit": 0.5},
    "register": {"name": "n", "tracking_uri": "http://h"},
    "watch": {"roots": ["runs/*"]},
}
RECIPE = {"checkpoints": ["checkpoint-1", "checkpoint-2"], "method": "ties", "ties": {"density": 0.3}, "base": "checkpoint-1"}  # fmt: skip
MERGEKIT = {
    "merge_method": "dare_ties",
    "base_model": "checkpoint-1",
    "models": [
        {
            "model": "checkpoint-2",
            "parameters": {"density": [{"filter": "a", "value": [0.2, 1]}, {"value": 0.5}], "weight": 1},
        }
    ],
    "parameters": {"normalize": True, "weight": 0.5},
    "dtype": "bfloat16",
    "tokenizer": {"source": "base"},
}
SLICES = {
    "merge_method": "slerp",
    "base_model": "checkpoint-1",
    "slices": [
        {
            "sources": [{"model": f"checkpoint-{i}", "layer_range": [0, 2]} for i in (1, 2)],
            "parameters": {"t": 0.5},
        }
    ],
}
TASK = {"task": "likely", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "../data/items.jsonl"}}, "output_type": "loglikelihood", "metric_list": [{"metric": "acc"}], "group": "g", "include": "likely.yaml"}  # fmt: skip
FILE = {"name": "model.safetensors", "size": 4, "sha256": "0" * 64}
MANIFEST = {"made_from": "x", "files": [FILE]}
RUN = {"name": "r", "source": "runs/r", "checkpoints": [{"name": "checkpoint-1", "step": 1, "source": "s", "metrics": {"a": 1.0}, "files": [FILE]}], "left_out": []}  # fmt: skip
CONFIG = {"hidden_size": 8, "num_hidden_layers": 2, "text_config": {"hidden_size": 4}}
TOKENIZER = {"model": {"vocab": {"a": 0}, "merges": ["a b"]}, "added_tokens": [{"id": 1, "content": "x"}]}


def header_file(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(4)


def read_trainer_state(root: Path) -> None:
    state = read_state(root / "checkpoint-1") or {}
    schedule_of(logged_rates(state))
    assert isinstance(says_ended(state), bool)
    step_of_steps(state)
    logged_metrics(root / "checkpoint-1", 3)
    numbered_checkpoints(root)


def read_records(root: Path) -> None:
    for kind in (Manifest, TrainingRun, Selection, MergeReport):
        with suppress(LorelineError):
            kind.read(root / "record.json")
    assert load(root / "record.json") is None
    (root / "manifest.json").write_bytes((root / "record.json").read_bytes())
    is_intact(root)


def compare(root: Path) -> list[str]:
    return check_compatible(
        [open_weights(root / f"checkpoint-{step}", f"checkpoint-{step}") for step in (1, 2)]
    )


def differing(root: Path) -> bool:
    (root / "other").mkdir(exist_ok=True)
    (root / "other" / "tokenizer.json").write_bytes(as_json(TOKENIZER))
    return vocabularies_differ(root / "other" / "tokenizer.json", root / "tokenizer.json")


READERS = {
    "safetensors header": Reader(json_of(HEADER).map(header_file), "x.safetensors", lambda root: read_header(root / "x.safetensors")),
    "safetensors bytes": Reader(damaged(header_file(as_json(HEADER))), "x.safetensors", lambda root: read_header(root / "x.safetensors")),
    "index": Reader(json_of({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}), "model.safetensors.index.json", read_index),
    "trainer_state.json": Reader(json_of(STATE), "checkpoint-1/trainer_state.json", read_trainer_state),
    "config.json": Reader(json_of(CONFIG), "checkpoint-1/config.json", compare),
    "config.json of slices": Reader(json_of(CONFIG), "checkpoint-1/config.json", lambda root: read_recipe(root / "slices.yaml")),
    "adapter_config.json": Reader(json_of(ADAPTER), "adapter_config.json", lambda root: [read_config(root).scaling(name, 2) for name in ("q_proj", "a" * 40 + "b")]),
    "tokenizer.json": Reader(json_of(TOKENIZER), "tokenizer.json", differing),
    "params.yaml": Reader(yaml_of(PARAMS), "params.yaml", lambda root: read_params(root / "params.yaml")),
    "recipe": Reader(yaml_of(RECIPE), "recipe.yaml", lambda root: read_recipe(root / "recipe.yaml")),
    "mergekit's recipe": Reader(yaml_of(MERGEKIT), "recipe.yaml", lambda root: read_recipe(root / "recipe.yaml")),
    "mergekit's slices": Reader(yaml_of(SLICES), "recipe.yaml", lambda root: read_recipe(root / "recipe.yaml")),
    "task file": Reader(yaml_of(TASK), "tasks/odd.yaml", lambda root: load_tasks(["likely"], root / "tasks")),
    "records": Reader(json_of(MANIFEST) | json_of(RUN), "record.json", read_records),
}  # fmt: skip


def check(read: Callable[[], object], about: object, told: Counter[str]) -> None:
    """Read once; the promise is that nothing but a LorelineError in one short line comes out, and soon."""
    refusal, took = timed(read)
    if (
        took >= SLOWEST_S
    ):  # a collection of what hypothesis remembers may have come between: a slow one is slow twice
        refusal, took = timed(read)
    assert took < SLOWEST_S, about
    told["refused" if refusal else "taken"] += 1
    if refusal:
        assert refusal.problem, about
        assert refusal.remedy, about
        assert "\n" not in str(refusal), about
        assert len(str(refusal)) < 4000, about


def timed(read: Callable[[], object]) -> tuple[LorelineError | None, float]:
    """Return how it was refused, if it was, and the seconds of CPU that this took."""
    begun = time.process_time()
    try:
        read()
    except LorelineError as error:
        return error, time.process_time() - begun
    return None, time.process_time() - begun


def tried(
    name: str, count: int, inputs: st.SearchStrategy[Any], once: Callable[[Any, Counter[str]], None]
) -> None:
    """Try so many inputs, reproducibly, and print the figures."""
    told = Counter[str]()

    @seed(SEED)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(inputs)
    def each(value: Any) -> None:
        once(value, told)

    each()
    print(
        f"{name}: {told.total()} inputs, seed {SEED}: {told['taken']} taken, {told['refused']} refused, 0 raw"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with two models, tasks and a recipe of slices."""
    root = tmp_path_factory.mktemp("inputs")
    for step in (1, 2):
        write_checkpoint(root, step, config=CONFIG)
    (root / "slices.yaml").write_text(yaml.safe_dump(SLICES))
    compare(root)
    load_tasks(["likely"], write_world(root))  # what they import takes seconds
    return root


def fuzz_reader(name: str, root: Path, count: int) -> None:
    inputs, file, read = READERS[name]
    path = root / file
    before = path.read_bytes() if path.exists() else None

    def once(content: bytes, told: Counter[str]) -> None:
        path.write_bytes(content)
        check(lambda: read(root), content[:2000], told)

    try:
        tried(name, count, inputs, once)
    finally:
        path.write_bytes(before) if before is not None else path.unlink()


KEYS = ["merge.lam", "merge.lore.mu", "merge.ties.density", "merge.weights", "merge.method", "merge.max_shard_size", "merge.base", "merge", "merge.", "merge.a" + ".a" * 5000, "fetch.source", "evaluate.tasks", "evaluate.limit", "register.tracking_uri", "select.k"]  # fmt: skip
SETTINGS = st.builds("{}={}".format, st.sampled_from(KEYS), words | scalars.map(str)) | words


def fuzz_settings(root: Path, count: int) -> None:
    (root / "given.yaml").write_text(yaml.safe_dump(PARAMS))

    def once(text: str, told: Counter[str]) -> None:
        check(lambda: read_merge_params([text]), text[:500], told)
        check(lambda: read_params(root / "given.yaml", [text]), text[:500], told)
        check(lambda: grid(MergeParams(), [text], root / "out"), text[:500], told)

    tried("--set and --sweep", count // 3, SETTINGS, once)


ROW = st.fixed_dictionaries({column: scalars | st.binary(max_size=4) for column in ("source", "token", "workspace", "owner", "flow_run", "since", "beat", "sentence", "identity", "version", "tag")} | {"state": st.sampled_from(["merging", "merged", "failed"]) | words})  # fmt: skip


def fuzz_ledger(root: Path, count: int) -> None:
    path = root / "ledger.db"
    ledger = Ledger(path)
    ledger.claim("key", "runs/x")

    def once(row: dict[str, Any], told: Counter[str]) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for column, value in row.items():
                try:
                    db.execute(f"UPDATE jobs SET {column} = ? WHERE key = 'key'", [value])
                except (sqlite3.Error, OverflowError, UnicodeError):
                    continue  # no database holds it
        check(ledger.entries, row, told)
        check(lambda: ledger.standing("key"), row, told)
        check(lambda: ledger.claim("key", "runs/x", again=True), row, told)

    tried("ledger", count // 3, ROW, once)


@pytest.mark.parametrize("name", READERS)
def test_a_few_hostile_files(name: str, root: Path) -> None:
    fuzz_reader(name, root, FEW)


def test_a_few_hostile_settings_and_rows(root: Path, tmp_path: Path) -> None:
    fuzz_settings(root, 3 * FEW)
    fuzz_ledger(tmp_path, FEW)


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", READERS)
def test_many_hostile_files(name: str, root: Path) -> None:
    fuzz_reader(name, root, MANY)


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_many_hostile_settings_and_rows(root: Path, tmp_path: Path) -> None:
    fuzz_settings(root, MANY)
    fuzz_ledger(tmp_path, MANY // 10)
