"""A stand-in for one Azure Machine Learning workspace, on loopback, under Azure's own host names."""
