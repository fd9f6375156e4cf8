"""The intermediate representation: operators, the graph they form, and the lowering of blocks."""
