"""`runmirror gc`: what was deleted long enough ago is erased, rows first and then files.

A page of runs and logged models is erased in one transaction, which also writes down their folders of the artifact
store; these are removed after it. Whatever breaks off in between is taken up by the next call.
"""
