"""What another tracking server has, brought here: `runmirror import`.

    source.py       what a source can tell; sql_source, file_source and rest_source do it
    runs.py …       one module a kind of thing: checks it, and writes it in one transaction with its row of `imported`
    session.py      the order of it all: experiments, runs, their files, logged models, registry, traces
    check.py        reads both sides once more and compares them

A row of `imported` is written in the transaction of what it tells of. So a call that breaks off, wherever, is completed
by the next one; and what has the same fingerprint as before is not read again.
"""
