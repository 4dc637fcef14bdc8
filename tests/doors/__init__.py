"""The servers of WSGI that know nothing of websockets, as they are: each is started as its users start it."""
