"""What is done: plain typed functions over paths and records. No Prefect here."""
