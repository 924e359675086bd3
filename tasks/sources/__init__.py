"""Where training runs live: directories, the Hub, MLflow, behind one protocol."""
