"""How fast the pipeline is, in ratios that another machine would give as well."""
