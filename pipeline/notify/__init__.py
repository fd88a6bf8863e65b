"""Notifying: who else hears of an image event, and how the messages reach them.

Read `notifier` first: its thread reads the topic `notifications` and sends what is due. The other
files are its parts: `recipients` (who wants what), `inbox` (what waits), `delivery` (one message).
"""
