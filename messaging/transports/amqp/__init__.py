"""The transport over RabbitMQ: aio-pika's connections under a supervisor of our own (docs/topology.md, "The adapter").

One file, one thing: `connection` opens and closes one connection, `link` keeps one open for ever, `channel` publishes
and consumes on one channel, `publisher` and `consumer` keep messages moving over channels that come and go, `declare`
makes topology exist, `errors` translates, `transport` puts them together behind the port.
"""

from messaging.transports.amqp.transport import AmqpTransport

__all__ = ["AmqpTransport"]
