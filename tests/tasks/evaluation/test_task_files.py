"""Whatever is wrong with a task is said before a model is loaded, and its identity is what it asks."""

import pytest

from tasks.base.errors import BadInput
from tasks.evaluation import task_files
from tasks.evaluation.task_files import check_asked, load_tasks
from tasks.evaluation.task_spec import TaskSpec
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import TASKS


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    """Stand in for lm-eval's 14 000 files, but for the one test that wants them (some 7 s)."""
    monkeypatch.setattr(task_files, "_shipped", dict)


def digest(folder, name="spell"):
    return load_tasks([name], folder)[0].digest


class TestFinding:
    def test_tasks_come_in_the_order_asked_for(self, folder):
        assert [spec.name for spec in load_tasks(["likely", "spell"], folder)] == ["likely", "spell"]

    def test_a_broken_neighbour_does_not_disturb(self, folder):
        (folder / "broken.yaml").write_text("task: [")
        assert digest(folder)

    @pytest.mark.slow
    def test_lm_evals_own_tasks_are_found(self, monkeypatch):
        monkeypatch.undo()
        assert load_tasks(["gsm8k"], None)[0].config["dataset_path"] == "openai/gsm8k"
        assert [spec.name for spec in load_tasks(["ai2_arc"], None)] == ["arc_challenge", "arc_easy"]
        (mmlu,) = load_tasks(["mmlu"], None)
        assert len(mmlu.members) == 57


class TestRefusing:
    def test_an_unknown_name_with_the_nearest_one(self, folder):
        with pytest.raises(BadInput, match=r"unknown task spel; did you mean spell\?"):
            load_tasks(["spel"], folder)
        with pytest.raises(BadInput, match=r"unknown task zzzz; see"):
            load_tasks(["zzzz"], None)

    def test_an_unknown_name_that_a_broken_file_may_define(self, folder):
        (folder / "broken.yaml").write_text("task: [")
        with pytest.raises(BadInput, match=r"broken.yaml: not a usable task file \(ParserError"):
            load_tasks(["broken"], folder)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(BadInput, match=r"evaluate.include_path: .*nowhere is not a directory"):
            load_tasks(["spell"], tmp_path / "nowhere")


class TestAskedFor:
    def check(self, folder, primary, **chosen):
        specs = load_tasks(list(TASKS), folder)
        check_asked(specs, EvaluateParams(tasks=tuple(TASKS), primary=primary, **chosen))

    @pytest.mark.parametrize("primary", ["likely/nll", "likely/acc", "choose/nll", "spell/exact_match"])
    def test_what_a_task_may_report_passes(self, folder, primary):
        self.check(folder, primary)

    def test_other_tasks_are_refused(self, folder):
        with pytest.raises(BadInput, match=r"evaluate.primary: other/acc .* \(spell, likely, choose\)"):
            self.check(folder, "other/acc")
        with pytest.raises(BadInput, match=r"evaluate.margins: other/acc"):
            self.check(folder, "likely/nll", margins={"other/acc": 0.1})

    @pytest.mark.parametrize("primary", ["likely/perplexity", "choose/acc_norm"])
    def test_metrics_that_the_file_excludes_are_refused(self, folder, primary):
        with pytest.raises(BadInput, match="does not report .*, only acc, nll"):
            self.check(folder, primary)

    def test_a_cluster_of_another_task_is_refused(self, folder):
        self.check(folder, "likely/nll", cluster={"likely": "question"})
        with pytest.raises(BadInput, match=r"evaluate.cluster: likly is no task"):
            self.check(folder, "likely/nll", cluster={"likly": "question"})

    def test_turns_without_a_chat_template_are_refused(self, folder):
        self.check(folder, "likely/nll", fewshot_as_multiturn=True, chat_template=True)
        with pytest.raises(BadInput, match=r"evaluate.fewshot_as_multiturn: needs a chat template; set"):
            self.check(folder, "likely/nll", fewshot_as_multiturn=True)

    def test_what_the_file_does_not_tell_passes(self):
        spec = TaskSpec("t", {"output_type": "generate_until"}, "d")
        check_asked([spec], EvaluateParams(tasks=("t",), primary="t/whatever"))


@pytest.mark.parametrize("text", ["group: null\ntask: likely\n", "task: odd\ndataset_kwargs: 5\n", "task: odd\ndataset_kwargs: {data_files: {test: 5}}\n"])  # fmt: skip
def test_a_file_that_is_no_task_s_is_one_sentence(folder, text):
    (folder / "odd.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"; correct it"):
        load_tasks(["odd"], folder)
