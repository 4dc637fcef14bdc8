"""Threads and greenlets: locks, events, sockets, and what schedules callbacks. Nothing else knows gevent."""
