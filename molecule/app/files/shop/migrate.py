"""Notes in the app's own folder which release migrated."""

import os
import sys
from pathlib import Path

if "FAIL_MIGRATION" in os.environ:
    sys.exit("cannot reach " + os.environ["DATABASE_URL"])
with open(os.path.join(os.environ["STATE_DIRECTORY"], "migrations"), "a") as log:
    log.write(Path("VERSION").read_text())
