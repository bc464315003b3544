"""Webhooks: who is told of which event of the registry, and the telling."""
