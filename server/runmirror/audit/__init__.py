"""Who deleted, restored or linked what, and when: written in the transaction of the change, or neither is.

Rows are only added. `runmirror audit` shows them.
"""

from runmirror.audit.queries import record

__all__ = ["record"]
