"""When the marts are rebuilt: after any source was updated, one run at a time; or by hand."""

import dagster as dg

derived_job = dg.define_asset_job(
    "derived_job", selection=dg.AssetSelection.groups("derived"), description="Rebuilds staging views and marts."
)
derived_automation_sensor = dg.AutomationConditionSensorDefinition(
    "derived_automation_sensor",
    target=dg.AssetSelection.groups("derived"),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
