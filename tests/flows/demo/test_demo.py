"""The demo hands its run to the flow as a user would: through parameters alone."""

from pathlib import Path
from typing import get_args

from flows.demo.demo import demo_directory, demo_params
from flows.demo.training import DEFAULT_STEPS, Schedule
from tasks.parameters.params import read_params

ROOT = Path(__file__).parents[3]


def test_the_default_demo_is_what_params_yaml_says() -> None:
    """So its run is the one that DVC records."""
    params = demo_params(demo_directory(0, DEFAULT_STEPS), ROOT / "params.yaml")
    assert params == read_params(ROOT / "params.yaml")


def test_other_seeds_lengths_and_schedules_have_a_directory_of_their_own() -> None:
    kinds = [
        (seed, steps, schedule)
        for seed in (0, 1)
        for steps in (DEFAULT_STEPS, 300)
        for schedule in get_args(Schedule)
    ]
    assert len({demo_directory(*kind) for kind in kinds}) == len(kinds) == 12


def test_the_user_s_other_parameters_stay(tmp_path: Path) -> None:
    text = (
        (ROOT / "params.yaml")
        .read_text()
        .replace("k: 8", "k: 7")
        .replace("source: runs/demo", "source: mine")
    )
    (tmp_path / "params.yaml").write_text(text)
    params = demo_params(Path("runs/demo"), tmp_path / "params.yaml")
    assert params.select.k == 7
    assert params.fetch.source == "runs/demo"
