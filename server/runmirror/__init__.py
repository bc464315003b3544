"""runmirror: an MLflow-compatible tracking server that mirrors every run into an Azure ML workspace."""

__version__ = "0.1.0"
