"""Traces of MLflow 3: spans, tags, assessments, search and their figures."""
