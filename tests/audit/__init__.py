"""`make audit`: strangers' audit tools against a droplet that site.yml has brought to production."""
