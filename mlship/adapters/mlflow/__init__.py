"""How to reach MLflow, a server or a database, for all adapters that use it."""
