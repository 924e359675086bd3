"""Flows, deployments and the command line: the only package that imports Prefect."""

import os

# Read when Prefect is imported: no telemetry, and enough time for a laptop's first server start.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "60")
