"""Adapters that move sealed bytes: `memory` in process, `amqp` over RabbitMQ, behind the ports of `base`."""
