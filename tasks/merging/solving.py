"""What is being solved, pass by pass: for whoever shows it, stops it or limits its time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias


class MatrixProblem(NamedTuple):
    """What is solved."""

    tensor: str
    matrix: int
    """Of the tensor's stack."""
    shape: tuple[int, ...]
    """Of its deviations: a part of a matrix is another problem."""
    asked: tuple[object, ...]
    """The parameters that decide the solution."""


ProblemKey: TypeAlias = MatrixProblem | tuple[MatrixProblem, ...]
"""One, or several solved together: a solution may depend, by rounding, on what is solved beside it."""


class Stopped(Exception):
    """The merge was given up; raised where a solver begins its next pass."""


class OutOfTime(Exception):
    """The time for solving is over; raised where a solver begins its next pass."""


class Solving:
    """The solves of one merge, on whatever thread: each tells of every pass, and can be ended there.

    As a context manager, left by an exception, it ends them all at their next pass.
    """

    def __init__(self, solved: Mapping[ProblemKey, Any] | None = None, keeps: bool = False) -> None:
        """Begin with what is solved already; `keeps` what is solved from now on, for another merge."""
        self.solved = dict(solved or {})
        self._keeps = keeps
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._passes: dict[str, int] = {}

    @property
    def passes(self) -> dict[str, int]:
        """The tensors that are being solved, each with the number of its pass; 0 before the first."""
        return dict(self._passes)

    @contextmanager
    def watched(self, tensor: str, minutes: float | None) -> Iterator[Callable[[int], None]]:
        """Yield what a solver calls at the start of each pass, with its number.

        Entering and calling it raise Stopped when all are ended, OutOfTime once the merge is `minutes` old.
        """

        def on_pass(number: int) -> None:
            if self._stopped.is_set():
                raise Stopped
            if minutes is not None and time.monotonic() - self._begun > 60 * minutes:
                raise OutOfTime
            self._passes[tensor] = number

        try:
            on_pass(0)
            yield on_pass
        finally:
            self._passes.pop(tensor, None)  # gone already where another matrix of a stack has ended

    def take(self, problem: ProblemKey) -> Any:
        """Return a solution, once unless it is kept; None where there is none."""
        return self.solved.get(problem) if self._keeps else self.solved.pop(problem, None)

    def keep(self, problem: ProblemKey, solution: Any) -> None:
        """Hear of a solution."""
        if self._keeps:
            self.solved[problem] = solution

    def stop(self) -> None:
        """End all solves at their next pass, those too that have not begun."""
        self._stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop()
