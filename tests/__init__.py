"""The tests: those of a package in a folder of its name, those of the protocol's own modules beside this."""
