"""A small training script as people write them; the demo runs it by its path, and it knows nothing of runmirror.

Its environment names a tracking server and nothing else: it refuses to run where it could reach Azure on its own. The
last line of its output is a JSON object: the run's id, and the Azure packages that were loaded meanwhile (none).
"""

import json
import os
import sys

STEPS = 250
BATCH = 64
PENALTY = "elasticnet"
ALPHA = 0.0005
SEED = 7

# Names, or beginnings of names, of variables by which a program finds Azure's credentials, or a way to Azure.
FORBIDDEN = (
    "AZURE", "ARM_", "IDENTITY_", "IMDS_", "MSI_", "MLFLOW_TRACKING_TOKEN", "RUNMIRROR_",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


def main() -> None:
    """Train, log, and say which run it was."""
    if seen := sorted(name for name in os.environ if name.upper().startswith(FORBIDDEN)):
        sys.exit(f"this script must log without Azure, but its environment has {', '.join(seen)}")
    run_id = train()
    azure = sorted(name for name in sys.modules if name.partition(".")[0] in {"azure", "azureml", "msal"})
    say(json.dumps({"run_id": run_id, "azure_modules": azure}))


def train() -> str:
    """One run: four metrics after each of 250 steps, params, tags, a figure, a text file and the model."""
    import matplotlib as mpl  # noqa: PLC0415 - these three take seconds, and a refusal should not

    mpl.use("Agg")
    import mlflow  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.metrics import classification_report, log_loss  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data / 16.0, digits.target, test_size=0.25, random_state=SEED
    )
    classes = np.unique(digits.target)
    model = SGDClassifier(loss="log_loss", penalty=PENALTY, alpha=ALPHA, random_state=SEED)
    draw = np.random.default_rng(SEED)

    mlflow.set_experiment("handwritten-digits")
    with mlflow.start_run(run_name="sgd-elasticnet") as run:
        say(f"run {run.info.run_id} at {mlflow.get_tracking_uri()}")
        mlflow.log_params(
            {"model": "SGDClassifier", "penalty": PENALTY, "alpha": ALPHA, "batch": BATCH, "steps": STEPS, "seed": SEED}
        )
        mlflow.set_tags({"dataset": "sklearn digits", "purpose": "runmirror demo"})
        curve = []
        for step in range(STEPS):
            rows = draw.choice(len(x_train), BATCH, replace=False)
            model.partial_fit(x_train[rows], y_train[rows], classes=classes)
            scores = {
                "train_loss": log_loss(y_train, model.predict_proba(x_train), labels=classes),
                "train_accuracy": model.score(x_train, y_train),
                "test_loss": log_loss(y_test, model.predict_proba(x_test), labels=classes),
                "test_accuracy": model.score(x_test, y_test),
            }
            mlflow.log_metrics(scores, step=step)
            curve.append(scores["test_accuracy"])
            if (step + 1) % 50 == 0:
                say(f"step {step + 1} of {STEPS}: test accuracy {curve[-1]:.3f}")

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(STEPS), curve)
        axes.set(xlabel="step", ylabel="test accuracy", title="Handwritten digits")
        mlflow.log_figure(figure, "figures/test_accuracy.png")
        mlflow.log_text(classification_report(y_test, model.predict(x_test)), "report.txt")
        mlflow.set_tag("test_accuracy", f"{curve[-1]:.3f}")
        say("logging the model ...")
        mlflow.sklearn.log_model(model, name="model", input_example=x_test[:2])
        return str(run.info.run_id)


def say(line: str) -> None:
    """Print at once, although the output is a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
