"""The figure shows the layers in order and the model's cosines, labelled, with the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest

from tasks.reporting import deviation_figure, drawing
from tasks.reporting.deviation_figure import draw_deviation
from tests.support.deviation_reference import each_tensor, reference

NAMES = ["wte.weight", *(f"h.{i}.mlp" for i in range(40)), "ln_f.weight"]


def model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(12) for name in NAMES}


BASE, CHECKPOINTS, LABELS = model(0), [model(1), model(2), model(3)], ["one", "two", "three"]


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch):
    """Draw, and return the panels by title instead of a file."""
    drawn: list = []
    monkeypatch.setattr(deviation_figure, "save", lambda figure, path: drawn.append(figure))

    def draw(labels: list[str], tensors, has_base: bool):
        draw_deviation(Path("unused"), labels, tensors, has_base)
        return {axes.get_title(): axes for axes in drawn.pop().axes}

    return draw


NORMS, CONFLICT, COSINES = (
    "Task vectors' norm over the anchor's, by layer", "Sign conflict, by layer", "Cosines, whole model",
)  # fmt: skip


def test_norms_and_conflict_run_over_the_layers(panels) -> None:
    drawn = panels(LABELS, each_tensor(CHECKPOINTS, BASE), True)
    assert set(drawn) == {NORMS, CONFLICT, COSINES}
    layers = [reference(CHECKPOINTS, BASE, [name]) for name in NAMES]
    for i, line in enumerate(drawn[NORMS].lines):
        assert line.get_ydata() == pytest.approx([layer.norms[i] / layer.anchor for layer in layers])
    (conflict,) = drawn[CONFLICT].lines
    assert conflict.get_ydata() == pytest.approx([100 * layer.conflict for layer in layers])


def test_cosines_are_the_whole_models(panels) -> None:
    drawn = panels(LABELS, each_tensor(CHECKPOINTS, BASE), True)[COSINES]
    a, b, c = reference(CHECKPOINTS, BASE, NAMES).cosines
    assert np.asarray(drawn.images[0].get_array()) == pytest.approx(
        np.array([[1, a, b], [a, 1, c], [b, c, 1]])
    )
    assert [text.get_text() for text in drawn.texts][:3] == ["1.00", f"{a:.2f}", f"{b:.2f}"]


def test_everything_is_labelled_and_a_deep_model_stays_readable(panels) -> None:
    drawn = panels(LABELS, each_tensor(CHECKPOINTS, BASE), True)
    assert all(axes.get_ylabel() for axes in drawn.values())
    assert [text.get_text() for text in drawn[NORMS].get_legend().get_texts()] == [
        "1 one",
        "2 two",
        "3 three",
    ]
    ticks = [label.get_text() for label in drawn[NORMS].get_xticklabels()]
    assert (ticks[0], ticks[1], ticks[-1]) == ("embeddings", "2", "rest")
    assert len(ticks) <= drawing.TICKS + 1


def test_layers_of_two_stacks_are_named_in_full(panels) -> None:
    tensors = dict.fromkeys(("encoder.0.x", "decoder.0.x"), BASE["h.0.mlp"])
    drawn = panels(["one"], each_tensor([tensors], {name: 0 * x + 1 for name, x in tensors.items()}), True)
    assert [label.get_text() for label in drawn[NORMS].get_xticklabels()] == ["decoder.0", "encoder.0"]


def test_panels_that_would_say_nothing_are_not_there(panels) -> None:
    assert set(panels(LABELS, each_tensor(CHECKPOINTS), False)) == {NORMS, COSINES}
    assert set(panels(["one"], each_tensor([BASE], CHECKPOINTS[0]), True)) == {NORMS}


def test_an_anchor_of_zeros_leaves_a_gap(panels) -> None:
    base = BASE | {"h.3.mlp": 0 * BASE["h.3.mlp"]}
    for line in panels(LABELS, each_tensor(CHECKPOINTS, base), True)[NORMS].lines:
        assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [4]


def test_the_same_data_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_deviation(tmp_path / name, LABELS, each_tensor(CHECKPOINTS, BASE), True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 10_000
