"""What the command line does with files of users, for `__main__`."""
