"""Convert messages of one format to another through neutral entries. Pure JSON, no framework imports."""
