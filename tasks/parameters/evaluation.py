"""The section evaluate: tasks, metrics and the gate's bounds."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.parameters.section import Section

ItemLimit = Annotated[
    Annotated[int, Field(ge=2), Tag("count")] | Annotated[float, Field(gt=0, lt=1), Tag("share")],
    Discriminator(lambda value: "share" if isinstance(value, float) and value < 1 else "count"),
]
BatchSize = Annotated[
    Annotated[Literal["auto"], Tag("word")] | Annotated[int, Field(ge=1), Tag("number")],
    Discriminator(lambda value: "word" if value == "auto" else "number"),
]


ASKED = {
    "limit",
    "num_fewshot",
    "seed",
    "backend",
    "chat_template",
    "system_instruction",
    "fewshot_as_multiturn",
    "generation",
}
"""The parameters that decide what a model is asked, besides its task."""


class GenerationParams(Section):
    """How text is generated, as lm-eval's gen_kwargs say it; null: as the task's file says."""

    max_gen_toks: Annotated[int, Field(ge=1)] | None = None
    """Tokens after which an answer ends; lm-eval's default is 256."""
    until: tuple[str, ...] | None = None
    """Texts at which an answer ends."""
    do_sample: bool | None = None
    """Draw tokens at random, from evaluate.seed; false: take the likeliest."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Of sampling."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Sample among so many of the likeliest tokens."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample among the likeliest tokens that have this probability together."""


class EvaluateParams(Section):
    """What the merge is measured on, and what it has to show."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """lm-eval task names: of `include_path`, or that lm-eval ships."""
    include_path: str | None = None
    """Directory of local task YAML files; their relative data_files are relative to the YAML file."""
    primary: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    """The metric that decides, as task/metric, such as gsm8k/exact_match or word_problems_nll/nll."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """What the lower end of the primary metric's 95 % interval must exceed for PROMOTE, in its units."""
    beat_average: bool = True
    """PROMOTE needs a gain over the checkpoints' plain average too, unless the merge is just that."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """How far any other metric may fall, in its units; 0: it must not be shown to fall."""
    margins: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Exceptions to `margin`, by task/metric."""
    guard_strictly: tuple[str, ...] = ()
    """Metrics, as task/metric, that must each be shown to fall by no more than their margin."""
    reference: Annotated[int, Field(ge=1)] | None = None
    """The registered version that other metrics are held to besides; unset: the first champion."""
    vault: tuple[str, ...] = ()
    """Tasks that nothing else asks, to confirm a PROMOTE on; the first has the metric of `primary`."""
    vault_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Instead of `vault`: the share of the tasks' own documents that is kept for confirming."""
    spending: Literal["none", "alpha"] = "none"
    """alpha: every further look at the test items asks for more, so that false promotions stay below 10 % for
    ever; none: every look decides at 2.5 %."""
    select_tasks: tuple[str, ...] = ()
    """Tasks to choose on: a merge that gains nothing on the first one's metric of `primary` is not tested."""
    limit: ItemLimit | None = None
    """Evaluate only the first so many items of each task, or this share of them (0.5: the first half)."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples shown before each item; unset: what the task says."""
    backend: str = "hf"
    """What runs the models: hf (transformers), or another file of tasks/evaluation/backends."""
    batch_size: BatchSize = 64
    """Items per forward pass; auto: as many as fit into a GPU's memory, 16 on the CPU."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, or cuda[:i]."""
    seed: int = 0
    """Seed of lm-eval's sampling."""
    chat_template: bool | str = False
    """Ask in the model's chat template; a name picks one where the model has several."""
    system_instruction: str | None = None
    """The system prompt of every item."""
    fewshot_as_multiturn: bool = False
    """Give the examples as turns of the chat, not as one text; needs chat_template."""
    generation: GenerationParams = GenerationParams()
    cluster: str | dict[str, str] | None = None
    """The field of a task's documents that says which items belong together, such as passage_id; a mapping
    names one for each task. Unset: what the task's metadata says under `cluster`, else no items do."""

    training_data: tuple[str, ...] = ()
    """Files of JSON lines (patterns, such as data/*.jsonl) that the run was trained on: test items that occur
    there are counted, and the verdict says so."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.vault and self.vault_share:
            raise ValueError("vault and vault_share are both set", "leave one of them out")
        for key, tasks, others in (
            ("vault", self.vault, (*self.tasks, *self.select_tasks)),
            ("select_tasks", self.select_tasks, self.tasks),
        ):
            if twice := set(tasks) & set(others):
                raise ValueError(
                    f"evaluate.{key} names {min(twice)}, which is asked elsewhere", "keep it apart"
                )
        return self
