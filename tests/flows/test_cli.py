"""The command line: results on stdout, one sentence on stderr, exit code 2 for bad input and 1 for failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tasks.merging.methods import METHODS
from tests.support.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
PARAMS = {
    "fetch": {"source": "training", "settle": 0},
    "evaluate": {"tasks": ["t"], "primary": "t/nll"},
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Prepare a directory with params.yaml and three checkpoints."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    for step in (100, 200, 300):
        write_checkpoint(tmp_path / "training", step)
    return tmp_path


def loreline(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_three_stages_one_after_the_other(here: Path) -> None:
    for command, answer in (
        ("fetch", "3 checkpoints"),
        ("select", "checkpoint-300"),
        ("merge", "planned of 3"),
    ):
        result = loreline(here, command)
        assert result.returncode == 0, result.stderr
        assert answer in result.stdout
    assert (here / "artifacts" / "merged" / "model.safetensors").exists()


def test_a_merge_without_a_pipeline(here: Path) -> None:
    (here / "params.yaml").unlink()
    inputs = [f"training/checkpoint-{step}" for step in (100, 200, 300)]
    result = loreline(here, "merge", *inputs, "--out", "out/merged", "--set", "merge.method=average")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "out/merged: average of 3 checkpoints\n"
    merged = load_file(here / "out" / "merged" / "model.safetensors")
    assert merged.keys() == load_file(here / "training" / "checkpoint-100" / "model.safetensors").keys()
    assert not (here / ".loreline").exists()


@pytest.mark.parametrize(
    ("method", "note"), [("lore", "equal to averaging"), ("planned", "the log holds no learning rate")]
)
def test_two_checkpoints_are_merged_with_a_note(here: Path, method: str, note: str) -> None:
    inputs = ["training/checkpoint-100", "training/checkpoint-200"]
    result = loreline(here, "merge", *inputs, "--out", "out", "--set", f"merge.method={method}")
    assert result.returncode == 0
    assert f"note: {note}" in result.stderr


def test_a_sweep_writes_a_merge_for_each_combination(here: Path) -> None:
    inputs = [f"training/checkpoint-{step}" for step in (100, 200, 300)]
    sweep = ["--sweep", "merge.ema.decay=0.2,0.5", "--set", "merge.method=ema"]
    planned = loreline(here, "merge", *inputs, "--out", "out", *sweep, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "variants    2, from one read" in planned.stdout
    assert "GB in 2 files to out" in planned.stdout
    assert not (here / "out").exists()
    result = loreline(here, "merge", *inputs, "--out", "out", *sweep)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"out/ema.decay={decay}: ema of 3 checkpoints" for decay in (0.2, 0.5)
    ]
    single = ["--set", "merge.method=ema", "--set", "merge.ema.decay=0.5"]
    assert loreline(here, "merge", *inputs, "--out", "single", *single).returncode == 0
    for path in (here / "single").iterdir():
        assert path.read_bytes() == (here / "out" / "ema.decay=0.5" / path.name).read_bytes()


def damage_params(here: Path) -> None:
    (here / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "merge": {"lore": {"mu_": 1}}}))


def truncate(here: Path) -> None:
    path = here / "training" / "checkpoint-200" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 4)


def pickle_only(here: Path) -> None:
    directory = here / "training" / "checkpoint-200"
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def only_one(here: Path) -> None:
    for step in (100, 200):
        (here / "training" / f"checkpoint-{step}" / "trainer_state.json").unlink()


@pytest.mark.parametrize(
    ("prepare", "command", "sentence"),
    [
        (damage_params, ["fetch"], "unknown key merge.lore.mu_; did you mean mu?"),
        (
            lambda here: None,
            ["fetch", "--set", "fetch.source=nowhere"],
            "fetch.source: nowhere: no such directory",
        ),
        (
            lambda here: None,
            ["select"],
            "artifacts/run/run.json: not there; run the stage that writes it first",
        ),
        (truncate, ["fetch"], "training/checkpoint-200/model.safetensors: truncated"),
        (pickle_only, ["fetch"], "training/checkpoint-200: holds pickled weights only"),
        (lambda here: None, ["merge", "training/checkpoint-100", "--out", "out"], "nothing to merge"),
        (lambda here: None, ["merge", "--out", "out"], "belong together"),
        (lambda here: None, ["merge", "--sweep", "merge.lam=1,2"], "--sweep is for"),
        (
            lambda here: None,
            [
                "merge",
                "training/checkpoint-100",
                "training/checkpoint-200",
                "--out",
                "out",
                "--sweep",
                "merge.lam=1,1",
            ],
            "--sweep merge.lam: 1 is there twice; give each value once",
        ),
        (lambda here: None, ["merge", "training", "--out", "out", "--params", "x"], "no model.safetensors"),
        (lambda here: (here / "params.yaml").unlink(), ["run"], "params.yaml: no such file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    here: Path, prepare, command: list[str], sentence: str
) -> None:
    prepare(here)
    result = loreline(here, *command)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not list(here.glob("artifacts/run*"))
    assert not (here / "out").exists()


def test_one_checkpoint_is_refused_by_select(here: Path) -> None:
    only_one(here)
    assert loreline(here, "fetch").returncode == 0
    result = loreline(here, "select")
    assert result.returncode == 2
    assert "nothing to merge: select.rule=last_k takes 1 checkpoint" in result.stderr
    assert "checkpoint-100: has no trainer_state.json" in result.stderr


def test_a_directory_that_cannot_be_written_is_a_failure(here: Path) -> None:
    (here / "artifacts").write_text("a file where a directory should be")
    result = loreline(here, "fetch")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in loreline(here, "--debug", "fetch").stderr


def test_help_and_methods_start_like_a_small_program() -> None:
    """No heavy library is imported for a screen of help."""
    code = (
        "import sys; sys.argv = ['loreline', 'merge', '--help']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'mlflow', 'prefect', 'lm_eval') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("[]\n")


def test_methods_lists_every_method() -> None:
    result = loreline(ROOT, "methods")
    entries = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [entry.split()[0] for entry in entries] == list(METHODS)
    assert "needs a base and 1 or more checkpoints; reads ties.density=0.2" in result.stdout
    assert "Yadav et al. 2023, arXiv 2306.01708" in result.stdout


def test_params_lists_every_key_or_those_of_a_section() -> None:
    everything = loreline(ROOT, "params")
    assert (everything.returncode, everything.stderr) == (0, "")
    assert "register.promote = manual\n    manual or auto\n" in everything.stdout
    section = loreline(ROOT, "params", "merge.lore").stdout
    assert section.startswith("merge.lore: LoRE merging")
    assert "merge.lore.mu = 1.05\n    number > 0; may vary\n" in section
    assert "merge.ema" not in section
    mistake = loreline(ROOT, "params", "merge.lor")
    assert mistake.returncode == 2
    assert "did you mean merge.lore?" in mistake.stderr


def test_names_from_elsewhere_do_not_control_the_terminal(here: Path) -> None:
    two = [f"training/checkpoint-{step}" for step in (100, 200)]
    result = loreline(here, "merge", *two, "--out", "a\x1b[2J\u202eb", "--set", "merge.method=average")
    assert result.stdout == "a\\x1b[2J\\u202eb: average of 2 checkpoints\n"
    assert result.returncode == 0


def test_what_is_not_utf_8_is_refused_before_any_work(here: Path) -> None:
    result = loreline(here, "merge", "training/checkpoint-100", "--out", os.fsdecode(b"out\xff"))
    assert result.stderr == (
        "error: the command line: names what is not UTF-8; rename that file or directory\n"
    )
    assert result.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["merge", "training/checkpoint-100", "--out", "out", "--base", "s3://bob:hunter2/x?y@bucket/base"],
        ["merge", "https://bob:hunter2@host/run"],
        ["inspect", "training/checkpoint-100", "s3://bob:hunter2@bucket/run"],
        ["fetch", "--params", "https://bob:hunter2@host/params.yaml"],
        ["plan", "s3://bob:hunter2/x@bucket/run"],
    ],
)
def test_an_address_where_a_path_belongs_is_not_quoted(here: Path, arguments: list[str]) -> None:
    result = loreline(here, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "hunter2" not in result.stdout + result.stderr
