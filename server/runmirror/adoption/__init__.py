"""Runs born in the linked workspace: named by a client that runs inside an Azure ML job, and adopted at that.

    a route says RunNotFound ──▶ Adoption asks the workspace ──▶ one transaction makes the local run ──▶ the request
    (its transaction is over)    (bounded, shared, cached)        (bound to the remote run)               is repeated

What is known already costs nothing: a request about an adopted run, or about a run of ours, never comes by here.
"""
