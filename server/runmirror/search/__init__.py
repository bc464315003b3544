"""MLflow's filter and order_by language: text → frozen tree (pure) → SQL, and the page tokens of a search.

`tokens` and `parser` know no table; `clauses` and `paging` know no resource; `runs.search` and `experiments.search`
join the two. What may be asked of which resource is written down in `languages`.
"""
