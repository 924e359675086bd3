"""Sources of training runs behind one protocol: directories, the Hugging Face Hub, MLflow."""
