"""Text and programs, both ways: classic and extended syntax, listings, number forms, the Python builder."""
