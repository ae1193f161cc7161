"""For tests of applications and of drivers; it needs pytest.

`plugin.py` gives the tests of an application an engine in memory whose clock they move (pytest finds it by itself).
`conformance` is the suite that every driver passes; a driver of your own needs one short subclass of it.
"""
