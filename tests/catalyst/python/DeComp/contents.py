class ContentsMap:
    def __init__(self, definitions, **_options):
        self.definitions = definitions
