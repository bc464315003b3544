"""Who calls, and what they may do.

A request passes two gates. `middleware` finds out who sends it, before anything else looks at it; `gate` asks, before
the route's own code runs, whether they may do what the route declares to what the request names (`subjects`). Lists
and searches, which name nothing, leave out in SQL what their reader may not read (`clauses`).
"""
