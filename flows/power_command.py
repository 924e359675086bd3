"""`loreline power`: which gains a set of test items can find."""

from flows.terminal import tell
from tasks.base.directories import ARTIFACTS
from tasks.evaluate_merge import published_results
from tasks.parameters.evaluation import EvaluateParams
from tasks.reporting.power_table import power_table
from tasks.verdict.comparison import pairs_of
from tasks.verdict.power import Design, design_of


def show_power(params: EvaluateParams, guess: Design | None, gain: float | None) -> None:
    """Print the gains that are found at several looks, by a guess or by the last evaluation here."""
    if guess is None:
        evaluation, results = published_results(ARTIFACTS)
        verdict = evaluation.verdict
        guess = design_of(pairs_of(results, verdict.against, verdict.primary))
        tell(f"as measured: {verdict.primary}, merge against {verdict.against}")
    tell(power_table(guess, params, gain))
