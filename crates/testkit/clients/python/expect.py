"""What the scripts share: expectations that say what they are about."""

import sys
import time

GREETING = "Grüße, 世界! 🚀 All is well."
NOTE = 'a "quoted" wörd'
_seen = []


def that(name, condition, *context):
    """Notes that a check passed, or ends the script with what was seen instead."""
    if not condition:
        sys.exit(f"FAILED: {name}: {context}")
    _seen.append(name)


def raises(name, kind, call, also=lambda error: True):
    """Expects an exception of exactly this class, for which `also` holds."""
    try:
        result = call()
    except Exception as error:  # noqa: BLE001, the class is compared below
        that(name, type(error) is kind and also(error), type(error), error)
        return
    that(name, False, "no exception", result)


def takes(name, least, most, call):
    """Expects a call to last between `least` and `most` seconds. Returns its result."""
    start = time.monotonic()
    result = call()
    that(name, least <= time.monotonic() - start < most, time.monotonic() - start)
    return result


def done():
    """Says how much was seen."""
    print(f"{len(_seen)} passed, 0 failed")
