"""What counts as a metric, for every kind of lm-eval task."""

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.task_files import load_tasks
from tasks.parameters.evaluation import EvaluateParams
from tests.support.tiny_world import rows, write_task


@pytest.fixture
def measure(tiny, folder):
    """Run the tiny model on a task written for the occasion."""

    def run(text, primary):
        write_task(folder, "own", text)
        params = EvaluateParams(tasks=("own",), primary=f"own/{primary}", device="cpu")
        return evaluate_model(lambda: ModelFiles(tiny), "digest", load_tasks(["own"], folder), params)["own"]

    return run


EXACT = "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
GENERATE = "output_type: generate_until\ndoc_to_target: '{{answer}}'\ngeneration_kwargs: {max_gen_toks: 2}\n"


def test_every_filter_has_its_metric_and_the_first_one_is_meant(measure):
    result = measure(
        GENERATE
        + EXACT
        + """\
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "never"}, {function: take_first}]}
  - {name: loose, filter: [{function: take_first}]}
""",
        "exact_match",
    )
    assert list(result.values) == ["exact_match,strict", "exact_match,loose"]
    assert result.metric("exact_match") == "exact_match,strict"
    assert len(result.items) == 12


def test_one_filter_needs_no_name(measure):
    result = measure(
        GENERATE + EXACT + "filter_list: [{name: only, filter: [{function: take_first}]}]\n", "exact_match"
    )
    assert list(result.values) == ["exact_match"]


def test_metrics_of_the_whole_corpus_are_left_out(measure):
    """f1 has a pair (gold, predicted) per item, which is nothing to take a mean of."""
    result = measure(
        """\
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {metric: f1, aggregation: f1, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
        "nll",
    )
    assert set(result.values) == {"acc_norm", "nll"}


def test_a_right_choice_may_be_given_as_text(measure):
    task = (
        "output_type: multiple_choice\ndoc_to_choice: choices\nmetric_list: [{metric: acc}]\ndoc_to_target: "
    )
    by_place, by_text = measure(task + "gold\n", "nll"), measure(task + "answer\n", "nll")
    assert by_text.values == by_place.values


def test_a_right_choice_that_is_not_among_them_has_no_nll(measure):
    task = "output_type: multiple_choice\ndoc_to_choice: choices\nmetric_list: [{metric: acc}]\n"
    assert set(measure(task + "doc_to_target: question\n", "acc").values) == {"acc"}


def test_rolling_tasks_have_the_nll_of_the_whole_text(measure, tiny):
    """The first token too, after the beginning of the text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    metrics = "metric_list: [{metric: word_perplexity}]\n"
    result = measure("output_type: loglikelihood_rolling\ndoc_to_target: '{{answer}}'\n" + metrics, "nll")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    expected = []
    for row in rows(12):
        ids = torch.tensor([tokenizer.bos_token_id, *tokenizer.encode(row["answer"])])
        with torch.no_grad():
            logs = torch.log_softmax(model(ids[None]).logits[0], -1)
        expected.append(-logs[:-1].gather(1, ids[1:, None]).sum().item())
    assert result.values["nll"] == pytest.approx(expected, abs=1e-4)
    assert set(result.values) == {"nll"}


def test_a_task_without_a_number_per_item_cannot_be_used(measure):
    with pytest.raises(BadInput, match="evaluate.tasks: own reports no number per item"):
        measure(
            "output_type: generate_until\ndoc_to_target: '{{answer}}'\ngeneration_kwargs: {max_gen_toks: 2}\n"
            "metric_list: [{metric: bleu, aggregation: bleu, higher_is_better: true}]\n",
            "bleu",
        )
