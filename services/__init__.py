"""The example services: users, orders and the gateway that gives them an HTTP face. They meet in contracts only."""
