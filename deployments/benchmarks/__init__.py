"""The configurations that come with Overedit, as files of this package: `importlib.resources` finds them anywhere."""
