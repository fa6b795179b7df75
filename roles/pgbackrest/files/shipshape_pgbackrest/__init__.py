"""shipshape-pgbackrest: the database server of this host as it was at any moment of the last days.

pgBackRest keeps full and differential copies of the cluster and the write-ahead log between them. This program runs it
by a schedule, believes only what was read back, watches that the log gets away, and restores beside what is there.
"""
