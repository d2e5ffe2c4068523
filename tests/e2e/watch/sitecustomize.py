"""Python loads this file first in each process of a watched studio: it writes down what nobody may do.

The file named by WATCH_LOG gets a line for each process, each connection or look-up of a name beyond this computer,
each file of WATCH_SECRETS (folders, with colons between) that is opened or listed, and each that is written, made,
moved or deleted outside the folders of WATCH_HOMES.
"""

import os
import sys

LOG = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
SECRETS = tuple(filter(None, os.environ.get("WATCH_SECRETS", "").split(":")))
HOMES = tuple(filter(None, os.environ.get("WATCH_HOMES", "").split(":")))
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::")
CHANGES = ("os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")
NOT_FILES = ("/dev/", "/proc/", "/sys/")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def say(what, whom):
    os.write(LOG, f"{what}\t{whom!r}\t{os.getpid()}\n".encode())


def is_foreign(address):
    return isinstance(address, tuple) and address and not str(address[0]).startswith(LOOPBACK)


def place(named, folder=-1):
    """Where a file lies; "" for what cannot be one. ``folder``: the descriptor that a relative name belongs to."""
    if isinstance(named, int) or not named:
        return ""
    text = os.fsdecode(named)
    if isinstance(folder, int) and folder >= 0:
        text = f"/proc/self/fd/{folder}/{text}"
    return os.path.realpath(text) if "\0" not in text else ""


def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto") and is_foreign(arguments[1]):
        say("connect", arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0]:
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if not host.startswith(LOOPBACK):
            say("look-up", host)
    elif event in ("open", "os.listdir", "os.scandir"):
        path = place(arguments[0])
        if path.startswith(SECRETS) if SECRETS else False:
            say("secret", path)
        if path and event == "open" and HOMES and arguments[2] & WRITES and not path.startswith((*HOMES, *NOT_FILES)):
            say("written", path)
    elif event in CHANGES and HOMES:
        path = place(arguments[0], arguments[-1] if event != "os.symlink" else -1)
        if path and not path.startswith((*HOMES, *NOT_FILES)):
            say(event, path)


say("process", " ".join(sys.orig_argv))
sys.addaudithook(watch)
