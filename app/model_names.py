"""The collections of Document classes."""

from __future__ import annotations

from beanie import Document


def collection_name(model: type[Document]) -> str:
    """The collection of a Document class, initialised or not."""
    settings = getattr(model, "Settings", None)
    return getattr(settings, "name", None) or model.__name__
