"""`python -m messaging`: the same as the `messaging` program."""

from messaging.cli.app import main

if __name__ == "__main__":
    main()
