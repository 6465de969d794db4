"""How alerts travel: the Notifier protocol, its two kinds (apprise URLs, a log line), and the delivery that moves a
cursor only over what arrived."""

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Protocol
from urllib.parse import unquote

from pydantic import SecretStr

from optiinfra_pipelines.alerts.ledger import Cursor, Page
from optiinfra_pipelines.alerts.message import Alert, body, headline
from optiinfra_pipelines.errors import CollectionError


class DeliveryError(CollectionError):
    """A notifier did not accept a message; it is owed and sent again at the next tick."""


class Notifier(Protocol):
    """One channel. `name` identifies it between ticks and holds no secret."""

    name: str

    def send(self, alerts: Sequence[Alert]) -> None:
        """Deliver `alerts` as one message, or raise DeliveryError; returning means that they arrived."""
        ...


class LogNotifier:
    """Writes each alert as one line of JSON to standard error: the default, which needs no token."""

    name = "log"

    def send(self, alerts: Sequence[Alert]) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        for alert in alerts:
            print(json.dumps({"event": "alert", "at": at, **alert.as_json()}), file=sys.stderr, flush=True)


class AppriseNotifier:
    """Delivers to one apprise URL: Slack, Teams, e-mail, PagerDuty, webhook and a hundred others.

    CollectionError `not_configured` where apprise does not know the URL; `number` (from 1) is the entry of
    OPTIINFRA_ALERT_URLS that messages name in place of the URL, which holds a token.
    """

    def __init__(self, url: SecretStr, number: int) -> None:
        import apprise

        value = url.get_secret_value()
        asset = apprise.AppriseAsset(storage_mode="memory")  # its default keeps files in the home folder
        plugin = apprise.Apprise.instantiate(value, asset=asset)
        if plugin is None:
            scheme = value.partition("://")[0]
            raise CollectionError(
                "not_configured",
                f"entry {number} of OPTIINFRA_ALERT_URLS ({scheme}://...) is no URL that apprise can use; "
                f"see its page on {scheme} for the form",
            )
        if "overflow=" not in value:
            plugin.overflow_mode = (
                apprise.OverflowMode.SPLIT
            )  # else a long message is refused for ever by some services
        # host, user, token, ...: what of the URL is long enough to be a secret is cut out of apprise's reasons
        parts = re.split(r"[/:@?&=,]+", value.partition("://")[2])
        self._parts = sorted({form for part in parts for form in (part, unquote(part)) if len(form) > 4}, key=len)[::-1]
        self._plugin = plugin
        self._number = number
        # 32 bits tell a handful of channels apart and say nothing useful about a token
        self.name = f"{plugin.service_name}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"

    def send(self, alerts: Sequence[Alert]) -> None:
        import apprise

        kind = apprise.NotifyType.FAILURE
        if all(alert.is_recovery for alert in alerts):
            kind = apprise.NotifyType.SUCCESS
        elif all(alert.is_recovery or alert.severity == "WARN" for alert in alerts):
            kind = apprise.NotifyType.WARNING
        channel = apprise.Apprise(self._plugin)
        text = alerts[0].text if len(alerts) == 1 else body(alerts)
        with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log:
            arrived = channel.notify(
                body=text, title=headline(alerts), notify_type=kind, body_format=apprise.NotifyFormat.TEXT
            )
            reason = " ".join(log.getvalue().split())
        if not arrived:
            raise DeliveryError(
                "transient",
                f"{len(alerts)} alert(s) did not reach {self._plugin.service_name} (entry {self._number} of "
                f"OPTIINFRA_ALERT_URLS): {self._without_secrets(reason)} They are kept and sent again at the next "
                "tick; if that goes on, check the URL and the service",
            )

    def _without_secrets(self, reason: str) -> str:
        for part in self._parts:
            reason = reason.replace(part, "…")
        return reason


def notifiers_for(urls: Sequence[SecretStr]) -> tuple[Notifier, ...]:
    """One notifier per alert URL, or the log where there are none."""
    if not urls:
        return (LogNotifier(),)
    return tuple(AppriseNotifier(url, number) for number, url in enumerate(urls, 1))


@dataclass(frozen=True)
class Delivery:
    """What one tick did: the cursor to keep, how many alerts arrived, and what went wrong."""

    cursor: Cursor
    sent: int
    errors: tuple[DeliveryError, ...]


def deliver(cursor: Cursor, notifiers: Sequence[Notifier], read: Callable[[int | None], Page]) -> Delivery:
    """Tell every notifier what is news to it. `read` gives the observations after a position (None: a first look).

    A notifier that fails keeps its ledger, so that its alerts stay due; the others go on. Where a process dies
    between a delivery and the saving of the cursor, that one message is sent again: at least once, not at most once.
    """
    read_once = cache(read)
    ledgers = {}
    errors = []
    sent = 0
    for notifier in notifiers:
        before = cursor.ledger(notifier.name)
        ledger, due = before.after(read_once(before.position))
        try:
            if due:
                notifier.send(due)
        except DeliveryError as error:
            errors.append(error)
            ledger = before
        else:
            sent += len(due)
        ledgers[notifier.name] = ledger
    return Delivery(Cursor(ledgers), sent, tuple(errors))
