"""`runmirror demo`: a training run, its copy in a workspace, and both sides shown beside each other."""

from runmirror.demo.steps import run_demo

__all__ = ["run_demo"]
