"""The resource `notifier`: where alerts go, read from the settings at the tick and never at import."""

import dagster as dg

from optiinfra_pipelines.alerts.notifier import Notifier, notifiers_for
from optiinfra_pipelines.settings import load_settings


class NotifierResource(dg.ConfigurableResource):
    """Gives the sensors their notifiers and the address that links begin with."""

    def notifiers(self) -> tuple[Notifier, ...]:
        """One notifier per URL of OPTIINFRA_ALERT_URLS, or the log; CollectionError where a URL is of no use."""
        return notifiers_for(load_settings().alert_urls)

    def web_url(self) -> str:
        """OPTIINFRA_WEB_URL, without a slash at its end."""
        return load_settings().web_url
