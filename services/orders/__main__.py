"""`python -m services.orders`: the same as `messaging run services.orders:orders`, options included."""

import sys

from messaging.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run", "services.orders:orders"]
    main()
