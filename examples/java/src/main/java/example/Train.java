package example;

import org.mlflow.api.proto.Service.RunStatus;
import org.mlflow.tracking.ActiveRun;
import org.mlflow.tracking.MlflowContext;

/** MLflow's Java client: MLFLOW_TRACKING_URI says where to and, as https://user:token@host, who it is. */
public final class Train {
    private Train() {}

    public static void main(String[] arguments) {
        MlflowContext mlflow = new MlflowContext().setExperimentId("0");
        ActiveRun run = mlflow.startRun("java");
        run.logParam("lr", "0.1");
        for (int step = 0; step < 3; step++) {
            run.logMetric("loss", 1.0 / (step + 1), step);
        }
        run.endRun(RunStatus.FINISHED);
        System.out.println(run.getId());
    }
}
