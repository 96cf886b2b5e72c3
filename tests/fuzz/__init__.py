"""A fuzzer of everything that edgesdk reads and others may have written.

    python -m tests.fuzz TARGET --seconds 60 --seed 1     one target
    python -m tests.fuzz all --seconds 60                 each of them
    python -m tests.fuzz table                            what all runs so far came to

A target makes inputs by the structure of its format: it changes keys, lengths and offsets, and computes digests and
checksums again, so that what it made is not refused at the door. A worker process takes the inputs, with a limit of
memory and five seconds for each; the supervisor notes where one ended in anything but a clear error, and starts
another worker after a crash. The n-th input of a seed is always the same.

An input is a handful of named files, and so are the findings (``build/fuzz/findings``) and the corpus: what once ended
badly, kept small, and run again by the tests. ``EDGESDK_FUZZ_SECONDS`` lengthens the run of the tests.
"""
