"""Models of this package in other evaluation harnesses; light to import, each harness loads its adapter by name."""
