"""Say something by mail, through the program that sends mail on this host.

Roles put this file beside their own programs on a droplet: it needs nothing but Python and a sendmail.
"""

from __future__ import annotations

import subprocess
from email.message import EmailMessage

SENDMAIL = "/usr/sbin/sendmail"  # where every mail program of Debian and Ubuntu puts it
PATIENCE = 60  # seconds


class NotSent(Exception):
    """The mail program is not there, or did not take it."""


def send(address: str, subject: str, text: str) -> None:
    """One mail to one address."""
    message = EmailMessage()
    message["To"] = address
    message["Subject"] = subject
    message.set_content(text + "\n")
    try:
        done = subprocess.run(
            [SENDMAIL, "-i", "-t"], input=message.as_bytes(), capture_output=True, timeout=PATIENCE, check=False
        )
    except FileNotFoundError:
        raise NotSent("there is no mail program on this host. Install one, such as msmtp-mta or postfix") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotSent(str(error)) from None
    if done.returncode != 0:
        raise NotSent(done.stderr.decode("utf-8", "replace").strip()[-300:] or f"sendmail ended with {done.returncode}")
