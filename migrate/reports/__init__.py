"""One renderer per form of the report: each takes a `Report`, none judges."""
