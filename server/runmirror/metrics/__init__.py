"""/metrics, as Prometheus reads it: what this server answered, and how the mirror is doing."""
