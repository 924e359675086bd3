"""Sources of training runs behind one protocol: directories, the Hub, MLflow, object stores."""
