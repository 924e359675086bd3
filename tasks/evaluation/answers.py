"""A model's answers on disk, one by one, so that an evaluation that was killed goes on at the next item."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.errors import LorelineError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

ROLLING_PORTION = 64
"""Requests of rolling likelihoods asked at a time: lm-eval tells them only when all are answered."""


class AnswerFile:
    """Answers by the digest of what was asked, a line each; a damaged line counts as missing."""

    def __init__(self, path: Path) -> None:
        """Read what is there, and open the file for more; raises LorelineError where that is not possible."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.known = _read(path)
            self._file = path.open("ab", buffering=0)  # what was written outlives the process
        except OSError as error:
            raise self._unwritable(error) from error
        self._write(b"\n")  # the last line may have been cut off

    def keep(self, key: str, answer: Any) -> None:
        """Write an answer."""
        line = json.dumps([key, answer]).encode()
        self._write(_checksum(line) + b" " + line + b"\n")
        self.known[key] = answer

    def remove(self) -> None:
        """Remove the file: the answers have become a result."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; no answer is kept after that."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> LorelineError:
        problem = f"cannot be written ({error.strerror})"
        return LorelineError(self._path, problem, "make room there, or set LORELINE_HOME elsewhere")


def _read(path: Path) -> dict[str, Any]:
    known = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        checksum, _, text = line.partition(b" ")
        if checksum == _checksum(text):
            key, answer = json.loads(text)
            known[key] = tuple(answer) if isinstance(answer, list) else answer
    return known


def _checksum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


class RememberingModel:
    """A model as an lm-eval LM that is asked only what it has not answered yet, as by lm-eval's CachingLM.

    Equal requests are asked once. Answers that are drawn at random are neither kept nor shared: each depends
    on those before it. Everything else that lm-eval asks for, such as the chat template, is the model's own.
    """

    def __init__(self, lm: Any, answers: AnswerFile, on_items: Callable[[int], None]) -> None:
        """Call `on_items` with the number of items answered, after every answer."""
        lm.set_cache_hook(self)  # called with every answer as soon as it is there
        self._lm, self._answers, self._on_items = lm, answers, on_items
        self._items = self._requests = self._answered = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def loglikelihood(self, requests: "Sequence[Instance]") -> list[Any]:
        """Return (log-likelihood, is greedy) of each continuation."""
        return self._answer("loglikelihood", requests, len(requests))

    def loglikelihood_rolling(self, requests: "Sequence[Instance]") -> list[Any]:
        """Return the log-likelihood of each text."""
        return self._answer("loglikelihood_rolling", requests, ROLLING_PORTION)

    def generate_until(self, requests: "Sequence[Instance]") -> list[Any]:
        """Return the text that follows each prompt."""
        if not any(_is_random("generate_until", request.args) for request in requests):
            return self._answer("generate_until", requests, len(requests))
        self._start(requests, len(requests), 0)
        return list(self._lm.generate_until(requests))

    def add_partial(self, kind: str, asked: Sequence[Any], answer: Any) -> None:
        """Keep an answer, and tell how far the model is; lm-eval calls this by this name."""
        from lm_eval.api.model import hash_args

        if not _is_random(kind, asked):
            self._answers.keep(hash_args(kind, asked), answer)
        self._answered += 1
        self._on_items(self._items * self._answered // self._requests)

    def _answer(self, kind: str, requests: "Sequence[Instance]", portion: int) -> list[Any]:
        from lm_eval.api.model import hash_args

        known = self._answers.known
        keys = [hash_args(kind, request.args) for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        missing = [key for key in distinct if key not in known]
        self._start(requests, len(distinct), len(distinct) - len(missing))
        for start in range(0, len(missing), portion):
            asked = missing[start : start + portion]
            answers = getattr(self._lm, kind)([distinct[key] for key in asked])
            for key, answer in zip(asked, answers, strict=True):
                if key not in known:  # a backend whose model does not call add_partial
                    self.add_partial(kind, distinct[key].args, answer)
        return [known[key] for key in keys]

    def _start(self, requests: "Sequence[Instance]", distinct: int, answered: int) -> None:
        self._items = len({request.doc_id for request in requests})
        self._requests, self._answered = distinct, answered
        self._on_items(self._items * answered // max(distinct, 1))


def _is_random(kind: str, asked: Sequence[Any]) -> bool:
    return kind == "generate_until" and bool(asked[1].get("do_sample"))
