"""Compares this computer's clock with Kafka's, and says once that one of the two is wrong.

Our topics count the time at which a message arrives (`message.timestamp.type=LogAppendTime`), so
Kafka's acknowledgement of a message says what time it was there. That was between the sending and
the acknowledgement by our clock, or the clocks differ.
"""

from datetime import timedelta
from threading import Lock

from pipeline.messages import moment
from pipeline.terminal import say

TOLERANCE = 5  # seconds that the clocks may differ before it is said


class Clock:
    """What a program knows of the difference between its clock and Kafka's."""

    def __init__(self) -> None:
        self.seconds_ahead = 0.0  # of Kafka's clock; at least so many, by the last message
        self._is_said = False
        self._lock = Lock()  # all threads of a program share the clock

    def compare(self, there: float, sent: float, acknowledged: float) -> None:
        """Note that Kafka's clock showed `there` between these two times of ours."""
        with self._lock:
            self.seconds_ahead = min(0, acknowledged - there) + max(0, sent - there)
            is_wrong = abs(self.seconds_ahead) > TOLERANCE
            if is_wrong and not self._is_said:
                how = "ahead of" if self.seconds_ahead > 0 else "behind"
                difference = timedelta(seconds=round(abs(self.seconds_ahead)))
                say(
                    f"this computer's clock is {difference} {how} Kafka's: "
                    f"{moment(acknowledged):%Y-%m-%d %H:%M:%S} UTC here, "
                    f"{moment(there):%Y-%m-%d %H:%M:%S} UTC there; set the wrong one right: the "
                    "times in messages and files are of this computer's clock"
                )
            self._is_said = is_wrong


CLOCK = Clock()  # of this program
