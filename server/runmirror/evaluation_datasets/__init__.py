"""Evaluation datasets of MLflow 3: records of inputs and expectations that applications are judged by."""
