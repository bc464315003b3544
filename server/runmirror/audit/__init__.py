"""Who deleted, restored or linked what, or let whom in, and when: written in the transaction of the change, or neither.

Rows are only added. `runmirror audit` shows them.
"""

from runmirror.audit.queries import record

__all__ = ["record"]
