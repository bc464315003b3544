"""Tags of a run, or of an experiment, by which people and the mirror speak to each other at the source."""

# Written by the mirror.
STATUS_TAG = "runmirror.status"
REMOTE_RUN_TAG = "runmirror.azureml.run_id"
PORTAL_TAG = "runmirror.azureml.portal_url"
WRITTEN_TAGS = (STATUS_TAG, REMOTE_RUN_TAG, PORTAL_TAG)  # without a bump of the run's seq

# Written by people: into which of the linked workspaces, and whether at all.
WORKSPACE_TAG = "runmirror.workspace"
MIRROR_TAG = "runmirror.mirror"
ROUTING_TAGS = frozenset({WORKSPACE_TAG, MIRROR_TAG})
