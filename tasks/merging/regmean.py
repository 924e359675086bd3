"""RegMean: the matrix whose outputs on each checkpoint's own inputs are nearest to that checkpoint's."""

from tasks.merging import arrays
from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.program import Merged, Program, Settings, without_measuring

LEAST_INPUT = 1e-6
"""Share of an input's mean square that is added to every G_i: what no text feeds is averaged."""


def regmean(settings: Settings) -> Program:
    """Solve (Σ G_i) W = Σ G_i W_i for linear layers, and average the rest (Jin et al. 2023)."""

    def finish(block: Block) -> Merged:
        ridge = LEAST_INPUT * sum(float(gram.diagonal().sum()) / len(gram) for gram in block.grams)
        if not ridge:  # no linear layer, or one that no text enters
            return block.mean, None
        return _regressed(block, settings.at(block.tensor).regmean.alpha, ridge / settings.count), None

    return without_measuring(finish)


def _regressed(block: Block, alpha: float, ridge: float) -> Array:
    """Return W̄ + (Σ G_i)⁻¹ Σ G_i (W_i − W̄): equal weights give themselves, whatever the G_i."""
    mean, total, pull = arrays.double(block.mean), 0.0, 0.0
    for theta, gram in zip(block.thetas, block.grams, strict=True):
        G = _shrunk(gram, alpha, ridge)
        deviation = arrays.double(theta) - mean
        total = total + G
        pull = pull + G @ (deviation if block.grams_of_rows else deviation.T)
    moved = arrays.solution(total, pull)
    return mean + (moved if block.grams_of_rows else moved.T)


def _shrunk(gram: Array, alpha: float, ridge: float) -> Array:
    """Return G in float64, the elements off its diagonal times α, with the ridge on it."""
    G = alpha * arrays.double(gram)
    G.reshape(-1)[:: len(G) + 1] += (1 - alpha) * arrays.double(gram).diagonal() + ridge
    return G
