"""A teacher behind a server: what is asked, what is taken for scores, and what is made of all sorts of trouble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.scoring_server import (
    ScoringServer,
    Trouble,
    cut,
    edited,
    garbage,
    hang,
    hang_up,
    prompt_scores,
    status,
)

torch = pytest.importorskip("torch")

from finetuned_opd import completions, endpoint  # noqa: E402
from finetuned_opd.endpoint import check_url, completions_url  # noqa: E402
from finetuned_opd.endpoint_teacher import EndpointTeacher  # noqa: E402
from finetuned_opd.errors import TeacherError, UnfitTeacherError  # noqa: E402
from finetuned_opd.scores import Row, Wanted  # noqa: E402
from finetuned_sdk import PauseError, RefusedError  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]

ROWS = [Row((5, 6), (7, 8, 9)), Row((4,), (3,)), Row((9, 8, 7, 6), (5, 4))]


def made_up(at: int, token: int) -> float:
    """A score that tells position and token."""
    return -(at + token / 100)


def answer(body: Any) -> Any:
    scores = prompt_scores(body["prompt"], body["prompt_logprobs"], made_up)
    return {"choices": [{"index": 0, "text": " x", "prompt_logprobs": scores}]}


def expected(row: Row) -> list[float]:
    return [made_up(len(row.prompt) + at, token) for at, token in enumerate(row.completion)]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing between two tries."""
    monkeypatch.setattr(endpoint, "BACKOFF_FIRST_S", 0.001)


def asked(server: ScoringServer, wanted: Wanted | None = None, **settings: Any) -> list[list[float]]:
    """The log-probabilities of all rows."""
    teacher = EndpointTeacher(server.url, "big", **{"timeout_s": 60.0, **settings})
    scores = teacher.score(ROWS, wanted or Wanted())
    return [[round(value, 4) for value in each.log_probs.tolist()] for each in scores]


def test_each_row_has_the_scores_of_its_own_tokens() -> None:
    with ScoringServer(answer) as server:
        assert asked(server) == [expected(row) for row in ROWS]
        assert all(
            (body["model"], body["max_tokens"], body["temperature"]) == ("big", 1, 1.0)
            for body in server.requests
        )


def test_only_the_tokens_that_are_wanted_are_sent() -> None:
    with ScoringServer(answer) as server:
        assert asked(server, Wanted(tokens=1)) == [expected(row)[:1] for row in ROWS]
        assert sorted(len(body["prompt"]) for body in server.requests) == [2, 3, 5]


def test_the_likeliest_tokens_come_the_likeliest_first_and_as_many_as_were_asked_for() -> None:
    with ScoringServer(answer) as server:
        (scores,) = EndpointTeacher(server.url, "big").score(ROWS[:1], Wanted(top_k=3))
    assert scores.top_ids is not None
    assert scores.top_log_probs is not None
    assert scores.top_ids.tolist() == [[0, 1, 2]] * 3
    torch.testing.assert_close(scores.top_log_probs[0], torch.tensor([-2.0, -2.01, -2.02]))


@pytest.mark.parametrize(
    "trouble",
    [status(500), status(503), status(429, Retry_After="0"), status(408), cut, hang_up, garbage],
    ids=["500", "503", "429", "408", "cut", "hang_up", "garbage"],
)
def test_what_may_pass_is_asked_again(trouble: Trouble) -> None:
    with ScoringServer(answer, trouble, trouble) as server:
        assert asked(server) == [expected(row) for row in ROWS]
        assert len(server.requests) == len(ROWS) + 2


@pytest.mark.parametrize("code", [400, 401, 404])
def test_what_will_not_pass_by_itself_is_told_at_once(code: int) -> None:
    with ScoringServer(answer, *[status(code)] * 3) as server:
        with pytest.raises(
            TeacherError, match=rf"status {code}: .*as the test wants it.*finetune resume"
        ) as caught:
            asked(server)
        assert caught.value.code == "teacher_unavailable"
        prompts = [tuple(body["prompt"]) for body in server.requests]
        assert len(prompts) == len(set(prompts))


def test_a_server_that_is_busy_for_longer_than_there_is_time_is_not_waited_for() -> None:
    with (
        ScoringServer(answer, *[status(429, Retry_After="3600")] * 3) as server,
        pytest.raises(TeacherError, match="status 429"),
    ):
        asked(server, timeout_s=1800)


def test_a_server_that_does_not_answer_pauses_the_job_when_the_time_is_up() -> None:
    with (
        ScoringServer(answer, *[hang] * 3) as server,
        pytest.raises(TeacherError, match=r"not all was answered within 0\.3 s"),
    ):
        asked(server, timeout_s=0.3)


def test_a_server_that_hangs_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LEAST_S", 0.2)
    monkeypatch.setattr(endpoint, "PATIENCE", 0.01)  # of 60 s
    with ScoringServer(answer, hang) as server:
        assert asked(server) == [expected(row) for row in ROWS]


def test_a_server_that_dies_pauses_the_job_with_the_reason() -> None:
    with ScoringServer(answer) as server:
        assert len(asked(server)) == len(ROWS)
    with pytest.raises(PauseError, match=f"The teacher at {server.url}/v1/completions cannot be asked"):
        asked(server, timeout_s=1.0)


def test_a_server_that_dies_in_the_middle_of_a_batch_pauses_the_job() -> None:
    with (
        ScoringServer(answer, edited(lambda _: None), *[hang_up] * 10_000) as server,
        pytest.raises(TeacherError, match="cannot be asked"),
    ):
        asked(server, timeout_s=1.0)


def test_a_job_that_is_asked_to_stop_does_not_wait_for_its_teacher() -> None:
    with (
        ScoringServer(answer, *[hang] * 3) as server,
        pytest.raises(TeacherError, match="asked to stop"),
    ):
        asked(server, timeout_s=3600, is_stopped=server.asked.is_set)


def test_the_key_is_sent_and_told_to_nobody_else() -> None:
    with ScoringServer(answer, *[status(401)] * 3) as server:
        with pytest.raises(TeacherError) as caught:
            asked(server, secret="sk-verysecret")
        assert server.headers[0]["Authorization"] == "Bearer sk-verysecret"
        assert "verysecret" not in str(caught.value)


def test_a_redirect_is_not_followed_because_the_address_is_the_one_that_was_allowed() -> None:
    with ScoringServer(answer) as elsewhere:
        location = f"{elsewhere.url}/v1/completions"
        with (
            ScoringServer(answer, *[status(307, Location=location)] * 3) as server,
            pytest.raises(TeacherError, match="status 307"),
        ):
            asked(server)
        assert elsewhere.requests == []


def at(position: int) -> Callable[[Any], Any]:
    return lambda told: told["choices"][0]["prompt_logprobs"][position]


def set_score(value: Any) -> Callable[[Any], None]:
    def edit(told: Any) -> None:
        for entry in at(-1)(told).values():
            entry["logprob"] = value

    return edit


def rename_tokens(told: Any) -> None:
    entry = at(-1)(told)
    told["choices"][0]["prompt_logprobs"][-1] = {"77": next(iter(entry.values()))}


def drop_position(told: Any) -> None:
    told["choices"][0]["prompt_logprobs"].pop()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (set_score(float("nan")), "the log-probability nan at position"),
        (set_score(float("-inf")), "the log-probability -inf at position"),
        (set_score(-9999.0), "-inf at position .* cuts off"),
        (set_score(0.5), "the log-probability 0.5 at position"),
        (set_score(None), "None as a log-probability"),
        (set_score("high"), "'high' as a log-probability"),
        (rename_tokens, r"no score of token \d at position \d, but of 77"),
        (drop_position, r"scores of \d tokens for a prompt of \d"),
        (lambda told: told["choices"][0].pop("prompt_logprobs"), "without prompt_logprobs"),
        (lambda told: told["choices"].clear(), "without choices"),
        (
            lambda told: told["choices"][0]["prompt_logprobs"].__setitem__(1, [1]),
            r"prompt_logprobs with \[1\]",
        ),
    ],
)
def test_what_is_no_score_pauses_the_job_and_is_named(edit: Callable[[Any], None], reason: str) -> None:
    with ScoringServer(answer, *[edited(edit)] * 3) as server:
        with pytest.raises(TeacherError, match=reason) as caught:
            asked(server)
        assert caught.value.code == "teacher_bad_scores"


def test_fewer_likeliest_tokens_than_were_asked_for_are_no_scores() -> None:
    def fewer(body: Any) -> Any:
        return answer({**body, "prompt_logprobs": 1})

    with (
        ScoringServer(fewer) as server,
        pytest.raises(TeacherError, match="likeliest tokens where 4 were asked"),
    ):
        asked(server, Wanted(top_k=4))


def test_a_token_that_the_student_does_not_have_is_no_score() -> None:
    with (
        ScoringServer(answer) as server,
        pytest.raises(TeacherError, match="the token 8, which the student's"),
    ):
        asked(server, Wanted(top_k=12), vocab_size=8)


def test_hidden_states_cannot_be_had_of_a_server() -> None:
    with pytest.raises(UnfitTeacherError, match="top_k"):
        EndpointTeacher("http://127.0.0.1:9", "big").score(ROWS, Wanted(hidden=True))


def echo(body: Any) -> Any:
    ids = [*body["prompt"], 1]  # what was generated comes last
    return {
        "choices": [
            {
                "logprobs": {
                    "tokens": [f"token_id:{token}" for token in ids],
                    "token_logprobs": [None, *(made_up(at, token) for at, token in list(enumerate(ids))[1:])],
                    "top_logprobs": [
                        None,
                        *(
                            {f"token_id:{each}": made_up(at, each) for each in range(3)}
                            for at in range(1, len(ids))
                        ),
                    ],
                }
            }
        ]
    }


def test_the_classic_form_is_understood_where_tokens_are_named_by_their_ids() -> None:
    with ScoringServer(echo) as server:
        assert asked(server, Wanted(top_k=2), echo=True) == [expected(row) for row in ROWS]
        assert (server.requests[0]["echo"], server.requests[0]["logprobs"]) == (True, 2)


def test_the_classic_form_with_texts_is_refused_because_texts_do_not_tell_tokens() -> None:
    told = echo({"prompt": [5, 6, 7]})
    told["choices"][0]["logprobs"]["tokens"] = ["a", "b", "c", "d"]
    with pytest.raises(completions.BadAnswerError, match="return_tokens_as_token_ids"):
        completions.scores(told, Row((5, 6), (7,)), Wanted())


def test_scores_of_a_server_are_kept_only_where_somebody_vouches_for_its_weights() -> None:
    def identity(**settings: Any) -> str | None:
        return EndpointTeacher("http://teacher:8000", "big", **settings).identity

    assert identity() is None
    assert identity(revision="1") == identity(revision="1") != identity(revision="2")


@pytest.mark.parametrize(
    "base", ["http://t:8000", "http://t:8000/", "http://t:8000/v1", "http://t:8000/v1/completions"]
)
def test_the_address_of_completions_follows_from_any_base(base: str) -> None:
    assert completions_url(base) == "http://t:8000/v1/completions"


@pytest.mark.parametrize(
    "url",
    [
        "teacher:8000",
        "ftp://teacher",
        "http://",
        "http://me:key@teacher",
        "http://t/?key=1",
        "http://t:x/",
        "http://a b",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_url(url, param="teacher_url")
    assert caught.value.param == "teacher_url"
    check_url("http://127.0.0.1:8000/v1", param="teacher_url")


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None)]
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert endpoint._retry_after_s(value) == seconds
