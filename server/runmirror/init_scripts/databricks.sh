#!/bin/bash
# Azure Databricks cluster init script, printed by `runmirror init-script databricks`: it runs as root on every node
# before Spark starts. It installs runmirror-client and tells every process of the cluster where the server is; the first
# cell of a notebook, or the first lines of a job, call runmirror_client.activate().
#
# No secret is in here: set RUNMIRROR_TOKEN={{secrets/SCOPE/KEY}} among the cluster's environment variables.
set -euo pipefail

TRACKING_URI=@TRACKING_URI@
PACKAGE=@PACKAGE@

/databricks/python/bin/pip install --quiet --disable-pip-version-check "$PACKAGE"

# Once in each file, however often this runs.
set_line() { # FILE BEGINNING LINE
    mkdir -p "$(dirname "$1")"
    touch "$1"
    sed -i "\|^$2|d" "$1"
    printf '%s\n' "$3" >> "$1"
}
set_line /databricks/spark/conf/spark-env.sh "export RUNMIRROR_TRACKING_URI=" "export RUNMIRROR_TRACKING_URI='$TRACKING_URI'"
set_line /etc/environment "RUNMIRROR_TRACKING_URI=" "RUNMIRROR_TRACKING_URI=$TRACKING_URI"
