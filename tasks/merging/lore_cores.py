"""What LoRE is asked of the cores of low-rank matrices, and solving those of several tensors at once."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from tasks.merging.block import Block
from tasks.merging.lore_question import AroundMean, are_identical, is_averaged, question, spread
from tasks.merging.program import Settings
from tasks.merging.solving import MatrixProblem, OutOfTime

if TYPE_CHECKING:
    from tasks.merging.lore.problem import Solution
    from tasks.merging.lore.together import Small


class Core(NamedTuple):
    """A core, and what is asked of it."""

    spread: AroundMean | None
    """None where its checkpoints do not differ, or it cannot be solved with others."""
    demands: "list[tuple[MatrixProblem, Small] | None]"
    """One for each variant; None where it is solved alone."""


def core_demands(block: Block, variants: Sequence[Settings]) -> Core:
    """Return what variants ask of a core."""
    from tasks.merging.lore.penalty import Scale
    from tasks.merging.lore.problem import Near
    from tasks.merging.lore.small import FEW_COLUMNS
    from tasks.merging.lore.together import Small

    if len(block.thetas) < 3 or max(block.thetas[0].shape) > FEW_COLUMNS or are_identical(block):
        return Core(None, [None] * len(variants))
    own, demands = spread(block, variants[0]), list[tuple[MatrixProblem, Small] | None]()
    for settings in variants:
        params = settings.at(block.tensor)
        lore, asked = params.lore, question(block, own, settings, params)
        usual = not lore.passes and lore.penalty == "nuclear" and not is_averaged(block, settings, params)
        if usual and isinstance(asked.goal, Near):
            scale = Scale(lore.mu, lore.mu_scale, lore.penalty, own.shape)
            demands.append((asked.problem, Small(own.B, scale, asked.goal)))
        else:
            demands.append(None)
    return Core(own, demands)


def solve_cores(cores: Sequence[Core], variants: Sequence[Settings]) -> "list[dict[MatrixProblem, Solution]]":
    """Solve what can be solved together, for each variant; variants that ask the same share it.

    Those that ask something else are solved apart: a variant is to have the bytes that it has alone.
    """
    solved: dict[tuple[MatrixProblem, ...], dict[MatrixProblem, Solution]] = {}
    found = []
    for i, settings in enumerate(variants):
        problems = dict(own for core in cores if (own := core.demands[i]))
        if (asked := tuple(problems)) not in solved:
            solved[asked] = settings.solving.take(asked) or _solve(problems, settings)
            settings.solving.keep(asked, solved[asked])
        found.append(solved[asked])
    return found


def _solve(problems: Mapping[MatrixProblem, "Small"], settings: Settings) -> "dict[MatrixProblem, Solution]":
    from tasks.merging.lore.together import solve_together

    if not problems:
        return {}
    limits = {key.tensor: settings.at(key.tensor).lore.time_limit for key in problems}
    # each will find out that time is over
    with ExitStack() as stack, suppress(OutOfTime):
        watches = [stack.enter_context(settings.solving.watched(*own)) for own in limits.items()]

        def on_pass(number: int) -> None:
            for watch in watches:
                watch(number)

        found = solve_together(list(problems.values()), on_pass)
        return {key: own for key, own in zip(problems, found, strict=True) if own}
    return {}
