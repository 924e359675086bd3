"""Prefect deployments of the flow."""

from flows.after_training import after_training


def serve_scheduled(cron: str) -> None:
    """Serve the flow from this process: it runs what params.yaml says at every `cron` time."""
    after_training.serve(name="scheduled", cron=cron)
