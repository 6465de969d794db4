"""The fleet and its bills as Azure's APIs write them: records of Resource Graph, metric values, log rows, costs,
prices. Field names, types and order are those of recorded answers; who may ask, and faults, is in `azure_server.py`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

from optiinfra_pipelines.clouds.azure.vocabulary import READINGS
from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, Series, series_of, window_starts
from optiinfra_pipelines.sandbox.fleet_bills import FleetCharge, bill_periods, charges

REGION = "westeurope"
_GROUP = "Production"  # ids are written with capitals in some answers and without in others
_TYPES = {
    "machine": "Microsoft.Compute/virtualMachines",
    "volume": "Microsoft.Compute/disks",
    "snapshot": "Microsoft.Compute/snapshots",
    "image": "Microsoft.Compute/images",
    "ip_address": "Microsoft.Network/publicIPAddresses",
    "database": "Microsoft.Sql/servers/production/databases",
}
_POWER = {"running": "VM running", "stopped": "VM stopped", "deallocated": "VM deallocated"}
_GUEST = ("storage_utilization", "gpu_utilization", "gpu_memory_utilization")
_SERVICES = {"machine": "Virtual Machines", "database": "SQL Database"}
_CHARGE_TYPES = {"Usage": "Usage", "Tax": "Tax", "Credit": "Refund"}
# What Microsoft.Compute/skus says of the fleet's sizes and of one that nobody runs.
_SIZES = (
    ("Standard_D2s_v5", "standardDSv5Family", 2, 8, 0),
    ("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", 24, 220, 1),
    ("Standard_NV6ads_A10_v5", "StandardNVADSA10v5Family", 6, 55, 1),
)


def wire_id(resource: Resource) -> str:
    """The resource's id as Resource Graph writes it."""
    group = f"/subscriptions/{resource.account_id}/resourceGroups/{_GROUP}"
    return f"{group}/providers/{_TYPES[resource.resource_type]}/{resource.name}"


class Wire:
    """One customer's subscription."""

    def __init__(self, fleet: Fleet, customer_id: str) -> None:
        self.fleet = fleet
        self.customer_id = customer_id
        self.resources = fleet.of(customer_id, "azure")
        self.by_id = {each.resource_id: each for each in self.resources}
        self._numbers = {each.resource_id: number for number, each in enumerate(self.resources)}
        self.account = self.resources[0].account_id

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Everything that Resource Graph knows, by id."""
        found = [self._record(each) for each in self.resources]
        found += [self._interface(each) for each in self.resources if each.resource_type == "machine"]
        found += [self._master(), self._subscription()]
        return sorted(found, key=lambda record: record["id"].lower())

    def _base(self, id_: str, name: str, type_: str) -> dict[str, Any]:
        return {
            "id": id_,
            "name": name,
            "type": type_.lower(),
            "location": REGION,
            "tags": None,
            "sku": None,
            "kind": "",
            "zones": None,
            "managedBy": "",
            "subscriptionId": self.account,
        }

    def _record(self, resource: Resource) -> dict[str, Any]:
        kind = resource.resource_type
        type_ = "Microsoft.Sql/servers/databases" if kind == "database" else _TYPES[kind]
        record = self._base(wire_id(resource), resource.name, type_) | {"tags": dict(resource.tags)}
        return record | getattr(self, f"_{kind}")(resource)

    def _machine(self, resource: Resource) -> dict[str, Any]:
        shape = resource.shape
        properties: dict[str, Any] = {
            "vmId": str(resource.resource_id)[-12:],
            "provisioningState": "Succeeded",
            "hardwareProfile": {"vmSize": shape.native_type if shape else ""},
            "storageProfile": {
                "osDisk": {
                    "name": f"{resource.name}_OsDisk",
                    "osType": "Linux",
                    "createOption": "FromImage",
                    "diskSizeGB": resource.storage_gib,
                },
                "dataDisks": [],
            },
            "networkProfile": {"networkInterfaces": [{"id": self._interface_id(resource)}]},
            "timeCreated": _seven(resource.created_at),
            "extended": {
                "instanceView": {
                    "powerState": {
                        "code": f"PowerState/{resource.state}",
                        "level": "Info",
                        "displayStatus": _POWER[str(resource.state)],
                    }
                }
            },
        }
        if resource.guard == "autoscaled":
            group = f"/subscriptions/{self.account}/resourceGroups/{_GROUP}/providers/Microsoft.Compute"
            properties["virtualMachineScaleSet"] = {"id": f"{group}/virtualMachineScaleSets/api"}
        return {"properties": properties, "zones": [resource.zone]}

    def _volume(self, resource: Resource) -> dict[str, Any]:
        user = self.by_id[resource.attached_to] if resource.attached_to else None
        return {
            "sku": {"name": "Premium_LRS", "tier": "Premium"},
            "zones": [resource.zone],
            "managedBy": wire_id(user).replace(f"/{_GROUP}/", f"/{_GROUP.upper()}/") if user else "",
            "properties": {
                "provisioningState": "Succeeded",
                "diskState": "Attached" if user else "Unattached",
                "diskSizeGB": resource.storage_gib,
                "diskIOPSReadWrite": 2300,
                "diskMBpsReadWrite": 150,
                "creationData": {"createOption": "Empty"},
                "timeCreated": _seven(resource.created_at),
            },
        }

    def _snapshot(self, resource: Resource) -> dict[str, Any]:
        return {
            "sku": {"name": "Standard_ZRS", "tier": "Standard"},
            "properties": {
                "provisioningState": "Succeeded",
                "diskState": "Unattached",
                "diskSizeGB": resource.storage_gib,
                "incremental": False,
                "creationData": {"createOption": "Copy"},
                "timeCreated": _seven(resource.created_at),
            },
        }

    def _image(self, resource: Resource) -> dict[str, Any]:
        origin = self.by_id[str(resource.attached_to)]
        system = {
            "osType": "Linux",
            "osState": "Generalized",
            "diskSizeGB": resource.storage_gib,
            "snapshot": {"id": wire_id(origin).upper().replace("/SUBSCRIPTIONS/", "/subscriptions/")},
        }
        return {"properties": {"provisioningState": "Succeeded", "storageProfile": {"osDisk": system}}}

    def _ip_address(self, resource: Resource) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "provisioningState": "Succeeded",
            "ipAddress": resource.name,
            "publicIPAddressVersion": "IPv4",
            "publicIPAllocationMethod": "Static",
            "idleTimeoutInMinutes": 4,
            "ipTags": [],
        }
        if resource.attached_to:
            interface = self._interface_id(self.by_id[resource.attached_to])
            properties["ipConfiguration"] = {"id": f"{interface}/ipConfigurations/primary"}
        return {"sku": {"name": "Standard", "tier": "Regional"}, "properties": properties}

    def _database(self, resource: Resource) -> dict[str, Any]:
        shape = resource.shape
        name = shape.native_type if shape else ""
        sku = {"name": name.rpartition("_")[0], "tier": "GeneralPurpose", "family": "Gen5"}
        return {
            "sku": sku | {"capacity": int(name.rpartition("_")[2])},
            "kind": "v12.0,user,vcore",
            "properties": {
                "status": "Online",
                "maxSizeBytes": int((resource.storage_gib or 0) * 2**30),
                "currentServiceObjectiveName": name,
                "creationDate": f"{resource.created_at:%Y-%m-%dT%H:%M:%S}.79Z",
                "zoneRedundant": False,
                "readReplicaCount": 0,
            },
        }

    def _interface_id(self, machine: Resource) -> str:
        provider = "Microsoft.Network/networkInterfaces"
        return f"/subscriptions/{self.account}/resourceGroups/{_GROUP}/providers/{provider}/{machine.name}-nic"

    def _interface(self, machine: Resource) -> dict[str, Any]:
        number = self._numbers[machine.resource_id]
        primary = {"name": "primary", "properties": {"privateIPAddress": f"10.0.{number // 250}.{number % 250 + 4}"}}
        type_ = "microsoft.network/networkinterfaces"
        return self._base(self._interface_id(machine), f"{machine.name}-nic", type_) | {
            "properties": {"virtualMachine": {"id": wire_id(machine)}, "ipConfigurations": [primary]}
        }

    def _master(self) -> dict[str, Any]:
        server = f"/subscriptions/{self.account}/resourceGroups/{_GROUP}/providers/{_TYPES['database']}"
        return self._base(f"{server}/master", "master", "Microsoft.Sql/servers/databases") | {
            "kind": "v12.0,system",
            "sku": {"name": "System", "tier": "System", "capacity": 0},
            "properties": {"status": "Online", "maxSizeBytes": 32212254720},
        }

    def _subscription(self) -> dict[str, Any]:
        base = self._base(f"/subscriptions/{self.account}", self.customer_id, "microsoft.resources/subscriptions")
        return base | {"location": "", "properties": {"state": "Enabled"}}

    def created(self, where: str) -> list[dict[str, Any]]:
        """What Resource Manager's list of resources says of those of the types in `where`, with createdTime."""
        return [
            {
                "id": wire_id(each),
                "name": each.name,
                "type": _TYPES[each.resource_type],
                "location": REGION,
                "createdTime": _seven(each.created_at),
            }
            for each in self.resources
            if f"'{_TYPES[each.resource_type]}'" in where
        ]

    def metric_value(
        self, resource: Resource, names: Iterable[str], aggregations: set[str], start: datetime, end: datetime
    ) -> dict[str, Any]:
        """One of the `values` of metrics:getBatch."""
        own_id = (
            f"/subscriptions/{self.account}/resourceGroups/{_GROUP.upper()}{wire_id(resource).partition(_GROUP)[2]}"
        )
        held = {(each.metric, each.statistic): each for each in series_of(resource) if not each.component}
        windows = list(window_starts(start, end))
        metrics = []
        for name in names:
            wanted = [each for each in READINGS[resource.resource_type][name] if each.aggregation in aggregations]
            data: list[dict[str, Any]] = [{"timeStamp": f"{at:%Y-%m-%dT%H:%M:%SZ}"} for at in windows]
            for reading in wanted:
                series = held.get((reading.metric, reading.statistic))
                for at, point in zip(windows, data, strict=True):
                    value = series.value(at) if series else None
                    if value is not None:
                        point[reading.aggregation] = (value - reading.offset) / reading.scale
            metrics.append(
                {
                    "id": f"{own_id}/providers/Microsoft.Insights/metrics/{name}",
                    "type": "Microsoft.Insights/metrics",
                    "name": {"value": name, "localizedValue": name},
                    "displayDescription": name,
                    "unit": "Unspecified",
                    "timeseries": [{"metadatavalues": [], "data": data}] if resource.measured else [],
                    "errorCode": "Success",
                }
            )
        span = {"starttime": f"{start:%Y-%m-%dT%H:%M:%SZ}", "endtime": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
        return span | {
            "interval": "PT15M",
            "value": metrics,
            "namespace": _TYPES[resource.resource_type],
            "resourceregion": REGION,
            "resourceid": own_id,
        }

    def guest_rows(self, start: datetime, end: datetime) -> Iterator[list[Any]]:
        """Rows of what guests report: id, metric, component, window, average, maximum, samples."""
        for resource in self.resources:
            if resource.resource_type != "machine":
                continue
            held = {(each.metric, each.component, each.statistic): each for each in series_of(resource)}
            for (metric, component, statistic), series in held.items():
                if metric not in _GUEST or statistic != "average":
                    continue
                for at in window_starts(start, end):
                    average = series.value(at)
                    if average is not None:
                        maximum = held[metric, component, "maximum"].value(at)
                        window = f"{at:%Y-%m-%dT%H:%M:%SZ}"
                        yield [resource.resource_id, metric, component, window, average, maximum, 15]

    def skus(self) -> list[dict[str, Any]]:
        """What Microsoft.Compute/skus lists for the region."""
        return [
            {
                "resourceType": "virtualMachines",
                "name": name,
                "tier": "Standard",
                "size": name.removeprefix("Standard_"),
                "family": family,
                "locations": [REGION],
                "capabilities": [
                    {"name": "vCPUs", "value": str(vcpus)},
                    {"name": "MemoryGB", "value": str(memory)},
                    *([{"name": "GPUs", "value": str(gpus)}] if gpus else []),
                ],
                "restrictions": [],
            }
            for name, family, vcpus, memory, gpus in _SIZES
        ]

    def costs(self, body: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[str]]:
        """Columns, and each row as JSON text in the digits of the bill, of a Cost Management query."""
        first = datetime.fromisoformat(body["timePeriod"]["from"])
        last = datetime.fromisoformat(body["timePeriod"]["to"]) + timedelta(days=1)
        daily = body["dataset"]["granularity"] == "Daily"
        grouping = [each["name"] for each in body["dataset"]["grouping"]]
        sums: dict[str, list[Decimal]] = {}
        for period in bill_periods(self.fleet.today):
            for charge in charges(self.fleet, self.customer_id, "azure", period):
                if first <= charge.start < last:
                    when: Any = int(f"{charge.start:%Y%m%d}") if daily else f"{charge.start:%Y-%m-01T00:00:00}"
                    said = _said(charge)
                    key = json.dumps([when, *(said[name] for name in grouping), "USD"])[1:]
                    total = sums.setdefault(key, [Decimal(0), Decimal(0)])
                    total[0] += charge.cost
                    total[1] += charge.quantity
        date = ("UsageDate", "Number") if daily else ("BillingMonth", "Datetime")
        numbers = [(name, "Number") for name in body["dataset"]["aggregation"]]
        named = [*numbers, date, *((name, "String") for name in (*grouping, "Currency"))]
        columns = [{"name": name, "type": type_} for name, type_ in named]
        return columns, [f"[{cost:f}, {quantity:f}, {key}" for key, (cost, quantity) in sums.items()]

    def series(self) -> Iterator[Series]:
        """Every series that metrics and logs show."""
        for resource in self.resources:
            yield from series_of(resource)


def _said(charge: FleetCharge) -> dict[str, str]:
    """What dimensions of Cost Management a charge has; empty where it has none."""
    resource = charge.resource
    service = _SERVICES[resource.resource_type] if resource else ""
    kind = _TYPES[resource.resource_type] if resource else ""
    return {
        "ResourceId": resource.resource_id if resource else "",
        "ResourceType": kind.lower().replace("/production", ""),
        "ResourceLocation": "EU West" if resource else "",
        "ServiceName": service,
        "MeterCategory": service,
        "MeterSubcategory": "",
        "Meter": charge.description,
        "ChargeType": _CHARGE_TYPES[charge.category],
        "PricingModel": "OnDemand",
        "PublisherType": "Azure",
        "InvoiceNumber": charge.invoice_id or "",
    }


def price_items(fleet: Fleet, region: str) -> list[dict[str, Any]]:
    """The Retail Prices items of a region: the fleet's types, and what a reader has to leave out."""
    shapes = {each.shape.native_type: each for each in fleet.resources if each.shape and each.cloud == "azure"}
    items = []
    for number, (name, resource) in enumerate(sorted(shapes.items())):
        price = resource.shape.hourly if resource.shape else Decimal(0)
        if resource.resource_type == "database":
            product = "SQL Database Single/Elastic Pool General Purpose - Compute Gen5"
            items.append(_item(region, number, product, "8 vCore", "SQL Database", "", price))
            continue
        product = f"Virtual Machines {name.removeprefix('Standard_')} Series"
        short = name.removeprefix("Standard_").replace("_", " ")
        for spell, suffix, factor in (
            ("", "", "1"),
            (" Windows", "", "1.9"),
            ("", " Spot", "0.2"),
            ("", " Low Priority", "0.2"),
        ):
            digits = price * Decimal(factor)
            items.append(_item(region, number, product + spell, short + suffix, "Virtual Machines", name, digits))
    items += [
        _item(region, 90, "Premium SSD Managed Disks", "P10 LRS", "Storage", "", Decimal("21.68"), "1/Month"),
        _item(region, 91, "Standard HDD Managed Disks", "Snapshots LRS", "Storage", "", Decimal("0.05"), "1 GB/Month"),
        _item(region, 92, "IP Addresses", "Standard", "Virtual Network", "", Decimal("0.005"), "1 Hour"),
    ]
    return items


def _item(
    region: str, number: int, product: str, sku: str, service: str, size: str, price: Decimal, unit: str = "1 Hour"
) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": float(price),
        "unitPrice": float(price),
        "armRegionName": region,
        "location": "EU West",
        "effectiveStartDate": "2024-01-01T00:00:00Z",
        "meterId": f"00000000-0000-4000-8000-{abs(hash_of(product + sku)):012d}",
        "meterName": sku,
        "productId": f"DZH318Z0{number:04d}",
        "skuId": f"DZH318Z0{number:04d}/{hash_of(sku) % 10000:04d}",
        "availabilityId": None,
        "productName": product,
        "skuName": sku,
        "serviceName": service,
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": unit,
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": size,
    }


def hash_of(text: str) -> int:
    """A number of up to twelve digits that belongs to `text` for ever."""
    return sum((position + 1) * ord(letter) ** 2 for position, letter in enumerate(text)) % 10**12


def _seven(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.0000000+00:00"  # Azure prints seven decimals
