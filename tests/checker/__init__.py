"""A checker of histories: clients record what they get while servers and Redis are disturbed, and it is seen afterwards
whether that can be.

    python -m tests.checker --seconds 60 --seed 1 --faults kill,stop,clients,pause,restart,flush

runs it for any length; ``tests/checker/test_checker.py`` for a short one.
"""
