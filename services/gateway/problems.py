"""Errors → HTTP: one table, answered as problem+json (RFC 9457).

`type` is a URN that clients may branch on, `detail` the error's own words, which name the remedy and hold no payload.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from messaging import (
    ConnectionLostError,
    InvalidPayloadError,
    MessagingError,
    PublishNotConfirmedError,
    RemoteError,
    RemoteFailure,
    RequestTimeoutError,
    UnroutableError,
)
from services.orders.contract import OrderNotFound
from services.users.contract import UserNotFound

__all__ = ["add_problem_handlers", "problem_of"]

_MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row of the table.

    Attributes:
        status: HTTP status.
        slug: Last part of `type`.
        is_passing: Whether the same request may succeed a little later.
    """

    status: HTTPStatus
    slug: str
    is_passing: bool = False


# The first row that fits decides.
_PROBLEMS: Final[tuple[tuple[type[BaseException], Problem], ...]] = (
    (UserNotFound, Problem(status=HTTPStatus.NOT_FOUND, slug="user-not-found")),
    (OrderNotFound, Problem(status=HTTPStatus.NOT_FOUND, slug="order-not-found")),
    (RemoteFailure, Problem(status=HTTPStatus.BAD_GATEWAY, slug="remote-failure")),
    (RemoteError, Problem(status=HTTPStatus.BAD_GATEWAY, slug="remote-error")),
    (RequestTimeoutError, Problem(status=HTTPStatus.GATEWAY_TIMEOUT, slug="no-answer", is_passing=True)),
    # The command may be with the broker or not: the client repeats it under the same Idempotency-Key.
    (PublishNotConfirmedError, Problem(status=HTTPStatus.GATEWAY_TIMEOUT, slug="not-confirmed", is_passing=True)),
    (UnroutableError, Problem(status=HTTPStatus.SERVICE_UNAVAILABLE, slug="service-unavailable", is_passing=True)),
    (ConnectionLostError, Problem(status=HTTPStatus.SERVICE_UNAVAILABLE, slug="broker-unavailable", is_passing=True)),
    (InvalidPayloadError, Problem(status=HTTPStatus.UNPROCESSABLE_ENTITY, slug="invalid")),
)
_INTERNAL: Final = Problem(status=HTTPStatus.INTERNAL_SERVER_ERROR, slug="internal")


def problem_of(error: BaseException) -> Problem:
    """Return what an error means over HTTP."""
    return next((problem for kind, problem in _PROBLEMS if isinstance(error, kind)), _INTERNAL)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the app as problem+json."""
    app.add_exception_handler(MessagingError, _on_messaging_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


async def _on_messaging_error(request: Request, error: Exception) -> JSONResponse:
    problem = problem_of(error)
    # What went wrong inside is for the log; a caller can do nothing with it.
    detail = str(error) if problem is not _INTERNAL else "the gateway is not set up correctly; its log says how"
    return _answer(request, problem, detail=detail, more=_members_of(error))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    # Without the input: what somebody typed may be a secret, and comes back to whoever reads the answer.
    errors = [{"in": ".".join(map(str, problem["loc"])), "message": problem["msg"]} for problem in problems]
    problem = Problem(status=HTTPStatus.UNPROCESSABLE_ENTITY, slug="invalid")
    return _answer(request, problem, detail="the request does not fit its contract", more={"errors": errors})


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    code = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    status = HTTPStatus(code)
    headers = error.headers if isinstance(error, HTTPException) else None
    slug = status.phrase.lower().replace(" ", "-")
    return _answer(request, Problem(status=status, slug=slug), detail=status.description, headers=headers)


async def _on_defect(request: Request, _error: Exception) -> JSONResponse:
    return _answer(request, _INTERNAL, detail="a defect of the gateway; its log says more")


def _members_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, RemoteFailure):
        return {"error": error.failure_name, **error.fields()}
    if isinstance(error, RemoteError):
        return {"error": error.fault.error}
    if isinstance(error, RequestTimeoutError | PublishNotConfirmedError):
        return {"message_id": error.message_id}
    if isinstance(error, UnroutableError):
        return {"routing_key": error.routing_key}
    return {}


def _answer(
    request: Request,
    problem: Problem,
    *,
    detail: str,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    members = {
        # First, so that no member of an error can replace one of the standard's.
        **(more or {}),
        "type": f"urn:messaging:problem:{problem.slug}",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": detail,
        "instance": request.url.path,
    }
    passing = {"Retry-After": str(_RETRY_AFTER_S)} if problem.is_passing else {}
    return JSONResponse(
        jsonable_encoder(members),
        status_code=problem.status.value,
        media_type=_MEDIA_TYPE,
        headers={**passing, **(headers or {})},
    )
