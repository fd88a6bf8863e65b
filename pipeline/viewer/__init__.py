"""The viewer: web pages that show image events as they happen.

Read `server` first. An `index` in memory is kept up to date from the databases (`files`) and from
Kafka (`topics`), and the pages are made from it; what all pages have in common is in `site`.
"""
