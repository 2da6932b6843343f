"""The version of the package; modules of the package read it here and never import the root above them."""

__version__ = "0.1.0"
