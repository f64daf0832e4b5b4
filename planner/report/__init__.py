"""Reports: one self-contained page of pictures, the same figures as tables, and text; it needs no network."""
