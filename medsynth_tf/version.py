"""The one place the version stands; setup.py, exports and provenance marks read it here."""

__version__ = "0.1.0"
