"""Runs after each unattended upgrade and tells a webhook of what failed and of a reboot that is due.

The run itself ends well whatever happens in it; what went wrong stands in its log.
"""
