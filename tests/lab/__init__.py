"""A lab on one machine: containers as droplets, reached over SSH, beside an ACME authority, an S3 store and git."""
