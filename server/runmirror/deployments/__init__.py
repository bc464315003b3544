"""Model versions deployed in the linked workspaces: asked for by the API and the command line, made by the worker.

    waiting ──the version is in the workspace's registry──▶ creating ──Azure was asked──▶ deploying ──▶ succeeded
       └────────────────────┴───────────── refused, or too long ─────────────────────────────┴──▶ failed
    any of these ──delete──▶ deleting ──▶ deleted          succeeded, failed ──deployed anew──▶ replaced

A row is claimed by a lease, like all work of the worker, and each step ends with what became of it being written down:
whoever claims it next looks in the workspace for what is there, by a tag that holds the deployment's id, before asking
for anything. What is not done by its deadline has failed.
"""
