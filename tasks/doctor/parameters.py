"""Checking that the training run and the evaluation tasks in params.yaml exist."""

from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.layout import inside
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.doctor.finding import Finding
from tasks.parameters.params import Params
from tasks.sources.addresses import source_of


def check_source(params: Params) -> list[Finding]:
    """Check that fetch.source names training runs; those on a server are left to fetch."""
    return [_source(own) for own in params.fetch.runs]


def _source(source: str) -> Finding:
    directory = source_of(source).directory_of(source)
    if directory is None:
        return Finding("Parameters", "fetch.source", f"{source} (not asked)")
    try:
        if count := len(numbered_checkpoints(directory)):
            return Finding("Parameters", "fetch.source", f"{source}, checkpoints: {count}")
        text = "holds no checkpoint-N directory"
    except (FileNotFoundError, NotADirectoryError):
        text = "no such directory"
    except OSError as error:
        text = f"cannot be read ({error.strerror})"
    remedy = "set it to a Trainer's output_dir, or make that run: make demo makes runs/demo"
    return Finding("Parameters", "fetch.source", f"{source}: {text}", "warning", remedy)


def check_evaluation(params: Params) -> list[Finding]:
    """Check that the evaluation tasks can be found, with their data files and metrics."""
    from tasks.evaluation.task_files import check_tasks

    asked, place = params.evaluate, params.evaluate.include_path
    runs = [own for own in params.fetch.runs if place and _comes_with(Path(place), own)]
    if place and not Path(place).is_dir() and runs:
        text = f"{place} comes with {runs[0]}, which is not there"
        return [Finding("Parameters", "evaluate.tasks", text, "warning", "make that run first")]
    try:
        check_tasks(asked)
    except BadInput as error:
        return [Finding("Parameters", error.subject, error.problem, "problem", error.remedy)]
    found = [Finding("Parameters", "evaluate.tasks", ", ".join(asked.tasks))]
    if place:
        text = f"{place} (its task files can run Python here: who may write there?)"
        found.append(Finding("Parameters", "evaluate.include_path", text))
    return found


def check_chat_template(params: Params) -> list[Finding]:
    """Check that a chat model is asked as one: the newest checkpoint of fetch.source says what it is."""
    source = params.fetch.runs[-1]
    directory = source_of(source).directory_of(source)
    checkpoints = numbered_checkpoints(directory) if directory and directory.is_dir() else []
    if params.evaluate.chat_template or not checkpoints or not _has_chat_template(checkpoints[-1][1]):
        return []
    text = f"the checkpoints of {source} have a chat template, which evaluation does not apply"
    remedy = "set evaluate.chat_template: true, unless the tasks are meant for plain text"
    return [Finding("Parameters", "evaluate.chat_template", text, "warning", remedy)]


def _has_chat_template(checkpoint: Path) -> bool:
    """Look for a template where transformers 5 and 4 keep it."""
    try:
        settings = read_json(inside(checkpoint, checkpoint / "tokenizer_config.json"))
    except BadInput:
        settings = {}
    return (checkpoint / "chat_template.jinja").is_file() or bool(settings.get("chat_template"))


def _comes_with(place: Path, source: str) -> bool:
    return place.is_relative_to(source) and not Path(source).is_dir()
