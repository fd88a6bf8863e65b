"""The audit: proves that images, image events, alerts and their messages agree, and repairs them.

How it finds a lost image event, for example, and sends it again:

1. `snapshot` reads what there is: the files, the messages, and how far each stage has read them.
2. `images` lists the images that `images` has messages of, and checks their files.
3. `events` compares each image with the one before it, by the analysis's own functions. So it knows
   which events there must be, and looks for each by its header `cause`: the SHA-256 of the message
   that caused it. What the analysis has read and not published is lost.
4. `alerts` does the same for the alert of each event.
5. `unexplained` names what is there for no reason, and `history` says what can still be known of
   images whose messages Kafka has deleted.
6. `findings` collects the faults. With --repair, lost files are written again, and lost messages
   are sent in one transaction at the end.

Running stages are no trouble: what they have not read yet is waiting, and not lost.
"""
