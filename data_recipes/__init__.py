"""Recipes from public raw data to records; reached by name through `mmrl.data_recipes`."""

if __name__ != "mmrl.data_recipes":
    raise ImportError("import recipes as mmrl.data_recipes.<name>")
