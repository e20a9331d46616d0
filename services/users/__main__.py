"""`python -m services.users`: the same as `messaging run services.users:users`, options included."""

import sys

from messaging.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run", "services.users:users"]
    main()
