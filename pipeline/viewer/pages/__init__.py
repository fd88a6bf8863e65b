"""The pages of the viewer, a file each: `event_list` is the first page, the others have its style.

Each function answers one address. It gets the site, which all pages have in common, and a request.
"""
