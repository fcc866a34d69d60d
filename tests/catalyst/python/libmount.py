"""What catalyst needs of util-linux's python-libmount, which Debian does not package: mount(8) does the same."""
import subprocess


class Entry:
    """A line of the mount table."""

    def __init__(self, source, target):
        self.source = source
        self.target = target


class Table:
    """The mount table, read line by line."""

    def __init__(self):
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            self.entries = [Entry(*line.replace("\\040", " ").split(" ")[:2]) for line in mounts]

    def next_fs(self):
        return self.entries.pop(0) if self.entries else None


class Context:
    """One mount, to be made."""

    def __init__(self, source=None, target=None, fstype=None, options=None):
        self.words = ["mount"]
        for option, value in (("-t", fstype), ("-o", options)):
            if value:
                self.words += [option, str(value)]
        self.words += [str(source), str(target)]
        self.mtab = Table()

    def mount(self):
        done = subprocess.run(self.words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
