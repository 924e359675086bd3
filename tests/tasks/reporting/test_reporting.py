"""What people read says what was measured, and nothing from a run can break the page."""

import json
import math
from html import unescape
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from flows.by_hand import show
from flows.merge import Outcome
from tasks.base.errors import BadInput
from tasks.base.measures import DeviationSummary, TensorMeasures
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.base.records.record import FileDigest, Interval
from tasks.base.records.registration import Registration
from tasks.base.records.score import Difference, EvaluatedModel, Score
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint, LeftOut, TrainingRun
from tasks.base.records.verdict import Guard, GuardedMetric, Verdict
from tasks.reporting.figures import draw_gains, draw_trajectory
from tasks.reporting.html_report import ReportRecords, html_report
from tasks.reporting.lore_summary import summarise
from tasks.reporting.lore_table import LORE_LEGEND, lore_rows
from tasks.reporting.model_card import model_card
from tasks.reporting.table import EVALUATION_HEADER, evaluation_tables, markdown_tables
from tasks.version_artifacts import Versioned
from tests.support.lore_measures_reference import AVERAGED, EDGE, measures, spiked, tensors

CHECKPOINTS = tuple(
    Checkpoint(
        name=f"checkpoint-{step}", step=step, source=f"runs/<b>/{step}", metrics={"eval_loss": 1 / step},
        files=(FileDigest(name="model.safetensors", size=1, sha256="0"),),
    )
    for step in (1, 2, 3)
)  # fmt: skip
SELECTION = Selection(
    run="<script>alert(1)</script>", rule="last_k", chosen=CHECKPOINTS[1:], best=CHECKPOINTS[2], last=CHECKPOINTS[2],
    left_out=(LeftOut(name="checkpoint-1", reason="is not among the newest 2"),), metric="eval_loss",
)  # fmt: skip
RUN = TrainingRun(name="<script>alert(1)</script>", source="runs/<b>", checkpoints=CHECKPOINTS, left_out=())
MERGE = MergeReport(
    method="lore", parameters={"lam": 0.5}, outputs=(), notes=("λ = 0.5",), tensors=tensors({"norm": AVERAGED}),
    inputs=tuple(MergeInput(path=c.source, step=c.step, digest=c.digest) for c in CHECKPOINTS),
)  # fmt: skip


def interval(mean: float) -> Interval:
    return Interval(mean=mean, low=mean - 0.125, high=mean + 0.125)


EVALUATION = Evaluation(
    primary="b/nll",
    models=(EvaluatedModel(role="last", label="last", digest="1"), EvaluatedModel(role="merge", label="merge", digest="2")),
    scores=tuple(
        Score(model=role, metric=metric, items=9, value=interval(value))
        for role, metric, value in (("last", "a/acc", 0.5), ("merge", "a/acc", 0.75), ("last", "b/nll", 2.0), ("merge", "b/nll", 1.0))
    ),
    differences=(
        Difference(against="last", metric="a/acc", items=9, gain=interval(0.25), p_value=0.0625, wins=3, losses=1),
        Difference(against="last", metric="b/nll", items=9, gain=interval(1.0), p_value=None, wins=8, losses=1),
    ),
    verdict=Verdict(decision="PROMOTE", sentence="PROMOTE: better.", against="last", primary="b/nll", items_needed=None),
)  # fmt: skip


def test_the_deciding_metric_comes_first_and_every_number_is_there() -> None:
    assert evaluation_tables(EVALUATION) == {
        "b/nll": [["last", "2 [1.88, 2.12]", "+1 [+0.875, +1.12]", ""], ["merge", "1 [0.875, 1.12]", "", ""]],
        "a/acc": [
            ["last", "0.5 [0.375, 0.625]", "+0.25 [+0.125, +0.375]", "0.062"],
            ["merge", "0.75 [0.625, 0.875]", "", ""],
        ],
    }


def test_markdown_has_a_row_for_every_model_and_metric() -> None:
    lines = markdown_tables(EVALUATION).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 * (2 + 2)
    assert all(row.count("|") == len(EVALUATION_HEADER) + 1 for row in rows)


def test_the_figure_of_gains_has_a_panel_for_what_is_guarded(tmp_path: Path) -> None:
    """An old verdict, without guards, is drawn without it; a margin of zero is no unit to draw in."""

    def height(name: str, *margins: float) -> int:
        metrics = tuple(
            GuardedMetric(
                metric="a/acc", margin=margin, gain=interval(0), worse=False, finds=0.1, strict=False
            )
            for margin in margins
        )
        guards = (Guard(against="last", metrics=metrics, pooled=None),)
        verdict = EVALUATION.verdict.model_copy(update={"guards": guards})
        draw_gains(tmp_path / name, EVALUATION.model_copy(update={"verdict": verdict}))
        return int.from_bytes((tmp_path / name).read_bytes()[20:24])  # of the PNG's header

    draw_gains(tmp_path / "old.png", EVALUATION)
    assert height("none.png") == int.from_bytes((tmp_path / "old.png").read_bytes()[20:24])
    assert (
        height("none.png") == height("zero.png", 0.0) < height("one.png", 0.1) < height("two.png", 0.1, 0.2)
    )


def test_the_report_holds_everything_and_escapes_what_a_run_says() -> None:
    lie = DeviationSummary(
        norms=(1.0, 2.0, 3.0), anchor=4.0, cosines=(0.5, 0.25, 0.125), conflict=0.25, elements=9
    )
    ties = MERGE.model_copy(update={"method": "ties", "tensors": {"norm": TensorMeasures(deviation=lie)}})
    evaluation = EVALUATION.model_copy(update={"higher_is_better": {"b/nll": False, "a/acc": True}})
    page = html_report(
        ReportRecords(RUN, SELECTION, ties, evaluation),
        {"registered": "2026-11-29"},
        {"demo version 3": "http://mlflow:5000/#/models/demo/versions/3", "<i>": "javascript:alert(1)"},
    )
    for text in (
        "PROMOTE: better.",
        "+1 [+0.875, +1.12]",
        "b/nll (lower is better), which decides",
        "a/acc (higher is better)</h3>",
        "λ = 0.5",
        "<td>lam</td><td>0.5</td>",
        "is not among the newest 2",
        "<title>over last (8 won, 1 lost): +1 [+0.875, +1.12]</title>",  # under the pointer
        "<title>checkpoint-3: eval_loss 0.3333</title>",
        "How the checkpoints lie to each other",
        "<title>step 3, rest: 0.75</title>",
        "registered: 2026-11-29",
        '<a href="http://mlflow:5000/#/models/demo/versions/3" target="_blank" rel="noopener">demo version 3</a>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ):
        assert text in page
    assert page.index("b/nll (lower") < page.index("a/acc (higher")
    for foreign in ("<script", "<i>", 'href="javascript', "src=", "url(", "@import", "<link", "LoRE"):
        assert foreign not in page
    assert len(page) < 60_000


def test_the_report_and_the_card_of_a_lore_merge_say_what_lore_found() -> None:
    """Figure, sentences and a row for each kind of matrix."""
    merge = MERGE.model_copy(
        update={
            "tensors": tensors({"h.<i>.q": measures(spiked(0), EDGE), "h.<i>.up": measures(spiked(1), EDGE)})
        }
    )
    page = html_report(ReportRecords(RUN, SELECTION, merge, EVALUATION))
    card = model_card(merge)
    assert "<title>step 1: σ1 = " in page
    assert ">threshold μ</text>" in page
    assert "<i>" not in page
    summary = summarise(merge)
    assert summary is not None
    for found in [*summary.sentences, LORE_LEGEND, *lore_rows(merge.tensors)[0][1:]]:
        assert found in unescape(page)
        assert found in card
    assert "| h.&lt;i&gt;.q | " in card


def test_a_lore_merge_that_decomposed_nothing_needs_no_figure() -> None:
    page = html_report(ReportRecords(RUN, SELECTION, MERGE, EVALUATION))
    for text in (page, model_card(MERGE)):
        assert "No matrix was decomposed" in text
        assert LORE_LEGEND[:20] not in text


def test_a_loss_that_is_no_number_leaves_a_gap_in_the_trajectory() -> None:
    diverged = CHECKPOINTS[0].model_copy(update={"metrics": {"eval_loss": math.nan}})
    run = RUN.model_copy(update={"checkpoints": (diverged, *CHECKPOINTS[1:])})
    page = html_report(ReportRecords(run, SELECTION, MERGE, EVALUATION))
    assert "<title>checkpoint-2: eval_loss 0.5</title>" in page
    assert "<title>checkpoint-1" not in page
    assert "nan" not in page


def test_figures_are_pictures_with_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw_gains(tmp_path / f"{name}-gains.png", EVALUATION)
        draw_trajectory(tmp_path / f"{name}-trajectory.png", CHECKPOINTS, SELECTION)
    for kind in ("gains", "trajectory"):
        one, two = ((tmp_path / f"{name}-{kind}.png").read_bytes() for name in ("one", "two"))
        assert one == two
        assert one.startswith(b"\x89PNG")


def test_a_run_without_the_metric_still_gets_its_figure(tmp_path: Path) -> None:
    silent = tuple(c.model_copy(update={"metrics": {}}) for c in CHECKPOINTS)
    selection = SELECTION.model_copy(update={"chosen": silent, "best": None})
    draw_trajectory(tmp_path / "trajectory.png", silent, selection)
    assert (tmp_path / "trajectory.png").stat().st_size > 1000


def test_the_model_card_names_sources_and_parameters() -> None:
    card = model_card(MERGE)
    assert card.startswith("---\nlibrary_name: transformers\n")
    for text in ("step 3: runs/&lt;b&gt;/3", '"lam": 0.5', "- λ = 0.5", "from_pretrained", "does not show"):
        assert text in card


def test_the_card_s_head_is_what_the_hub_reads() -> None:
    """Base models are the Hub's repositories among what was merged; a path on this machine is none."""
    sources = ("hf://lab/tiny@abc", "runs/3", "hf://lab/small@def/checkpoint-2")
    inputs = tuple(MergeInput(path=path, step=n, digest=str(n)) for n, path in enumerate(sources))
    data = ModelCard(model_card(MERGE.model_copy(update={"inputs": inputs}))).data.to_dict()
    assert data["base_model"] == ["lab/small", "lab/tiny"]
    assert (data["base_model_relation"], data["tags"]) == ("merge", ["merge", "loreline"])
    local = ModelCard(model_card(MERGE)).data.to_dict()
    assert "base_model" not in local
    assert "base_model_relation" not in local


HOSTILE = "$\\frac{$ [/b] \x1b[2J\u202e\r<script>`|" + "x" * 10**5


def test_no_name_breaks_a_page_a_figure_or_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(EVALUATION.model_dump_json().replace("b/nll", json.dumps(HOSTILE)[1:-1]))
    tree["models"][0]["label"] = tree["verdict"]["sentence"] = HOSTILE
    evaluation = Evaluation.model_validate(tree)
    selection = SELECTION.model_copy(update={"run": HOSTILE, "metric": HOSTILE, "best": None})
    draw_trajectory(tmp_path / "trajectory.png", CHECKPOINTS, selection)
    draw_gains(tmp_path / "gains.png", evaluation)
    registration = Registration(name=HOSTILE, version=1, model_id="m", run_id="r", digest="d", aliases=())
    show(Outcome(tmp_path, evaluation, registration, Versioned(sentence=HOSTILE), None))
    named = tuple(c.model_copy(update={"name": HOSTILE, "metrics": {HOSTILE: 1.0}}) for c in CHECKPOINTS)
    run = RUN.model_copy(update={"name": HOSTILE, "source": HOSTILE, "checkpoints": named})
    page = html_report(
        ReportRecords(run, selection, MERGE.model_copy(update={"method": "ties"}), evaluation),
        links={"a": HOSTILE},
    )
    for text in (capsys.readouterr().out, page, markdown_tables(evaluation)):
        assert all(character.isprintable() for character in text.replace("\n", ""))
        assert len(text) < 100_000
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("key", "value"),
    [("models", []), ("scores", []), ("differences", []), ("primary", "a/none"), ("models", 2 * [{"role": "last", "label": "", "digest": ""}])],
)  # fmt: skip
def test_an_evaluation_that_lacks_what_its_readers_look_up_is_no_record(
    tmp_path: Path, key: str, value: object
) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({**EVALUATION.model_dump(mode="json"), key: value}))
    with pytest.raises(BadInput, match="not a Evaluation record"):
        Evaluation.read(tmp_path / "evaluation.json")


def test_a_picture_is_written_under_the_name_that_was_given(tmp_path: Path) -> None:
    draw_gains(tmp_path / "gains", EVALUATION)
    assert [path.name for path in tmp_path.iterdir()] == ["gains"]
    with pytest.raises(IsADirectoryError):
        draw_gains(tmp_path, EVALUATION)
    assert not tmp_path.with_name(f"{tmp_path.name}.png").exists()
