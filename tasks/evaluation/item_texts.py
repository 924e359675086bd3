"""The items of tasks as plain text: what is asked, followed by the right answer."""

from collections.abc import Iterator
from typing import Any

from tasks.base.passage import Passage
from tasks.evaluation.lm_eval_task import build_task, quiet
from tasks.evaluation.task_spec import Split, leaves_of


def item_texts(split: Split) -> list[Passage]:
    """Return every item's right answer, what is asked being its prompt, task by task.

    Without examples, chat template or system instruction.
    """
    with quiet(()):
        return [text for task in leaves_of(split.tasks) for text in _texts(build_task(task, split.params))]


def _texts(task: Any) -> Iterator[Passage]:
    for document in task.eval_docs:
        asked, answer = task.doc_to_text(document), _first(task.doc_to_target(document))
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = task.doc_to_choice(document)
            # where inputs are chosen from (Winogrande), the right one's number is in the place of the text
            asked = choices[asked] if isinstance(asked, int) else asked
            answer = choices[answer] if isinstance(answer, int) else answer
        # lm-eval puts nothing before the target of these
        before_target = "" if task.OUTPUT_TYPE.startswith("loglikelihood") else task.config.target_delimiter
        yield Passage(f"{asked}{before_target}", str(answer))


def _first(answers: Any) -> Any:
    """Return the first of several right answers."""
    return answers[0] if isinstance(answers, list) and answers else answers
