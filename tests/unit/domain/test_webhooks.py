"""Webhooks in the log: who may move how far deliveries have come."""

from __future__ import annotations

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import facts, webhook_decisions
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.registers import Webhook

ID = "webhook-x7k2m9qd4t"


def created(number: str = ID) -> facts.WebhookCreated:
    return facts.WebhookCreated(id=number, url="https://example.org/", types=["job.*"], since=10)


def failed(tries: int, upto: int = 20) -> facts.WebhookFailed:
    return facts.WebhookFailed(id=ID, upto=upto, tries=tries, reason="the receiver answered 500")


class Hooked(Scene):
    """A world with one webhook."""

    def __init__(self) -> None:
        super().__init__()
        self.fold(webhook_decisions.create(self.world, created(), actor="uid:0"))

    @property
    def webhook(self) -> Webhook:
        return self.world.webhooks[ID]

    def deliver(self, upto: int, turn: int | None = None) -> int:
        turn = self.webhook.turn if turn is None else turn
        return len(self.fold(webhook_decisions.delivered(self.world, ID, turn=turn, upto=upto)))


def test_deliveries_move_its_place_forward_only() -> None:
    scene = Hooked()
    assert (scene.deliver(20), scene.webhook.since) == (1, 20)
    assert (scene.deliver(20), scene.deliver(15), scene.webhook.since) == (0, 0, 20)


def test_a_replay_is_not_undone_by_deliveries_that_were_under_way() -> None:
    scene = Hooked()
    scene.deliver(50)
    turn = scene.webhook.turn
    scene.fold(webhook_decisions.replay(scene.world, ID, since=10, actor="uid:0"))
    assert scene.deliver(60, turn) == 0
    assert not webhook_decisions.failed(scene.world, failed(1), turn=turn)
    assert not webhook_decisions.disable(scene.world, failed(1), "gone", turn=turn)
    assert (scene.webhook.since, scene.deliver(20), scene.webhook.since) == (10, 1, 20)


def test_failed_tries_are_counted_until_one_is_taken() -> None:
    scene = Hooked()
    scene.fold(webhook_decisions.failed(scene.world, failed(3), turn=scene.webhook.turn))
    assert (scene.webhook.tries, scene.webhook.since, scene.webhook.failed_at) == (3, 20, scene.now)
    assert scene.deliver(20) == 1  # it stands where it stood, and is well again
    assert (scene.webhook.tries, scene.webhook.failure) == (0, "the receiver answered 500")


def test_a_disabled_one_goes_on_where_it_stopped_once_it_is_enabled() -> None:
    scene = Hooked()
    scene.fold(webhook_decisions.disable(scene.world, failed(10), "gone", turn=scene.webhook.turn))
    assert (scene.webhook.disabled, scene.webhook.since) == ("gone", 20)
    assert scene.deliver(30) == 0
    with pytest.raises(Rejected) as refused:
        webhook_decisions.replay(scene.world, ID, since=0, actor="uid:0")
    assert refused.value.stable_code == "webhook_disabled"
    scene.fold(webhook_decisions.enable(scene.world, ID, since=None, actor="uid:0"))
    assert (scene.webhook.disabled, scene.webhook.since, scene.webhook.tries) == (None, 20, 0)
    assert webhook_decisions.enable(scene.world, ID, since=None, actor="uid:0") == []


def test_it_may_be_enabled_from_somewhere_else() -> None:
    scene = Hooked()
    scene.fold(webhook_decisions.disable(scene.world, failed(10), "gone", turn=scene.webhook.turn))
    scene.fold(webhook_decisions.enable(scene.world, ID, since=5, actor="uid:0"))
    assert scene.webhook.since == 5


def test_what_is_deleted_is_not_found() -> None:
    scene = Hooked()
    scene.fold(webhook_decisions.rotate(scene.world, ID, keep_s=60, actor="uid:0"))
    scene.fold(webhook_decisions.delete(scene.world, ID, actor="uid:0"))
    for decide in (webhook_decisions.delete, webhook_decisions.enable):
        with pytest.raises(NotFoundError):
            decide(
                scene.world, ID, actor="uid:0", **({"since": 1} if decide is webhook_decisions.enable else {})
            )
    assert webhook_decisions.delivered(scene.world, ID, turn=1, upto=20) == []


def test_so_many_are_kept_and_no_more() -> None:
    scene = Hooked()
    for number in range(webhook_decisions.MOST - 1):
        scene.fold(webhook_decisions.create(scene.world, created(f"webhook-{number}"), actor="uid:0"))
    with pytest.raises(Rejected) as refused:
        webhook_decisions.create(scene.world, created("webhook-more"), actor="uid:0")
    assert refused.value.stable_code == "too_many_webhooks"
