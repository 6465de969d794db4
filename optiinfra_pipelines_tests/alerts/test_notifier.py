import json

import pytest
from pydantic import SecretStr

from optiinfra_pipelines.alerts.message import Alert
from optiinfra_pipelines.alerts.notifier import AppriseNotifier, DeliveryError, LogNotifier, notifiers_for
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines_tests.alerts.conftest import Webhook


def alert(kind="failed_check", severity="ERROR", number: int = 1) -> Alert:
    return Alert(
        kind=kind,
        customer="acme",
        provider="aws",
        asset="raw.aws_billing",
        check="bill_equals_its_invoice",
        severity=severity,
        numbers=(("observed", 10.5), ("expected", number)),
        link=f"https://dagster.example/runs/{number}",
    )


def test_an_alert_arrives_at_a_webhook_with_its_title_and_text(webhook: Webhook):
    AppriseNotifier(SecretStr(webhook.url()), 1).send([alert()])
    (message,) = webhook.accepted
    assert message["title"] == "ERROR: bill_equals_its_invoice failed on raw.aws_billing (acme, aws)"
    assert message["message"] == alert().text
    assert message["type"] == "failure"


def test_several_alerts_travel_as_one_message(webhook: Webhook):
    AppriseNotifier(SecretStr(webhook.url()), 1).send([alert(number=1), alert(number=2)])
    (message,) = webhook.accepted
    assert message["title"] == "OptiInfra: 2 new failures"
    assert "/runs/1" in message["message"]
    assert "/runs/2" in message["message"]


@pytest.mark.parametrize(
    ("alerts", "colour"),
    [
        ([alert("recovered_check")], "success"),
        ([alert(severity="WARN"), alert("recovered_check")], "warning"),
        ([alert("recovered_check"), alert()], "failure"),
    ],
)
def test_the_gravest_alert_gives_a_message_its_colour(webhook: Webhook, alerts: list[Alert], colour: str):
    AppriseNotifier(SecretStr(webhook.url()), 1).send(alerts)
    assert webhook.accepted[0]["type"] == colour


def test_a_refused_message_is_an_error_that_names_the_channel_and_not_its_token(webhook: Webhook):
    webhook.status = 500
    notifier = AppriseNotifier(SecretStr(webhook.url()), 2)
    with pytest.raises(DeliveryError) as refused:
        notifier.send([alert()])
    assert refused.value.kind == "transient"
    assert "entry 2 of OPTIINFRA_ALERT_URLS" in str(refused.value)
    assert "error=500" in str(refused.value)
    assert "s3cr3t" not in str(refused.value) + notifier.name
    assert webhook.refused == 1


def test_a_server_that_is_gone_is_an_error():
    notifier = AppriseNotifier(SecretStr("json://user:pa55word@127.0.0.1:1/nobody"), 1)
    with pytest.raises(DeliveryError, match="Connection error") as refused:
        notifier.send([alert()])
    assert "pa55word" not in str(refused.value)


def test_a_url_that_apprise_does_not_know_is_refused_without_printing_it():
    with pytest.raises(CollectionError) as refused:
        notifiers_for([SecretStr("slak://token-s3cr3t/B123/xyz")])
    assert refused.value.kind == "not_configured"
    assert "entry 1" in str(refused.value)
    assert "slak://" in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_two_urls_of_one_service_are_two_channels():
    first, second = notifiers_for([SecretStr("json://127.0.0.1/one"), SecretStr("json://127.0.0.1/two")])
    assert first.name != second.name


def test_without_urls_an_alert_is_one_line_of_json_on_standard_error(capsys: pytest.CaptureFixture[str]):
    (notifier,) = notifiers_for([])
    assert isinstance(notifier, LogNotifier)
    notifier.send([alert(number=1), alert("recovered_check", number=2)])
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == "alert"
    assert first["check"] == "bill_equals_its_invoice"
    assert first["numbers"] == {"observed": 10.5, "expected": 1}
    assert (second["kind"], second["link"]) == ("recovered_check", "https://dagster.example/runs/2")
