"""Vultr's words in this project's vocabulary: states, GPUs of plans, services of the bill, hours of a month.

Tables only, each with the page that lists the words; what reads them is in the parsers.
"""

from collections.abc import Mapping

from optiinfra_pipelines.clouds.vocabulary import MetricMapping, StateMapping

_API = "https://www.vultr.com/api/"

STATES: Mapping[str, StateMapping] = {
    mapping.resource_type: mapping
    for mapping in (
        # `status` where it is not active, else `server_status` where it says that the machine is no machine yet,
        # else `power_status`. A stopped machine is billed like a running one.
        StateMapping(
            "machine",
            f"{_API}#tag/instances/operation/get-instance",
            {
                "pending": "starting",
                "installingbooting": "starting",
                "suspended": "suspended",
                "active": "running",
                "running": "running",
                "stopped": "stopped",
            },
        ),
        StateMapping(
            "database",
            "https://docs.vultr.com/reference/terraform/data-sources/database",
            {
                "Running": "running",
                "Configuring": "starting",
                "Rebuilding": "maintenance",
                "Rebalancing": "maintenance",
                "Poweroff": "stopped",
            },
        ),
        # active is no state of ours: whether anything uses the disk decides between attached and unattached
        StateMapping("volume", f"{_API}#tag/block/operation/get-block", {"pending": "creating"}),
        StateMapping(
            "snapshot",
            f"{_API}#tag/snapshot/operation/get-snapshot",
            {"pending": "creating", "complete": "available", "COMPLETE": "available", "deleted": "deleting"},
        ),
    )
}

BANDWIDTH = (
    MetricMapping(
        "incoming_bytes", "network_in_bytes", "machine", 1, f"{_API}#tag/instances/operation/get-instance-bandwidth"
    ),
    MetricMapping(
        "outgoing_bytes", "network_out_bytes", "machine", 1, f"{_API}#tag/instances/operation/get-instance-bandwidth"
    ),
)

# gpu_type of a plan -> the GPU in the vocabulary and the GiB of a whole card; a plan has gpu_vram_gb of it, and of a
# card's share it has a fraction (vcg-a100-1c-6g-4vram: 4 of 80). https://www.vultr.com/pricing/#cloud-gpu
GPU_CARDS: Mapping[str, tuple[str, int]] = {
    "NVIDIA_A16": ("NVIDIA A16 16GB", 16),
    "NVIDIA_A40": ("NVIDIA A40 48GB", 48),
    "NVIDIA_A100": ("NVIDIA A100 80GB", 80),  # Vultr has no A100 of 40 GB
    "NVIDIA_L40S": ("NVIDIA L40S 48GB", 48),
    "NVIDIA_GH200": ("NVIDIA GH200 96GB", 96),
    "NVIDIA_H100": ("NVIDIA H100 80GB", 80),
    "NVIDIA_H200": ("NVIDIA H200 141GB", 141),
    "NVIDIA_B200": ("NVIDIA B200 180GB", 180),
    "AMD_MI300X": ("AMD MI300X 192GB", 192),
    "AMD_MI325X": ("AMD MI325X 256GB", 256),
    "AMD_MI355X": ("AMD MI355X 288GB", 288),
}

# Plans with GPUs whose entries have no GPU fields, and whose ids do not say it all: id -> GPU and how many.
# https://www.vultr.com/pricing/#bare-metal
GPU_PLANS: Mapping[str, tuple[str, int]] = {
    "vbm-48c-1024gb-4-a100-gpu": ("NVIDIA A100 80GB", 4),
    "vbm-112c-2048gb-8-a100-gpu": ("NVIDIA A100 80GB", 8),
    "vbm-64c-2048gb-8-l40-gpu": ("NVIDIA L40S 48GB", 8),
}

# What a month is billed for at most: 11,773.44 USD at 17.52 an hour are 672 hours, 1,750 at 2.397 are 730.
# https://docs.vultr.com/support/platform/billing
MACHINE_MONTH_HOURS = 730
METAL_MONTH_HOURS = 672

# `product` of an invoice item -> FOCUS ServiceCategory and ServiceSubcategory.
# https://focus.finops.org/focus-specification/v1-2/#servicesubcategory
SERVICES: Mapping[str, tuple[str, str]] = {
    "Vultr Cloud Compute": ("Compute", "Virtual Machines"),
    "Cloud Compute": ("Compute", "Virtual Machines"),
    "Optimized Cloud Compute": ("Compute", "Virtual Machines"),
    "Cloud GPU": ("Compute", "Virtual Machines"),
    "Bare Metal": ("Compute", "Other (Compute)"),
    "Block Storage": ("Storage", "Block Storage"),
    "Object Storage": ("Storage", "Object Storage"),
    "Snapshots": ("Storage", "Backup Storage"),
    "Load Balancer": ("Networking", "Network Routing"),
    "Reserved IP": ("Networking", "Network Infrastructure"),
    "Managed Database": ("Databases", "Relational Databases"),
    "Kubernetes": ("Compute", "Containers"),
    "Serverless Inference": ("AI and Machine Learning", "Generative AI"),
}
