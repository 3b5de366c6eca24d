"""All figures of the library, each with its caption, equation and primary source. Floor 8."""

from jaxnn.gallery.base import Picture

__all__ = ["Picture"]
