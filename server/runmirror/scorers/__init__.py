"""Scorers of MLflow 3: kept and given out again, never rebuilt and never run."""
