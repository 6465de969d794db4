"""Amazon's words in this project's vocabulary: states, CloudWatch metrics, error codes, billing words.

Tables only, each with the page that lists the words; what reads them is in the parsers and the client.
"""

from collections.abc import Mapping

from optiinfra_pipelines.clouds.vocabulary import MetricMapping, StateMapping, Statistic

_EC2 = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference"
STATES: Mapping[str, StateMapping] = {
    mapping.resource_type: mapping
    for mapping in (
        StateMapping(
            "machine",
            f"{_EC2}/API_InstanceState.html",
            {
                "pending": "starting",
                "running": "running",
                "shutting-down": "stopping",
                "stopping": "stopping",
                "stopped": "stopped",
                "terminated": "terminated",
            },
        ),
        StateMapping(
            "volume",
            f"{_EC2}/API_Volume.html",
            {
                "creating": "creating",
                "available": "unattached",
                "in-use": "attached",
                "deleting": "deleting",
                "error": "failed",
            },
        ),
        StateMapping(
            "snapshot",
            f"{_EC2}/API_Snapshot.html",
            {
                "pending": "creating",
                "completed": "available",
                "recoverable": "deleting",
                "recovering": "creating",
                "error": "failed",
            },
        ),
        StateMapping(
            "image",
            f"{_EC2}/API_Image.html",
            {
                "pending": "creating",
                "transient": "creating",
                "available": "available",
                "deregistered": "deleting",
                "invalid": "failed",
                "failed": "failed",
                "error": "failed",
            },
        ),
        StateMapping(
            "database",
            "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html",
            {
                "available": "running",
                "backing-up": "running",
                "configuring-enhanced-monitoring": "running",
                "configuring-iam-database-auth": "running",
                "configuring-log-exports": "running",
                "storage-optimization": "running",
                "storage-initialization": "running",
                "creating": "starting",
                "starting": "starting",
                "stopping": "stopping",
                "stopped": "stopped",
                "deleting": "stopping",
                "maintenance": "maintenance",
                "modifying": "maintenance",
                "rebooting": "maintenance",
                "renaming": "maintenance",
                "resetting-master-credentials": "maintenance",
                "upgrading": "maintenance",
                "moving-to-vpc": "maintenance",
                "converting-to-vpc": "maintenance",
                "failed": "failed",
                "storage-full": "failed",
                "restore-error": "failed",
                "incompatible-network": "failed",
                "incompatible-option-group": "failed",
                "incompatible-parameters": "failed",
                "incompatible-restore": "failed",
                "inaccessible-encryption-credentials": "failed",
            },
        ),
        StateMapping(
            "function",
            "https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html",
            {"Pending": "creating", "Active": "active", "Inactive": "inactive", "Failed": "failed"},
        ),
    )
}

_EC2_METRICS = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_metrics_with_cloudwatch.html"
_EBS_METRICS = "https://docs.aws.amazon.com/ebs/latest/userguide/using_cloudwatch_ebs.html"
_RDS_METRICS = "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html"
_LAMBDA_METRICS = "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html"
_AGENT = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/metrics-collected-by-CloudWatch-agent.html"
_AGENT_GPU = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Agent-NVIDIA-GPU.html"
_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/userguide/monitoring.html"

# What every resource of its type has, without being asked which metrics there are.
METRICS: tuple[MetricMapping, ...] = (
    MetricMapping("AWS/EC2 CPUUtilization", "cpu_utilization", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 NetworkIn", "network_in_bytes", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 NetworkOut", "network_out_bytes", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 EBSReadBytes", "disk_read_bytes", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 EBSWriteBytes", "disk_write_bytes", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 EBSReadOps", "disk_read_operations", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EC2 EBSWriteOps", "disk_write_operations", "machine", 1, _EC2_METRICS),
    MetricMapping("AWS/EBS VolumeReadBytes", "disk_read_bytes", "volume", 1, _EBS_METRICS),
    MetricMapping("AWS/EBS VolumeWriteBytes", "disk_write_bytes", "volume", 1, _EBS_METRICS),
    MetricMapping("AWS/EBS VolumeReadOps", "disk_read_operations", "volume", 1, _EBS_METRICS),
    MetricMapping("AWS/EBS VolumeWriteOps", "disk_write_operations", "volume", 1, _EBS_METRICS),
    MetricMapping("AWS/RDS CPUUtilization", "cpu_utilization", "database", 1, _RDS_METRICS),
    MetricMapping("AWS/RDS DatabaseConnections", "database_connections", "database", 1, _RDS_METRICS),
    # bytes used = bytes allocated less bytes free, so the least that was free is the most that was used
    MetricMapping("AWS/RDS FreeStorageSpace", "storage_used_bytes", "database", -1, _RDS_METRICS),
    MetricMapping("AWS/Lambda Invocations", "invocations", "function", 1, _LAMBDA_METRICS),
    MetricMapping("AWS/Lambda Errors", "errors", "function", 1, _LAMBDA_METRICS),
    MetricMapping("AWS/Lambda Throttles", "throttles", "function", 1, _LAMBDA_METRICS),
    MetricMapping("AWS/Lambda Duration", "duration_seconds", "function", 0.001, _LAMBDA_METRICS),  # milliseconds
)
# What is there only where an agent or an application sends it: ListMetrics tells which.
LISTED_METRICS: Mapping[str, MetricMapping] = {
    mapping.native: mapping
    for mapping in (
        MetricMapping("CWAgent mem_used_percent", "memory_utilization", "machine", 1, _AGENT),
        MetricMapping("CWAgent disk_used_percent", "storage_utilization", "machine", 1, _AGENT),
        MetricMapping("CWAgent nvidia_smi_utilization_gpu", "gpu_utilization", "machine", 1, _AGENT_GPU),
        # MiB, to be divided by the GPU's memory; nvidia_smi_utilization_memory is how busy the memory's bus is
        MetricMapping("CWAgent nvidia_smi_memory_used", "gpu_memory_utilization", "machine", 100, _AGENT_GPU),
        MetricMapping("AWS/Bedrock Invocations", "invocations", "model", 1, _BEDROCK),
        MetricMapping("AWS/Bedrock InputTokenCount", "input_tokens", "model", 1, _BEDROCK),
        MetricMapping("AWS/Bedrock OutputTokenCount", "output_tokens", "model", 1, _BEDROCK),
    )
}
# Statistics of https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
STATISTICS: Mapping[Statistic, str] = {
    "average": "Average",
    "maximum": "Maximum",
    "minimum": "Minimum",
    "sum": "Sum",
    "p95": "p95",
    "p99": "p99",
}
# Xen machines report no EBS metrics of their own; their volumes do (same page as the EC2 metrics).
NITRO_ONLY = ("EBSReadBytes", "EBSWriteBytes", "EBSReadOps", "EBSWriteOps")
# File systems that are no disk; the agent measures them unless it is told not to.
MEMORY_FILE_SYSTEMS = ("tmpfs", "devtmpfs", "overlay", "squashfs", "ramfs", "proc", "sysfs")

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and the common errors of each service.
THROTTLED_CODES = (
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
    *(
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "LimitExceededException",
        "SlowDown",
        "BandwidthLimitExceeded",
    ),
    "PriorRequestNotComplete",
)
EXPIRED_CODES = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
CLOCK_CODES = ("RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch")
AUTH_CODES = (
    *EXPIRED_CODES,
    *CLOCK_CODES,
    *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "OptInRequired"),
    *("UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationToken", "IncompleteSignature"),
    *("NotAuthorized", "InvalidAccessKeyId", "DataUnavailableException"),
)

# Record types of Cost Explorer that are no usage (https://docs.aws.amazon.com/cost-management/latest/userguide/
# ce-filtering.html, "Charge type") as FOCUS charge categories; the others are usage.
CHARGE_CATEGORIES: Mapping[str, str] = {
    "Tax": "Tax",
    "Credit": "Credit",
    "Refund": "Credit",
    "BundledDiscount": "Credit",
    "EdpDiscount": "Credit",
    "Enterprise Discount Program Discount": "Credit",
    "PrivateRateDiscount": "Credit",
    "RiVolumeDiscount": "Credit",
    "Solution Provider Program Discount": "Credit",
    "SppDiscount": "Credit",
    "RIFee": "Purchase",
    "Recurring": "Purchase",
    "Upfront": "Purchase",
    "SavingsPlanRecurringFee": "Purchase",
    "SavingsPlanUpfrontFee": "Purchase",
    "Fee": "Purchase",
    "Support": "Purchase",
}
