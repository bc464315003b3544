"""Puts MLflow's tracking to a runmirror server: `runmirror_client.activate("https://tracking.example")`."""

from runmirror_client.guard import TRACKING_URI, activate

__all__ = ["TRACKING_URI", "activate"]
