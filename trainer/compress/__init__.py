"""Making a model smaller, one idea a file, and the gate that decides what may be shipped."""
