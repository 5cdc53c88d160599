"""Titan's tests. Folders by kind; `tests.unit.sources` reads the source tree for the tests that guard its shape."""
