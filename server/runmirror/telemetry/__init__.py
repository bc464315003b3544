"""Traces of what runmirror itself does, sent as OpenTelemetry where the operator says so; else nothing is imported.

What clients trace and log here is something else: `runmirror.traces`.
"""
