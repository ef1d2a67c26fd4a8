"""A teacher behind an OpenAI-compatible server that scores prompts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

from finetuned_opd import completions
from finetuned_opd.endpoint import Endpoint, UnavailableError, completions_url
from finetuned_opd.errors import BAD_SCORES, TeacherError, UnfitTeacherError
from finetuned_opd.scores import Row, Scores, Wanted

CONCURRENCY: Final = 16
TIMEOUT_S: Final = 600.0
LOOK_S: Final = 0.5  # between two looks at whether the job is asked to stop

T = TypeVar("T")


class EndpointTeacher:
    """Asks the server for each row, several at a time. ``url`` is its base, with or without ``/v1``.

    ``vocab_size`` is the student's: no token that it lacks may come back.
    ``revision`` is the operator's word for the weights behind the name ``model``: with it scores may be kept, without it
    nobody can tell whether the server still has the same. ``echo`` asks in the classic form. ``timeout_s`` is for all
    rows of a call together. ``is_stopped`` says that nobody wants the scores any more; ``advancing`` is called with each
    row that is answered.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        secret: str | None = None,
        vocab_size: int | None = None,
        revision: str | None = None,
        echo: bool = False,
        concurrency: int = CONCURRENCY,
        timeout_s: float = TIMEOUT_S,
        is_stopped: Callable[[], bool] = lambda: False,
        advancing: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = completions_url(url)
        self._model = model
        self._secret = secret
        self._vocab_size = vocab_size
        self._revision = revision
        self._echo = echo
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._is_stopped = is_stopped
        self._advancing = advancing
        self._clock = clock

    @property
    def identity(self) -> str | None:
        if self._revision is None:
            return None
        return hashlib.sha256(repr((self._url, self._model, self._revision)).encode()).hexdigest()

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        if wanted.hidden:
            raise UnfitTeacherError(
                "A teacher behind an endpoint gives log-probabilities and no hidden states; use top_k, or the policy"
                " gradient, which needs one log-probability a token."
            )
        asked = [
            completions.request(self._model, _ids(row, wanted), wanted.top_k, echo=self._echo) for row in rows
        ]

        def read(at: int, answer: completions.Json) -> Scores:
            return completions.scores(answer, rows[at], wanted, vocab_size=self._vocab_size)

        return self._all(asked, read)

    def texts(self, ids: Sequence[int]) -> list[str | None]:
        """The text of each token as the server knows it, ``None`` where it does not tell. Raises ``TeacherError``."""
        asked = completions.request(self._model, ids, 0, echo=False)
        return self._all([asked], lambda _, answer: completions.decoded(answer, ids))[0]

    def _all(
        self, asked: Sequence[dict[str, completions.Json]], read: Callable[[int, completions.Json], T]
    ) -> list[T]:
        """What ``read`` makes of the answer to each. Raises ``TeacherError``; then no request is left on its way."""
        deadline = self._clock() + self._timeout_s
        endpoint = Endpoint(self._url, secret=self._secret, clock=self._clock)
        found: dict[int, T] = {}
        with ThreadPoolExecutor(max(1, min(self._concurrency, len(asked)))) as pool:
            try:
                waiting = {
                    pool.submit(endpoint.post, body, deadline=deadline): at for at, body in enumerate(asked)
                }
                while waiting:
                    self._require_time(deadline)
                    done, _ = wait(waiting, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                    for each in done:
                        at = waiting.pop(each)
                        found[at] = self._read(each, at, read)
                        self._advancing()
            finally:
                endpoint.close()
                pool.shutdown(wait=False, cancel_futures=True)
        return [found[at] for at in range(len(asked))]

    def _read(
        self, answered: Future[completions.Json], at: int, read: Callable[[int, completions.Json], T]
    ) -> T:
        try:
            return read(at, answered.result())
        except UnavailableError as error:
            raise self._unavailable(str(error)) from None
        except completions.BadAnswerError as error:
            raise TeacherError(
                f"The teacher at {self._url} gave {error}. Look at the server, then `finetune resume` goes on from the"
                " newest checkpoint.",
                code=BAD_SCORES,
            ) from None

    def _require_time(self, deadline: float) -> None:
        if self._is_stopped():
            raise TeacherError(
                "The job was asked to stop before its teacher had answered; `finetune resume` goes on."
            )
        if self._clock() >= deadline:
            raise self._unavailable(f"not all was answered within {self._timeout_s:g} s")

    def _unavailable(self, why: str) -> TeacherError:
        return TeacherError(
            f"The teacher at {self._url} cannot be asked ({why}). Once it can, `finetune resume` goes on from the"
            " newest checkpoint."
        )


def _ids(row: Row, wanted: Wanted) -> tuple[int, ...]:
    return (*row.prompt, *row.completion[: wanted.of(row)])
