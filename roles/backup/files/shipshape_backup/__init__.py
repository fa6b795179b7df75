"""shipshape-backup: databases and files of this host to an encrypted restic repository, and back.

A backup counts only once it has been read back from the repository: until then its snapshot bears the tag `unverified`,
no restore takes it and the next run removes it. That also covers a run that is killed in the middle of a dump.
"""
