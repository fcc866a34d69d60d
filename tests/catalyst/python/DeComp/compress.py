import subprocess


class CompressMap:
    def __init__(self, definitions, **_options):
        self.definitions = definitions

    def search_order_extensions(self, _order):
        return ["tar"]

    def create_infodict(self, source, destination=None, other_options=(), **_more):
        return {"source": source, "destination": destination, "other_options": list(other_options), "mode": "tar"}

    def extract(self, info):
        command = ["tar", *info["other_options"], "-xpf", info["source"], "-C", info["destination"]]
        return subprocess.call(command) == 0
