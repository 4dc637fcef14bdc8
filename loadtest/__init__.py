"""A load test of websocket servers with locust: ``python -m loadtest``."""
