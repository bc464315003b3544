#!/bin/sh
# MLflow's REST with nothing but curl: MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN.
set -eu

call() { # METHOD PATH [BODY]
    curl --silent --show-error --fail-with-body --request "$1" \
        --header "Authorization: Bearer ${MLFLOW_TRACKING_TOKEN:-}" --header "Content-Type: application/json" \
        ${3:+--data "$3"} "$MLFLOW_TRACKING_URI/api/2.0/mlflow/$2"
}

now=$(date +%s)000
created=$(call POST runs/create "{\"experiment_id\": \"0\", \"run_name\": \"curl\", \"start_time\": $now}")
run_id=$(printf %s "$created" | sed -n 's/.*"run_id": *"\([0-9a-f]*\)".*/\1/p')
call POST runs/log-batch "{\"run_id\": \"$run_id\", \"params\": [{\"key\": \"lr\", \"value\": \"0.1\"}],
    \"metrics\": [{\"key\": \"loss\", \"value\": 0.5, \"timestamp\": $now, \"step\": 0}]}" > /dev/null
call POST runs/update "{\"run_id\": \"$run_id\", \"status\": \"FINISHED\", \"end_time\": $now}" > /dev/null
echo "$run_id"
