"""Logged models of MLflow 3."""
