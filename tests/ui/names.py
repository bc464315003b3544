"""What the data of fill.py is called."""

EXPERIMENT = "kiln firing"
RUNS = ("glaze-1", "glaze-2", "glaze-3")
