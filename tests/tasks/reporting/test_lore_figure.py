"""The figure shows one matrix before and after thresholding, and how low-rank all of them are."""

from pathlib import Path

import numpy as np
import pytest

from tasks.base.measures import LoreMeasures
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.reporting import lore_figure
from tasks.reporting.lore_figure import draw_lore
from tests.support.lore_measures_reference import (
    AVERAGED,
    COLUMNS,
    EDGE,
    changed,
    measures,
    spiked,
    task_vectors,
    tensors,
)
from tests.support.lore_reference import solve

FAR = "model.layers.1.self_attn.q_proj.weight"
MATRICES = {
    "lm_head.weight": measures(spiked(1), EDGE, 0.4),
    "model.embed_tokens.weight": measures(spiked(2), EDGE, 0.4),
    "model.layers.0.mlp.experts.0.up.weight": measures(spiked(3), EDGE, 0.4, active=[2, 2, 2]),
    "model.layers.0.mlp.experts.1.up.weight": measures(spiked(4), EDGE, 0.4, active=[4, 4, 4]),
    "model.layers.0.norm.weight": AVERAGED,
    "model.layers.0.self_attn.q_proj.weight": measures(spiked(5), 10 * EDGE, 0.4),
    FAR: measures(spiked(6), EDGE, 1.0),
}


def report(found: dict = MATRICES, penalty: str = "nuclear") -> MergeReport:
    return MergeReport(
        method="lore", parameters={"lore": {"penalty": penalty}}, outputs=(), notes=(), tensors=tensors(found),
        inputs=tuple(MergeInput(path="x", step=step, digest="") for step in (10, 20, 30)),
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch):
    """Draw, and return the two panels instead of a file."""
    figures: list = []
    monkeypatch.setattr(lore_figure, "save", lambda figure, path: figures.append(figure))

    def draw(found: MergeReport):
        draw_lore(Path("unused"), found)
        return figures[-1].axes[:2]

    return draw


def curves(axes) -> list[np.ndarray]:
    """Return the spectra; the two lines that follow are the threshold and the noise edge."""
    return [np.asarray(line.get_ydata()) for line in axes.lines]


def test_the_matrix_farthest_from_averaging_is_shown_before_and_after(drawn) -> None:
    """After thresholding the singular values are those of δ_i (the paper's Figure 1)."""
    axes, _ = drawn(report())
    assert axes.get_title().endswith(FAR)
    assert axes.get_yscale() == "log"
    thetas = spiked(6)
    theta_0, _ = solve(thetas, EDGE)
    lines = curves(axes)
    for i, delta in enumerate(task_vectors(thetas, theta_0, EDGE)):
        before, after = lines[2 * i : 2 * i + 2]
        assert before == pytest.approx(np.linalg.svd(thetas[i] - theta_0, compute_uv=False), rel=1e-3)
        kept = np.linalg.svd(delta, compute_uv=False)
        assert after == pytest.approx(kept[kept > 1e-9], abs=2e-3 * kept[0])
    assert set(lines[6]) == {EDGE}
    assert set(lines[7]) == {EDGE * np.sqrt(2 / 3)}


def test_a_cut_by_rank_ratio_is_drawn(drawn) -> None:
    axes, _ = drawn(report({"w": measures(spiked(6), EDGE, rank=1)}))
    assert [len(after) for after in curves(axes)[1:6:2]] == [1, 1, 1]


def test_nothing_negative_is_drawn(drawn) -> None:
    """Spectra are rounded to four digits, and of stacked experts they are one's while μ is the largest."""
    spectra = [[3.0, 2.0, 1.999], [3.0, 2.0, 1.0], [1.0]]
    matrix = changed(MATRICES[FAR], threshold=2.0, ranks=(3, 2, 1), spectra=spectra)
    axes, _ = drawn(report({"w": matrix}))
    assert [after.tolist() for after in curves(axes)[1:6:2]] == [[1.0], [1.0], []]


def test_another_penalty_is_not_drawn_as_if_it_were_the_nuclear_norm(drawn) -> None:
    axes, _ = drawn(report(penalty="squared"))
    assert [len(after) for after in curves(axes)[1:6:2]] == [0, 0, 0]


def test_without_noise_there_is_no_noise_edge(drawn) -> None:
    axes, _ = drawn(report({"w": measures(spiked(6), EDGE, edge=0.0)}))
    assert [text.get_text() for text in axes.texts] == ["threshold μ"]


def test_active_ranks_run_over_layers_and_kinds(drawn) -> None:
    """A layer's experts are one cell, their mean; what is not there stays empty; 0 is averaging."""
    _, axes = drawn(report())
    roles = [label.get_text() for label in axes.get_yticklabels()]
    layers = [label.get_text() for label in axes.get_xticklabels()]
    assert roles == ["model.embed_tokens", "self_attn.q_proj", "mlp.experts.*.up", "lm_head"]
    assert layers == ["embeddings", "0", "1", "rest"]
    shares = {name: 100 * np.mean(MATRICES[name].active) / COLUMNS for name in MATRICES if "norm" not in name}
    nothing = np.nan
    assert np.ma.filled(axes.images[0].get_array(), nothing) == pytest.approx(
        np.array([
            [shares["model.embed_tokens.weight"], nothing, nothing, nothing],
            [nothing, 0, shares[FAR], nothing],
            [nothing, 100 * 3 / COLUMNS, nothing, nothing],
            [nothing, nothing, nothing, shares["lm_head.weight"]],
        ]),
        nan_ok=True,
    )  # fmt: skip
    assert len(axes.texts) == 5


def test_cells_say_their_share_in_short(drawn) -> None:
    active = {"a": [16, 16, 16], "b": [5, 5, 5], "c": [0, 1, 0]}
    _, axes = drawn(report({name: changed(MATRICES[FAR], active=ranks) for name, ranks in active.items()}))
    assert [text.get_text() for text in axes.texts] == ["100", "31", "2.1"]


def test_a_deep_model_stays_readable(drawn) -> None:
    """No numbers in narrow cells, and no two names of layers on each other at the end."""
    deep = {f"model.layers.{i}.q.weight": MATRICES[FAR] for i in range(29)} | {
        "lm_head.weight": MATRICES[FAR]
    }
    _, axes = drawn(report(deep))
    assert not axes.texts
    ticks = axes.get_xticks()
    assert len(ticks) <= 17
    assert min(np.diff(ticks)) == 2


@pytest.mark.parametrize(
    "only",
    [
        measures(spiked(0), 10 * EDGE),
        measures(spiked(0), 10 * EDGE, spectra=[[], [], []]),
        measures(spiked(0), EDGE, edge=0.0),
    ],
)
def test_nothing_above_mu_nothing_seen_and_no_noise_are_drawn_too(only: LoreMeasures, tmp_path: Path) -> None:
    draw_lore(tmp_path / "lore.png", report({"w": only}))
    assert (tmp_path / "lore.png").stat().st_size > 10_000


def test_the_same_measures_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_lore(tmp_path / name, report())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
