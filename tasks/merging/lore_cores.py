"""What LoRE is asked of the cores of low-rank matrices, and solving those of several tensors at once."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from tasks.merging.block import Block
from tasks.merging.lore_question import AroundMean, are_identical, is_averaged, question, spread
from tasks.merging.program import Settings
from tasks.merging.solving import MatrixProblem, OutOfTime

if TYPE_CHECKING:
    from tasks.merging.lore.together import Small


def core_demands(
    block: Block, variants: Sequence[Settings]
) -> tuple[AroundMean | None, dict[MatrixProblem, "Small"]]:
    """Return a core's checkpoints around their mean, and what can be solved with others."""
    from tasks.merging.lore.penalty import Scale
    from tasks.merging.lore.problem import Near
    from tasks.merging.lore.small import FEW_COLUMNS
    from tasks.merging.lore.together import Small

    if len(block.thetas) < 3 or max(block.thetas[0].shape) > FEW_COLUMNS or are_identical(block):
        return None, {}
    own, problems = spread(block, variants[0]), dict[MatrixProblem, Small]()
    for settings in variants:
        params = settings.at(block.tensor)
        lore, asked = params.lore, question(block, own, settings, params)
        if lore.passes or lore.penalty != "nuclear" or is_averaged(block, settings, params):
            continue
        if isinstance(asked.goal, Near):
            scale = Scale(lore.mu, lore.mu_scale, lore.penalty, own.shape)
            problems[asked.problem] = Small(own.B, scale, asked.goal)
    return own, problems


def solve_cores(problems: Mapping[MatrixProblem, "Small"], settings: Settings) -> None:
    """Solve them together, for whoever asks; what is not solved so is left."""
    from tasks.merging.lore.together import solve_together

    solving, tensors = settings.solving, sorted({key.tensor for key in problems})
    if not problems:
        return
    # each will find out that time is over
    with ExitStack() as stack, suppress(OutOfTime):
        limits = ((tensor, settings.at(tensor).lore.time_limit) for tensor in tensors)
        watches = [stack.enter_context(solving.watched(*own)) for own in limits]

        def on_pass(number: int) -> None:
            for watch in watches:
                watch(number)

        found = solve_together(list(problems.values()), on_pass)
        solving.solved.update({key: own for key, own in zip(problems, found, strict=True) if own})
