"""A real tiny Llama with random weights, and three local lm-eval tasks over one small data file."""

import json
from pathlib import Path

import torch

from tasks.parameters.evaluation import EvaluateParams

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 +:?\n"

HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: ../data/items.jsonl
test_split: test
doc_to_text: "{{{{question}}}}:"
num_fewshot: 0
"""

TASKS = {
    "spell": """\
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 3}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "likely": """\
output_type: loglikelihood
doc_to_target: " {{answer}}\\n"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "choose": """\
output_type: multiple_choice
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}


def rows(count: int) -> list[dict[str, object]]:
    """Every question comes three times: the items' identities must still differ."""
    return [
        {
            "question": f"{a // 3} + 5",
            "answer": str(a // 3 + 5),
            "choices": ["none", str(a // 3 + 5), str(a // 3)],
            "gold": 1,
        }
        for a in range(count)
    ]


def write_data(directory: Path, count: int = 12) -> Path:
    path = directory / "data" / "items.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return path


def write_task(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(HEAD.format(name=name) + text)
    return path


def write_world(directory: Path) -> Path:
    """Write data, and beside it the folder of tasks, which is returned."""
    write_data(directory)
    for name, text in TASKS.items():
        write_task(directory / "tasks", name, text)
    return directory / "tasks"


def write_model(directory: Path, seed: int = 0) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "</s>": 1, **{letter: place for place, letter in enumerate(LETTERS, 2)}}
    spelling = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    spelling.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    spelling.decoder = decoders.Fuse()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=spelling, bos_token="<s>", eos_token="</s>").save_pretrained(
        directory
    )
    return directory


def choosing_params(directory: Path) -> EvaluateParams:
    """Write a world with a task to judge by, and one to choose by with items of its own; return how to ask them."""
    world = write_world(directory)
    items = [
        {"question": f"{a} + 7", "answer": str(a + 7), "choices": ["a", "b"], "gold": 1} for a in range(9)
    ]
    (world.parent / "data" / "chosen.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    path = write_task(world, "choosing", TASKS["likely"])
    path.write_text(path.read_text().replace("items.jsonl", "chosen.jsonl"))
    return EvaluateParams(
        tasks=("likely",), select_tasks=("choosing",), primary="likely/nll", include_path=str(world),
        batch_size=4, device="cpu",
    )  # fmt: skip
