"""The mirror: what a run's rows say that the workspace has not heard, sent there in order, once."""
