"""The mock databases: files that appear whole or not at all, in directories or an object store.

Read `database` first: what it can do, whatever keeps the files. `local_files` and `object_store`
keep them; `names` and `numbering` know what the files are called.
"""
