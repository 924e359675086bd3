"""A chat model and a LoRA run, from `trainer.train()` with the callback to `loreline promote`, with real servers.

The Trainer keeps one checkpoint of each; nobody does anything between the end of training and promoting.
"""

from collections.abc import Iterator

import pytest

from tasks.registry.tags import unpacked
from tests.support.servers import both_servers
from tests.support.team import Team

pytestmark = pytest.mark.servers
LOAD = {
    "full": """
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer
champion = mlflow.artifacts.download_artifacts("models:/team@champion")
model, tokenizer = AutoModelForCausalLM.from_pretrained(champion), AutoTokenizer.from_pretrained(champion)
""",
    "lora": """
import mlflow
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
champion = mlflow.artifacts.download_artifacts("models:/team@champion")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base-lora"), champion)
tokenizer = AutoTokenizer.from_pretrained(champion)
""",
}
ANSWER = """
asked = tokenizer.apply_chat_template(
    [{"role": "user", "content": "1 + 2"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(model.generate(**asked, min_new_tokens=2, max_new_tokens=2).shape[1] - asked["input_ids"].shape[1])
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with both_servers(tmp_path_factory.mktemp("servers")) as servers:
        team = Team(tmp_path_factory.mktemp("team") / "project", servers)
        team.project.set("evaluate", chat_template=True)
        team.project.set("select", far="keep")  # in a training this young the oldest of three lies far
        team.serve()
        yield team
        team.kill()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_from_the_trainer_to_a_champion_by_itself(team: Team, kind: str) -> None:
    name = f"chat-{kind}"
    training = team.train(name, kind, script="chat_run.py")
    said, _ = training.communicate(timeout=300)
    assert training.returncode == 0, said
    assert "cannot be announced" not in said
    assert [path.name for path in (team.project.root / "runs" / name).iterdir()] == ["checkpoint-12"]
    team.wait_for(name)
    (version,) = team.versions(name)
    assert version.tags["loreline.git_tag"] == f"merge/{name}"
    assert ("loreline.base" in unpacked(version.tags)) == (kind == "lora")
    team.project.run("loreline", "promote", "--force", "--why", "a test")
    assert merged_steps(team, name) == [6, 9, 12]
    assert team.project.python(LOAD[kind] + ANSWER) == "2"


def merged_steps(team: Team, name: str) -> list[int]:
    """Return the steps in the champion's own record of its merge."""
    return [
        int(step)
        for step in team.project.python(
            "import json, mlflow; from pathlib import Path\n"
            "place = mlflow.artifacts.download_artifacts('models:/team@champion')\n"
            "print(*[one['step'] for one in json.loads(Path(place, 'merge.json').read_text())['inputs']])"
        ).split()
    ]
