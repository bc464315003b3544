"""Endpoints of MLflow that runmirror does not serve, each with its reason."""
