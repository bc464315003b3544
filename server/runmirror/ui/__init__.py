"""MLflow's own web pages: their files, and the small endpoints that only they ask for."""
