"""The three alerting sensors, thin: read a page of the event log, deliver what is news, keep the cursor. Which failure
belongs to which sensor is in README.md beside this file."""

from collections.abc import Callable
from functools import partial

import dagster as dg

from optiinfra_pipelines.alerts.ledger import Cursor, Page
from optiinfra_pipelines.alerts.notifier import deliver
from optiinfra_pipelines.defs.alerts.event_log import check_page, freshness_page, run_page
from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource

Read = Callable[[dg.DagsterInstance, str, int | None], Page]


def _alert(context: dg.SensorEvaluationContext, notifier: NotifierResource, read: Read) -> dg.SkipReason:
    """Deliver, then move the cursor over what arrived. The tick fails, and shows red, where nothing could be done."""
    cursor = Cursor.parse(context.cursor)
    delivery = deliver(cursor, notifier.notifiers(), partial(read, context.instance, notifier.web_url()))
    if delivery.errors and delivery.cursor == cursor:
        raise delivery.errors[0]
    for error in delivery.errors:
        context.log.error(str(error))
    context.update_cursor(delivery.cursor.to_json())
    return dg.SkipReason("; ".join([f"{delivery.sent} alerts sent", *map(str, delivery.errors)]))


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def failed_checks_sensor(context: dg.SensorEvaluationContext, notifier: NotifierResource) -> dg.SkipReason:
    """Tells of each asset check that begins to fail, and once of its recovery."""
    return _alert(context, notifier, check_page)


# A plain sensor and not @run_failure_sensor: that one moves its cursor over a run whose alert could not be delivered.
@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def failed_runs_sensor(context: dg.SensorEvaluationContext, notifier: NotifierResource) -> dg.SkipReason:
    """Tells of each job and partition whose runs begin to fail, and once of the first success after."""
    return _alert(context, notifier, run_page)


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def stale_assets_sensor(context: dg.SensorEvaluationContext, notifier: NotifierResource) -> dg.SkipReason:
    """Tells of each asset that breaks its freshness policy, and once when it is fresh again."""
    return _alert(context, notifier, freshness_page)
