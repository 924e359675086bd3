"""A LoRA run that the Trainer made, from `loreline run` to a champion that two lines load."""

from pathlib import Path

import pytest

from tasks.base.records.evaluation import Evaluation
from tests.support.project import Project, clone
from tests.support.tiny_world import write_model, write_world

TRAIN = """
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained("base")
model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
rows = [{"input_ids": row, "labels": row} for row in torch.randint(2, 40, (64, 12)).tolist()]
settings = {"max_steps": 9, "save_steps": 3, "report_to": [], "use_cpu": True, "logging_steps": 3}
Trainer(model, TrainingArguments("runs/lora", **settings), train_dataset=rows).train()
"""
LOAD = """
import mlflow
from peft import PeftModel
from transformers import AutoModelForCausalLM
mlflow.set_tracking_uri("sqlite:///.loreline/mlflow.db")
base = AutoModelForCausalLM.from_pretrained("base")
model = PeftModel.from_pretrained(base, mlflow.artifacts.download_artifacts("models:/demo@champion"))
print(sum("lora_A" in name for name, _ in model.named_parameters()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = clone(tmp_path)
    write_model(project.root / "base")
    tasks = write_world(project.root / "world")
    project.set("fetch", source="runs/lora", settle=0)
    project.set("merge", method="average")
    project.set("register", name="demo")
    project.set("evaluate", tasks=["likely"], include_path=str(tasks), primary="likely/nll")
    project.python(TRAIN + "print()")
    return project


@pytest.mark.servers
@pytest.mark.slow
def test_from_training_to_a_champion_that_two_lines_load(project: Project) -> None:
    project.run("loreline", "run")
    evaluation = Evaluation.read(project.root / "artifacts" / "evaluation" / "evaluation.json")
    assert [model.role for model in evaluation.models] == ["last", "merge", "base"]
    base = project.merge().base
    assert base is not None
    assert base.address == "base"
    assert project.run("git", "tag").split() == ["merge/lora"]
    assert "up to date" in project.run("dvc", "status")
    project.run("loreline", "promote", "--force", "--why", "a test")
    assert project.python(LOAD) == "14"  # of seven linear layers in two blocks
