# Nothing but the tar is known here. catalyst adds endings to two rows of the contents.
COMPRESS_DEFINITIONS = {"lbzip2": ["", "", "", "", ["tar.bz2"]]}
DECOMPRESS_DEFINITIONS = {"tar": ["", "", "", "", ["tar"]]}
CONTENTS_DEFINITIONS = {"pixz": ["", "", "", "", []], "xz": ["", "", "", "", []]}
DECOMPRESSOR_SEARCH_ORDER = ["tar"]
COMPRESSOR_PROGRAM_OPTIONS = {"linux": ""}
DECOMPRESSOR_PROGRAM_OPTIONS = {"linux": ""}
LIST_XATTRS_OPTIONS = {"linux": "--xattrs"}
XATTRS_OPTIONS = {"linux": ["--xattrs", "--xattrs-include=*"]}
