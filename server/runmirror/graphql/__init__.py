"""/graphql: the few queries that MLflow's pages send, answered by the endpoints of REST."""
