"""The analysis behind `--adopt`, pure: the bindings of an exported workflow."""
