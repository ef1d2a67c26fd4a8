"""Signatures: the official package of Standard Webhooks finds them good."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from finetuned.webhooks import signing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's example


def test_a_signature_is_that_of_the_official_package() -> None:
    body = b'{"test": 2432232314}'
    ours = signing.signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    moment = datetime.fromtimestamp(1614265330, UTC)
    assert ours == Webhook(SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", moment, body.decode())
    assert ours == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.text(min_size=1, max_size=300))
def test_whatever_is_signed_is_verified(text: str) -> None:
    secret, body = signing.new_secret(), text.encode()
    headers = signing.headers([secret], "evt_1", int(time.time()), body)
    Webhook(secret).verify(body, headers, json_parse=False)


def test_while_a_secret_is_changed_the_old_and_the_new_one_verify() -> None:
    old, new, other = (signing.new_secret() for _ in range(3))
    headers = signing.headers([new, old], "evt_1", int(time.time()), b"{}")
    assert Webhook(old).verify(b"{}", headers) == Webhook(new).verify(b"{}", headers) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(b"{}", headers)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "evt_2"},
        {"webhook-timestamp": "1614265330"},
        {"webhook-signature": "v1,AA=="},
    ],
)
def test_nothing_of_what_is_signed_can_be_changed(changed: dict[str, str]) -> None:
    secret = signing.new_secret()
    headers = signing.headers([secret], "evt_1", int(time.time()), b"{}") | changed
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(b"{}", headers)


def test_secrets_are_as_long_as_the_specification_wants_and_never_the_same() -> None:
    secrets = {signing.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(24 <= len(base64.b64decode(each.removeprefix("whsec_"))) <= 64 for each in secrets)
