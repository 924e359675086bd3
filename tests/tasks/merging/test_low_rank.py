"""Merging in the span of the factors is merging the full matrices, whatever their ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.base.measures import LoreMeasures
from tasks.merging.block import Block
from tasks.merging.lore_method import program
from tasks.merging.low_rank import abreast, factored, span
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings
from tasks.parameters.merge import LoreParams, MergeParams, NanParams
from tests.support.lore_reference import solve as reference

Pairs = list[tuple[np.ndarray, np.ndarray]]


def products(m: int, n: int, ranks: list[int], seed: int = 0) -> Pairs:
    random = np.random.default_rng(seed)
    return [(random.normal(size=(m, r)), random.normal(size=(r, n))) for r in ranks]


def dense(found: Pairs) -> list[np.ndarray]:
    return [B @ A for B, A in found]


SHAPES = st.tuples(
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(0, 99),
).filter(lambda drawn: sum(drawn[2]) > 0)


@given(SHAPES)
@settings(max_examples=60, deadline=None)
def test_the_span_holds_every_matrix_and_its_bases_are_orthonormal(drawn: tuple) -> None:
    m, n, ranks, seed = drawn
    found = products(m, n, ranks, seed)
    joint = span(abreast(found))
    for matrix, core in zip(dense(found), joint.cores, strict=True):
        np.testing.assert_allclose(joint.U.times(core) @ joint.V.matrix.T, matrix, atol=1e-12)
    for basis in (joint.U.matrix, joint.V.matrix):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)


@given(SHAPES)
@settings(max_examples=60, deadline=None)
def test_a_core_becomes_factors_of_its_numerical_rank(drawn: tuple) -> None:
    m, n, ranks, seed = drawn
    found = products(m, n, ranks, seed)
    joint = span(abreast(found))
    B, A = factored(joint, sum(joint.cores), 1e-12)
    exact = sum(dense(found))
    np.testing.assert_allclose(B @ A, exact, atol=1e-11)
    assert B.shape == (m, A.shape[0])
    assert A.shape[0] == np.linalg.matrix_rank(exact, tol=1e-12 * np.linalg.norm(exact, 2))


def test_factors_share_the_singular_values_evenly() -> None:
    joint = span(abreast(products(9, 5, [2, 2])))
    B, A = factored(joint, sum(joint.cores), 1e-12)
    np.testing.assert_allclose(B.T @ B, A @ A.T, atol=1e-12)


def test_a_repeated_matrix_costs_no_rank_and_none_at_all_leaves_rank_one() -> None:
    [product] = products(9, 7, [3])
    joint = span(abreast([product, product]))
    assert factored(joint, sum(joint.cores), 1e-7)[1].shape == (3, 7)
    B, A = factored(joint, joint.cores[0] - joint.cores[0], 1e-7)
    assert B.shape == (9, 1)
    assert not (B @ A).any()


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize(
    "lore",
    [
        LoreParams(mu=2.0, mu_scale="absolute"),
        LoreParams(mu=0.3, mu_scale="sigma1"),
        LoreParams(mu=0.3, mu_scale="sigma1", rank_ratio=0.1),
        LoreParams(mu=0.3, mu_scale="sigma1", rank_ratio=0.7, combine="mean"),
    ],
)
def test_lore_on_the_cores_is_lore_on_the_full_matrices(shape: tuple[int, int], lore: LoreParams) -> None:
    params = MergeParams(method="lore", lam=0.8, lore=lore.model_copy(update={"tolerance": 1e-12}))
    found = products(*shape, [2, 3, 2])
    joint = span(abreast(found))
    full, measures = merged(params, dense(found), shape)
    core, own = merged(params, joint.cores, shape)
    np.testing.assert_allclose(joint.U.times(core) @ joint.V.matrix.T, full, atol=1e-10 * np.abs(full).max())
    assert own.ranks == measures.ranks
    assert own.threshold == pytest.approx(measures.threshold, rel=1e-9)
    assert max(own.ranks) > 0


def test_lore_on_the_cores_is_the_reference_on_the_full_matrices() -> None:
    params = MergeParams(
        method="lore", lam=1.0, lore=LoreParams(mu=2.0, mu_scale="absolute", tolerance=1e-12)
    )
    found = products(14, 11, [2, 1, 2])
    joint = span(abreast(found))
    core, _ = merged(params, joint.cores, (14, 11))
    theta_0, total = reference(dense(found), 2.0)
    np.testing.assert_allclose(joint.U.times(core) @ joint.V.matrix.T, theta_0 + total, atol=1e-6)


def test_two_adapters_anchored_are_the_closed_form() -> None:
    lore = LoreParams(mu=0.7, mu_scale="absolute", anchor=2)
    found = products(9, 8, [2, 2])
    joint = span(abreast(found))
    core, _ = merged(MergeParams(method="lore", lam=1.0, lore=lore), joint.cores, (9, 8))
    one, two = dense(found)
    U, s, Vt = np.linalg.svd(one - two, full_matrices=False)
    expected = (one + two) / 2 + 0.5 * (U * np.maximum(s - 1.4, 0)) @ Vt
    np.testing.assert_allclose(joint.U.times(core) @ joint.V.matrix.T, expected, atol=1e-7)


@pytest.mark.parametrize("ranks", [[4, 4, 4], [400, 400, 400]])
def test_the_noise_edge_is_that_of_the_whole_energy_over_the_full_matrix(ranks: list[int]) -> None:
    """Where the matrices are noise after all, so many factors that they fill them, it is the noise's edge.

    Of products of noise a few singular values lie beyond it, and are taken out.
    """
    m, n = 150, 100
    found = products(m, n, ranks)
    deviations = np.stack(dense(found)) - np.mean(dense(found), axis=0)
    lore = LoreParams(mu=2.0, mu_scale="noise_edge")
    _, measures = merged(MergeParams(method="lore", lore=lore), span(abreast(found)).cores, (m, n))
    assert measures.edge == pytest.approx(
        deviations.std() * (m**0.5 + n**0.5), rel=1e-3 if ranks[0] == 4 else 0.06
    )
    assert measures.mu == 2.0
    assert measures.threshold == pytest.approx(2 * measures.edge)
    if ranks[0] == 400:
        assert measures.edge == pytest.approx(np.linalg.norm(deviations, 2, axis=(1, 2)).max(), rel=0.25)


@pytest.mark.parametrize(
    ("params", "key"),
    [
        (MergeParams(method="ties"), "merge.method: ties"),
        (MergeParams(method="iso_c"), "merge.method: iso_c"),
        (MergeParams(method="lore", lore=LoreParams(combine="ties")), "merge.lore.combine"),
        (MergeParams(method="average", weights="nan"), "merge.nan.of"),
    ],
)
def test_what_needs_elements_or_the_base_is_refused(params: MergeParams, key: str) -> None:
    with pytest.raises(BadInput, match=f"^{key}.*set merge.full to merge these adapters into a full model"):
        METHODS[params.method].check_span(params)


def test_norms_of_task_vectors_are_known() -> None:
    params = MergeParams(method="average", weights="nan", nan=NanParams(of="task_vectors"))
    METHODS["average"].check_span(params)


def merged(
    params: MergeParams, matrices: list[np.ndarray], shape: tuple[int, int]
) -> tuple[np.ndarray, LoreMeasures]:
    """Run LoRE on blocks, which may be cores, of matrices of this shape."""
    given_settings = Settings(params, lambda tensor: params, range(1, len(matrices) + 1), {"w": shape})
    try:
        next(program(given_settings))
    except StopIteration as stop:
        return stop.value(Block("w", 0, 0, [m.copy() for m in matrices], None))
    raise AssertionError("LoRE measures nothing")
