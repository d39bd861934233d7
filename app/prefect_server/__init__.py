"""The Prefect server as the platform runs it: a flow run's Job gets a token that is good for this one run."""
