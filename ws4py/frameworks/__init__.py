"""Websockets in the terms of a framework: its routes, its sessions, its context around each callback."""
