# MLflow's R client: MLFLOW_TRACKING_URI says where to, MLFLOW_TRACKING_TOKEN who it is; nothing is set in code.
#   install.packages("mlflow"); mlflow::install_mlflow()   # the package starts the Python one for some calls
library(mlflow)

mlflow_set_experiment("examples")
with(mlflow_start_run(), {
  mlflow_log_param("lr", 0.1)
  for (step in 0:2) {
    mlflow_log_metric("loss", 1 / (step + 1), step = step)
  }
})
