"""MLflow as a place: how to reach a server or database, for each adapter that uses one."""
