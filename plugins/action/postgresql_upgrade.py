"""The files of the new cluster are rendered on the controller and go along."""

from ansible_collections.shipshape.droplet.plugins.action.files import ActionModule

__all__ = ["ActionModule"]
