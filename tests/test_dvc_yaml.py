"""dvc.yaml, the command line and params.yaml speak of the same stages, and list what they depend on."""

from pathlib import Path

import pytest
import yaml

from flows.cli import app
from tasks.base.fingerprint import code_files
from tasks.parameters.params import Params

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {
    "fetch": "tasks.fetch_run",
    "select": "tasks.select_checkpoints",
    "search": "tasks.search_merge",
    "merge": "tasks.merge_checkpoints",
    "evaluate": "tasks.evaluate_merge",
    "register": "tasks.register_model",
}


def test_the_stages_are_commands_and_sections() -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    commands = {command.name for command in app.registered_commands}
    assert list(STAGES) == list(MODULES)
    assert set(STAGES) <= sections
    assert set(STAGES) <= commands
    assert sections - set(STAGES) == {"retention", "version", "watch"}  # the flow's own


@pytest.mark.parametrize("name", MODULES)
def test_a_stage_s_command_and_parameters_carry_its_name(name: str) -> None:
    assert STAGES[name]["cmd"] == f"loreline {name}"
    assert name in STAGES[name].get("params", [name])
    assert "params" in STAGES[name] or "params.yaml" in STAGES[name]["deps"]


@pytest.mark.parametrize("name", MODULES)
def test_a_stage_depends_on_exactly_the_rooms_whose_code_it_imports(name: str) -> None:
    listed = {dep for dep in STAGES[name]["deps"] if dep.startswith("tasks/")}
    code = [path.relative_to(ROOT).parts for path in code_files(MODULES[name])]
    assert listed == {"/".join(parts[:2]) for parts in code if parts != ("tasks", "__init__.py")}


def test_it_stays_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", MODULES)
def test_a_stage_reads_only_what_an_earlier_one_publishes(name: str) -> None:
    published = set()
    for stage, spec in STAGES.items():
        if stage == name:
            break
        published |= {next(iter(out)) for out in spec["outs"]}
    reads = {dep for dep in STAGES[name]["deps"] if dep.startswith("artifacts/")}
    assert reads <= published


def test_params_yaml_has_every_key_a_stage_names() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for spec in STAGES.values():
        for key in spec.get("params", ()):
            tree = params
            for part in key.split("."):
                assert part in tree, key
                tree = tree[part]
