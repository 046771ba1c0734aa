"""gradatim."""
