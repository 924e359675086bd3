"""A terminal shows the whole model first, then its parts, every number by its definition."""

import numpy as np
import pytest

from tasks.reporting.deviation_table import deviation_text
from tests.support.deviation_reference import each_tensor, reference

LABELS = ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
SHAPES = {
    "model.embed_tokens.weight": (50, 4), "model.layers.0.up.weight": (4, 6), "model.layers.1.up.weight": (4, 6),
    "model.layers.0.norm.weight": (4,), "model.layers.1.norm.weight": (4,), "lm_head.weight": (5, 4),
}  # fmt: skip


def model(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: scale * rng.standard_normal(shape) for name, shape in SHAPES.items()}


BASE = model(0, 10)
DRIFT = model(9)
CHECKPOINTS = [
    {name: BASE[name] + DRIFT[name] + noise[name] for name in SHAPES} for noise in map(model, (1, 2, 3))
]


def tables(text: str) -> list[list[list[str]]]:
    """Split text into tables, rows and cells."""
    return [[line.split() for line in table.splitlines()] for table in text.split("\n\n")[1:]]


def number(value: float) -> object:
    return pytest.approx(value, rel=1e-3)


def test_the_whole_model_comes_first() -> None:
    """Cosines are those of the models as vectors; averaging the tensors' cosines would give others."""
    text = deviation_text(LABELS, "b", each_tensor(CHECKPOINTS, BASE), False)
    whole = reference(CHECKPOINTS, BASE, list(SHAPES))
    assert text.startswith(
        "3 checkpoints, 276 parameters in 6 tensors\ntask vectors: differences from the base b"
    )
    assert f"sign conflict: {whole.conflict:.1%} of the elements" in text
    rows = tables(text)[0][1:]
    a, b, c = whole.cosines
    vectors = np.stack([np.concatenate([c[name].reshape(-1) for name in SHAPES]) for c in CHECKPOINTS])
    nearest = np.sort(np.linalg.norm(vectors[:, None] - vectors, axis=2), axis=1)[:, 1]
    away = nearest / np.median(nearest)
    for i, cosines in enumerate(([1, a, b], [a, 1, c], [b, c, 1])):
        assert rows[i][:2] == [str(i + 1), LABELS[i]]
        assert float(rows[i][2]) == number(whole.norms[i])
        assert float(rows[i][3]) == number(whole.norms[i] / whole.anchor)
        assert float(rows[i][4]) == pytest.approx(away[i], abs=6e-3)
        assert [float(cell) for cell in rows[i][5:]] == pytest.approx(cosines, abs=6e-4)


def test_kinds_and_layers_are_vectors_of_all_their_tensors() -> None:
    _, kinds, layers = tables(deviation_text(LABELS, "b", each_tensor(CHECKPOINTS, BASE), False))
    expected = {
        "model.layers.*.up.weight": [name for name in SHAPES if "up" in name],
        "model.layers.1": [name for name in SHAPES if "layers.1" in name],
        "embeddings": ["model.embed_tokens.weight"],
        "rest": ["lm_head.weight"],
    }
    rows = {row[0]: row[1:] for row in [*kinds, *layers]}
    for part, names in expected.items():
        expected_part = reference(CHECKPOINTS, BASE, names)
        elements, norm, relative, cosine, conflict = rows[part]
        assert int(elements) == expected_part.elements
        assert float(norm) == number(np.mean(expected_part.norms))
        assert float(relative) == number(np.mean(expected_part.norms) / expected_part.anchor)
        assert float(cosine) == pytest.approx(np.mean(expected_part.cosines), abs=6e-4)
        assert conflict == f"{expected_part.conflict:.1%}"


def test_tensors_are_listed_when_asked_for() -> None:
    tensors = each_tensor(CHECKPOINTS, BASE)
    assert "model.layers.1.norm.weight" not in deviation_text(LABELS, "b", tensors, False)
    assert [row[0] for row in tables(deviation_text(LABELS, "b", tensors, True))[3]] == ["tensor", *SHAPES]


def test_without_a_base_the_reader_hears_that_cosines_say_little() -> None:
    """Σδ = 0 forces the mean cosine of equally long vectors to −1/(N − 1)."""
    text = deviation_text(LABELS, None, each_tensor(CHECKPOINTS), False)
    assert "differences from their mean" in text
    assert "cosines are about -0.50" in text
    assert "sign conflict:" not in text
    pairs = reference(CHECKPOINTS, None, list(SHAPES)).cosines
    assert np.mean(pairs) == pytest.approx(-0.5, abs=0.02)


def test_one_checkpoint_and_an_anchor_of_zeros_leave_cells_empty() -> None:
    zeros = {name: 0 * tensor for name, tensor in BASE.items()}
    text = deviation_text(LABELS[:1], "b", each_tensor([BASE], zeros), False)
    whole, kinds, _ = tables(text)
    assert text.startswith("1 checkpoint, ")
    assert "sign conflict:" not in text
    assert whole[1][3:] == ["-", "-", "1.000"]
    assert all(row[3:5] == ["-", "-"] for row in kinds[1:])
