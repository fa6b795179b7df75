"""A lab on one machine: containers as droplets, reached over real SSH, beside a real ACME authority, S3 store and git server."""
