"""WebSockets in HTTP servers, a module for each."""
