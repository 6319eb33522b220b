"""The roof: wires the apps together and owns no business rule."""
