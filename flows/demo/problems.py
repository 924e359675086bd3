"""Generated word problems: the text of the demo, its data files and its lm-eval tasks.

Answers are written last digit first ("34 + 27" is "16"), because a small model learns to carry in that order.
"""

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path

NAMES = ("Ada", "Ben", "Eva", "Ian", "Leo", "Mia", "Noa", "Sam", "Tom", "Zoe")
OBJECTS = ("beads", "books", "bulbs", "cards", "coins", "masks", "nails", "pears", "plums", "tiles")

TEMPLATES = {
    "+": (
        "{name} has {a} {things} and buys {b}. Total?",
        "{name} has {a} {things}, {other} has {b}. Total?",
        "{name} sees {a} {things}, then {b}. Total?",
    ),
    "-": (
        "{name} has {a} {things} and sells {b}. Left?",
        "{name} had {a} {things}, lost {b}. Left?",
        "Of {a} {things} {name} gives {b}. Left?",
    ),
    "*": (
        "{name} packs {things}: {a} bags of {b}. Total?",
        "{name} buys {things}: {a} boxes of {b}. Total?",
        "{name} lays {things}: {a} rows of {b}. Total?",
    ),
}


@dataclass(frozen=True)
class Problem:
    """A question and its answer, last digit first."""

    question: str
    answer: str


@dataclass(frozen=True)
class Splits:
    """Three sets of problems that share no question."""

    train: list[Problem]
    select: list[Problem]
    test: list[Problem]


def draw(rng: random.Random, most: int) -> int:
    """Draw a whole number from 2 to `most`, small ones more often: learning starts with those."""
    return int(math.exp(rng.uniform(math.log(2), math.log(most + 1))))


def numbers(operation: str, rng: random.Random) -> tuple[int, int, int]:
    """Draw two operands and compute the result, which is never negative."""
    if operation == "*":
        a, b = draw(rng, 15), draw(rng, 9)
        return a, b, a * b
    a, b = draw(rng, 60), draw(rng, 60)
    return (a, b, a + b) if operation == "+" else (max(a, b), min(a, b), abs(a - b))


def problem(rng: random.Random) -> Problem:
    """Draw one word problem."""
    operation = rng.choice("+-*")
    a, b, result = numbers(operation, rng)
    name, other = rng.sample(NAMES, 2)
    question = rng.choice(TEMPLATES[operation]).format(
        name=name, other=other, things=rng.choice(OBJECTS), a=a, b=b
    )
    return Problem(question, str(result)[::-1])


def make_splits(seed: int, *, train: int, select: int, test: int) -> Splits:
    """Draw distinct problems, and shuffle before splitting.

    Duplicates are dropped, so later draws are rarer and harder; the shuffle spreads those evenly.
    """
    rng = random.Random(seed)
    distinct: dict[str, Problem] = {}
    while len(distinct) < train + select + test:
        drawn = problem(rng)
        distinct[drawn.question] = drawn
    problems = list(distinct.values())
    rng.shuffle(problems)
    return Splits(problems[select + test :], problems[:select], problems[select : select + test])


def write_data(splits: Splits, directory: Path) -> None:
    """Write `select.jsonl` and `test.jsonl`: one `{"question", "answer"}` a line."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, problems in (("select", splits.select), ("test", splits.test)):
        lines = (json.dumps(asdict(problem)) + "\n" for problem in problems)
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


DATA = """\
dataset_path: json
dataset_kwargs:
  data_files:
    test: ../data/test.jsonl  # relative to this file
test_split: test
num_fewshot: 0
doc_to_text: "{{question}}"
"""

GENERATE = """\
# The share of problems whose generated answer is right.
task: word_problems
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n"]
  do_sample: false
  max_gen_toks: 8
filter_list:
  - name: number
    filter:
      - function: regex
        regex_pattern: "([0-9]+)"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""

SCORE = """\
# The log-likelihood of the whole right answer, and whether it is what greedy decoding gives.
task: word_problems_nll
output_type: loglikelihood
# lm-eval puts no space before this kind of target; without the newline "1" would be a right start of "16".
doc_to_target: " {{answer}}\\n"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""

CHOOSE = (
    (SCORE + DATA).replace("word_problems_nll", "word_problems_select").replace("test.jsonl", "select.jsonl")
)
TASKS = {
    "word_problems": GENERATE + DATA,
    "word_problems_nll": SCORE + DATA,
    "word_problems_select": CHOOSE,
}


def write_tasks(directory: Path) -> None:
    """Write the lm-eval tasks, one YAML file each: two over the test split, and one to choose on."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in TASKS.items():
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
