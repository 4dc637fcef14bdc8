"""A chat room over WebSocket with CherryPy: ``server.py`` and the page it serves."""
