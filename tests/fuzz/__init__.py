"""Fuzzing with atheris (``pip install atheris``), for as long as one likes::

    python -m tests.fuzz.stream                 what comes from a peer, in both roles, with and without compression
    python -m tests.fuzz.codec -runs=1000000    what one side compresses, the other must inflate to
    python -m tests.fuzz.heads                  handshakes
    python -m tests.fuzz.framing                whether what is compiled does what the Python does

The arguments are libFuzzer's. What is found to be of interest is kept under ``.cache/fuzz/NAME``, and a failing input
there, too; a name of such a file as the last argument runs that alone. Each target is a function ``check`` of any
bytes: the tests run it on the corpus without atheris.
"""
