"""The Autobahn test suite against the servers and clients of ws4py: a case of the suite is a test.

``python -m tests.compliance.setup`` makes the suite's own environment, once; without it these tests are skipped.

- ``suite/`` is what runs inside that environment: the port of the suite to Python 3, and its start.
- ``environment`` finds it, ``autobahn`` runs it against a server or a client and reads its reports.
- ``cases`` names the cases, ``targets`` the servers and clients, with what is expected of each.
- ``servers/`` and ``clients/`` are the programs under test, and one of each that breaks a rule on purpose.
"""
